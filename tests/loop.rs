//! The whole loop, from a push to what Docker and HAProxy do, with everything real: engines,
//! HAProxy, git, the binary.

#[path = "loop/controller.rs"]
mod controller;
#[path = "loop/convergence.rs"]
mod convergence;
#[path = "loop/drift.rs"]
mod drift;
#[path = "loop/guards.rs"]
mod guards;
mod harness;
#[path = "loop/isolation.rs"]
mod isolation;
#[path = "loop/ownership.rs"]
mod ownership;
#[path = "loop/secrets.rs"]
mod secrets;
