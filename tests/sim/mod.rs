//! The simulator: the real controller in a world that is made of data, with virtual time and
//! seeded chance, on one thread. The same seed gives the same run.
//!
//! `world` is the one state and its agenda; `machine` and `balancer` are what hosts and HAProxies
//! do by themselves; `engine`, `proxy`, `remote` and `store` are the seams, as the real adapters
//! are to the controller; `fault` is what may go wrong, `audit` the promises (`isolation` one of them); `walk` draws
//! manifests and `draw` faults; `run` puts them together.
#![allow(dead_code, unused_imports, reason = "the tests and the program each use a part of it")]

pub mod audit;
pub mod balancer;
pub mod befall;
pub mod call;
pub mod campaign;
pub mod containers;
pub mod declared;
pub mod draw;
pub mod engine;
pub mod fault;
pub mod isolation;
pub mod kept;
pub mod life;
pub mod machine;
pub mod mark;
pub mod matrix;
pub mod proxy;
pub mod remote;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod state;
pub mod store;
pub mod trace;
pub mod walk;
pub mod world;

pub use fault::{Call, Fault, What, When};
pub use run::{Outcome, Script, drawn, run};
