//! Beside the bare engine: one app with 4 replicas on 2 real engines behind a real HAProxy gets a
//! new revision, ten times from a push to git and ten times by bare calls to the engines and to a
//! HAProxy of their own, in turn. Prints each round, the medians, their ratio with its bound, and
//! where the time of both went; then how long `plimsoll diff` of the same installation takes.
//!
//! `make bench-rollout` runs it as root. What its figures mean is in the book, in
//! `performance-rollout.md`. With `ROLLOUT_ROUNDS=4` in the environment there are four rounds, and
//! with `ROLLOUT_DIFF=1` one diff says what it does.

mod bare;
mod clock;
#[path = "../../tests/harness/mod.rs"]
mod harness;
mod profile;
mod push;
mod start;
mod table;

use std::time::Duration;

use bare::Bare;
use harness::{Fleet, Installation, app};
use profile::Profile;
use push::Pushes;
use table::{Table, median, millis};

/// How often each way is gone; the medians count.
const ROUNDS: u32 = 10;

/// What Plimsoll may take, in times of the bare calls.
const BOUND: f64 = 1.1;

/// One round's time, and where it went.
struct Roll {
    total: Duration,
    profile: Profile,
}

fn main() {
    let rounds = std::env::var("ROLLOUT_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds: u32 = rounds.unwrap_or(ROUNDS);
    let mut table = Table::default();
    let shop = Installation::new("rollout");
    shop.deploy(&app("web"));
    let mut bare = Bare::start(Fleet::shared(), shop.folder());
    bare.roll(0);
    let mut pushes = Pushes::begin(&shop);
    // What is cold the first time is nobody's share.
    pushes.roll(0);
    let (mut of_plimsoll, mut of_bare) = (Vec::new(), Vec::new());
    println!("load of the machine at the beginning: {}", load());
    for round in 1..=rounds {
        if round % 2 == 0 {
            of_plimsoll.push(pushes.roll(round));
            of_bare.push(bare.roll(round));
        } else {
            of_bare.push(bare.roll(round));
            of_plimsoll.push(pushes.roll(round));
        }
        tell_round(round, of_plimsoll.last(), of_bare.last());
    }
    println!("load of the machine at the end: {}", load());
    compare(&mut table, &of_plimsoll, &of_bare);
    start::measure(&mut table, &shop, pushes.end());
    table.end();
}

fn tell_round(round: u32, of_plimsoll: Option<&Roll>, of_bare: Option<&Roll>) {
    let (Some(push), Some(bare)) = (of_plimsoll, of_bare) else { return };
    let (push, bare) = (millis(push.total), millis(bare.total));
    println!(
        "round {round:>2}: from push {push:>7.0} ms, bare calls {bare:>7.0} ms, {:.2}",
        push / bare
    );
}

fn compare(table: &mut Table, of_plimsoll: &[Roll], of_bare: &[Roll]) {
    let total = |rolls: &[Roll]| median(rolls.iter().map(|roll| millis(roll.total)));
    let worked = |roll: &Roll| millis(roll.total - roll.profile.part(profile::POLL));
    let (push, bare) = (total(of_plimsoll), total(of_bare));
    let worked = median(of_plimsoll.iter().map(worked));
    let pairs = of_plimsoll.iter().zip(of_bare);
    let by_round = median(pairs.map(|(push, bare)| millis(push.total) / millis(bare.total)));
    table.line("4 replicas on 2 hosts, from push to all traffic", push, "ms", None);
    table.line("the same by bare calls", bare, "ms", None);
    table.line("ratio of the medians", push / bare, "", Some(BOUND));
    table.line("median of the rounds' ratios", by_round, "", None);
    table.line("ratio without the wait for the next look at the remote", worked / bare, "", None);
    profile::tell("where the time from a push goes", of_plimsoll);
    profile::tell("where the time of bare calls goes", of_bare);
}

/// Whether the environment asks for something.
fn is_told(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

/// The load averages, as the kernel tells.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
