//! The loop: source, manifest, observe, plan, check, execute, and round again. It knows
//! neither Docker nor HAProxy; it hands one's words to the other, and remembers in the store
//! what can't be seen.
//!
//! [`Controller`] is one installation seen from one process. `situation` gathers what a plan is
//! made from, `rounds` executes until nothing is left, `run` is the loop that never ends, and
//! `operations` answers what people ask.

mod checks;
mod controller;
mod doctor;
mod images;
mod knowledge;
mod memory;
mod operations;
mod options;
mod pointed;
mod rounds;
mod run;
mod situation;
mod status;

pub use controller::{Controller, Parts, open_source};
pub use operations::ControllerOperations;
pub use options::{ControllerOptions, GitOptions};
