//! Draws faults for a walk, at calls and times that its undisturbed run has.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::fault::{Call, Fault, What, When};
use super::run::Outcome;

/// Up to four faults, or some that belong together.
pub fn faults(rng: &mut StdRng, like: &Outcome) -> Vec<Fault> {
    let mut faults = if rng.random_bool(0.2) { together(rng, like) } else { Vec::new() };
    let most = if faults.is_empty() { 4 } else { 1 };
    let count = (*[1, 1, 2, 2, 3, 4].choose(rng).unwrap_or(&1)).min(most);
    faults.extend((0..count).map(|_| fault(rng, like)));
    faults.sort_by_key(|fault| serde_json::to_string(&fault.when).unwrap_or_default());
    faults
}

fn fault(rng: &mut StdRng, like: &Outcome) -> Fault {
    if rng.random_bool(0.55) { of_a_call(rng, like) } else { of_the_world(rng, like) }
}

/// Faults that chance alone hardly brings together, and that are harmless each by itself.
fn together(rng: &mut StdRng, like: &Outcome) -> Vec<Fault> {
    let nth = rng.random_range(0..12);
    let person = match rng.random_range(0..3) {
        0 => What::PersonStops { nth },
        _ => What::PersonRemoves { nth },
    };
    match rng.random_range(0..5) {
        // A part of the world is away for long: the others wait for nothing.
        4 => {
            let (host, millis) = (rng.random_range(0..3), rng.random_range(200_000..400_000));
            let what = match rng.random_range(0..4) {
                0 => What::HostDown { host, millis },
                1 => What::EngineDown { host, millis },
                2 => What::HostFull { host, millis },
                _ => What::BalancerFrozen { balancer: rng.random_range(0..2), millis },
            };
            vec![Fault { when: begin_of_step(rng, like), what }]
        }
        // An engine that is slow for a while: what it tells comes when more was done.
        3 => {
            let count = like.calls.get(&Call::Inspect).copied().unwrap_or(0);
            let first = rng.random_range(0..count.max(1));
            let slow = |nth| Fault {
                when: When::Call(Call::Inspect, nth),
                what: What::Delay(rng.random_range(320..2500)),
            };
            (first..first + 8).map(slow).collect()
        }
        // What nobody says anything of: only a list shows it.
        0 => {
            let (from, millis) = (rng.random_range(0..like.millis.max(1)), 20_000);
            let mute =
                |host| Fault { when: When::At(from), what: What::DropEvents { host, millis } };
            let mut faults: Vec<Fault> = (0..3).map(mute).collect();
            let when = When::At(from + rng.random_range(1000..15_000));
            faults.push(Fault { when, what: person });
            faults
        }
        // A change is declared while nobody can tell its balancer of it.
        1 => {
            let millis = rng.random_range(15_000..40_000);
            let what = What::BalancerFrozen { balancer: 0, millis };
            vec![Fault { when: begin_of_step(rng, like), what }]
        }
        // A port becomes free just when others are looked for.
        _ => {
            let mut faults = vec![Fault { when: begin_of_step(rng, like), what: person }];
            if rng.random_bool(0.5) {
                let millis = rng.random_range(3000..20_000);
                let what = What::BalancerFrozen { balancer: 0, millis };
                faults.push(Fault { when: faults[0].when, what });
            }
            faults
        }
    }
}

/// One of the first calls of a step of the walk that change something.
fn begin_of_step(rng: &mut StdRng, like: &Outcome) -> When {
    let before = like.changes_after.len().saturating_sub(1);
    let begins = like.changes_after[..before].choose(rng).copied().unwrap_or(0);
    When::Change(begins + rng.random_range(0..4))
}

fn of_a_call(rng: &mut StdRng, like: &Outcome) -> Fault {
    // A little more than there were: recovery makes calls too.
    let beyond = |count: u32| count + count / 4 + 1;
    if rng.random_bool(0.5) {
        let when = When::Change(rng.random_range(0..beyond(like.changes)));
        return Fault { when, what: of_a_change(rng) };
    }
    let calls: Vec<(Call, u32)> = like.calls.iter().map(|(call, count)| (*call, *count)).collect();
    let Some((call, count)) = calls.choose(rng).copied() else {
        return Fault { when: When::At(0), what: What::Crash };
    };
    let when = When::Call(call, rng.random_range(0..beyond(count)));
    let what = match call.changes() {
        true => of_a_change(rng),
        false => match rng.random_range(0..6) {
            0 => What::FailBefore,
            1 => What::LoseReply,
            2 => What::Delay(rng.random_range(50..8000)),
            3 | 4 => What::Stale(rng.random_range(50..4500)),
            _ => What::CrashBefore,
        },
    };
    Fault { when, what }
}

fn of_a_change(rng: &mut StdRng) -> What {
    match rng.random_range(0..7) {
        0 => What::FailBefore,
        1 => What::LoseReply,
        2 => What::Delay(rng.random_range(50..8000)),
        3 => What::Twice,
        4 | 5 => What::CrashAfter,
        _ => What::CrashBefore,
    }
}

fn of_the_world(rng: &mut StdRng, like: &Outcome) -> Fault {
    let lasts = |rng: &mut StdRng| rng.random_range(500..25_000);
    let (host, balancer, nth) =
        (rng.random_range(0..3), rng.random_range(0..2), rng.random_range(0..12));
    let what = match rng.random_range(0..24) {
        0 => What::Crash,
        1 => What::DropEvents { host, millis: lasts(rng) },
        2 | 3 => What::HostDown { host, millis: lasts(rng) },
        4 => {
            let what = What::EngineDown { host, millis: lasts(rng) };
            let removals = like.calls.get(&Call::Remove).copied().unwrap_or(0);
            if removals > 0 && rng.random_bool(0.6) {
                let when = When::Call(Call::Remove, rng.random_range(0..removals));
                return Fault { when, what };
            }
            what
        }
        5 => What::HostFull { host, millis: lasts(rng) },
        6 | 7 => What::PortTaken { host },
        8 => What::RegistriesDown { millis: lasts(rng) },
        9 => What::BalancerKilled { balancer },
        10 => What::BalancerFrozen { balancer, millis: lasts(rng) },
        11 | 12 => What::ReloadRefused { balancer },
        13 => What::GitDown { millis: lasts(rng) },
        14 => What::GitMirror { millis: lasts(rng) },
        15 => What::GitRewritten,
        16 => What::StoreLost,
        17 => What::StoreFull { millis: lasts(rng) },
        18 => What::PersonStops { nth },
        19 => What::PersonRemoves { nth },
        20 => What::ProgramKilled { nth },
        21 => What::PersonWeighs { nth, weight: *[0, 1, 256].choose(rng).unwrap_or(&0) },
        22 => match rng.random_range(0..2) {
            0 => What::PersonDrains { nth },
            _ => What::PersonDeletesServer { nth },
        },
        _ => match rng.random_range(0..2) {
            0 => What::PersonEdits { balancer },
            _ => What::PersonReloads { balancer },
        },
    };
    // In the middle of things rather than between them.
    let when = match rng.random_bool(0.6) {
        true => When::Change(rng.random_range(0..like.changes.max(1))),
        false => When::At(rng.random_range(0..like.millis.max(1))),
    };
    Fault { when, what }
}
