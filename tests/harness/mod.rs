//! What the end-to-end tests stand on: real Docker Engines, real HAProxies, real git
//! repositories and the real `plimsoll` binary, all in temporary folders and on loopback.
//!
//! Nothing in here knows how Plimsoll works inside. It speaks to it as its users do (command
//! line, git, signals), and checks it by asking Docker and HAProxy, never by trusting what
//! Plimsoll says of itself.
//!
//! Everything that is started is also told to a watchdog process, which cleans up when the test
//! process ends, however it ends.
#![allow(dead_code, unused_imports, reason = "every test binary uses another part of the harness")]

mod balancer;
mod claim;
mod command;
mod controller;
mod dockerd;
mod engine;
mod fleet;
mod gate;
mod git;
mod http;
mod image;
mod installation;
mod load;
mod manifest;
mod output;
mod registry;
mod rootfs;
mod sshd;
mod tar;
mod wait;
mod watchdog;
mod web;

pub use balancer::{Balancer, LowestServing, ServerRow};
pub use claim::{Block, claim, free_port};
pub use command::{Output, run};
pub use controller::Controller;
pub use dockerd::Dockerd;
pub use engine::Engine;
pub use fleet::Fleet;
pub use gate::Gate;
pub use git::Repository;
pub use http::{Answer, get, request};
pub use image::{Image, ImageConfig};
pub use installation::Installation;
pub use load::{Load, LoadOptions, LoadReport};
pub use manifest::{app, document, environment, host, set};
pub use output::{Plan, Status, Step, Waiting};
pub use registry::Registry;
pub use rootfs::Rootfs;
pub use sshd::Sshd;
pub use wait::{wait_for, wait_until};
pub use watchdog::{Leftover, kill as signal, mark, remember};
