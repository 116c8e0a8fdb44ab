//! How an apply goes: on a terminal a line for each step that runs and a bar below them,
//! elsewhere a line for each step that ended. In text those lines are the answer and go to
//! stdout; beside JSON and YAML they go to stderr.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::failure::Failure;
use super::output::{Output, Paint};
use super::text;
use crate::api::{StepOutcome, StepResult};
use crate::model::AppId;
use crate::plan::{Plan, Step, StepId};

/// Lines of running steps that are shown at the same time.
const SHOWN: usize = 8;

/// Between two turns of a line's mark.
const TURN: Duration = Duration::from_millis(120);

/// The display of one apply.
pub struct Display {
    live: Option<Live>,
    /// The app and place of each step of the plan under way.
    places: BTreeMap<StepId, String>,
    apps: BTreeMap<StepId, Option<AppId>>,
}

/// What moves on a terminal.
struct Live {
    bars: MultiProgress,
    total: ProgressBar,
    running: BTreeMap<StepId, ProgressBar>,
}

impl Display {
    /// Lines move where both stdout and stderr are terminals: else one would write into the
    /// other.
    pub fn new(output: &Output) -> Self {
        let both = output.is_terminal() && std::io::IsTerminal::is_terminal(&std::io::stderr());
        let live = both.then(|| {
            let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let total = bars.add(ProgressBar::new(0).with_style(bar_style()));
            Live { bars, total, running: BTreeMap::new() }
        });
        Self { live, places: BTreeMap::new(), apps: BTreeMap::new() }
    }

    /// A plan is executed from here on.
    pub fn planned(&mut self, plan: &Plan) {
        let place = |step: &Step| (step.id.clone(), step.place.to_string());
        self.places = plan.steps.iter().map(place).collect();
        self.apps = plan.steps.iter().map(|step| (step.id.clone(), step.app.clone())).collect();
        if let Some(live) = &self.live {
            live.total.set_length(plan.steps.len() as u64);
            live.total.set_position(0);
            live.total.enable_steady_tick(TURN);
        }
    }

    /// A step runs.
    pub fn started(&mut self, id: &StepId, summary: &str) {
        let line = self.describe(id, summary);
        let Some(live) = &mut self.live else { return };
        if live.running.len() < SHOWN {
            let bar = ProgressBar::no_length().with_style(line_style()).with_message(line);
            let bar = live.bars.insert_before(&live.total, bar);
            bar.enable_steady_tick(TURN);
            live.running.insert(id.clone(), bar);
        }
    }

    /// A step ended.
    pub fn finished(
        &mut self,
        outcome: &StepOutcome,
        summary: &str,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let paint = if output.is_text() { output.paint() } else { output.error_paint() };
        let line = self.outcome_line(outcome, summary, paint);
        match &mut self.live {
            Some(live) => {
                if let Some(bar) = live.running.remove(&outcome.id) {
                    bar.finish_and_clear();
                    live.bars.remove(&bar);
                }
                live.total.inc(1);
                // Above the bars; a terminal that is gone needs no lines.
                let _gone = live.bars.println(line);
                Ok(())
            }
            None if output.is_text() => {
                output.line(&line)?;
                output.flush()
            }
            None => {
                eprintln!("{line}");
                Ok(())
            }
        }
    }

    /// Takes what moves off the terminal.
    pub fn clear(&mut self) {
        if let Some(live) = self.live.take() {
            live.total.finish_and_clear();
            // A terminal that is gone needs no clearing.
            let _gone = live.bars.clear();
        }
    }

    /// `done     0.3s  production/web  alpha: create ...`, and why where it failed.
    fn outcome_line(&self, outcome: &StepOutcome, summary: &str, paint: Paint) -> String {
        let StepOutcome { id, result, seconds, error } = outcome;
        let word = match result {
            StepResult::Done => paint.good("done   "),
            StepResult::Failed => paint.bad("failed "),
            StepResult::Skipped => paint.caution("skipped"),
        };
        let time = format!("{seconds:.1}s");
        let mut line = format!("{word} {time:>6}  {}", self.describe(id, summary));
        if let Some(error) = error {
            line += &format!("\n  because: {}", text::plain(error));
        }
        line
    }

    fn describe(&self, id: &StepId, summary: &str) -> String {
        let app = self.apps.get(id).and_then(Option::as_ref);
        let app = app.map(|app| format!("{app}  ")).unwrap_or_default();
        let place = self.places.get(id).map(|place| format!("{place}: ")).unwrap_or_default();
        format!("{app}{place}{}", text::plain(summary))
    }
}

fn bar_style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} steps  {elapsed}");
    style.unwrap_or_else(|_bad_template| ProgressStyle::default_bar())
}

fn line_style() -> ProgressStyle {
    let style = ProgressStyle::with_template("  {spinner} {elapsed:>4}  {wide_msg}");
    style.unwrap_or_else(|_bad_template| ProgressStyle::default_spinner())
}
