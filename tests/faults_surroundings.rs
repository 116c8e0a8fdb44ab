//! The fault catalogue's parts on what happens to the process and around it. They mostly wait, and
//! are one program, so that they do so side by side.

#[path = "faults/a_bad_line.rs"]
mod bad_line;
#[path = "faults/b_engine.rs"]
mod engine;
#[path = "harness/engine_proxy.rs"]
mod engine_proxy;
mod harness;
#[path = "faults/a_small_disk.rs"]
mod small_disk;
#[path = "faults/b_words.rs"]
mod words;

#[path = "faults/clock_and_network.rs"]
mod clock_and_network;
#[path = "faults/crashes.rs"]
mod crashes;
#[path = "faults/engines.rs"]
mod engines;
#[path = "faults/kills.rs"]
mod kills;
#[path = "faults/reloads.rs"]
mod reloads;
