//! `plimsoll apply`: converge once, and say how it went.

use std::path::PathBuf;

use clap::Args;
use futures_util::StreamExt;

use super::failure::Failure;
use super::output::{Output, Paint};
use super::progress::Display;
use super::settings::GlobalArguments;
use super::{code, connect, diff, plan_file, text};
use crate::api::{Applied, OperationError, Progress, StepResult};
use crate::plan::{BlockedApp, Waiting};

/// Converge once: 0 converged, 1 not, above 1 an error
///
/// Shows each step as it is done, and at the end what waits or is blocked, and by what.
#[derive(Debug, Args)]
pub struct Apply {
    /// Run exactly the plan that diff --out kept, or refuse if something moved since
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
}

impl Apply {
    pub async fn run(self, global: &GlobalArguments, output: &mut Output) -> Result<u8, Failure> {
        self.answer(global, output).await.map_err(Failure::above_one)
    }

    async fn answer(self, global: &GlobalArguments, output: &mut Output) -> Result<u8, Failure> {
        let plan = match &self.plan {
            Some(file) => Some(Box::new(plan_file::read(file)?.plan)),
            None => None,
        };
        let applied = follow(global, plan, output).await?;
        if output.is_text() {
            output.text(&render(&applied, output.paint()))?;
        } else {
            output.value(&applied)?;
        }
        Ok(if applied.converged { code::DONE } else { code::NO })
    }
}

async fn follow(
    global: &GlobalArguments,
    plan: Option<Box<crate::plan::Plan>>,
    output: &mut Output,
) -> Result<Applied, Failure> {
    let mut progress = connect::operations(global).await?.apply(plan).await;
    let mut display = Display::new(output);
    while let Some(item) = progress.next().await {
        match item {
            Progress::Planned { plan } => display.planned(&plan),
            Progress::Started { id, summary } => display.started(&id, &summary),
            Progress::Finished { outcome, summary } => {
                display.finished(&outcome, &summary, output)?;
            }
            Progress::Ended { applied } => {
                display.clear();
                return Ok(*applied);
            }
            Progress::Failed { error } => {
                display.clear();
                return Err(error.into());
            }
        }
    }
    Err(OperationError::new("the apply ended without saying how it went")
        .hint("plimsoll status shows how things are")
        .into())
}

/// The end of an apply in words.
fn render(applied: &Applied, paint: Paint) -> String {
    let Applied { diff, outcome, converged } = applied;
    let count = |result| outcome.iter().filter(|outcome| outcome.result == result).count();
    let (done, failed, skipped) =
        (count(StepResult::Done), count(StepResult::Failed), count(StepResult::Skipped));
    let mut held = String::new();
    for waiting in &diff.plan.waiting {
        held += &wait_line(waiting, paint);
    }
    for blocked in &diff.plan.blocked {
        held += &block_line(blocked, paint);
    }
    let sections = [held, diff::beside(diff, paint)];
    let sections = sections.iter().filter(|section| !section.is_empty());
    let lines: String = sections.map(|section| format!("\n{section}")).collect();
    let gap = if lines.is_empty() { "" } else { "\n" };
    let mut sum = format!("{} done", text::count(done, "step"));
    for (number, word) in [(failed, "failed"), (skipped, "skipped")] {
        if number > 0 {
            sum += &format!(", {number} {word}");
        }
    }
    let commit = text::plain(diff.plan.commit.short());
    let verdict = if *converged { paint.good("converged") } else { paint.bad("not converged") };
    format!("{lines}{gap}{verdict} at {commit}: {sum}\n")
}

fn wait_line(waiting: &Waiting, paint: Paint) -> String {
    let Waiting { app, reason, cause: _, approval } = waiting;
    let mut line = format!("{} {app}: {}\n", paint.caution("waiting"), text::plain(reason));
    if let Some(id) = approval {
        let command = paint.strong(&format!("plimsoll approve {}", text::plain(id)));
        line += &format!("    {command}\n");
    }
    line
}

fn block_line(blocked: &BlockedApp, paint: Paint) -> String {
    let BlockedApp { app, location, reason } = blocked;
    let app = app.as_ref().map(|app| format!("{app}: ")).unwrap_or_default();
    let place = format!("{}:{}", text::plain(&location.file), location.line);
    format!("{} {app}{} ({place})\n", paint.bad("blocked"), text::plain(reason))
}
