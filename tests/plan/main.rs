//! The planner and the promises from the outside: plans that a reviewer can read, properties
//! over drawn worlds, and plans that were broken by hand.

mod golden;
mod promises;
mod properties;
mod strings;
#[path = "../world/mod.rs"]
mod world;
