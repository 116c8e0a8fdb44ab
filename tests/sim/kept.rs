//! Scripts that found a bug once, with what it was: they are run for ever.

use super::run::Script;

/// One of them.
pub struct Kept {
    /// The seed that found it, at the commit of that day.
    pub seed: u64,
    pub what: String,
    pub script: Script,
}

/// All of `kept.jsonl`: the seed, what it was, the shrunk script.
///
/// # Panics
/// Where a line can't be read.
pub fn all() -> Vec<Kept> {
    include_str!("kept.jsonl")
        .lines()
        .map(|line| {
            let (seed, what, script) = serde_json::from_str(line).expect("a line of kept.jsonl");
            Kept { seed, what, script }
        })
        .collect()
}
