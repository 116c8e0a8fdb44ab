//! One run: a walk and faults, with the real controller, and what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::api::Operations;
use plimsoll::model::{AppId, Hold, HostName, Revision};
use plimsoll::reconcile::{Controller, ControllerOperations};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::audit::{Audit, Violation};
use super::balancer::Haproxy;
use super::fault::{Call, Fault, Gate, What, When};
use super::life::keep_alive;
use super::machine::Machine;
use super::mark::Mark;
use super::remote::Commit;
use super::state::State;
use super::walk::{BALANCERS, Fleet, HOSTS};
use super::world::{Sim, World};

/// How long a step of a walk may take before the next is declared all the same.
const STEP: Duration = Duration::from_secs(150);
/// How long after everything has happened the declared state has to be reached: the longest
/// pauses of the loop are about a minute (a failed step) and five (the remote).
const CONVERGENCE: Duration = Duration::from_secs(900);
/// How long nothing may happen from then on.
const QUIET: Duration = Duration::from_secs(12);

/// How often the end of a walk that has failing rollouts is looked for: each of its apps may have
/// one that is yet to begin.
const ENDS: u32 = 6;

/// Everything that a run depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    pub seed: u64,
    pub walk: Vec<Fleet>,
    pub faults: Vec<Fault>,
    /// After so many milliseconds the next set of manifests is declared, whatever became of the
    /// last; none where it is waited for.
    pub hurry: Option<u64>,
}

pub type Counts = BTreeMap<(HostName, AppId, Revision), (u32, u32)>;

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub violations: Vec<Violation>,
    /// What was there after each step of the walk; none where it took too long.
    pub states: Vec<Option<State>>,
    pub counts: Counts,
    pub hash: u64,
    pub marks: std::collections::BTreeSet<Mark>,
    /// How often each kind of call was made, and how many of them changed something.
    pub calls: BTreeMap<Call, u32>,
    pub changes: u32,
    /// How long it took, in milliseconds of the world.
    pub millis: u64,
    pub trace: Vec<String>,
    /// How many faults of calls came to pass.
    pub met: u32,
    /// How many calls had changed something after each step of the walk.
    pub changes_after: Vec<u32>,
}

/// Runs it. `like`: what an undisturbed run of the same walk came to.
pub fn run(script: &Script, like: Option<&Outcome>, keep_trace: bool) -> Outcome {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let mut run = Run::new(script, like, keep_trace);
        run.go().await;
        run.end()
    })
}

struct Run<'a> {
    script: &'a Script,
    like: Option<&'a Outcome>,
    sim: Sim,
    controller: Arc<std::sync::Mutex<Option<Arc<Controller>>>>,
    states: Vec<Option<State>>,
    changes_after: Vec<u32>,
}

impl<'a> Run<'a> {
    fn new(script: &'a Script, like: Option<&'a Outcome>, keep_trace: bool) -> Self {
        let sim = Sim::new(script.seed);
        sim.with(|world| {
            world.trace.kept = keep_trace;
            world.gate = Gate::new(&script.faults);
            for (number, host) in HOSTS.iter().enumerate() {
                let name: HostName = host.parse().expect("a name");
                let address = std::net::Ipv4Addr::new(127, 77, 0, number as u8 + 1).into();
                world.machines.insert(name.clone(), Machine::new(name, address));
            }
            for name in BALANCERS {
                let name: plimsoll::model::BalancerName = name.parse().expect("a name");
                world.balancers.insert(name.clone(), Haproxy::new(name));
            }
            strangers(world);
            for fault in &script.faults {
                if let When::At(millis) = fault.when {
                    let what = fault.what.clone();
                    world.after(Duration::from_millis(millis), move |world| world.befall(&what));
                }
            }
        });
        let (states, changes_after) = (Vec::new(), Vec::new());
        Self { script, like, sim, controller: Arc::default(), states, changes_after }
    }

    async fn go(&mut self) {
        tokio::spawn(self.sim.clone().keep_time());
        let (sim, current) = (self.sim.clone(), self.controller.clone());
        tokio::spawn(keep_alive(sim, self.script.seed, current));
        tokio::spawn(look_for_held_up(self.sim.clone()));
        for step in 0..self.script.walk.len() {
            self.push(step);
            let is_last = step + 1 == self.script.walk.len();
            let reached = match (self.script.hurry, is_last) {
                (Some(millis), false) => {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    None
                }
                (_, true) => {
                    self.until_faults_end().await;
                    self.settle(step, CONVERGENCE).await
                }
                (None, false) => self.settle(step, STEP).await,
            };
            if reached.is_some() && self.like.is_none() {
                self.sim.with(|world| world.with_audit(Audit::look_at_rest));
            }
            if self.is_broken() {
                return;
            }
            if is_last {
                let (mut reached, mut ends) = (reached.clone(), 1);
                // What comes while nothing should happen has to be over as well.
                while !self.expect_end(reached.as_ref(), ends).await {
                    reached = self.settle(step, CONVERGENCE).await;
                    ends += 1;
                }
            }
            self.states.push(reached);
            self.changes_after.push(self.sim.with(|world| world.gate.changes));
        }
    }

    fn is_broken(&self) -> bool {
        self.sim.with(|world| !world.audit.violations.is_empty())
    }

    fn push(&self, step: usize) {
        let files = self.script.walk[step].files(step);
        let id = files.commit.clone();
        self.sim.with(|world| {
            let parent = world.remote.tip.clone();
            world.tell(|| format!("step {step} is pushed as {}", id.short()));
            world.remote.commits.insert(id.clone(), Commit { parent, files, step });
            world.remote.tip = Some(id.clone());
            world.with_audit(|audit, world| audit.declare(world, &id));
        });
    }

    /// Faults that come at a time, and those that last.
    async fn until_faults_end(&self) {
        let ends = self.script.faults.iter().filter_map(|fault| match fault.when {
            When::At(millis) => Some(millis + fault.what.lasts()),
            When::Call(..) | When::Change(_) => None,
        });
        let end = ends.max().unwrap_or(0);
        let now = self.sim.with(|world| world.millis());
        tokio::time::sleep(Duration::from_millis((end + 1).saturating_sub(now))).await;
    }

    /// Waits until what the undisturbed run came to is there; in an undisturbed run, until the
    /// controller rests.
    async fn settle(&self, step: usize, most: Duration) -> Option<State> {
        let goal = self.like.filter(|_| self.is_comparable());
        let goal = goal.map(|like| like.states.get(step).cloned().flatten());
        let rest = Duration::from_secs(if self.script.is_plain() { 5 } else { 12 });
        let end = tokio::time::Instant::now() + most;
        let mut last = (0, tokio::time::Instant::now());
        while tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.approve().await;
            if self.is_broken() {
                return None;
            }
            let (changes, at_tip, rests, state) = self.sim.with(|world| {
                let belief = &world.audit.belief;
                let tip = world.remote.tip.as_ref();
                let mended = world.audit.mended_at.is_none_or(|at| at < world.now());
                let at_tip = belief.attempted.as_ref() == tip && world.alive && mended;
                let rests = at_tip && belief.result != "Progressing";
                (effects(world), at_tip, rests, State::of(world))
            });
            if changes != last.0 {
                last = (changes, tokio::time::Instant::now());
            }
            let quiet = last.1.elapsed();
            match &goal {
                Some(Some(goal)) if *goal == state && at_tip && quiet > Duration::from_secs(1) => {
                    return Some(state);
                }
                Some(Some(_)) => {}
                _ if rests && quiet > rest => return Some(state),
                // What fails again and again is never at rest.
                _ if at_tip && quiet > Duration::from_secs(30) => return Some(state),
                _ => {}
            }
        }
        None
    }

    /// What a fleet comes to depends on how it came there where a rollout fails or a file can't be
    /// read: then the ways have to be the same.
    fn is_comparable(&self) -> bool {
        let faults = || self.script.faults.iter().map(|fault| &fault.what);
        let forgot = faults().any(|what| matches!(what, What::StoreLost | What::StoreFull { .. }));
        let moved = faults().any(|what| what.forces_containers() || what.is_of_a_person());
        // Nothing of these is touched, so nothing of them is mended.
        let held_back = |fleet: &Fleet| !fleet.has_no_mistake() || fleet.apps.is_empty();
        let unread = self.script.walk.iter().any(held_back);
        // What works isn't remembered, or what happens to an app isn't mended.
        // What leaves while its successor fails isn't mended either.
        let stuck = !self.script.is_plain();
        // What can't be read, or isn't let go, stays as far as it came.
        if unread && self.script.hurry.is_some() {
            return false;
        }
        if unread && self.script.walk.iter().any(Fleet::has_failing) {
            return false;
        }
        if (forgot && !self.script.is_plain()) || (moved && (unread || stuck)) {
            return false;
        }
        let same_way = self.script.hurry.is_none() && self.states.iter().all(Option::is_some);
        same_way || self.script.is_plain()
    }

    /// A revision that works and is held: a person has to have been at work, or a machine lost.
    fn lift_holds(&self) {
        let forced = self.script.faults.iter().any(|fault| fault.what.forces_containers());
        self.sim.with(|world| {
            for hold in world.disk.holds() {
                let declared = world.audit.declared(world, &hold.app);
                let works = declared.is_some_and(|declared| {
                    declared.revision == hold.revision && declared.nature.works()
                });
                if works && forced {
                    world.mark(Mark::HoldOfAGoodRevision);
                    let id = plimsoll::plan::hold_approval(&hold.app, &hold.revision);
                    world.audit.asked.insert(id);
                } else if works {
                    let Hold { app, revision, reason, .. } = hold;
                    let message =
                        format!("{app} {} works and is held: {reason}", revision.short8());
                    let millis = world.millis();
                    let promise = "liveness";
                    world.audit.violations.push(Violation { promise, message, millis });
                }
            }
        });
    }

    /// A person lets a rewritten history through.
    async fn approve(&self) {
        self.lift_holds();
        let asked = self.sim.with(|world| std::mem::take(&mut world.audit.asked));
        let controller =
            self.controller.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let Some(controller) = controller else { return };
        let operations = ControllerOperations(controller.clone());
        self.let_go(&operations).await;
        for id in asked {
            if !self.sim.with(|world| world.audit.is_wanted(world, &id)) {
                continue;
            }
            let approval = operations.approve(id.clone());
            match tokio::time::timeout(Duration::from_secs(20), approval).await {
                Ok(Ok(_)) => self.sim.with(|world| world.mark(Mark::Approved)),
                // It is asked for again where it is still wanted.
                _ => self.sim.with(|world| {
                    world.audit.asked.insert(id);
                }),
            }
        }
    }

    /// A person lets as much go at once as goes bit by bit where nothing is disturbed.
    async fn let_go(&self, operations: &ControllerOperations) {
        let Some(goal) = self.like.and_then(|like| like.states.last()?.as_ref()) else { return };
        let waits = self.sim.with(|world| {
            let is_last = world.audit.belief.attempted == world.remote.tip;
            is_last && world.alive && world.audit.belief.result == "Waiting"
        });
        if !waits || !goal.0.contains_key("the commit's result is Applied") {
            return;
        }
        let asked = tokio::time::timeout(Duration::from_secs(20), operations.status()).await;
        let Ok(Ok(status)) = asked else { return };
        for approval in status.approvals.iter().filter(|asked| asked.reason.contains("would go")) {
            let approval = operations.approve(approval.id.clone());
            // It is asked for again where that came to nothing.
            let _ = tokio::time::timeout(Duration::from_secs(20), approval).await;
        }
    }

    /// Liveness, and Sieve's oracle. False where a fault came meanwhile, or what it was taken for
    /// wasn't the end yet. `ends`: how often it was looked for.
    async fn expect_end(&self, reached: Option<&State>, ends: u32) -> bool {
        let state = self.sim.with(|world| State::of(world));
        if reached.is_none() {
            let goal = self.like.and_then(|like| like.states.last().cloned().flatten());
            let differences = goal.map(|goal| state.differences(&goal)).unwrap_or_default();
            let message = format!("never reached: {}", differences.join("; "));
            self.violate("liveness", message);
            return true;
        }
        let (before, begun) = self.sim.with(|world| (effects(world), world.now()));
        // What fails again and again does so at most about a minute later.
        tokio::time::sleep(if self.script.is_plain() { QUIET } else { QUIET * 8 }).await;
        let (after, now) = self.sim.with(|world| (effects(world), State::of(world)));
        if self.sim.with(|world| world.audit.disturbed_at.is_some_and(|at| at >= begun)) {
            return false;
        }
        let (now, state) = (now.without_result(), state.without_result());
        // What fails may end again and again without anybody's doing.
        let moves = before != after || (self.script.is_plain() && now != state);
        // Before a rollout that fails all is as after it, and between two steps as at the end.
        if moves && ends < ENDS {
            return false;
        }
        if self.like.is_some() && self.is_comparable() && moves {
            let differences = now.differences(&state).join("; ");
            let message = format!("{} more changes: {differences}", after - before);
            self.violate("liveness", message);
            return true;
        }
        let Some(like) = self.like else { return true };
        let complete = self.states.iter().chain(&like.states[..self.states.len()]);
        let complete = complete.clone().all(Option::is_some) && self.is_comparable();
        // A controller that couldn't write down what it took up begins with the commit before.
        let forced = self.script.faults.iter().any(|Fault { what, .. }| {
            what.forces_containers() || matches!(what, What::StoreLost | What::StoreFull { .. })
        });
        if !complete || forced || self.script.hurry.is_some() {
            return true;
        }
        let counts = self.sim.with(|world| world.audit.counts.clone());
        let keys = counts.keys().chain(like.counts.keys());
        for key in keys.collect::<std::collections::BTreeSet<_>>() {
            let (one, two) = (counts.get(key).copied(), like.counts.get(key).copied());
            // How often a rollout that fails is begun depends on what else was to be done.
            if one != two && !self.script.fails(&key.1) {
                let (host, app, revision) = key;
                let message = format!(
                    "{app} {} on {host}: made and removed {:?} times, and {:?} when undisturbed",
                    revision.short8(),
                    one.unwrap_or_default(),
                    two.unwrap_or_default()
                );
                self.violate("oracle", message);
                return true;
            }
        }
        true
    }

    fn violate(&self, promise: &'static str, message: String) {
        self.sim.with(|world| {
            world.tell(|| format!("{promise} is broken: {message}"));
            let millis = world.millis();
            world.audit.violations.push(Violation { promise, message, millis });
        });
    }

    fn end(self) -> Outcome {
        let sim = self.sim.clone();
        let Self { states, changes_after, .. } = self;
        sim.with(|world| Outcome {
            violations: world.audit.violations.clone(),
            states,
            counts: world.audit.counts.clone(),
            hash: world.trace.hash(),
            marks: world.marks.clone(),
            calls: world.gate.counts.clone(),
            changes: world.gate.changes,
            millis: world.millis(),
            trace: world.trace.lines().to_vec(),
            met: world.gate.met,
            changes_after,
        })
    }
}

impl Script {
    /// Some rollout of that app fails.
    fn fails(&self, app: &AppId) -> bool {
        let services = self.walk.iter().filter_map(|fleet| fleet.apps.get(app.name.as_str()));
        let mut natures =
            services.map(|service| super::machine::Nature::of(&service.image(app.name.as_str())));
        natures.any(|nature| !nature.works())
    }

    /// Every rollout succeeds, and every file can be read.
    pub fn is_plain(&self) -> bool {
        self.walk.iter().all(|fleet| fleet.has_no_mistake() && !fleet.has_failing())
    }
}

/// S11, once a second.
async fn look_for_held_up(sim: Sim) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        sim.with(|world| world.with_audit(Audit::look_for_held_up));
    }
}

/// How many calls changed hosts and balancers.
fn effects(world: &World) -> u32 {
    let calls = [
        Call::Create,
        Call::Start,
        Call::Stop,
        Call::Remove,
        Call::File,
        Call::Runtime,
        Call::Reload,
    ];
    calls.iter().filter_map(|call| world.gate.counts.get(call)).sum()
}

/// Containers of others, some of which look like ours.
fn strangers(world: &mut World) {
    let alpha: HostName = HOSTS[0].parse().expect("a name");
    let beta: HostName = HOSTS[1].parse().expect("a name");
    world.place_foreign(&alpha, "postgres", BTreeMap::new(), Some(20001));
    // Of an installation of the same name: its uid is another.
    let label = |key: &str, value: &str| (format!("plimsoll.{key}"), value.to_owned());
    let sha = plimsoll::model::Sha256::of(b"other").hex();
    let labels = BTreeMap::from([
        label("format", "1"),
        label("installation", "shop"),
        label("uid", "00000000"),
        label("environment", "test"),
        label("app", "web"),
        label("revision", &sha),
        label("slot", "0"),
        label("commit", &"c".repeat(40)),
        label("image", "registry.example/web:1"),
        label("image-digest", &format!("sha256:{sha}")),
        label("port", "20002"),
    ]);
    let birth = plimsoll::model::Birth::from_labels(&labels);
    let name = birth.map_or("shop.test.web.other.0".into(), |birth| birth.container_name());
    world.place_foreign(&beta, &name, labels, Some(20002));
}

/// The script of a seed: a walk, and faults at calls that an undisturbed run makes.
pub fn drawn(seed: u64) -> (Script, Outcome) {
    let mut rng = StdRng::seed_from_u64(seed);
    let steps = rng.random_range(1..=4);
    let walk = super::walk::Walker { rng: &mut rng }.walk(steps);
    let hurry = rng.random_bool(0.2).then(|| rng.random_range(200..8000));
    let mut script = Script { seed, walk, faults: Vec::new(), hurry };
    let like = run(&script, None, false);
    script.faults = super::draw::faults(&mut rng, &like);
    (script, like)
}
