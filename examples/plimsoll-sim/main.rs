//! Runs the simulator: see book/src/simulation.md.

#[path = "../../tests/sim/mod.rs"]
mod sim;

use std::process::{Command, ExitCode};

use clap::Parser;
use sim::campaign::{self, Failure, Tally};
use sim::shrink::{shrink, try_with_trace};

/// Runs the real controller in a simulated world, many times, and looks for broken promises.
#[derive(Debug, Parser)]
struct Options {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Print what happened in the run.
    #[arg(long)]
    trace: bool,
    /// Don't make a failure smaller.
    #[arg(long)]
    whole: bool,
    /// Replay this script: what a failure prints.
    #[arg(long)]
    script: Option<String>,
    /// Go on until so many runs have failed.
    #[arg(long, default_value_t = 1)]
    failures: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(text) = &options.script {
        return replay(text);
    }
    if options.trace {
        return trace(options.seed);
    }
    let begun = tokio::time::Instant::now();
    let tally = campaign::seeds(options.seed, options.runs, options.threads, options.failures);
    let seconds = begun.elapsed().as_secs_f64();
    print_tally(&tally, seconds);
    for failure in &tally.failures {
        print_failure(failure, options.whole);
    }
    let never = tally.never_reached();
    let enough = tally.runs >= 500 && !never.is_empty();
    if enough {
        println!("never reached: {never:?}");
    }
    if tally.failures.is_empty() && !enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_tally(tally: &Tally, seconds: f64) {
    let per_run = seconds * 1000.0 / tally.runs.max(1) as f64;
    println!(
        "{} runs in {seconds:.1} s, {per_run:.1} ms each: {} changes, {} faults at calls, {:.1} days; {} failed",
        tally.runs,
        tally.changes,
        tally.met,
        tally.millis as f64 / 86_400_000.0,
        tally.failures.len()
    );
    let marks: Vec<_> = tally.marks.iter().map(|(mark, count)| format!("{mark} {count}")).collect();
    println!("reached: {}", marks.join(", "));
}

fn print_failure(failure: &Failure, whole: bool) {
    let Failure { seed, script, violation } = failure;
    println!("\nseed {seed} at {}: {} is broken", commit(), violation.promise);
    println!("  {}", violation.message);
    let script = match whole || script.walk.is_empty() {
        true => script.clone(),
        false => shrink(script, violation.promise).0,
    };
    for fault in &script.faults {
        println!("  fault: {fault}");
    }
    println!("  plimsoll-sim --seed {seed} --trace");
    let text = serde_json::to_string(&script).unwrap_or_default();
    println!("  plimsoll-sim --script '{text}'");
}

fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "an unknown commit".into())
}

fn trace(seed: u64) -> ExitCode {
    let (script, _) = sim::drawn(seed);
    show(&script)
}

fn replay(text: &str) -> ExitCode {
    match serde_json::from_str(text) {
        Ok(script) => show(&script),
        Err(error) => {
            eprintln!("that is no script: {error}");
            ExitCode::from(2)
        }
    }
}

fn show(script: &sim::Script) -> ExitCode {
    for fault in &script.faults {
        println!("fault: {fault}");
    }
    let outcome = try_with_trace(script, true);
    outcome.trace.iter().for_each(|line| println!("{line}"));
    println!("trace {:016x}", outcome.hash);
    for violation in &outcome.violations {
        println!("{} is broken: {}", violation.promise, violation.message);
    }
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
