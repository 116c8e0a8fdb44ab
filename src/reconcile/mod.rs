//! The loop: source, manifest, observe, plan, check, execute, and round again. It knows
//! neither Docker nor HAProxy; it hands one's words to the other, and remembers in the store
//! what can't be seen.

mod options;

pub use options::{ControllerOptions, GitOptions};
