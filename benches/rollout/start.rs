//! How long `plimsoll diff` of a converged installation of two hosts takes, from the start of the
//! process to its end.

use std::process::Stdio;
use std::time::Duration;

use super::clock::now;
use super::harness::{Controller, Installation};
use super::table::{Table, median, millis};

const RUNS: usize = 20;

/// Milliseconds that it may take.
const BOUND: f64 = 100.0;

/// With the controller running, and without.
pub fn measure(table: &mut Table, shop: &Installation, controller: Controller<'_>) {
    println!();
    let version = || run(shop, &["--version"]);
    table.line("plimsoll --version: a process and no more", times(version), "ms", None);
    let diff = || run(shop, &["diff"]);
    table.line("plimsoll diff, 2 hosts, a controller answers", times(diff), "ms", Some(BOUND));
    controller.stop();
    if super::is_told("ROLLOUT_DIFF") {
        tell_steps(shop);
    }
    table.line("plimsoll diff, 2 hosts, no controller", times(diff), "ms", Some(BOUND));
}

/// What one run says of itself, with the times at which it says so.
fn tell_steps(shop: &Installation) {
    let mut command = shop.command(["diff"]);
    let begin = now();
    let output = command.env("PLIMSOLL_LOG", "plimsoll=trace").output().unwrap();
    println!("  one run, which began at {begin:?} and ended after {:?}:", now() - begin);
    println!("{}", String::from_utf8_lossy(&output.stderr));
}

fn times(run: impl Fn() -> Duration) -> f64 {
    median((0..RUNS).map(|_| millis(run())))
}

fn run(shop: &Installation, words: &[&str]) -> Duration {
    let mut command = shop.command(words.iter().copied());
    if words == ["--version"] {
        command = std::process::Command::new(command.get_program());
        command.args(words);
    }
    let begin = now();
    let output = command.stdin(Stdio::null()).output().unwrap();
    let time = now() - begin;
    assert!(output.status.success(), "{output:?}");
    time
}
