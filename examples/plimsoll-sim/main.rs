//! Runs the simulator: see book/src/simulation.md.

#[cfg(feature = "mutants")]
mod mutants;
#[path = "../../tests/sim/mod.rs"]
mod sim;

use std::process::{Command, ExitCode};

use clap::Parser;
use sim::campaign::{self, Failure, Tally};
use sim::matrix;
use sim::shrink::{shrink, try_with_trace};

/// Below this number of runs some situation may not have been met by chance.
const ENOUGH: u64 = 500;

/// Runs the real controller in a simulated world, many times, and looks for broken promises.
#[derive(Debug, Parser)]
#[command(name = "plimsoll-sim")]
struct Options {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds; with --sample, how many cases
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// How many runs at the same time
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Go on until so many runs have failed
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// The crash matrix of this scenario, or of `all`, in place of seeds
    #[arg(long)]
    scenario: Option<String>,
    /// How deep: 1 is every fault at every call, 2 every two crashes, 3 every three
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3))]
    depth: u32,
    /// Only some crashes, two and three deep, drawn by the seed
    #[arg(long)]
    sample: bool,
    /// Print what happens in the run of this seed
    #[arg(long)]
    trace: bool,
    /// Replay this script: what a failure prints
    #[arg(long)]
    script: Option<String>,
    /// Don't make failures smaller
    #[arg(long)]
    whole: bool,
    /// Switch on this deliberate bug (needs the feature `mutants`)
    #[arg(long)]
    mutant: Option<String>,
    /// Switch on one deliberate bug after the other, and print what finds it
    #[arg(long)]
    mutants: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(why) = switch_on(&options) {
        eprintln!("{why}");
        return ExitCode::from(2);
    }
    #[cfg(feature = "mutants")]
    if options.mutants {
        return mutants::find_all(options.threads, options.runs.max(1000));
    }
    if let Some(text) = &options.script {
        return replay(text);
    }
    if options.trace {
        return show(&sim::drawn(options.seed).0);
    }
    let begun = tokio::time::Instant::now();
    let tally = match &options.scenario {
        None => campaign::seeds(options.seed, options.runs, options.threads, options.failures),
        Some(name) => run_matrix(name, &options),
    };
    print_tally(&tally, begun.elapsed().as_secs_f64());
    for failure in &tally.failures {
        print_failure(failure, options.whole);
    }
    let never = tally.never_reached();
    let incomplete = options.scenario.is_none() && tally.runs >= ENOUGH && !never.is_empty();
    if incomplete {
        println!("never reached: {never:?}");
    }
    if tally.failures.is_empty() && !incomplete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(feature = "mutants")]
fn switch_on(options: &Options) -> Result<(), String> {
    let Some(name) = &options.mutant else { return Ok(()) };
    mutants::switch_on(name)
}

#[cfg(not(feature = "mutants"))]
fn switch_on(options: &Options) -> Result<(), String> {
    match options.mutants || options.mutant.is_some() {
        true => Err("deliberate bugs are in builds with --features mutants only".into()),
        false => Ok(()),
    }
}

fn run_matrix(name: &str, options: &Options) -> Tally {
    let known = matrix::known(Some(name).filter(|name| *name != "all"));
    let cases = match options.depth {
        _ if options.sample => matrix::sampled(&known, options.runs as usize, options.seed),
        1 => matrix::depth_one(&known),
        depth => matrix::crashes(&known, depth),
    };
    println!("{} cases of {} scenarios", cases.len(), known.len());
    matrix::run_all(&known, &cases, options.threads, options.failures)
}

fn print_tally(tally: &Tally, seconds: f64) {
    let per_run = seconds * 1000.0 / tally.runs.max(1) as f64;
    println!(
        "{} runs in {seconds:.1} s, {per_run:.1} ms each: {} calls that change something, {} met \
         by faults, {:.1} days of the world; {} failed",
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
