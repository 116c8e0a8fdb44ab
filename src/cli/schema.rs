//! `plimsoll schema`: what a manifest may hold, for editors.

use clap::Args;

use super::failure::Failure;
use super::output::Output;
use super::{code, joints};

/// Print the JSON Schema of manifests, for editors that complete and check
#[derive(Debug, Args)]
pub struct Schema {}

impl Schema {
    pub fn run(self, output: &mut Output) -> Result<u8, Failure> {
        output.value(&joints::json_schema())?;
        Ok(code::DONE)
    }
}
