//! The state of a plan that is executed: what is done, what can begin, what never will, and which
//! apps nothing is left to do of.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::AppId;
use crate::mutant::{self, Mutant};
use crate::plan::{Action, Plan, Step, StepId, StepOutcome, StepResult};

/// Which steps are done, which can begin, which never will.
pub(super) struct Board<'p> {
    plan: &'p Plan,
    waits: BTreeMap<&'p StepId, usize>,
    followers: BTreeMap<&'p StepId, Vec<&'p Step>>,
    ready: Vec<&'p Step>,
    outcomes: BTreeMap<StepId, StepOutcome>,
    /// The steps that wait for one that failed.
    doomed: BTreeSet<&'p StepId>,
    /// How many steps of each app are neither ended nor doomed, and whether one of it failed.
    open: BTreeMap<&'p AppId, (usize, bool)>,
}

impl<'p> Board<'p> {
    pub fn new(plan: &'p Plan) -> Self {
        let known: BTreeSet<&StepId> = plan.steps.iter().map(|step| &step.id).collect();
        let mut followers: BTreeMap<&StepId, Vec<&Step>> = BTreeMap::new();
        let mut waits = BTreeMap::new();
        let mut open: BTreeMap<&AppId, (usize, bool)> = BTreeMap::new();
        for step in &plan.steps {
            let at_once =
                matches!(step.action, Action::Stop { .. }) && mutant::is(Mutant::StopAtOnce);
            let before = step.after.iter().filter(|id| known.contains(id) && !at_once);
            waits.insert(&step.id, before.clone().count());
            before.for_each(|id| followers.entry(id).or_default().push(step));
            if let Some(app) = &step.app {
                open.entry(app).or_default().0 += 1;
            }
        }
        let ready = plan.steps.iter().filter(|step| waits.get(&step.id) == Some(&0)).collect();
        let (outcomes, doomed) = (BTreeMap::new(), BTreeSet::new());
        Self { plan, waits, followers, ready, outcomes, doomed, open }
    }

    pub fn take_ready(&mut self) -> Vec<&'p Step> {
        std::mem::take(&mut self.ready)
    }

    /// Notes how a step ended. Gives the apps of which nothing is left, and whether one of their
    /// steps failed or can't begin because another did.
    pub fn finish(&mut self, step: &'p Step, outcome: StepOutcome) -> Vec<(&'p AppId, bool)> {
        let result = outcome.result;
        self.outcomes.insert(step.id.clone(), outcome);
        let mut over = Vec::new();
        self.close(step, result == StepResult::Failed, &mut over);
        match result {
            StepResult::Done => self.release(step),
            StepResult::Failed => self.doom(step, &mut over),
            // Somebody cancelled all of it.
            StepResult::Skipped => {}
        }
        over
    }

    fn release(&mut self, step: &Step) {
        for follower in self.followers.get(&step.id).into_iter().flatten() {
            if let Some(waits) = self.waits.get_mut(&follower.id) {
                *waits -= 1;
                if *waits == 0 {
                    self.ready.push(follower);
                }
            }
        }
    }

    fn doom(&mut self, failed: &Step, over: &mut Vec<(&'p AppId, bool)>) {
        let mut next: Vec<&'p Step> = self.followers.get(&failed.id).cloned().unwrap_or_default();
        while let Some(step) = next.pop() {
            if self.doomed.insert(&step.id) {
                self.close(step, true, over);
                next.extend(self.followers.get(&step.id).into_iter().flatten());
            }
        }
    }

    fn close(&mut self, step: &'p Step, failed: bool, over: &mut Vec<(&'p AppId, bool)>) {
        let Some(app) = &step.app else { return };
        let Some((open, any_failed)) = self.open.get_mut(app) else { return };
        *open -= 1;
        *any_failed |= failed;
        if *open == 0 {
            over.push((app, *any_failed));
        }
    }

    /// In the order of the plan; what never began is skipped.
    pub fn outcomes(mut self) -> Vec<StepOutcome> {
        let skipped = |id: &StepId| StepOutcome {
            id: id.clone(),
            result: StepResult::Skipped,
            seconds: 0.0,
            error: None,
        };
        let steps = self.plan.steps.iter();
        steps.map(|s| self.outcomes.remove(&s.id).unwrap_or_else(|| skipped(&s.id))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CommitId, Sha256, Span};
    use crate::plan::{Place, Totals};

    fn step(id: &str, app: Option<&str>, after: &[&str]) -> Step {
        Step {
            id: StepId(id.into()),
            app: app.map(|app| app.parse().unwrap()),
            place: Place::Host("alpha".parse().unwrap()),
            after: after.iter().map(|id| StepId((*id).into())).collect(),
            needs: Vec::new(),
            summary: id.into(),
            deadline: Span::from_secs(1),
            action: Action::Start { name: id.into() },
        }
    }

    fn plan(steps: Vec<Step>) -> Plan {
        Plan {
            commit: CommitId("c".repeat(40)),
            digest: Sha256::of(b""),
            steps,
            routes: Vec::new(),
            waiting: Vec::new(),
            blocked: Vec::new(),
            changes: BTreeMap::new(),
            totals: Totals::default(),
        }
    }

    /// Ends that step, and tells who is over, and whether it failed.
    fn end(board: &mut Board<'_>, id: &str, result: StepResult) -> Vec<(String, bool)> {
        let step = board.plan.steps.iter().find(|step| step.id.0 == id).unwrap();
        let outcome = StepOutcome { id: step.id.clone(), result, seconds: 0.0, error: None };
        let over = board.finish(step, outcome);
        over.into_iter().map(|(app, failed)| (app.to_string(), failed)).collect()
    }

    fn ready<'p>(board: &mut Board<'p>) -> Vec<&'p str> {
        board.take_ready().into_iter().map(|step| step.id.0.as_str()).collect()
    }

    /// A reload, and two apps that wait for it.
    fn shared() -> Plan {
        plan(vec![
            step("reload", None, &[]),
            step("web-1", Some("test/web"), &["reload"]),
            step("web-2", Some("test/web"), &["web-1"]),
            step("api-1", Some("test/api"), &["reload"]),
            step("api-2", Some("test/api"), &["api-1"]),
        ])
    }

    #[test]
    fn who_is_done_waits_for_nobody() {
        let plan = shared();
        let mut board = Board::new(&plan);
        assert_eq!(ready(&mut board), ["reload"]);
        assert_eq!(end(&mut board, "reload", StepResult::Done), []);
        assert_eq!(ready(&mut board), ["web-1", "api-1"]);
        assert_eq!(end(&mut board, "web-1", StepResult::Done), []);
        assert_eq!(end(&mut board, "web-2", StepResult::Done), [("test/web".into(), false)]);
        assert_eq!(end(&mut board, "api-1", StepResult::Done), []);
        assert_eq!(end(&mut board, "api-2", StepResult::Failed), [("test/api".into(), true)]);
    }

    #[test]
    fn what_waits_for_a_failure_is_over() {
        let plan = shared();
        let mut board = Board::new(&plan);
        end(&mut board, "reload", StepResult::Done);
        assert_eq!(end(&mut board, "web-1", StepResult::Failed), [("test/web".into(), true)]);
        let outcomes = board.outcomes();
        assert_eq!(outcomes[1].result, StepResult::Failed);
        assert!(outcomes[2..].iter().all(|outcome| outcome.result == StepResult::Skipped));

        let mut board = Board::new(&plan);
        let over = end(&mut board, "reload", StepResult::Failed);
        let over: BTreeMap<_, _> = over.into_iter().collect();
        assert_eq!(over, [("test/api".into(), true), ("test/web".into(), true)].into());
        assert!(ready(&mut board).iter().all(|id| *id == "reload"));
    }

    #[test]
    fn what_is_cancelled_has_not_failed() {
        let plan = shared();
        let mut board = Board::new(&plan);
        end(&mut board, "reload", StepResult::Done);
        assert_eq!(end(&mut board, "web-1", StepResult::Skipped), [], "a step of it is left");
        end(&mut board, "api-1", StepResult::Done);
        assert_eq!(end(&mut board, "api-2", StepResult::Skipped), [("test/api".into(), false)]);
    }
}
