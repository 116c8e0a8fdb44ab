//! `plimsoll history`: which commits were attempted, and what came of them.

use clap::Args;

use super::failure::Failure;
use super::output::{Output, Paint};
use super::settings::GlobalArguments;
use super::table::{self, Cell, Tone};
use super::{code, connect};
use crate::api::HistoryEntry;
use crate::model::AppId;

/// Show the commits that were attempted, newest first
#[derive(Debug, Args)]
pub struct History {
    /// Only those that concerned this app [default: all]
    #[arg(value_name = "ENVIRONMENT/NAME")]
    app: Option<AppId>,
}

impl History {
    pub async fn run(self, global: &GlobalArguments, output: &mut Output) -> Result<u8, Failure> {
        let about = self.app.as_ref().map(|app| format!(" that concerned {app}"));
        let history = connect::operations(global).await?.history(self.app).await?;
        if !output.is_text() {
            output.value(&history)?;
        } else if history.is_empty() {
            eprintln!("no commit{} was attempted yet", about.unwrap_or_default());
        } else {
            output.text(&render(&history, output.paint()))?;
        }
        Ok(code::DONE)
    }
}

fn render(history: &[HistoryEntry], paint: Paint) -> String {
    let row = |entry: &HistoryEntry| {
        let HistoryEntry { time, commit, description, result, message } = entry;
        vec![
            Cell::toned(format!("{time:.0}"), Tone::Faint),
            Cell::new(commit.short()),
            Cell::toned(result, tone(result)),
            Cell::new(description),
            Cell::new(message),
        ]
    };
    let rows: Vec<_> = history.iter().map(row).collect();
    table::render(&["TIME", "COMMIT", "RESULT", "DESCRIPTION", "MESSAGE"], &rows, paint)
}

fn tone(result: &str) -> Tone {
    match result {
        "Applied" => Tone::Good,
        "Failed" => Tone::Bad,
        _ => Tone::Caution,
    }
}
