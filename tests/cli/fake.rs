//! A controller that answers what the tests tell it to, served over a real socket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use plimsoll::api::{
    AppStatus, Applied, Checkup, CheckupResult, Client, CommitStatus, Diff, Health, HistoryEntry,
    LogRecord, OperationError, Operations, Progress, ReachStatus, SOCKET_NAME, Status, StepOutcome,
    StepResult, Sync, serve,
};
use plimsoll::model::{
    API_VERSION, AppId, ApprovalRequest, BalancerName, CommitId, Condition, Diagnostic, Event,
    EventType, HostName, Kind, ListenerName, Location, Metadata, Object, Route, Sha256, Span,
};
use plimsoll::plan::{
    Action, BlockedApp, FieldChange, Place, Plan, RouteFloor, Step, StepId, Totals, WaitCause,
    Waiting,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// How things are at the controller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    /// There is work: a step, something that waits, something that is blocked.
    #[default]
    Busy,
    /// Nothing is left to do.
    Converged,
    /// Everything fails.
    Failing,
    /// Nothing is there yet.
    Empty,
    /// An apply that never ends by itself.
    Stuck,
    /// A very long answer.
    Talkative,
}

/// What reached the fake.
#[derive(Debug, Default)]
pub struct Seen {
    pub applied: Vec<Option<Plan>>,
    pub revisions: Vec<Option<String>>,
    pub logs: Vec<(AppId, Option<u32>, bool)>,
    /// Items of progress that were taken out of the last stream.
    pub progress: usize,
}

pub struct Fake {
    pub mood: Mood,
    pub seen: Arc<Mutex<Seen>>,
}

fn commit() -> CommitId {
    CommitId("1a2b3c4d5e6f".repeat(4)[..40].into())
}

fn web() -> AppId {
    AppId::new("production", "web").unwrap()
}

fn app(name: &str) -> AppId {
    AppId::new("production", name).unwrap()
}

fn alpha() -> HostName {
    HostName::new("alpha").unwrap()
}

pub fn time(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn error() -> OperationError {
    OperationError {
        causes: vec!["fetch failed: git@example.com:infra.git".into(), "timed out".into()],
        ..OperationError::new("the source could not be read").hint("plimsoll doctor")
    }
}

fn diagnostic() -> Diagnostic {
    Diagnostic {
        location: Location { file: "apps/api.yaml".into(), line: 7 },
        column: 3,
        length: 5,
        message: "unknown field \"imgae\"".into(),
        hint: Some("did you mean image?".into()),
        source: Some("  imgae: api:2".into()),
    }
}

pub fn plan() -> Plan {
    let steps = vec![
        Step {
            id: StepId("production/web/start/alpha/0".into()),
            app: Some(web()),
            place: Place::Host(alpha()),
            after: Vec::new(),
            needs: Vec::new(),
            summary: "start shop.production.web.0da2c80abe80.0".into(),
            deadline: Span::from_secs(60),
            action: Action::Start { name: "shop.production.web.0da2c80abe80.0".into() },
        },
        Step {
            id: StepId("production/web/weight/edge/0".into()),
            app: Some(web()),
            place: Place::Balancer(BalancerName::new("edge").unwrap()),
            after: vec![StepId("production/web/start/alpha/0".into())],
            needs: Vec::new(),
            summary: "weight 100 for alpha:f753afc24d79:3f2a91bc-0".into(),
            deadline: Span::from_secs(10),
            action: Action::SetWeight {
                backend: "production.web".parse().unwrap(),
                server: "alpha:f753afc24d79:3f2a91bc-0".parse().unwrap(),
                weight: 100,
            },
        },
        Step {
            id: StepId("edge/routes".into()),
            app: None,
            place: Place::Balancer(BalancerName::new("edge").unwrap()),
            after: Vec::new(),
            needs: Vec::new(),
            summary: "set 1 route".into(),
            deadline: Span::from_secs(10),
            action: Action::SetRoutes {
                changes: BTreeMap::from([
                    (
                        "web www.example.com/".parse().unwrap(),
                        Some("production.web".parse().unwrap()),
                    ),
                    ("web */old".parse().unwrap(), None),
                ]),
            },
        },
    ];
    Plan {
        commit: commit(),
        digest: Sha256::of(b"plan"),
        steps,
        routes: vec![RouteFloor {
            route: Route {
                balancer: BalancerName::new("edge").unwrap(),
                listener: ListenerName::new("web").unwrap(),
                host: "www.example.com".parse().unwrap(),
                path: "/".parse().unwrap(),
            },
            app: web(),
            lowest_healthy: 1,
            healthy: 1,
            minimum: 1,
        }],
        waiting: vec![
            Waiting {
                app: app("worker"),
                reason: "host beta isn't seen".into(),
                cause: WaitCause::HostUnseen { unseen: HostName::new("beta").unwrap() },
                approval: None,
            },
            Waiting {
                app: app("old"),
                reason: "3 of 4 containers would be removed".into(),
                cause: WaitCause::Prune,
                approval: Some("5f0c2d".into()),
            },
        ],
        blocked: vec![BlockedApp {
            app: Some(app("api")),
            location: Location { file: "apps/api.yaml".into(), line: 7 },
            reason: "unknown field \"imgae\"".into(),
        }],
        changes: BTreeMap::from([(
            web(),
            vec![FieldChange::Change {
                path: "image".into(),
                from: "web:1".into(),
                to: "web:2".into(),
            }],
        )]),
        totals: Totals { apps: 1, creates: 0, replaces: 1, removes: 0, hosts: 1, reloads: 0 },
    }
}

pub fn diff(mood: Mood) -> Diff {
    if mood != Mood::Busy {
        let plan = Plan {
            steps: Vec::new(),
            waiting: Vec::new(),
            blocked: Vec::new(),
            changes: BTreeMap::new(),
            totals: Totals::default(),
            ..plan()
        };
        return Diff { plan, diagnostics: Vec::new(), unseen: Vec::new(), approvals: Vec::new() };
    }
    Diff {
        plan: plan(),
        diagnostics: vec![diagnostic()],
        unseen: vec!["host beta: connection refused".into()],
        approvals: vec![ApprovalRequest {
            id: "77aa11".into(),
            reason: "history rewritten 1a2b3c4d5e6f..9f8e7d6c5b4a".into(),
        }],
    }
}

fn outcomes() -> Vec<StepOutcome> {
    let outcome = |step: usize, result, seconds, error: Option<&str>| StepOutcome {
        id: plan().steps[step].id.clone(),
        result,
        seconds,
        error: error.map(Into::into),
    };
    vec![
        outcome(0, StepResult::Done, 0.26, None),
        outcome(1, StepResult::Failed, 12.0, Some("HAProxy says: No such server.")),
        outcome(2, StepResult::Skipped, 0.0, None),
    ]
}

fn progress(mood: Mood) -> Vec<Progress> {
    let diff = diff(mood);
    if mood != Mood::Busy {
        let applied = Applied { diff, outcome: Vec::new(), converged: true };
        return vec![Progress::Ended { applied: Box::new(applied) }];
    }
    let mut items = vec![Progress::Planned { plan: Box::new(diff.plan.clone()) }];
    for (step, outcome) in diff.plan.steps.iter().zip(outcomes()) {
        items.push(Progress::Started { id: step.id.clone(), summary: step.summary.clone() });
        items.push(Progress::Finished { outcome, summary: step.summary.clone() });
    }
    let applied = Applied { diff, outcome: outcomes(), converged: false };
    items.push(Progress::Ended { applied: Box::new(applied) });
    items
}

fn status(mood: Mood) -> Status {
    let reach = |name: &str, reachable, message: &str| ReachStatus {
        name: name.into(),
        reachable,
        message: message.into(),
    };
    if mood == Mood::Empty {
        return Status::default();
    }
    let condition = Condition {
        kind: "Progressing".into(),
        status: "True".into(),
        reason: "Rolling".into(),
        message: "1 of 2 containers is ready".into(),
        last_transition_time: Some(time(0)),
    };
    let web = AppStatus {
        environment: "production".into(),
        name: "web".into(),
        sync: Sync::OutOfSync,
        health: Health::Progressing,
        revision: Some("0da2c80abe80".into()),
        image: Some("localhost:5000/web:1.5.0".into()),
        ready: 1,
        replicas: 2,
        observed_generation: 3,
        conditions: vec![condition],
    };
    let worker = AppStatus {
        name: "worker".into(),
        sync: Sync::InSync,
        health: Health::Healthy,
        revision: None,
        image: None,
        ready: 1,
        replicas: 1,
        conditions: Vec::new(),
        ..web.clone()
    };
    Status {
        installation: "shop".into(),
        source: "git@example.com:infra.git main".into(),
        commit: CommitStatus {
            applied: Some(commit()),
            attempted: Some(CommitId("9f8e7d6c5b4a".repeat(4)[..40].into())),
        },
        approvals: diff(Mood::Busy).approvals,
        apps: vec![web, worker],
        hosts: vec![reach("alpha", true, ""), reach("beta", false, "connection refused")],
        balancers: vec![reach("edge", true, "HAProxy 2.6.12")],
        source_error: Some("fetch failed: \u{1b}]0;evil".into()),
        store_error: Some("failed to write the store: no space left on device".into()),
        diagnostics: vec![diagnostic()],
        counters: BTreeMap::from([("cycles".into(), 12)]),
    }
}

fn object(kind: Kind, name: &str) -> Object {
    let environment = (kind == Kind::App).then(|| "production".to_owned());
    Object {
        api_version: API_VERSION.into(),
        kind,
        metadata: Metadata { name: name.into(), environment, resource_version: 41, generation: 3 },
        spec: json!({"image": "localhost:5000/web:1.5.0", "replicas": {"alpha": 2}}),
        status: json!({
            "sync": "InSync", "health": "Healthy", "ready": 2, "replicas": 2,
            "conditions": [{"type": "Ready", "status": "True", "reason": "AllReady",
                "message": "2 of 2 containers are ready",
                "lastTransitionTime": "2023-11-14T22:13:20Z"}],
        }),
    }
}

fn events() -> Vec<Event> {
    let event = |second, kind, reason: &str, object: &str, message: &str| Event {
        time: time(second),
        kind,
        reason: reason.into(),
        object: object.into(),
        message: message.into(),
    };
    vec![
        event(0, EventType::Normal, "RolloutStarted", "App/production/web", "2 containers"),
        event(5, EventType::Warning, "HostUnseen", "Host/beta", "connection refused\n\u{1b}[2J"),
        event(9, EventType::Normal, "RolloutDone", "App/production/web", "in 9 s"),
    ]
}

impl Fake {
    fn check(&self) -> Result<(), OperationError> {
        if self.mood == Mood::Failing { Err(error()) } else { Ok(()) }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

#[async_trait]
impl Operations for Fake {
    async fn diff(&self, revision: Option<String>) -> Result<Diff, OperationError> {
        self.check()?;
        self.seen().revisions.push(revision);
        Ok(diff(self.mood))
    }

    async fn apply(&self, plan: Option<Box<Plan>>) -> BoxStream<'static, Progress> {
        self.seen().applied.push(plan.map(|plan| *plan));
        let mut items = progress(self.mood);
        if self.mood == Mood::Failing {
            items = vec![Progress::Failed { error: error() }];
        }
        let seen = Arc::clone(&self.seen);
        let count = move |item| {
            seen.lock().unwrap().progress += 1;
            item
        };
        if self.mood == Mood::Stuck {
            let first = Progress::Planned { plan: Box::new(self::plan()) };
            return stream::iter([first]).chain(stream::pending()).map(count).boxed();
        }
        // Item by item with a turn of the runtime between them, as a real one does.
        let slowly = stream::iter(items).then(async |item| {
            tokio::task::yield_now().await;
            item
        });
        Box::pin(slowly.map(count))
    }

    async fn status(&self) -> Result<Status, OperationError> {
        self.check()?;
        Ok(status(self.mood))
    }

    async fn get(&self, kind: Kind, name: Option<String>) -> Result<Vec<Object>, OperationError> {
        self.check()?;
        let all = match (kind, self.mood) {
            (_, Mood::Empty) => Vec::new(),
            (Kind::App, _) => vec![object(kind, "api"), object(kind, "web")],
            (Kind::Host, _) => vec![object(kind, "alpha")],
            _ => Vec::new(),
        };
        let Some(name) = name else { return Ok(all) };
        let is_named = |object: &Object| match &object.metadata.environment {
            Some(environment) => format!("{environment}/{}", object.metadata.name) == name,
            None => object.metadata.name == name,
        };
        Ok(all.into_iter().filter(is_named).collect())
    }

    async fn events(
        &self,
        limit: usize,
        follow: bool,
    ) -> Result<BoxStream<'static, Event>, OperationError> {
        self.check()?;
        if self.mood == Mood::Talkative {
            return Ok(stream::iter(events()).cycle().take(100_000).boxed());
        }
        let events = events();
        let last = events.len().saturating_sub(limit);
        let past = stream::iter(events[last..].to_vec());
        Ok(if follow { past.chain(stream::pending()).boxed() } else { past.boxed() })
    }

    async fn history(&self, app: Option<AppId>) -> Result<Vec<HistoryEntry>, OperationError> {
        self.check()?;
        let entry = |second, result: &str, message: &str| HistoryEntry {
            time: time(second),
            commit: commit(),
            description: "web: 1.5.0 (Ada)".into(),
            result: result.into(),
            message: message.into(),
        };
        let all = vec![entry(60, "Failed", "production/web: never ready"), entry(0, "Applied", "")];
        Ok(if app.is_some() { all[..1].to_vec() } else { all })
    }

    async fn logs(
        &self,
        app: AppId,
        tail: Option<u32>,
        follow: bool,
    ) -> Result<BoxStream<'static, LogRecord>, OperationError> {
        self.check()?;
        self.seen().logs.push((app, tail, follow));
        let record = |is_error, text: &str| LogRecord {
            host: "alpha".into(),
            container: "shop.production.web.0da2c80abe80.0".into(),
            is_error,
            text: text.into(),
        };
        let records = [record(false, "listening on :8080"), record(true, "GET / \u{1b}[31m500")];
        Ok(stream::iter(records).boxed())
    }

    async fn approve(&self, id: String) -> Result<ApprovalRequest, OperationError> {
        self.check()?;
        let known = diff(Mood::Busy).approvals.into_iter().find(|request| request.id == id);
        known.ok_or_else(|| {
            OperationError::new(format!("nothing waits under {id:?}")).hint("plimsoll status")
        })
    }

    async fn doctor(&self) -> Result<Vec<Checkup>, OperationError> {
        self.check()?;
        let checkup = |subject: &str, result, message: &str, hint: Option<&str>| Checkup {
            subject: subject.into(),
            result,
            message: message.into(),
            hint: hint.map(Into::into),
        };
        let works = checkup("git", CheckupResult::Works, "main is at 1a2b3c4d5e6f", None);
        if self.mood == Mood::Converged {
            return Ok(vec![works]);
        }
        let secrets = "web/password is readable by all";
        let chmod = Some("chmod 600 secrets/web/password");
        Ok(vec![
            works,
            checkup("secrets", CheckupResult::Warning, secrets, chmod),
            checkup("host beta", CheckupResult::Broken, "connection refused", None),
        ])
    }
}

/// A fake behind a socket in a folder of its own, until it is dropped.
pub struct Controller {
    pub folder: tempfile::TempDir,
    pub seen: Arc<Mutex<Seen>>,
    shutdown: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
    serving: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
}

impl Controller {
    pub fn start(mood: Mood) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), mood)
    }

    pub fn start_in(folder: tempfile::TempDir, mood: Mood) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (seen, shutdown) = (Arc::<Mutex<Seen>>::default(), CancellationToken::new());
        let fake = Arc::new(Fake { mood, seen: Arc::clone(&seen) });
        let socket = folder.path().join(SOCKET_NAME);
        let token = shutdown.clone();
        let at = socket.clone();
        let serving = runtime.spawn(async move { serve(&at, fake, token).await });
        runtime.block_on(async {
            let there = async {
                while Client::connect(&socket).await.is_none() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), there).await.unwrap();
        });
        Self { folder, seen, shutdown, runtime: Some(runtime), serving: Some(serving) }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET_NAME)
    }

    /// Runs `work` where the fake runs.
    pub fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.runtime.as_ref().unwrap().block_on(work)
    }

    /// Stops serving and returns what `serve` returned.
    pub fn stop(&mut self) -> std::io::Result<()> {
        self.shutdown.cancel();
        let serving = self.serving.take().unwrap();
        self.block_on(async { serving.await.unwrap() })
    }

    /// Asks the fake to stop, without waiting.
    pub fn cancel(&self) {
        self.shutdown.cancel();
    }

    /// Ends at once, as a kill does.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill();
    }
}
