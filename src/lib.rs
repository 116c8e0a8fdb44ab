//! Plimsoll holds plain Docker hosts, and the HAProxies in front of them, at what a git
//! repository declares.
//!
//! The folder names are the sentence: [`source`] brings a commit, [`manifest`] reads what it
//! declares, [`observe`] takes a snapshot of what is there, [`plan`] decides, [`check`] proves
//! the promises on what was decided, [`execute`] does it, [`reconcile`] goes round.
//!
//! [`model`] is the vocabulary that all of them share. [`docker`], [`proxy`] and [`store`] are
//! the only places that know the engine, HAProxy and sled. [`api`] and [`cli`] are the ways in.

pub mod api;
pub mod check;
pub mod cli;
pub mod clock;
pub mod docker;
pub mod execute;
pub mod failpoint;
pub mod manifest;
pub mod model;
#[doc(hidden)]
pub mod mutant;
pub mod observe;
pub mod plan;
pub mod proxy;
pub mod reconcile;
pub mod source;
pub mod store;
