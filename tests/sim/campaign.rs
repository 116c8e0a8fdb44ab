//! Many runs, on several threads, each run on one.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::audit::Violation;
use super::mark::Mark;
use super::run::{Outcome, Script, drawn, run};

/// A run that broke a promise.
#[derive(Debug, Clone)]
pub struct Failure {
    pub seed: u64,
    pub script: Script,
    pub violation: Violation,
}

/// What came of many runs.
#[derive(Debug, Default)]
pub struct Tally {
    pub runs: u64,
    pub failures: Vec<Failure>,
    pub marks: BTreeMap<Mark, u64>,
    /// Calls that changed something, over all runs.
    pub changes: u64,
    /// Faults that came to pass.
    pub met: u64,
    /// Milliseconds of the worlds.
    pub millis: u64,
}

impl Tally {
    pub fn add(&mut self, outcome: &Outcome) {
        self.runs += 1;
        self.changes += u64::from(outcome.changes);
        self.met += u64::from(outcome.met);
        self.millis += outcome.millis;
        for mark in &outcome.marks {
            *self.marks.entry(*mark).or_default() += 1;
        }
    }

    /// Situations that no run was in.
    pub fn never_reached(&self) -> Vec<Mark> {
        Mark::ALL.iter().filter(|mark| !self.marks.contains_key(mark)).copied().collect()
    }
}

/// What a run of a seed came to, also where it panicked.
pub fn run_seed(seed: u64) -> (Script, Outcome) {
    let drawn = std::panic::catch_unwind(AssertUnwindSafe(|| drawn(seed)));
    let (script, like) = match drawn {
        Ok(drawn) => drawn,
        Err(panic) => {
            let script = Script { seed, walk: Vec::new(), faults: Vec::new(), hurry: None };
            return (script, panicked(&panic));
        }
    };
    if !like.violations.is_empty() {
        return (Script { faults: Vec::new(), ..script }, like);
    }
    let outcome = guarded(&script, &like);
    (script, outcome)
}

/// Runs a script; a panic is a violation.
pub fn guarded(script: &Script, like: &Outcome) -> Outcome {
    let came = std::panic::catch_unwind(AssertUnwindSafe(|| run(script, Some(like), false)));
    came.unwrap_or_else(|panic| panicked(&panic))
}

fn panicked(panic: &Box<dyn std::any::Any + Send>) -> Outcome {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let message = text.unwrap_or_else(|| "it panicked".into());
    let violation = Violation { promise: "panic", message, millis: 0 };
    Outcome { violations: vec![violation], ..Outcome::default() }
}

/// Runs the seeds `from..from + runs`, until so many failed.
pub fn seeds(from: u64, runs: u64, threads: usize, most_failures: usize) -> Tally {
    over(runs, threads, most_failures, |number| run_seed(from + number))
}

/// Runs `count` numbered runs.
pub fn over(
    count: u64,
    threads: usize,
    most_failures: usize,
    one: impl Fn(u64) -> (Script, Outcome) + Sync,
) -> Tally {
    let next = AtomicU64::new(0);
    let enough = AtomicBool::new(false);
    let tally = Mutex::new(Tally::default());
    let mutant = plimsoll_mutant();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                set_mutant(mutant);
                while !enough.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let (script, outcome) = one(number);
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    tally.add(&outcome);
                    if let Some(violation) = outcome.violations.first().cloned() {
                        let seed = script.seed;
                        tally.failures.push(Failure { seed, script, violation });
                        if tally.failures.len() >= most_failures {
                            enough.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.failures.sort_by_key(|failure| failure.seed);
    tally
}

/// The deliberate bug of this thread: see `plimsoll::mutant`.
#[cfg(feature = "mutants")]
pub fn plimsoll_mutant() -> Option<plimsoll::mutant::Mutant> {
    plimsoll::mutant::current()
}

#[cfg(feature = "mutants")]
pub fn set_mutant(mutant: Option<plimsoll::mutant::Mutant>) {
    plimsoll::mutant::set(mutant);
}

/// There are none without the feature.
#[cfg(not(feature = "mutants"))]
#[derive(Clone, Copy)]
pub struct NoMutant;

#[cfg(not(feature = "mutants"))]
pub fn plimsoll_mutant() -> NoMutant {
    NoMutant
}

#[cfg(not(feature = "mutants"))]
pub fn set_mutant(_: NoMutant) {}
