//! Switches on the deliberate bugs, one after the other: each has to be found.

use std::process::ExitCode;

use plimsoll::mutant::{Mutant, set};

use crate::sim::campaign::seeds;

/// # Errors
/// The names that there are, where it is none of them.
pub fn switch_on(name: &str) -> Result<(), String> {
    let found = Mutant::ALL.iter().find(|mutant| mutant.name() == name);
    let mutant = found.ok_or_else(|| {
        let names: Vec<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        format!("{name:?} is no deliberate bug; there are {}", names.join(", "))
    })?;
    set(Some(*mutant));
    Ok(())
}

/// Looks for each, in so many seeds at most.
pub fn find_all(threads: usize, most: u64) -> ExitCode {
    println!("| deliberate bug | found by | at seed |");
    println!("| --- | --- | --- |");
    let mut all = true;
    for mutant in Mutant::ALL {
        set(Some(*mutant));
        let tally = seeds(1, most, threads, 1);
        let name = mutant.name();
        match tally.failures.first() {
            Some(found) => println!("| {name} | {} | {} |", found.violation.promise, found.seed),
            None => {
                all = false;
                println!("| {name} | nothing | |");
            }
        }
    }
    set(None);
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
