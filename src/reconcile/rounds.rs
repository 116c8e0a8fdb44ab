//! Executing a plan and learning from it: what failed is held, a port that was taken is
//! remembered, what was done becomes events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::api::{Applied, Diff, OperationError, Progress};
use crate::execute::{Executor, Failure, Proven, Watcher};
use crate::model::{AppId, EventType, Hold, HostName, ProxyFile, Revision, SecretName};
use crate::mutant::{self, Mutant};
use crate::plan::{Action, Place, Plan, Step, StepOutcome, StepResult};

use super::Controller;
use super::situation::{LookOptions, Situation, store_failed};

/// How often `apply` looks, plans and executes before it gives up. A rollout takes one round, a
/// failed one with its way back two or three; each round must have changed something.
const ROUNDS: usize = 20;

/// Where progress goes.
pub(super) type Reporter<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// Who is told that nothing is left to do of an app, and whether something of it failed.
pub(super) type Released<'a> = &'a (dyn Fn(&AppId, bool) + Send + Sync);

/// Notes what happens while a plan is executed.
struct Recorder<'a> {
    controller: &'a Controller,
    situation: &'a Situation,
    report: Reporter<'a>,
    released: Released<'a>,
    failures: Mutex<Vec<(AppId, Failure)>>,
    /// What failed couldn't be written down.
    trouble: Mutex<Option<OperationError>>,
}

impl Watcher for Recorder<'_> {
    fn started(&self, step: &Step) {
        (self.report)(Progress::Started { id: step.id.clone(), summary: step.summary.clone() });
    }

    /// A pull that goes wrong is tried for minutes: who looks meanwhile has to learn why.
    fn retrying(&self, step: &Step, failure: &Failure) {
        let message = format!("{}: {}: {failure}; trying again", step.place, step.summary);
        self.controller.event(EventType::Warning, "StepRetried", &object(step), &message);
        self.trouble_of(step, message);
    }

    fn finished(&self, step: &Step, outcome: &StepOutcome, failure: Option<&Failure>) {
        self.controller.count("steps", 1);
        if let Place::Host(host) = &step.place {
            self.stir(host, step, outcome.result);
        }
        let summary = step.summary.clone();
        (self.report)(Progress::Finished { outcome: outcome.clone(), summary });
        if let (None, Place::Balancer(name)) = (&step.app, &step.place) {
            let troubles = &mut self.controller.recollect().balancer_troubles;
            match &outcome.error {
                Some(error) => troubles.insert(name.clone(), error.clone()),
                None => troubles.remove(name),
            };
        }
        let object = object(step);
        match (outcome.result, &outcome.error) {
            (StepResult::Done, _) => {
                if let Some(reason) = reason(&step.action) {
                    let message = format!("{}: {}", step.place, step.summary);
                    self.controller.event(EventType::Normal, reason, &object, &message);
                }
            }
            (StepResult::Failed, Some(error)) => {
                let message = format!("{}: {}: {error}", step.place, step.summary);
                self.controller.event(EventType::Warning, "StepFailed", &object, &message);
                self.trouble_of(step, message);
            }
            _ => {}
        }
        if let (Some(app), Some(failure)) = (&step.app, failure) {
            locked(&self.failures).push((app.clone(), failure.clone()));
        }
    }

    fn over(&self, app: &AppId, failed: bool) {
        let of_app = locked(&self.failures).extract_if(.., |(of, _)| of == app).collect();
        self.learn(of_app);
        if !failed {
            let mut recollection = self.controller.recollect();
            if recollection.app_troubles.remove(app).is_some() {
                recollection.unwritten.insert(app.clone());
            }
        }
        (self.released)(app, failed);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder<'_> {
    fn learn(&self, failures: Vec<(AppId, Failure)>) {
        if let Err(error) = self.controller.learn(self.situation, failures) {
            locked(&self.trouble).get_or_insert(error);
        }
    }

    /// The status of its app tells it, as long as that has steps.
    fn trouble_of(&self, step: &Step, message: String) {
        let Some(app) = &step.app else { return };
        let mut recollection = self.controller.recollect();
        recollection.app_troubles.insert(app.clone(), message);
        recollection.unwritten.insert(app.clone());
    }

    /// The next look asks for what the step was about.
    fn stir(&self, host: &HostName, step: &Step, result: StepResult) {
        let sight = &self.controller.sight;
        match &step.action {
            _ if result == StepResult::Failed => sight.act(host, None),
            Action::Pull { .. } => {}
            Action::Create { container } => {
                sight.act(host, Some(&container.birth.container_name()));
            }
            Action::Start { name } | Action::WaitReady { name, .. } => {
                sight.act(host, Some(name));
            }
            Action::Stop { id, .. } | Action::Remove { id, .. } => sight.act(host, Some(&id.0)),
            _ => sight.act(host, None),
        }
    }
}

/// What a step is about, as events name it.
fn object(step: &Step) -> String {
    match &step.app {
        Some(app) => format!("App/{app}"),
        None => format!("Balancer/{}", step.place),
    }
}

/// The word under which an event tells of a step; waits are no events.
fn reason(action: &Action) -> Option<&'static str> {
    Some(match action {
        Action::Create { .. } => "Created",
        Action::Start { .. } => "Started",
        Action::SetWeight { .. } => "WeightChanged",
        Action::RemoveServer { .. } => "ServerRemoved",
        Action::AddServer { .. } => "ServerAdded",
        Action::SetRoutes { .. } => "RouteChanged",
        Action::Restructure { .. } => "Reloaded",
        Action::Stop { .. } => "Stopped",
        Action::Remove { .. } => "Removed",
        Action::Pull { .. } => "Pulled",
        Action::WaitReady { .. } | Action::WaitUp { .. } | Action::WaitDrained { .. } => {
            return None;
        }
    })
}

impl Controller {
    /// Executes steps of a situation's plan, and remembers what follows from failures.
    pub(super) async fn execute(
        &self,
        situation: &Situation,
        plan: &Plan,
        cancel: &CancellationToken,
        (report, released): (Reporter<'_>, Released<'_>),
    ) -> Result<Vec<StepOutcome>, OperationError> {
        let executor = Executor {
            owner: situation.observer.owner.clone(),
            engines: situation.observer.engines.clone(),
            proxies: situation.observer.proxies.clone(),
            limits: self.limits.clone(),
            secrets: self.secret_values(situation, plan)?,
            store: self.parts.store.clone(),
            randomness: self.parts.randomness.clone(),
            proven: Proven::default(),
        };
        self.tell_damage(situation, plan);
        let (failures, trouble) = (Mutex::default(), Mutex::default());
        let recorder =
            Recorder { controller: self, situation, report, released, failures, trouble };
        let outcomes = executor.execute(plan, cancel, &recorder).await;
        // Of what was cancelled.
        let left = std::mem::take(&mut *locked(&recorder.failures));
        recorder.learn(left);
        match recorder.trouble.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(outcomes),
        }
    }

    /// Says which files of HAProxy are about to be written anew, and what was wrong with them:
    /// afterwards nobody could tell any more.
    fn tell_damage(&self, situation: &Situation, plan: &Plan) {
        for step in &plan.steps {
            let (Place::Balancer(name), Action::Restructure { .. }) = (&step.place, &step.action)
            else {
                continue;
            };
            let file = situation.observed.balancer(name).map(|state| &state.file);
            if let Some(ProxyFile::Damaged { reason }) = file {
                let object = format!("Balancer/{name}");
                self.event(EventType::Warning, "FileDamaged", &object, reason);
            }
        }
    }

    /// The secrets that the plan's containers are made with. Those of its other apps come along
    /// where they can be read: a container that an earlier process made may tell them in its last
    /// words, and they are hidden there.
    fn secret_values(
        &self,
        situation: &Situation,
        plan: &Plan,
    ) -> Result<BTreeMap<SecretName, SecretString>, OperationError> {
        let mut needed = BTreeSet::new();
        for step in &plan.steps {
            if let Action::Create { container } = &step.action {
                needed.extend(container.spec.env.values().filter_map(|value| match value {
                    crate::model::EnvValue::Secret { name, .. } => Some(name.clone()),
                    crate::model::EnvValue::Plain(_) => None,
                }));
            }
        }
        let read = |names: &BTreeSet<SecretName>| self.parts.secrets.values(names);
        let mut values = read(&needed)
            .map_err(|error| OperationError::because("a secret can't be read", &error))?;
        let apps: BTreeSet<&AppId> = plan.steps.iter().filter_map(|s| s.app.as_ref()).collect();
        let declared = apps.into_iter().filter_map(|app| situation.desired.apps.get(app));
        for name in declared.flat_map(|app| app.template.secrets()) {
            if !values.contains_key(name) {
                values.extend(read(&[name.clone()].into()).unwrap_or_default());
            }
        }
        Ok(values)
    }

    fn learn(
        &self,
        situation: &Situation,
        failures: Vec<(AppId, Failure)>,
    ) -> Result<(), OperationError> {
        for (app, failure) in failures {
            if let Failure::PortTaken { host, port, .. } = &failure
                && !mutant::is(Mutant::TakenPortForgotten)
            {
                let mut recollection = self.recollect();
                recollection.taken_ports.entry(host.clone()).or_default().insert(*port);
            }
            let Some(revision) = failure.held_revision() else { continue };
            // A revision that worked before isn't given up: what ails it may pass, and there is
            // nothing to go back to.
            if self.has_worked(situation, &app, revision) {
                continue;
            }
            let hold = situation.hold(&app, revision, failure.to_string());
            self.hold(&hold)?;
        }
        Ok(())
    }

    fn has_worked(&self, situation: &Situation, app: &AppId, revision: Revision) -> bool {
        let worked = situation.known.fallbacks.get(app);
        worked.is_some_and(|then| situation.revision_of(&then.app, &then.pin) == Some(revision))
    }

    fn hold(&self, hold: &Hold) -> Result<(), OperationError> {
        self.memory.hold(hold).map_err(|error| store_failed(&error))?;
        let message = format!("revision {} is held: {}", hold.revision.short8(), hold.reason);
        self.event(EventType::Warning, "Held", &format!("App/{}", hold.app), &message);
        Ok(())
    }

    /// Converges once: looks, plans and executes until nothing is left that could be done.
    pub(super) async fn converge(
        &self,
        cancel: &CancellationToken,
        report: Reporter<'_>,
    ) -> Result<Applied, OperationError> {
        let tip = self.tip().await?;
        let options = LookOptions { remember: tip.may_apply, ..LookOptions::default() };
        let mut situation = self.look(&tip.commit, tip.requests.clone(), options.clone()).await?;
        let mut applied = situation.diff();
        let mut outcome = Vec::new();
        if tip.may_apply {
            self.take_up(&situation).await?;
            for round in 0..ROUNDS {
                if situation.plan.is_empty() || cancel.is_cancelled() {
                    break;
                }
                if round > 0 {
                    add_steps(&mut applied.plan, &situation.plan);
                }
                report(Progress::Planned { plan: Box::new(situation.plan.clone()) });
                let done =
                    self.execute(&situation, &situation.plan, cancel, (report, &|_, _| {})).await?;
                let progressed = done.iter().any(|step| step.result == StepResult::Done);
                let failed = done.iter().any(|step| step.result == StepResult::Failed);
                outcome.extend(done);
                let now = self.look(&tip.commit, Vec::new(), options.clone()).await?;
                let before = std::mem::replace(&mut situation, now);
                // What failed has had its own tries. Where it left the very same to do, the same
                // again would fail again.
                if !progressed || (failed && situation.plan.steps == before.plan.steps) {
                    break;
                }
            }
        }
        self.settle(&situation)?;
        Ok(Applied {
            diff: concluded(applied, &situation),
            outcome,
            converged: situation.is_converged(),
        })
    }

    /// Runs exactly the plan that was printed, or says what moved.
    pub(super) async fn apply_plan(
        &self,
        wanted: &Plan,
        cancel: &CancellationToken,
        report: Reporter<'_>,
    ) -> Result<Applied, OperationError> {
        let tip = self.tip().await?;
        let hint = "make a new plan: plimsoll diff --out FILE";
        if tip.commit != wanted.commit {
            return Err(OperationError::new(format!(
                "the plan is for commit {}, the branch is at {}",
                wanted.commit.short(),
                tip.commit.short()
            ))
            .hint(hint));
        }
        let options = LookOptions { remember: true, ..LookOptions::default() };
        let situation = self.look(&tip.commit, tip.requests.clone(), options.clone()).await?;
        if situation.plan.digest != wanted.digest || situation.plan.steps != wanted.steps {
            return Err(OperationError::new(format!(
                "what is there has moved since the plan {} was made: now it would be {}{}",
                wanted.digest.short(12),
                situation.plan.digest.short(12),
                moved(wanted, &situation.plan)
            ))
            .hint(hint));
        }
        if !tip.may_apply {
            let requests = situation.requests.iter();
            let reasons: Vec<_> = requests.map(|r| format!("{} ({})", r.reason, r.id)).collect();
            return Err(OperationError::new(format!(
                "approval is asked for: {}",
                reasons.join(", ")
            ))
            .hint("plimsoll approve ID"));
        }
        self.take_up(&situation).await?;
        report(Progress::Planned { plan: Box::new(situation.plan.clone()) });
        let outcome =
            self.execute(&situation, &situation.plan, cancel, (report, &|_, _| {})).await?;
        let after = self.look(&tip.commit, Vec::new(), options).await?;
        self.settle(&after)?;
        let diff = concluded(situation.diff(), &after);
        Ok(Applied { diff, outcome, converged: after.is_converged() })
    }

    /// Notes that the situation's commit is worked on.
    pub(super) async fn take_up(&self, situation: &Situation) -> Result<(), OperationError> {
        let commit = &situation.desired.commit;
        let commits = self.memory.commits().map_err(|error| store_failed(&error))?;
        if commits.attempted.as_ref() == Some(commit) {
            return Ok(());
        }
        let description = self.parts.source.describe(commit).await.unwrap_or_default();
        let now = self.parts.clock.now();
        let news = self
            .memory
            .attempt(commit, description.clone(), now)
            .map_err(|error| store_failed(&error))?;
        if news {
            self.event(EventType::Normal, "CommitTakenUp", "Installation", &description);
            if let Some(first) = situation.diagnostics.first() {
                let place = &first.location;
                let (n, file, line) = (situation.diagnostics.len(), &place.file, place.line);
                let message =
                    format!("{n} mistakes, the first at {file}:{line}: {}", first.message);
                self.event(EventType::Warning, "ManifestMistakes", "Installation", &message);
            }
        }
        Ok(())
    }

    /// Writes down what the situation is: objects, the commit's result, holds that are over.
    pub(super) fn settle(&self, situation: &Situation) -> Result<(), OperationError> {
        let failed = |error: crate::store::StoreError| store_failed(&error);
        self.forget_old_holds(situation).map_err(failed)?;
        self.write_objects(situation).map_err(failed)?;
        let (result, message) = result_of(situation);
        let news = self.memory.conclude(result, &message).map_err(failed)?;
        if news && result == "Applied" {
            let commit = &situation.desired.commit;
            let message = format!("{} is reached", commit.short());
            self.event(EventType::Normal, "Converged", "Installation", &message);
        }
        if result == "Applied" {
            let applied = (situation.desired.commit.clone(), situation.desired.clone());
            self.recollect().applied = Some(applied);
        }
        Ok(())
    }
}

/// What came of the commit, in a word and in a sentence.
fn result_of(situation: &Situation) -> (&'static str, String) {
    let plan = &situation.plan;
    let held = plan
        .waiting
        .iter()
        .find(|waiting| matches!(waiting.cause, crate::plan::WaitCause::Held { .. }));
    if let Some(held) = held {
        return ("Failed", format!("{}: {}", held.app, held.reason));
    }
    if let Some(blocked) = plan.blocked.first() {
        return ("Failed", blocked.reason.clone());
    }
    if let Some(waiting) = plan.waiting.first() {
        return ("Waiting", format!("{}: {}", waiting.app, waiting.reason));
    }
    if situation.is_converged() && situation.known.busy.is_empty() {
        return ("Applied", String::new());
    }
    ("Progressing", String::new())
}

/// What was planned and executed, with what is left as it is now.
fn concluded(planned: Diff, now: &Situation) -> Diff {
    let Diff { plan: left, diagnostics, unseen, approvals } = now.diff();
    let plan = Plan { waiting: left.waiting, blocked: left.blocked, ..planned.plan };
    Diff { plan, diagnostics, unseen, approvals }
}

/// The steps of a later round, beside those of the earlier ones. A step that is tried again is
/// there already.
fn add_steps(all: &mut Plan, round: &Plan) {
    let known: BTreeSet<_> = all.steps.iter().map(|step| step.id.clone()).collect();
    all.steps.extend(round.steps.iter().filter(|step| !known.contains(&step.id)).cloned());
}

/// Which steps came and went between two plans.
fn moved(old: &Plan, new: &Plan) -> String {
    let ids = |plan: &Plan| plan.steps.iter().map(|step| step.id.clone()).collect::<BTreeSet<_>>();
    let (old, new) = (ids(old), ids(new));
    let gone: Vec<_> = old.difference(&new).take(3).map(ToString::to_string).collect();
    let come: Vec<_> = new.difference(&old).take(3).map(ToString::to_string).collect();
    let mut text = String::new();
    if !come.is_empty() {
        text.push_str(&format!("; new: {}", come.join(", ")));
    }
    if !gone.is_empty() {
        text.push_str(&format!("; gone: {}", gone.join(", ")));
    }
    text
}
