//! `plimsoll doctor`: does everything that Plimsoll needs work?

use clap::Args;

use super::failure::Failure;
use super::output::{Output, Paint};
use super::settings::GlobalArguments;
use super::{code, connect, text};
use crate::api::{Checkup, CheckupResult};

/// Check the source, the hosts, the balancers and the store: 0 all works, 1 something doesn't
#[derive(Debug, Args)]
pub struct Doctor {}

impl Doctor {
    pub async fn run(self, global: &GlobalArguments, output: &mut Output) -> Result<u8, Failure> {
        let checkups = connect::operations(global).await?.doctor().await?;
        if output.is_text() {
            for checkup in &checkups {
                output.text(&render(checkup, output.paint()))?;
            }
        } else {
            output.value(&checkups)?;
        }
        let is_broken = checkups.iter().any(|checkup| checkup.result == CheckupResult::Broken);
        Ok(if is_broken { code::NO } else { code::DONE })
    }
}

fn render(checkup: &Checkup, paint: Paint) -> String {
    let Checkup { subject, result, message, hint } = checkup;
    let mark = match result {
        CheckupResult::Works => paint.good("✓"),
        CheckupResult::Warning => paint.caution("!"),
        CheckupResult::Broken => paint.bad("✗"),
    };
    let mut lines = format!("{mark} {}: {}\n", text::plain(subject), text::plain(message));
    if let Some(hint) = hint {
        lines += &format!("  {} {}\n", paint.strong("help:"), text::plain(hint));
    }
    lines
}
