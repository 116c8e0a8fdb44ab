//! A plan as people read it: app by app, the fields that change, the steps, and a line of
//! totals.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::model::AppId;

use super::balancing::count;
use super::{FieldChange, Place, Plan, Step, StepId};

/// The text of a plan, with ANSI colours where `color` says so. Ends with a newline.
pub fn render(plan: &Plan, color: bool) -> String {
    let mut text = String::new();
    let paint = Paint { color };
    let _ = writeln!(text, "commit {}  plan {}", plan.commit.short(), plan.digest.short(12));
    let numbers: BTreeMap<&StepId, usize> =
        plan.steps.iter().enumerate().map(|(index, step)| (&step.id, index + 1)).collect();
    let shared: Vec<&Step> = plan.steps.iter().filter(|step| step.app.is_none()).collect();
    if !shared.is_empty() {
        let _ = writeln!(text, "\n{}", paint.bold("balancers"));
        shared.iter().for_each(|step| write_step(&mut text, step, &numbers));
    }
    let mut by_app: BTreeMap<&AppId, Vec<&Step>> = BTreeMap::new();
    for step in &plan.steps {
        if let Some(app) = &step.app {
            by_app.entry(app).or_default().push(step);
        }
    }
    for (app, steps) in by_app {
        let _ = writeln!(text, "\n{}", paint.bold(&app.to_string()));
        for change in plan.changes.get(app).into_iter().flatten() {
            let _ = writeln!(text, "  {}", paint.change(change));
        }
        steps.iter().for_each(|step| write_step(&mut text, step, &numbers));
        for floor in plan.routes.iter().filter(|floor| floor.app == *app) {
            let _ = writeln!(
                text,
                "  route {}: {} healthy now, never below {}",
                floor.route, floor.healthy, floor.lowest_healthy
            );
        }
    }
    write_report(&mut text, plan, &paint);
    let _ = writeln!(text, "\n{}", totals(plan));
    text
}

fn write_step(text: &mut String, step: &Step, numbers: &BTreeMap<&StepId, usize>) {
    let number = numbers.get(&step.id).copied().unwrap_or_default();
    let after: Vec<String> =
        step.after.iter().filter_map(|id| numbers.get(id)).map(ToString::to_string).collect();
    let after =
        if after.is_empty() { String::new() } else { format!("  after {}", after.join(", ")) };
    let place = match &step.place {
        Place::Host(name) => name.as_str(),
        Place::Balancer(name) => name.as_str(),
    };
    let _ = writeln!(text, "  {number:>3}. {place:<10} {}{after}", step.summary);
}

fn write_report(text: &mut String, plan: &Plan, paint: &Paint) {
    if !plan.waiting.is_empty() {
        let _ = writeln!(text, "\n{}", paint.bold("waiting"));
    }
    for waiting in &plan.waiting {
        let _ = writeln!(text, "  {}: {}", waiting.app, waiting.reason);
        if let Some(id) = &waiting.approval {
            let _ = writeln!(text, "    to let it through: plimsoll approve {id}");
        }
    }
    if !plan.blocked.is_empty() {
        let _ = writeln!(text, "\n{}", paint.bold("blocked"));
    }
    for blocked in &plan.blocked {
        let app = blocked.app.as_ref().map_or_else(|| "unknown apps".into(), AppId::to_string);
        let _ = writeln!(
            text,
            "  {app}: {}:{}: {}",
            blocked.location.file, blocked.location.line, blocked.reason
        );
    }
}

fn totals(plan: &Plan) -> String {
    if plan.is_empty() {
        let left = !plan.waiting.is_empty() || !plan.blocked.is_empty();
        let text = if left {
            "nothing else to do: the rest is as declared"
        } else {
            "nothing to do: what is declared is there"
        };
        return text.into();
    }
    let totals = &plan.totals;
    format!(
        "{} for {}: {}, {}, {} on {}; {}",
        count(plan.steps.len(), "step"),
        count(totals.apps, "app"),
        count(totals.creates, "create"),
        count(totals.replaces, "replace"),
        count(totals.removes, "remove"),
        count(totals.hosts, "host"),
        count(totals.reloads, "reload"),
    )
}

struct Paint {
    color: bool,
}

impl Paint {
    fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    fn with(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn change(&self, change: &FieldChange) -> String {
        match change {
            FieldChange::Add { path, to } => self.with("32", &format!("+ {path}: {}", line(to))),
            FieldChange::Remove { path, from } => {
                self.with("31", &format!("- {path}: {}", line(from)))
            }
            FieldChange::Change { path, from, to } => {
                self.with("33", &format!("~ {path}: {} -> {}", line(from), line(to)))
            }
        }
    }
}

/// Text of a manifest on one line, without what a terminal would obey.
fn line(text: &str) -> String {
    let escaped: String = text
        .chars()
        .flat_map(|c| {
            let control = c.is_control();
            let escaped: Box<dyn Iterator<Item = char>> =
                if control { Box::new(c.escape_default()) } else { Box::new(std::iter::once(c)) };
            escaped
        })
        .take(200)
        .collect();
    if escaped.is_empty() { "\"\"".into() } else { escaped }
}
