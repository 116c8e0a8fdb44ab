//! `plimsoll validate`: are the manifests sound? It needs no state, engine or controller.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::joints::{self, Findings};
use super::output::Output;
use super::settings::{GlobalArguments, repository};
use super::{code, text};
use crate::model::Diagnostic;

/// Check the manifests: 0 all good, 1 mistakes, above 1 another error
///
/// Reads the folder as it lies, or a commit, and tells all mistakes at once, each with its file,
/// line and column. Needs neither a controller nor an engine.
#[derive(Debug, Args)]
pub struct Validate {
    /// Folder to read [default: --repo]
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,

    /// Read this commit, branch or tag in place of the files as they lie
    #[arg(long, value_name = "REV")]
    rev: Option<String>,
}

/// The shape for scripts.
#[derive(Serialize)]
struct Answer<'a> {
    errors: &'a [Diagnostic],
    warnings: &'a [Diagnostic],
}

impl Validate {
    pub async fn run(self, global: &GlobalArguments, output: &mut Output) -> Result<u8, Failure> {
        self.answer(global, output).await.map_err(Failure::above_one)
    }

    async fn answer(self, global: &GlobalArguments, output: &mut Output) -> Result<u8, Failure> {
        let mut options = global.settings(None)?;
        if let Some(folder) = self.folder {
            let named = folder.display().to_string();
            options.repo = repository(Some(named), &std::env::current_dir()?);
        }
        options.worktree = self.rev.is_none();
        let Findings { errors, warnings } = joints::read_manifests(options, self.rev).await?;
        if output.is_text() {
            let color = output.paint().is_on();
            let told = [
                joints::render_warnings(&warnings, color),
                joints::render_diagnostics(&errors, color),
            ];
            for blocks in told.iter().filter(|blocks| !blocks.is_empty()) {
                output.line(blocks.trim_end())?;
                output.line("")?;
            }
            output.line(&summary(errors.len(), warnings.len()))?;
        } else {
            output.value(&Answer { errors: &errors, warnings: &warnings })?;
        }
        Ok(if errors.is_empty() { code::DONE } else { code::NO })
    }
}

fn summary(errors: usize, warnings: usize) -> String {
    let mistakes = if errors == 0 { "no mistakes".into() } else { text::count(errors, "mistake") };
    match warnings {
        0 => mistakes,
        _ => format!("{mistakes}, {}", text::count(warnings, "warning")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts() {
        for (errors, warnings, line) in [
            (0, 0, "no mistakes"),
            (1, 0, "1 mistake"),
            (2, 1, "2 mistakes, 1 warning"),
            (0, 2, "no mistakes, 2 warnings"),
        ] {
            assert_eq!(summary(errors, warnings), line);
        }
    }
}
