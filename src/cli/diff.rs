//! `plimsoll diff`: what would be done? It changes nothing.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::output::{Output, Paint};
use super::settings::GlobalArguments;
use super::{code, connect, joints, plan_file, text};
use crate::api;
use crate::model::ApprovalRequest;

/// Show what apply would do: 0 nothing, 1 something, above 1 an error
///
/// Prints the very plan that apply executes, and changes nothing.
#[derive(Debug, Args)]
pub struct Diff {
    /// Plan this commit, branch or tag [default: the tip of the branch]
    #[arg(long, value_name = "REV")]
    rev: Option<String>,

    /// Keep the plan in this file, for apply --plan
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Diff {
    pub async fn run(self, global: &GlobalArguments, output: &mut Output) -> Result<u8, Failure> {
        self.answer(global, output).await.map_err(Failure::above_one)
    }

    async fn answer(self, global: &GlobalArguments, output: &mut Output) -> Result<u8, Failure> {
        let diff = connect::operations(global).await?.diff(self.rev).await?;
        if output.is_text() {
            output.text(&render(&diff, output.paint()))?;
        } else {
            output.value(&diff)?;
        }
        if let Some(file) = &self.out {
            plan_file::write(file, &diff)?;
            eprintln!("the plan is in {0}: plimsoll apply --plan {0}", file.display());
        }
        Ok(if changes_something(&diff) { code::NO } else { code::DONE })
    }
}

/// There are steps, or there would be if somebody let them through.
fn changes_something(diff: &api::Diff) -> bool {
    let asks = diff.plan.waiting.iter().any(|waiting| waiting.approval.is_some());
    !diff.plan.is_empty() || !diff.approvals.is_empty() || asks
}

/// The plan, and what stands beside it: mistakes, what couldn't be seen, what waits for a person.
pub fn render(diff: &api::Diff, paint: Paint) -> String {
    let mut sections = vec![joints::render_plan(&diff.plan, paint.is_on())];
    sections.push(beside(diff, paint));
    let sections: Vec<_> =
        sections.iter().map(|section| section.trim_end()).filter(|s| !s.is_empty()).collect();
    if sections.is_empty() {
        return "nothing would change\n".into();
    }
    sections.join("\n\n") + "\n"
}

/// Everything about a diff but its plan.
pub fn beside(diff: &api::Diff, paint: Paint) -> String {
    let mut sections = Vec::new();
    if !diff.diagnostics.is_empty() {
        let mistakes = text::count(diff.diagnostics.len(), "mistake");
        let details = joints::render_diagnostics(&diff.diagnostics, paint.is_on());
        let title = paint.bad(&format!("{mistakes} in the manifests"));
        sections.push(format!("{title}\n{}\n", details.trim_end()));
    }
    if !diff.unseen.is_empty() {
        let mut section = format!("{}\n", paint.caution("not seen, and so left as it is"));
        for unseen in &diff.unseen {
            section += &format!("  {}\n", text::plain(unseen));
        }
        sections.push(section);
    }
    let whole = asked_as_a_whole(diff);
    if !whole.is_empty() {
        sections.push(approvals(&whole, paint));
    }
    sections.join("\n")
}

/// The approvals that no waiting app shows already.
fn asked_as_a_whole(diff: &api::Diff) -> Vec<ApprovalRequest> {
    let shown = |request: &&ApprovalRequest| {
        diff.plan.waiting.iter().any(|waiting| waiting.approval.as_ref() == Some(&request.id))
    };
    diff.approvals.iter().filter(|request| !shown(request)).cloned().collect()
}

/// What waits for a person, each with the very command to type.
pub fn approvals(requests: &[ApprovalRequest], paint: Paint) -> String {
    let mut section = format!("{}\n", paint.caution("waits for approval"));
    for ApprovalRequest { id, reason } in requests {
        let command = paint.strong(&format!("plimsoll approve {}", text::plain(id)));
        section += &format!("  {}\n    {command}\n", text::plain(reason));
    }
    section
}
