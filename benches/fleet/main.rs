//! A fleet to measure on: the real controller on thousands of Docker Engines that are stand-ins
//! (`standin`), from a push to a converged fleet. Prints a table with each bound and whether it
//! held; the same table, with the machine's size, is in the book (`performance-fleet.md`).
//! `make bench-fleet` runs it.
//!
//! Environment: `FLEET` says how many apps are on how many hosts, several sizes after each other
//! (`1000/100,10000/1000`); `FLEET_IDLE` for how many seconds an idle fleet is watched (60);
//! `FLEET_DEADLINE` how many seconds a convergence may take before it counts as failed (900);
//! `FLEET_INTERVAL` how often the controller looks at the remote (1s); `FLEET_DELAY` how many
//! milliseconds each call takes an engine (0); `FLEET_PROGRAM` another build of the program.

mod controller;
mod home;
mod options;
mod process;
mod repository;
mod standin;
mod table;
mod trial;

use options::Options;
use table::Table;

fn main() {
    let options = Options::read();
    process::allow_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let mut table = Table::default();
    table.say(&format!("{}; {}", process::machine(), process::load()));
    for size in &options.sizes {
        runtime.block_on(trial::run(*size, &options, &mut table));
    }
    table.end();
}
