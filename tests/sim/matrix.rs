//! The crash matrix: every scenario, with every call that changes something interrupted in every
//! way, one at a time; and crashes within what follows a crash, two and three deep.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::campaign::{Tally, guarded, over};
use super::fault::{Fault, What, When};
use super::run::{Outcome, Script, run};
use super::scenario::{Scenario, all};

/// What a call meets.
pub const WAYS: [What; 5] =
    [What::CrashBefore, What::CrashAfter, What::FailBefore, What::LoseReply, What::Twice];

/// A scenario with its undisturbed run.
pub struct Known {
    pub name: &'static str,
    pub script: Script,
    pub like: Outcome,
    /// The calls that change something in its last step: from, to.
    pub calls: (u32, u32),
}

/// The scenarios of that name, or all.
///
/// # Panics
/// Where one breaks a promise though nothing goes wrong.
pub fn known(name: Option<&str>) -> Vec<Known> {
    let wanted = all().into_iter().filter(|scenario| name.is_none_or(|name| scenario.name == name));
    wanted.map(undisturbed).collect()
}

fn undisturbed(Scenario { name, walk }: Scenario) -> Known {
    let script = Script { seed: 1, walk, faults: Vec::new(), hurry: None };
    let like = run(&script, None, false);
    assert!(like.violations.is_empty(), "{name}: {:?}", like.violations);
    let steps = like.changes_after.len();
    let begin = if steps > 1 { like.changes_after[steps - 2] } else { 0 };
    Known { name, script, calls: (begin, like.changes_after[steps - 1]), like }
}

/// One run of the matrix.
#[derive(Debug, Clone)]
pub struct Case {
    pub scenario: usize,
    pub faults: Vec<Fault>,
}

/// Every call of the last step, met by every way.
pub fn depth_one(known: &[Known]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (scenario, known) in known.iter().enumerate() {
        for nth in known.calls.0..known.calls.1 {
            cases.extend(WAYS.iter().map(|what| {
                let fault = Fault { when: When::Change(nth), what: what.clone() };
                Case { scenario, faults: vec![fault] }
            }));
        }
    }
    cases
}

/// How many more calls what follows a crash may make than what it interrupts.
const RECOVERY: u32 = 12;

/// Every so many crashes, each in what follows the one before.
pub fn crashes(known: &[Known], depth: u32) -> Vec<Case> {
    let mut cases = Vec::new();
    for (scenario, known) in known.iter().enumerate() {
        let (from, to) = known.calls;
        let mut rows: Vec<Vec<u32>> = (from..to).map(|first| vec![first]).collect();
        for deep in 1..depth {
            let longer = |row: Vec<u32>| {
                let next = row.last().map_or(from, |last| last + 1);
                (next..to + deep * RECOVERY).map(move |nth| [&row[..], &[nth]].concat())
            };
            rows = rows.into_iter().flat_map(longer).collect();
        }
        let crash = |nth| Fault { when: When::Change(nth), what: What::CrashBefore };
        let case = |row: Vec<u32>| Case { scenario, faults: row.into_iter().map(crash).collect() };
        cases.extend(rows.into_iter().map(case));
    }
    cases
}

/// Some crashes within crashes, two and three deep.
pub fn sampled(known: &[Known], count: usize, seed: u64) -> Vec<Case> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|_| {
            let scenario = rng.random_range(0..known.len());
            let (from, to) = known[scenario].calls;
            let deep = rng.random_range(2..=3);
            let mut nth = rng.random_range(from..to);
            let mut faults = Vec::new();
            for _ in 0..deep {
                let what = if rng.random_bool(0.5) { What::CrashBefore } else { What::CrashAfter };
                faults.push(Fault { when: When::Change(nth), what });
                nth += rng.random_range(1..=10);
            }
            Case { scenario, faults }
        })
        .collect()
}

/// Runs the cases.
pub fn run_all(known: &[Known], cases: &[Case], threads: usize, most_failures: usize) -> Tally {
    over(cases.len() as u64, threads, most_failures, |number| {
        let case = &cases[number as usize];
        let known = &known[case.scenario];
        let script = Script { faults: case.faults.clone(), ..known.script.clone() };
        let outcome = guarded(&script, &known.like);
        (script, outcome)
    })
}
