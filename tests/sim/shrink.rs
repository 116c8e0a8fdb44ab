//! Makes a failing script smaller: fewer faults, fewer steps, fewer apps, as long as it breaks the
//! same promise.

use super::run::{Outcome, Script, run};

/// How many scripts are tried.
const TRIES: usize = 150;

/// The smallest script found that breaks `promise`, and what came of it.
pub fn shrink(script: &Script, promise: &str) -> (Script, Outcome) {
    let mut best = script.clone();
    let mut outcome = try_out(&best);
    let mut tries = 0;
    loop {
        let mut smaller = None;
        for candidate in candidates(&best) {
            tries += 1;
            if tries > TRIES {
                break;
            }
            let came = try_out(&candidate);
            if came.violations.iter().any(|violation| violation.promise == promise) {
                smaller = Some((candidate, came));
                break;
            }
        }
        match smaller {
            Some((candidate, came)) => (best, outcome) = (candidate, came),
            None => return (best, outcome),
        }
    }
}

/// Runs a script beside an undisturbed run of its walk.
pub fn try_out(script: &Script) -> Outcome {
    try_with_trace(script, false)
}

pub fn try_with_trace(script: &Script, keep_trace: bool) -> Outcome {
    let calm = Script { faults: Vec::new(), ..script.clone() };
    let like = run(&calm, None, keep_trace && script.faults.is_empty());
    if script.faults.is_empty() || !like.violations.is_empty() {
        return like;
    }
    run(script, Some(&like), keep_trace)
}

fn candidates(script: &Script) -> Vec<Script> {
    let mut all = Vec::new();
    for fault in 0..script.faults.len() {
        let mut smaller = script.clone();
        smaller.faults.remove(fault);
        all.push(smaller);
    }
    if script.walk.len() > 1 {
        for step in (0..script.walk.len()).rev() {
            let mut smaller = script.clone();
            smaller.walk.remove(step);
            all.push(smaller);
        }
    }
    let names: std::collections::BTreeSet<&String> =
        script.walk.iter().flat_map(|fleet| fleet.apps.keys()).collect();
    for name in names {
        let mut smaller = script.clone();
        for fleet in &mut smaller.walk {
            fleet.apps.remove(name);
            fleet.broken.remove(name);
        }
        if smaller.walk.iter().all(|fleet| !fleet.apps.is_empty()) {
            all.push(smaller);
        }
    }
    if script.walk.iter().any(|fleet| fleet.balancers > 1) {
        let mut smaller = script.clone();
        for fleet in &mut smaller.walk {
            fleet.balancers = 1;
            for service in fleet.apps.values_mut().filter(|service| service.routes.len() > 1) {
                service.routes.retain(|balancer, _| balancer == "edge");
            }
        }
        let sound = |service: &super::walk::Service| {
            service.routes.keys().all(|balancer| balancer == "edge")
        };
        if smaller.walk.iter().all(|fleet| fleet.apps.values().all(sound)) {
            all.push(smaller);
        }
    }
    if script.hurry.is_some() {
        all.push(Script { hurry: None, ..script.clone() });
    }
    all
}
