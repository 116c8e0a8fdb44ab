//! The simulator's own runs: the crash matrix at depth one, five hundred seeds, and every script
//! that found a bug once. `make soak` runs many more. See book/src/simulation.md.

mod sim;

use sim::campaign::{Tally, run_seed, seeds};
use sim::{Script, kept, matrix, shrink};

/// Runs go side by side, each on one thread.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[track_caller]
fn expect_none_failed(tally: &Tally) {
    let failures: Vec<String> = tally
        .failures
        .iter()
        .map(|failure| {
            let (violation, seed) = (&failure.violation, failure.seed);
            let script = serde_json::to_string(&failure.script).unwrap();
            format!(
                "seed {seed}: {}: {}\n  cargo run --example plimsoll-sim -- --script '{script}'",
                violation.promise, violation.message
            )
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// S13, and what makes every other failure here one that can be looked at.
#[test]
fn the_same_seed_gives_the_same_run() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 1..=8 {
        let (first, second) = (run_seed(seed).1, run_seed(seed).1);
        assert_eq!(first.hash, second.hash, "seed {seed}");
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), 8, "another seed gives another run");
}

#[test]
fn five_hundred_seeds_break_no_promise_and_meet_every_situation() {
    let tally = seeds(1, 500, threads(), 3);
    expect_none_failed(&tally);
    let never = tally.never_reached();
    assert!(never.is_empty(), "never reached: {never:?} of {:?}", tally.marks);
}

/// C1 and C2.
#[test]
fn every_call_that_changes_something_may_be_interrupted() {
    let known = matrix::known(None);
    let cases = matrix::depth_one(&known);
    println!("{} cases of {} scenarios", cases.len(), known.len());
    assert!(cases.len() > 1000);
    let tally = matrix::run_all(&known, &cases, threads(), 3);
    expect_none_failed(&tally);
    assert_eq!(tally.runs as usize, cases.len());
}

/// C3, some of them; `make soak` has all that are two deep.
#[test]
fn crashes_in_what_follows_a_crash() {
    let known = matrix::known(None);
    let cases = matrix::sampled(&known, 150, 1);
    expect_none_failed(&matrix::run_all(&known, &cases, threads(), 3));
}

#[test]
fn what_found_a_bug_once_finds_none() {
    for kept in kept::all() {
        let outcome = shrink::try_out(&kept.script);
        let (seed, what) = (kept.seed, &kept.what);
        let violations = &outcome.violations;
        assert!(violations.is_empty(), "seed {seed}, kept for: {what}: {violations:?}");
    }
}

#[test]
fn a_script_is_read_as_it_is_printed() {
    let (script, _) = run_seed(1);
    let text = serde_json::to_string(&script).unwrap();
    assert_eq!(serde_json::from_str::<Script>(&text).unwrap(), script);
    for fault in &script.faults {
        assert_eq!(fault.to_string().parse::<sim::Fault>().unwrap(), *fault);
    }
}
