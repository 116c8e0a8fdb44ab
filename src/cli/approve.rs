//! `plimsoll approve`: a person lets through what waits.

use clap::Args;

use super::failure::Failure;
use super::output::Output;
use super::settings::GlobalArguments;
use super::{code, connect, text};

/// Let through what waits for a person, such as a mass deletion or a rewritten history
///
/// status and diff show what waits, with its id. An approval holds for that very commit and
/// plan.
#[derive(Debug, Args)]
pub struct Approve {
    #[arg(value_name = "ID")]
    id: String,
}

impl Approve {
    pub async fn run(self, global: &GlobalArguments, output: &mut Output) -> Result<u8, Failure> {
        let approved = connect::operations(global).await?.approve(self.id).await?;
        if output.is_text() {
            let (id, reason) = (text::plain(&approved.id), text::plain(&approved.reason));
            output.line(&format!("approved {id}: {reason}"))?;
        } else {
            output.value(&approved)?;
        }
        Ok(code::DONE)
    }
}
