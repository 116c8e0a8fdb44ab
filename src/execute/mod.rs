//! A plan to its effects. Each step runs as soon as what it waits for is done, in parallel over
//! hosts, with a limit for each host. Nothing is decided here: a choice that depends on the
//! situation belongs in the plan. A step that fails ends what waits for it, and nothing else.

mod board;
mod effect;
mod failure;
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use secrecy::SecretString;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Randomness;
use crate::docker::Engine;
use crate::failpoint::{self, Side};
use crate::model::{
    AppId, BalancerName, HostName, Kind, Metadata, Object, Owner, Revision, SecretName,
};
use crate::mutant::{self, Mutant};
use crate::plan::{Place, Plan, Step, StepId, StepOutcome, StepResult};
use crate::proxy::Proxy;
use crate::store::{Change, Store};
use board::Board;

pub use failure::Failure;

/// Engine calls that change something, at one time on one host. Four containers that start in
/// parallel take 0.63 s where one takes 0.24 s (Docker 20.10 on two cores): more wins nothing.
const ENGINE_CALLS_PER_HOST: usize = 4;

/// Engine calls that change something, at one time on all hosts together: each has a connection
/// of its own, and the process has 1,024 descriptors where nobody raised that.
const ENGINE_CALLS: usize = 256;

/// How many different causes of one step's tries are told.
const CAUSES_TOLD: usize = 5;

/// What steps are executed with.
pub struct Executor {
    pub owner: Owner,
    pub engines: Arc<BTreeMap<HostName, Arc<dyn Engine>>>,
    pub proxies: Arc<BTreeMap<BalancerName, Arc<dyn Proxy>>>,
    /// Shared by all that is executed at the same time.
    pub limits: Arc<Limits>,
    pub secrets: BTreeMap<SecretName, SecretString>,
    pub store: Arc<dyn Store>,
    pub randomness: Arc<dyn Randomness>,
    pub proven: Proven,
}

/// Revisions of which a server came up and stayed so for a moment.
#[derive(Default)]
pub struct Proven(Mutex<BTreeSet<Revision>>);

impl Proven {
    fn knows(&self, revision: Revision) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&revision)
    }

    fn learn(&self, revision: Revision) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(revision);
    }
}

/// How many engine calls that change something are made at one time.
pub struct Limits {
    all: Semaphore,
    hosts: Mutex<BTreeMap<HostName, Arc<Semaphore>>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { all: Semaphore::new(ENGINE_CALLS), hosts: Mutex::default() }
    }
}

impl Limits {
    /// Waits for its turn at a host. A host that is slow keeps the others waiting with no more
    /// than its own few calls.
    async fn enter(&self, host: &HostName) -> Option<(OwnedSemaphorePermit, SemaphorePermit<'_>)> {
        let of_host = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            let limit = hosts.entry(host.clone());
            limit.or_insert_with(|| Arc::new(Semaphore::new(ENGINE_CALLS_PER_HOST))).clone()
        };
        let of_host = of_host.acquire_owned().await.ok()?;
        Some((of_host, self.all.acquire().await.ok()?))
    }
}

/// Somebody who is told how it goes.
pub trait Watcher: Send + Sync {
    /// A step failed, and is tried again. Said once for each cause.
    fn retrying(&self, step: &Step, failure: &Failure) {
        let _ = (step, failure);
    }

    fn started(&self, step: &Step);
    fn finished(&self, step: &Step, outcome: &StepOutcome, failure: Option<&Failure>);

    /// No step of that app runs or will, whatever the others still do. `failed`: one of them
    /// failed, or waited for one that did.
    fn over(&self, app: &AppId, failed: bool) {
        let _ = (app, failed);
    }
}

impl Executor {
    /// Runs the plan to its end. After `cancel` no step is begun, waits end at once, and what
    /// has an effect is finished.
    pub async fn execute(
        &self,
        plan: &Plan,
        cancel: &CancellationToken,
        watcher: &dyn Watcher,
    ) -> Vec<StepOutcome> {
        let mut board = Board::new(plan);
        let mut running = FuturesUnordered::new();
        loop {
            if !cancel.is_cancelled() {
                for step in board.take_ready() {
                    running.push(self.run(step, cancel, watcher));
                }
            }
            let Some((step, outcome)) = running.next().await else { break };
            for (app, failed) in board.finish(step, outcome) {
                watcher.over(app, failed);
            }
        }
        board.outcomes()
    }

    /// One step from start to outcome, with the journal around it.
    async fn run<'p>(
        &self,
        step: &'p Step,
        cancel: &CancellationToken,
        watcher: &dyn Watcher,
    ) -> (&'p Step, StepOutcome) {
        let permit = match &step.place {
            Place::Host(host) if !step.action.is_wait() => self.limits.enter(host).await,
            _ => None,
        };
        let begun = Instant::now();
        tracing::debug!(step = %step.id, after = %ids(&step.after), "begins");
        watcher.started(step);
        self.note_begin(step);
        let work = self.perform(step, cancel, watcher);
        let result = AssertUnwindSafe(work).catch_unwind().await;
        // A panic in one app's work is that app's failure. Its message was written already, and
        // may hold what nobody is to read here.
        let result = result.unwrap_or(Err(Failure::Panicked));
        self.note_end(step);
        drop(permit);
        let seconds = begun.elapsed().as_secs_f64();
        let (result, failure) = match result {
            Ok(()) => (StepResult::Done, None),
            Err(Failure::Cancelled) => (StepResult::Skipped, Some(Failure::Cancelled)),
            Err(failure) => (StepResult::Failed, Some(failure)),
        };
        let error = failure.as_ref().map(ToString::to_string);
        let outcome = StepOutcome { id: step.id.clone(), result, seconds, error };
        trace(step, &outcome);
        watcher.finished(step, &outcome, failure.as_ref());
        (step, outcome)
    }

    /// Tries again while the cause may pass, with growing and scattered pauses, up to the
    /// step's deadline.
    async fn perform(
        &self,
        step: &Step,
        cancel: &CancellationToken,
        watcher: &dyn Watcher,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + step.deadline.duration();
        let mut pause = Duration::from_millis(100);
        let mut told = BTreeSet::new();
        let (kind, mut twice) = (step.action.kind(), failpoint::twice());
        failpoint::pass(Side::Before, kind, step.app.as_ref());
        loop {
            let failure = match self.effect(step, deadline, cancel).await {
                Ok(()) if std::mem::take(&mut twice) => continue,
                Ok(()) => {
                    failpoint::pass(Side::After, kind, step.app.as_ref());
                    return Ok(());
                }
                Err(failure) => failure,
            };
            let next = Instant::now() + pause.mul_f64(0.5 + self.randomness.unit());
            if failure.may_pass() && mutant::is(Mutant::UnansweredAsDone) {
                return Ok(());
            }
            if !failure.may_pass() || next >= deadline || cancel.is_cancelled() {
                return Err(failure);
            }
            if told.len() < CAUSES_TOLD && told.insert(failure.to_string()) {
                tracing::warn!(step = %step.id, error = %failure, "trying again: {}", step.summary);
                watcher.retrying(step, &failure);
            }
            tokio::time::sleep_until(next).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// Notes in the store that a step with an effect begins. A note that is found when a
    /// controller starts tells which step was in progress when the last one ended. Nothing else
    /// depends on it, so it isn't waited for: one of the last milliseconds before a kill may be
    /// missing, or may be there though the step had ended.
    fn note_begin(&self, step: &Step) {
        if step.action.is_wait() {
            return;
        }
        let object = Object {
            api_version: crate::model::API_VERSION.into(),
            kind: Kind::Execution,
            metadata: Metadata {
                name: step.id.to_string(),
                environment: step.app.as_ref().map(|app| app.environment.to_string()),
                resource_version: 0,
                generation: 0,
            },
            spec: serde_json::json!({ "summary": step.summary, "kind": step.action.kind() }),
            status: serde_json::Value::Null,
        };
        // A store without room must not stop the service from being repaired.
        if let Err(error) = self.store.note(vec![Change::Put(object)]) {
            tracing::debug!(%error, "the step isn't noted on the disk yet");
        }
    }

    fn note_end(&self, step: &Step) {
        if step.action.is_wait() {
            return;
        }
        let gone = Change::Delete(Kind::Execution, step.id.to_string());
        if let Err(error) = self.store.note(vec![gone]) {
            tracing::debug!(%error, "the end of the step isn't noted on the disk yet");
        }
    }
}

fn ids(steps: &[StepId]) -> String {
    steps.iter().map(|id| id.0.as_str()).collect::<Vec<_>>().join(" ")
}

fn trace(step: &Step, outcome: &StepOutcome) {
    let app = step.app.as_ref().map(ToString::to_string).unwrap_or_default();
    let (place, kind, seconds) = (step.place.to_string(), step.action.kind(), outcome.seconds);
    let id = step.id.to_string();
    let revision = step.action.revision().map(|r| r.short8()).unwrap_or_default();
    match (&outcome.result, &outcome.error) {
        (StepResult::Failed, Some(error)) => {
            tracing::warn!(
                step = id,
                app,
                place,
                kind,
                revision,
                seconds,
                error,
                "failed: {}",
                step.summary
            );
        }
        (StepResult::Skipped, _) => {
            tracing::info!(
                step = id,
                app,
                place,
                kind,
                revision,
                seconds,
                "given up: {}",
                step.summary
            );
        }
        _ => tracing::info!(step = id, app, place, kind, revision, seconds, "{}", step.summary),
    }
}
