//! The planner.
mod step;
pub use step::*;
