//! The loop that never ends: wakes coalesce, a look plans everything that isn't being executed,
//! and what belongs together is executed side by side with the rest, so that one app's slow
//! rollout holds up no other.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::OperationError;
use crate::docker::Stir;
use crate::model::{App, AppId, CommitId, EventType, Host, HostName, Owner};
use crate::plan::{Action, Place, Plan, Step, StepId, StepOutcome, StepResult};
use crate::source::Poll;

use super::Controller;
use super::situation::{LookOptions, Situation, Tip};

/// Between two looks at engines and HAProxies when nothing wakes the loop. Events are dropped
/// under load, and HAProxy has none: this is what finds drift that nobody told of.
const RESYNC: Duration = Duration::from_secs(2);

/// Wakes that come within this time make one look.
const COALESCE: Duration = Duration::from_millis(30);

/// How long steps in progress may take to finish when the loop is told to end. The process has
/// ten seconds in all, and closes its store after this.
const LAST_STEPS: Duration = Duration::from_secs(8);

/// Steps that are executed together, for the apps that they concern.
struct Flight {
    cancel: CancellationToken,
    /// Those of which something is left to do: who is done waits for nobody.
    apps: BTreeSet<AppId>,
    /// What was declared when it began.
    declared: BTreeMap<AppId, Option<Arc<App>>>,
    ports: BTreeMap<HostName, BTreeSet<u16>>,
}

/// What a flight ends with.
struct Landing {
    number: u64,
    outcomes: Vec<StepOutcome>,
}

/// An app of which a flight has nothing left to do.
struct Release {
    flight: u64,
    app: AppId,
    failed: bool,
}

/// An app whose steps failed isn't tried again at once.
#[derive(Debug)]
struct Backoff {
    commit: CommitId,
    failures: u32,
    until: Instant,
}

/// Everything that the loop carries from one turn to the next.
struct Loop {
    controller: Arc<Controller>,
    flights: BTreeMap<u64, Flight>,
    running: JoinSet<Landing>,
    next_flight: u64,
    releases: mpsc::UnboundedReceiver<Release>,
    /// Given to each flight.
    releasing: mpsc::UnboundedSender<Release>,
    backoffs: BTreeMap<AppId, Backoff>,
    watchers: BTreeMap<HostName, (Arc<Host>, CancellationToken)>,
    poll: Poll,
    next_fetch: Instant,
    fetching: Option<JoinHandle<Result<Tip, OperationError>>>,
    fetch_again: bool,
    /// The commit to work on, once one is known.
    tip: Option<Tip>,
    last_trouble: Option<String>,
}

impl Controller {
    /// Reconciles until `shutdown`; then no step is begun, and those in progress are finished.
    ///
    /// # Errors
    /// None but of the operating system: what fails in a turn is told and tried again.
    pub async fn run(self: &Arc<Self>, shutdown: CancellationToken) -> Result<(), OperationError> {
        self.recollect().looping = true;
        let (source, state) = (self.parts.source.name(), self.state.display().to_string());
        tracing::info!(source, state, "the controller begins");
        self.tell_interrupted();
        let (releasing, releases) = mpsc::unbounded_channel();
        let mut turning = Loop {
            controller: self.clone(),
            flights: BTreeMap::new(),
            running: JoinSet::new(),
            next_flight: 0,
            releases,
            releasing,
            backoffs: BTreeMap::new(),
            watchers: BTreeMap::new(),
            poll: Poll::new(self.options.interval),
            next_fetch: Instant::now(),
            fetching: None,
            fetch_again: false,
            tip: None,
            last_trouble: None,
        };
        while !shutdown.is_cancelled() {
            tokio::select! {
                biased;
                // A look may wait for a host that hangs; nothing of it is worth waiting for.
                () = shutdown.cancelled() => break,
                () = turning.turn_when_open() => {}
            }
            turning.rest(&shutdown).await;
        }
        turning.end().await;
        self.recollect().looping = false;
        Ok(())
    }

    /// Says which steps were in progress when the last controller ended without a word.
    fn tell_interrupted(&self) {
        let kind = crate::model::Kind::Execution;
        for note in self.parts.store.list(kind).unwrap_or_default() {
            let name = &note.metadata.name;
            let message = format!("{name} was in progress when the last controller ended");
            self.event(EventType::Warning, "Interrupted", "Installation", &message);
            if let Err(error) = self.parts.store.delete(kind, name) {
                tracing::warn!(%error, "a note of an interrupted step stays");
            }
        }
    }
}

impl Loop {
    /// A turn. While somebody applies by hand, the loop pauses.
    async fn turn_when_open(&mut self) {
        let _open = self.controller.gate.clone().read_owned().await;
        self.turn().await;
    }

    /// Asks the remote if it is time, looks, and begins what can be begun.
    async fn turn(&mut self) {
        if Instant::now() >= self.next_fetch && self.fetching.is_none() {
            let controller = self.controller.clone();
            self.fetching = Some(tokio::spawn(async move { controller.tip().await }));
        }
        self.resume();
        let Some(tip) = &self.tip else { return };
        let (commit, requests, may_apply) =
            (tip.commit.clone(), tip.requests.clone(), tip.may_apply);
        let base = if may_apply { Some(commit.clone()) } else { self.attempted() };
        let Some(commit) = base else { return };
        let options = LookOptions {
            busy: self.busy(&commit),
            reserved: self.reserved(),
            remember: true,
            hasty: true,
        };
        match self.controller.look(&commit, requests, options).await {
            Ok(situation) => self.act(Arc::new(situation)).await,
            Err(error) => self.trouble("LookFailed", &error),
        }
    }

    fn attempted(&self) -> Option<CommitId> {
        self.controller.memory.commits().ok()?.attempted
    }

    /// The remote is asked now, and once more where that is being done already: the answer may
    /// be older than the reason to ask.
    fn fetch_soon(&mut self) {
        self.next_fetch = Instant::now();
        self.fetch_again = self.fetching.is_some();
    }

    /// What the remote answered. A remote that hangs holds up nothing: it is asked aside.
    fn fetched(&mut self, answer: Result<Tip, OperationError>) {
        self.fetching = None;
        match answer {
            Ok(tip) => {
                for request in &tip.requests {
                    let news = self.tip.as_ref().is_none_or(|tip| !tip.requests.contains(request));
                    if news {
                        let message =
                            format!("{}: plimsoll approve {}", request.reason, request.id);
                        tracing::warn!("{message}");
                        let kind = EventType::Warning;
                        self.controller.event(kind, "ApprovalNeeded", "Installation", &message);
                    }
                }
                self.tip = Some(tip);
                self.poll.succeeded();
                self.controller.recollect().source_error = None;
            }
            Err(error) => {
                self.poll.failed();
                let delay = self.ask_again();
                let text = [error.message.clone()].into_iter().chain(error.causes.clone());
                let text = text.collect::<Vec<_>>().join(": ");
                let (failures, seconds) = (self.poll.failures(), delay.as_secs_f64().ceil());
                let next = format!("attempt {failures}, next try in {seconds} s");
                self.controller.recollect().source_error = Some(format!("{text} ({next})"));
                self.trouble_with("FetchFailed", &error, Some(&next));
                return;
            }
        }
        self.ask_again();
    }

    /// Sets when the remote is asked next, and says in how long that is.
    fn ask_again(&mut self) -> Duration {
        let delay = match std::mem::take(&mut self.fetch_again) {
            true => Duration::ZERO,
            false => self.poll.delay(self.controller.parts.randomness.as_ref()),
        };
        self.next_fetch = Instant::now() + delay;
        delay
    }

    /// Before the remote has answered, the commit that was taken up last is kept up; also where
    /// somebody applied another one by hand since it did.
    fn resume(&mut self) {
        let attempted = self.attempted();
        if self.tip.as_ref().is_some_and(|tip| tip.is_old(attempted.as_ref())) {
            self.tip = None;
            self.fetch_soon();
        }
        if self.tip.is_none() {
            self.tip = attempted.map(|commit| {
                let base = Some(commit.clone());
                Tip { commit, requests: Vec::new(), may_apply: true, base }
            });
        }
    }

    /// Says once what is wrong, not at every turn.
    fn trouble(&mut self, reason: &str, error: &OperationError) {
        self.trouble_with(reason, error, None);
    }

    /// As [`Self::trouble`]. `next` is told with it, but makes no news of what is known.
    fn trouble_with(&mut self, reason: &str, error: &OperationError, next: Option<&str>) {
        let mut text = error.message.clone();
        for cause in &error.causes {
            text.push_str(": ");
            text.push_str(cause);
        }
        for diagnostic in &error.diagnostics {
            let place = &diagnostic.location;
            text.push_str(&format!("; {}:{}: {}", place.file, place.line, diagnostic.message));
        }
        if self.last_trouble.as_ref() != Some(&text) {
            let told = next.map_or_else(|| text.clone(), |next| format!("{text} ({next})"));
            tracing::warn!("{told}");
            self.controller.event(EventType::Warning, reason, "Installation", &told);
            self.last_trouble = Some(text);
        }
    }

    async fn act(&mut self, situation: Arc<Situation>) {
        self.last_trouble = None;
        self.supersede(&situation);
        let settled = match self.controller.take_up(&situation).await {
            Ok(()) => self.controller.settle(&situation),
            Err(error) => Err(error),
        };
        if let Err(error) = settled {
            self.trouble("StoreFailed", &error);
        }
        self.watch_hosts(&situation);
        // What is in flight may last: it keeps no other's steps.
        let beside = Arc::new(situation.without_plan());
        for plan in groups(&situation.plan) {
            self.begin(&beside, plan);
        }
        let mut recollection = self.controller.recollect();
        recollection.busy = self.flights.values().flat_map(|flight| flight.apps.clone()).collect();
        recollection.app_troubles.retain(|app, _| {
            situation.desired.apps.contains_key(app) || !situation.containers_of(app).is_empty()
        });
        recollection.last = Some(situation);
    }

    /// What is in flight ends at the next step where something else is declared by now.
    fn supersede(&self, situation: &Situation) {
        for flight in self.flights.values() {
            let moved = |(app, then): (&AppId, &Option<Arc<App>>)| {
                situation.desired.apps.get(app) != then.as_ref()
                    && !situation.desired.blocked.contains_key(app)
            };
            if flight.declared.iter().any(moved) {
                flight.cancel.cancel();
            }
        }
    }

    /// Apps that are left out: those in flight, and those that failed lately.
    fn busy(&mut self, commit: &CommitId) -> BTreeSet<AppId> {
        let now = Instant::now();
        self.backoffs.retain(|_, backoff| backoff.commit == *commit);
        let failed = self.backoffs.iter().filter(|(_, backoff)| backoff.until > now);
        let mut busy: BTreeSet<AppId> = failed.map(|(app, _)| app.clone()).collect();
        busy.extend(self.flights.values().flat_map(|flight| flight.apps.iter().cloned()));
        busy
    }

    fn reserved(&self) -> BTreeMap<HostName, BTreeSet<u16>> {
        let mut reserved: BTreeMap<HostName, BTreeSet<u16>> = BTreeMap::new();
        for flight in self.flights.values() {
            for (host, ports) in &flight.ports {
                reserved.entry(host.clone()).or_default().extend(ports);
            }
        }
        reserved
    }

    fn begin(&mut self, situation: &Arc<Situation>, plan: Plan) {
        // Somebody waits to apply by hand: nothing new is begun.
        let Ok(open) = self.controller.gate.clone().try_read_owned() else { return };
        let apps: BTreeSet<AppId> = plan.steps.iter().filter_map(|s| s.app.clone()).collect();
        let declared =
            apps.iter().map(|app| (app.clone(), situation.desired.apps.get(app).cloned()));
        let number = self.next_flight;
        self.next_flight += 1;
        let cancel = CancellationToken::new();
        let flight = Flight {
            cancel: cancel.clone(),
            declared: declared.collect(),
            ports: ports(&plan),
            apps,
        };
        self.flights.insert(number, flight);
        let (controller, situation) = (self.controller.clone(), situation.clone());
        let releasing = self.releasing.clone();
        self.running.spawn(async move {
            let _open = open;
            let released = |app: &AppId, failed: bool| {
                // The loop has ended where nobody listens.
                let _ = releasing.send(Release { flight: number, app: app.clone(), failed });
            };
            let work = controller.execute(&situation, &plan, &cancel, (&|_| {}, &released));
            // A panic in one app's work is that app's failure, and nobody else's.
            let outcomes = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(Ok(outcomes)) => outcomes,
                Ok(Err(error)) => {
                    tracing::warn!("a plan isn't executed: {error}");
                    failed(&plan, &error)
                }
                Err(_) => {
                    let error = OperationError::new("the execution of the plan panicked");
                    controller.event(
                        EventType::Warning,
                        "Panicked",
                        "Installation",
                        &error.message,
                    );
                    failed(&plan, &error)
                }
            };
            Landing { number, outcomes }
        });
    }

    /// Waits for the next reason to look: something landed, woke us, or it is time.
    async fn rest(&mut self, shutdown: &CancellationToken) {
        let controller = self.controller.clone();
        let resync = Instant::now() + RESYNC.min(controller.options.interval);
        let soonest =
            self.backoffs.values().map(|b| b.until).filter(|until| *until > Instant::now());
        let fetch = self.fetching.is_none().then_some(self.next_fetch);
        let until = soonest.chain([resync]).chain(fetch).min().unwrap_or(resync);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            Some(landed) = self.running.join_next() => self.land(landed.ok()),
            Some(release) = self.releases.recv() => self.release(release),
            answer = answer_of(&mut self.fetching) => {
                let before = self.tip.as_ref().map(|tip| tip.commit.clone());
                self.fetched(answer);
                // A new commit has nothing to gather with.
                if self.tip.as_ref().map(|tip| &tip.commit) != before.as_ref() {
                    return;
                }
            }
            () = controller.parts.source.changed() => self.fetch_soon(),
            () = controller.wake.notified() => {}
            () = tokio::time::sleep_until(until) => return,
        }
        if controller.take_fetch_wish() {
            self.fetch_soon();
        }
        tokio::time::sleep(COALESCE).await;
        self.release_all();
        while let Some(landed) = self.running.try_join_next() {
            self.land(landed.ok());
        }
    }

    fn land(&mut self, landing: Option<Landing>) {
        self.release_all();
        let Some(Landing { number, outcomes }) = landing else { return };
        let Some(flight) = self.flights.remove(&number) else { return };
        let broke = outcomes.iter().any(|outcome| outcome.result == StepResult::Failed);
        for app in flight.apps {
            self.conclude(app, broke);
        }
    }

    fn release_all(&mut self) {
        while let Ok(release) = self.releases.try_recv() {
            self.release(release);
        }
    }

    fn release(&mut self, Release { flight, app, failed }: Release) {
        let Some(flight) = self.flights.get_mut(&flight) else { return };
        flight.declared.remove(&app);
        if flight.apps.remove(&app) {
            self.conclude(app, failed);
        }
    }

    /// An app whose steps failed isn't planned at once.
    fn conclude(&mut self, app: AppId, failed: bool) {
        if !failed {
            self.backoffs.remove(&app);
            return;
        }
        let Some(commit) = self.tip.as_ref().map(|tip| tip.commit.clone()) else { return };
        let failures = self.backoffs.get(&app).map_or(0, |backoff| backoff.failures + 1);
        let pause = Duration::from_millis(500).saturating_mul(1 << failures.min(7));
        let unit = self.controller.parts.randomness.unit();
        let until = Instant::now() + pause.mul_f64(0.8 + 0.4 * unit);
        self.backoffs.insert(app, Backoff { commit, failures, until });
    }

    /// Each host's events wake the loop; one that goes away is listened to again.
    fn watch_hosts(&mut self, situation: &Situation) {
        let desired = &situation.desired;
        self.watchers.retain(|name, (host, cancel)| {
            let stays = desired.hosts.get(name).is_some_and(|now| now.engine == host.engine);
            if !stays {
                cancel.cancel();
            }
            stays
        });
        for (name, host) in &desired.hosts {
            if !self.watchers.contains_key(name) {
                let cancel = CancellationToken::new();
                self.watchers.insert(name.clone(), (host.clone(), cancel.clone()));
                let owner = situation.observer.owner.clone();
                tokio::spawn(watch(self.controller.clone(), host.clone(), owner, cancel));
            }
        }
    }

    /// Nothing new is begun; what is in progress is finished, within bounds.
    async fn end(&mut self) {
        for flight in self.flights.values() {
            flight.cancel.cancel();
        }
        for (_, cancel) in self.watchers.values() {
            cancel.cancel();
        }
        let finished = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_STEPS, finished).await.is_err() {
            tracing::warn!("steps in progress didn't finish within {} s", LAST_STEPS.as_secs());
        }
    }
}

/// The remote's answer; never where it isn't being asked.
async fn answer_of(
    fetching: &mut Option<JoinHandle<Result<Tip, OperationError>>>,
) -> Result<Tip, OperationError> {
    match fetching {
        None => std::future::pending().await,
        Some(task) => task.await.unwrap_or_else(|error| {
            Err(OperationError::because("the look at the remote failed", &error))
        }),
    }
}

async fn watch(
    controller: Arc<Controller>,
    host: Arc<Host>,
    owner: Owner,
    cancel: CancellationToken,
) {
    let listen = async {
        let mut pause = Duration::from_millis(500);
        loop {
            let engine = controller.parts.engines.engine(&host);
            if let Ok(mut events) = engine.events(&owner).await {
                pause = Duration::from_millis(500);
                // What happened before we listened is found by this look.
                controller.sight.hear(&host.name, true);
                controller.wake.notify_one();
                while let Some(stir) = events.next().await {
                    match stir {
                        Stir::Container(id) => controller.sight.stir(&host.name, Some(&id.0)),
                        Stir::More => controller.sight.stir(&host.name, None),
                    }
                    controller.wake.notify_one();
                }
                controller.sight.hear(&host.name, false);
                controller.wake.notify_one();
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(30));
        }
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => {}
        () = listen => {}
    }
    controller.sight.hear(&host.name, false);
}

fn failed(plan: &Plan, error: &OperationError) -> Vec<StepOutcome> {
    let of = |step: &Step| StepOutcome {
        id: step.id.clone(),
        result: StepResult::Failed,
        seconds: 0.0,
        error: Some(error.to_string()),
    };
    plan.steps.iter().map(of).collect()
}

/// The ports that a plan's new containers will publish.
fn ports(plan: &Plan) -> BTreeMap<HostName, BTreeSet<u16>> {
    let mut ports: BTreeMap<HostName, BTreeSet<u16>> = BTreeMap::new();
    for step in &plan.steps {
        if let (Action::Create { container }, Place::Host(host)) = (&step.action, &step.place) {
            ports.entry(host.clone()).or_default().extend(container.birth.port);
        }
    }
    ports
}

/// A plan cut into parts that don't wait for each other.
fn groups(plan: &Plan) -> Vec<Plan> {
    let index: BTreeMap<&StepId, usize> =
        plan.steps.iter().enumerate().map(|(position, step)| (&step.id, position)).collect();
    let mut union = petgraph::unionfind::UnionFind::<usize>::new(plan.steps.len());
    let mut of_app: BTreeMap<&AppId, usize> = BTreeMap::new();
    for (position, step) in plan.steps.iter().enumerate() {
        for earlier in step.after.iter().filter_map(|id| index.get(id)) {
            union.union(position, *earlier);
        }
        if let Some(app) = &step.app {
            union.union(position, *of_app.entry(app).or_insert(position));
        }
    }
    let mut groups: BTreeMap<usize, Vec<Step>> = BTreeMap::new();
    for (position, step) in plan.steps.iter().enumerate() {
        groups.entry(union.find(position)).or_default().push(step.clone());
    }
    let part = |steps| Plan {
        commit: plan.commit.clone(),
        digest: plan.digest,
        steps,
        routes: Vec::new(),
        waiting: Vec::new(),
        blocked: Vec::new(),
        changes: BTreeMap::new(),
        totals: crate::plan::Totals::default(),
    };
    groups.into_values().map(part).collect()
}
