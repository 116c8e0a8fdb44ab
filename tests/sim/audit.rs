//! The promises as functions of the world: what is there, never what the controller believes.
//! They are looked at after every event.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::manifest::Reader;
use plimsoll::model::{
    App, AppId, BackendName, BalancerName, Birth, CommitId, ContainerId, ContainerState, Desired,
    HostName, ImageContent, Kind, Pin, Revision, Rollout, RouteKey, ServerName, Sha256,
};
use plimsoll::proxy::{lint, render};
use plimsoll::store::Change;
use tokio::time::Instant;

use super::declared::{Belief, Declaration, Declared, declared};
use super::fault::Call;
use super::isolation::{self, Isolation};
use super::machine::{Machine, Nature, Unit};
use super::mark::Mark;
use super::proxy::places;
use super::world::World;

/// How long nobody can know of what happened at a host.
const UNNOTICED: Duration = Duration::from_millis(200);

/// How long a call to a balancer that doesn't answer may be made again, once it answers or a fault
/// came: three times 5 s, and pauses.
const ASKED_AGAIN: Duration = Duration::from_secs(17);

/// How long the steps that go back from a revision take: drain, grace, and calls.
const GOING_BACK: Duration = Duration::from_secs(10);

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub promise: &'static str,
    pub message: String,
    pub millis: u64,
}

type Counts = BTreeMap<(HostName, AppId, Revision), (u32, u32)>;

/// Watches a run.
#[derive(Debug, Default)]
pub struct Audit {
    pub violations: Vec<Violation>,
    pub declarations: BTreeMap<CommitId, Declaration>,
    pub belief: Belief,
    /// How many were made and removed.
    pub counts: Counts,
    /// Approvals that are asked for.
    pub asked: BTreeSet<String>,
    /// What a person let through, as the disk has it.
    approved: BTreeSet<String>,
    /// Addresses of servers that a person changed.
    pub meddled: BTreeSet<SocketAddr>,
    /// When the hold of an app was lifted.
    lifted: BTreeMap<AppId, Instant>,
    /// When the last fault came, and when the last of them ends.
    pub disturbed_at: Option<Instant>,
    pub mended_at: Option<Instant>,
    /// Until then something is stopped or removed that was asked for earlier.
    pub late_until: Option<Instant>,
    pub last_call: Option<Call>,
    /// How many servers each route has to keep.
    floors: BTreeMap<(BalancerName, RouteKey), Floor>,
    written: BTreeSet<BalancerName>,
    /// Whose each route was last.
    owners: BTreeMap<(BalancerName, RouteKey), AppId>,
    isolation: Isolation,
}

#[derive(Debug, Clone, Copy)]
struct Floor {
    now: u32,
    /// What it is raised to once that many serve.
    declared: u32,
    /// How many served at the last look.
    serving: u32,
}

impl Audit {
    fn violate(&mut self, world: &mut World, promise: &'static str, message: String) {
        world.tell(|| format!("{promise} is broken: {message}"));
        self.violations.push(Violation { promise, message, millis: world.millis() });
    }

    /// A commit is pushed.
    pub fn declare(&mut self, world: &mut World, commit: &CommitId) {
        let files = world.remote.commits[commit].files.clone();
        let reading = Reader::new().read(&files);
        let Some(desired) = reading.desired else {
            panic!("the walk declares nothing: {:?}", reading.diagnostics)
        };
        if !desired.blocked.is_empty() || !desired.unreadable.is_empty() {
            world.mark(Mark::FileUnreadable);
        }
        if desired.hosts.values().any(|host| host.drain) {
            world.mark(Mark::HostDrained);
        }
        let apps = desired.apps.values().map(|app| (app.id.clone(), declared(&desired, app)));
        let declaration = Declaration { apps: apps.collect(), desired: Arc::new(desired) };
        if declaration.apps.is_empty() && declaration.desired.blocked.is_empty() {
            world.mark(Mark::NothingDeclared);
        }
        let mut minima: BTreeMap<(BalancerName, RouteKey), u32> = BTreeMap::new();
        for declared in declaration.apps.values() {
            for route in &declared.app.routes {
                let key = RouteKey {
                    listener: route.listener.clone(),
                    host: route.host.clone(),
                    path: route.path.clone(),
                };
                let key = (route.balancer.clone(), key);
                let owner = self.owners.insert(key.clone(), declared.app.id.clone());
                if owner.is_some_and(|owner| owner != declared.app.id) {
                    world.mark(Mark::RouteMoved);
                }
                minima.insert(key, declared.minimum());
            }
        }
        // What can't be read is left as it is.
        let keep = !declaration.desired.blocked.is_empty()
            || !declaration.desired.unreadable.is_empty()
            || declaration.apps.is_empty();
        let owners = &self.owners;
        self.floors.retain(|key, _| {
            let readable = owners.get(key).is_some_and(|app| declaration.apps.contains_key(app));
            minima.contains_key(key) || (keep && !readable)
        });
        for (key, declared) in minima {
            let floor = self.floors.entry(key).or_insert(Floor { now: 0, declared, serving: 0 });
            floor.now = floor.now.min(declared);
            floor.declared = declared;
        }
        self.declarations.insert(commit.clone(), declaration);
    }

    /// What is declared, where the controller works on nothing else.
    fn settled_on<'a>(&'a self, world: &World) -> Option<&'a Declaration> {
        let tip = world.remote.tip.as_ref()?;
        let same = self.belief.attempted.as_ref() == Some(tip) && world.remote.mirror.is_none();
        self.declarations.get(tip).filter(|_| same)
    }

    /// True for what a person would let through: the branch as it is, a revision that works.
    pub fn is_wanted(&self, world: &World, id: &str) -> bool {
        let (Some(tip), Some(old)) = (&world.remote.tip, &self.belief.attempted) else {
            return false;
        };
        let rewrite = Sha256::of(format!("rewrite {old} {tip}").as_bytes()).short(12);
        let mut holds = world.disk.holds().into_iter();
        rewrite == id
            || holds.any(|hold| plimsoll::plan::hold_approval(&hold.app, &hold.revision) == id)
    }

    /// The controller ends: what it hadn't on the disk is forgotten.
    pub fn forget(&mut self, world: &World) {
        let before = std::mem::take(&mut self.belief);
        if let Some(source) = world.disk.get(Kind::Source, "source") {
            self.belief = Belief::of(&source.status);
        }
        if before != self.belief {
            self.floors.values_mut().for_each(|floor| floor.now = 0);
        }
    }

    /// What the tip of the branch declares of an app.
    pub fn declared(&self, world: &World, app: &AppId) -> Option<&Declared> {
        self.declarations.get(world.remote.tip.as_ref()?)?.apps.get(app)
    }

    pub fn created(&mut self, birth: &Birth, host: &HostName) {
        self.counts.entry(key(birth, host)).or_default().0 += 1;
    }

    pub fn removed(&mut self, birth: &Birth, host: &HostName) {
        self.counts.entry(key(birth, host)).or_default().1 += 1;
    }

    /// After every event.
    pub fn look(&mut self, world: &mut World) {
        if !self.violations.is_empty() {
            return;
        }
        if let Some(message) = foreign_touched(world) {
            self.violate(world, "S1", message);
        }
        if let Some(message) = doubled(world) {
            self.violate(world, "S6", message);
        }
        if let Some(message) = misled(world) {
            self.violate(world, "S3", message);
        }
        if let Some(message) = dangling(world) {
            self.violate(world, "S4", message);
        }
        for name in std::mem::take(&mut self.written) {
            if let Some(message) = unsound(world, &name) {
                self.violate(world, "S4", message);
            }
        }
        self.look_at_routes(world);
    }

    /// S11, from time to time.
    pub fn look_for_held_up(&mut self, world: &mut World) {
        if !self.violations.is_empty() {
            return;
        }
        let mut isolation = std::mem::take(&mut self.isolation);
        let held_up = isolation.look(world, self.settled_on(world), self.disturbed_at);
        self.isolation = isolation;
        if let Some(message) = held_up {
            self.violate(world, "S11", message);
        }
    }

    /// S11, where nothing went wrong, and nothing happens any more.
    pub fn look_at_rest(&mut self, world: &mut World) {
        let held_up = self.settled_on(world).and_then(|all| isolation::at_rest(world, all));
        if let Some(message) = held_up {
            self.violate(world, "S11", message);
        }
    }

    /// S2.
    fn look_at_routes(&mut self, world: &mut World) {
        let converged = self.belief.applied.is_some()
            && self.belief.applied.as_ref() == world.remote.tip.as_ref();
        let mut low = None;
        for ((balancer, key), floor) in &mut self.floors {
            let serving = serving(world, balancer, key);
            floor.serving = serving;
            if converged && serving >= floor.declared {
                floor.now = floor.declared;
            }
            if serving < floor.now && low.is_none() {
                low = Some(format!(
                    "route {balancer} {key} has {serving} servers that answer, and keeps {}",
                    floor.now
                ));
            }
        }
        if let Some(message) = low {
            self.violate(world, "S2", message);
        }
    }

    /// What a fault took away is no longer expected, also by the steps that are on their way: they
    /// were planned with it.
    pub fn excuse(&mut self, world: &World) {
        for ((balancer, key), floor) in &mut self.floors {
            let serving = serving(world, balancer, key);
            let lost = floor.serving.saturating_sub(serving);
            floor.now = floor.now.saturating_sub(lost).min(serving);
            floor.serving = serving;
        }
    }

    /// The engine is about to stop a container, because the controller told it to.
    pub fn before_stop(&mut self, world: &mut World, host: &HostName, id: &ContainerId) {
        let machine = &world.machines[host];
        let unit = machine.units[id].clone();
        self.before_loss(world, host, &unit, "stopped");
        if !unit.answers {
            return;
        }
        let Some(address) =
            unit.port.map(|port| SocketAddr::new(world.machines[host].address, port))
        else {
            return;
        };
        if self.meddled.contains(&address) {
            return;
        }
        if let Some(sender) = sender_to(world, address) {
            let message = format!("{} on {host} is stopped while {sender}", unit.name);
            self.violate(world, "S3", message);
        }
    }

    pub fn before_remove(&mut self, world: &mut World, host: &HostName, unit: &Unit) {
        self.before_loss(world, host, unit, "removed");
    }

    /// No more declared by the last commit before the tip that could be read and wasn't empty: its
    /// removal was on its way when the tip came.
    fn was_let_go(&self, world: &World, birth: &Birth) -> bool {
        let parent = |commit: &CommitId| world.remote.commits.get(commit)?.parent.clone();
        let before = std::iter::successors(world.remote.tip.as_ref().and_then(parent), parent);
        let declarations = before.filter_map(|commit| self.declarations.get(&commit));
        let mut whole = declarations.filter(|declaration| {
            declaration.desired.unreadable.is_empty() && !declaration.desired.apps.is_empty()
        });
        let last = whole.next();
        last.is_some_and(|last| match last.apps.get(&birth.app) {
            Some(declared) => declared.revision != birth.revision,
            None => !last.desired.blocked.contains_key(&birth.app),
        })
    }

    fn before_loss(&mut self, world: &mut World, host: &HostName, unit: &Unit, how: &str) {
        let name = &unit.name;
        if world.machines[host].foreign.contains_key(&unit.id) {
            let message = format!("{name} on {host} is {how}, and isn't ours");
            return self.violate(world, "S1", message);
        }
        let Some(birth) = &unit.birth else { return };
        let Some(declaration) = self.settled_on(world) else { return };
        let desired = &declaration.desired;
        if self.was_let_go(world, birth) {
            return;
        }
        // What never started is cleared away by the step that couldn't start it.
        let was_there = unit.runs() || matches!(unit.state, ContainerState::Exited { .. });
        if desired.blocked.contains_key(&birth.app) && was_there {
            let message = format!("{name} on {host} is {how}, and its manifest can't be read");
            return self.violate(world, "S8", message);
        }
        let is_empty = desired.apps.is_empty() && desired.blocked.is_empty();
        if is_empty && was_there {
            let message = format!("{name} on {host} is {how}: nobody let the last app go");
            return self.violate(world, "S8", message);
        }
        let Some(declared) = declaration.apps.get(&birth.app) else {
            if !desired.unreadable.is_empty() && was_there {
                let message = format!("{name} on {host} is {how}, and a file can't be read");
                self.violate(world, "S8", message);
            }
            return;
        };
        // One that is held is gone back from, and what that began ends also where a person lifts it.
        let lifted = self.lifted.get(&birth.app).is_some_and(|at| *at + GOING_BACK > world.now());
        if lifted || world.disk.holds().iter().any(|hold| hold.app == birth.app) {
            return;
        }
        let replicas = declared.hosts.get(host).map_or(0, |(replicas, _)| *replicas);
        let is_declared = |unit: &&Unit| {
            let birth = unit.birth.as_ref();
            birth.is_some_and(|b| b.app == declared.app.id && b.revision == declared.revision)
        };
        // Of one without a port and a check nobody can tell more than that it runs.
        let is_told = |unit: &&Unit| unit.port.is_some() || unit.checked_every.is_some();
        let is_well = |unit: &&Unit| unit.answers || (unit.runs() && !is_told(unit));
        let units = world.machines[host].units.values().filter(is_declared);
        let blind = self.is_blind(world) || world.machines[host].is_unheard(world.now());
        let is_as_declared = unit.answers && is_declared(&unit);
        if !blind && is_as_declared && units.filter(is_well).count() as u32 <= replicas {
            let message = format!("{name} on {host} is {how}, and is as declared");
            self.violate(world, "S8", message);
        }
    }

    /// What a fault took this very moment was there when it was decided.
    fn is_blind(&self, world: &World) -> bool {
        let last = self.disturbed_at.max(self.late_until);
        last.is_some_and(|at| at + UNNOTICED > world.now())
    }

    /// S3: only what is up gets a weight.
    pub fn before_weight(
        &mut self,
        world: &mut World,
        balancer: &BalancerName,
        backend: &BackendName,
        server: &ServerName,
        weight: u16,
    ) {
        let Some(seat) = world.balancer(balancer).seat(backend, server).cloned() else { return };
        let is_up = seat.check == plimsoll::model::CheckState::Up || world.answers(seat.address);
        // A call that isn't answered is made again, by what was so then.
        if self.mended_at.is_some_and(|at| at + ASKED_AGAIN > world.now()) {
            return;
        }
        if weight > 0 && seat.weight == 0 && !is_up && !self.meddled.contains(&seat.address) {
            let message = format!("{server} at {balancer} gets the weight {weight}, and is down");
            self.violate(world, "S3", message);
        }
    }

    pub fn file_written(&mut self, name: &BalancerName) {
        self.written.insert(name.clone());
    }

    /// S7, and what the controller says of its commits.
    pub fn stored(&mut self, world: &mut World, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(object) if object.kind == Kind::Source => {
                    let now = Belief::of(&object.status);
                    let before = std::mem::replace(&mut self.belief, now);
                    let (attempted, applied) =
                        (self.belief.attempted.clone(), self.belief.applied.clone());
                    self.moved(world, before.attempted, attempted.clone());
                    // What is reached was taken up before, so that the one follows the other.
                    if applied != before.applied && applied != attempted {
                        let message = format!("{applied:?} is reached, and {attempted:?} taken up");
                        self.violate(world, "S7", message);
                    }
                }
                Change::Put(object) if object.kind == Kind::Approval => {
                    self.approved.insert(object.metadata.name.clone());
                }
                Change::Delete(Kind::Hold, name) => {
                    world.mark(Mark::HoldLifted);
                    let app = name.parse();
                    self.lifted.extend(app.into_iter().map(|app: AppId| (app, world.now())));
                }
                _ => {}
            }
        }
    }

    fn moved(&mut self, world: &mut World, old: Option<CommitId>, new: Option<CommitId>) {
        let (Some(old), Some(new)) = (old, new) else { return };
        let id = Sha256::of(format!("rewrite {old} {new}").as_bytes()).short(12);
        if !world.remote.is_ancestor(&old, &new) && !self.approved.contains(&id) {
            let message =
                format!("from {} to {}, which doesn't descend from it", old.short(), new.short());
            self.violate(world, "S7", message);
        }
    }
}

fn key(birth: &Birth, host: &HostName) -> (HostName, AppId, Revision) {
    (host.clone(), birth.app.clone(), birth.revision)
}

/// The servers of a route that HAProxy sends requests to, and that answer.
pub fn serving(world: &World, balancer: &BalancerName, key: &RouteKey) -> u32 {
    let Some(balancer) = world.balancers.get(balancer) else { return 0 };
    if balancer.paused_until.is_some_and(|until| until > world.now()) {
        return 0;
    }
    let Some(worker) = &balancer.worker else { return 0 };
    let Some(seats) = worker.routes.get(key).and_then(|backend| worker.seats.get(backend)) else {
        return 0;
    };
    seats.values().filter(|seat| seat.takes() && world.answers(seat.address)).count() as u32
}

/// Who still sends requests there, or has some on it.
fn sender_to(world: &World, address: SocketAddr) -> Option<String> {
    for balancer in world.balancers.values() {
        let Some(worker) = &balancer.worker else { continue };
        for (backend, seats) in &worker.seats {
            for (server, seat) in seats.iter().filter(|(_, seat)| seat.address == address) {
                if seat.takes() {
                    return Some(format!("{} sends requests to {server}", balancer.name));
                }
                if world.sessions(&balancer.name, backend, server) > 0 {
                    return Some(format!("requests of {} are on {server}", balancer.name));
                }
            }
        }
        let now = world.now();
        let old = balancer.old.iter().filter(|old| old.ends > now);
        let mut busy = old.flat_map(|old| old.seats.values().flatten());
        if busy.any(|(_, seat)| seat.address == address && seat.busy_until > now) {
            return Some(format!("an old worker of {} has requests on it", balancer.name));
        }
    }
    None
}

/// S1.
fn foreign_touched(world: &World) -> Option<String> {
    let of = |machine: &Machine| {
        let gone = machine.foreign.iter().find(|(id, name)| {
            machine
                .units
                .get(*id)
                .is_none_or(|unit| unit.name != **name || (machine.up && !unit.runs()))
        });
        gone.map(|(_, name)| format!("{name} on {} isn't as its owner left it", machine.name))
    };
    world.machines.values().find_map(of)
}

/// S6.
fn doubled(world: &World) -> Option<String> {
    for machine in world.machines.values() {
        let mut seen = BTreeSet::new();
        for unit in machine.units.values() {
            let Some(birth) = &unit.birth else { continue };
            let is_ours = !machine.foreign.contains_key(&unit.id);
            if is_ours && !seen.insert((&birth.app, birth.revision, birth.slot)) {
                return Some(format!(
                    "{} is there twice on {}",
                    birth.container_name(),
                    machine.name
                ));
            }
        }
    }
    None
}

/// Requests of one app reach a container of another.
fn misled(world: &World) -> Option<String> {
    let now = world.now();
    for balancer in world.balancers.values() {
        let new = balancer.worker.iter().flat_map(|worker| &worker.seats);
        let new =
            new.flat_map(|(b, seats)| seats.values().map(move |seat| (b, seat, seat.takes())));
        let old = balancer.old.iter().filter(|old| old.ends > now).flat_map(|old| &old.seats);
        let old = old.flat_map(|(b, seats)| {
            seats.values().map(move |seat| (b, seat, seat.busy_until > now))
        });
        for (backend, seat, _) in new.chain(old).filter(|(_, _, takes)| *takes) {
            let Some((host, id)) = world.behind(seat.address) else { continue };
            let unit = &world.machines[host].units[id];
            if unit.birth.as_ref().is_none_or(|birth| birth.app != backend.app) {
                let name = &unit.name;
                return Some(format!("requests of {backend} at {} reach {name}", balancer.name));
            }
        }
    }
    None
}

/// A route leads to a backend that isn't there.
fn dangling(world: &World) -> Option<String> {
    world.balancers.values().find_map(|balancer| {
        let worker = balancer.worker.as_ref()?;
        let lost = worker.routes.iter().find(|(_, backend)| !worker.seats.contains_key(backend));
        lost.map(|(key, backend)| format!("{key} at {} leads to no {backend}", balancer.name))
    })
}

/// The file that lies there wouldn't have passed the checks.
fn unsound(world: &World, name: &BalancerName) -> Option<String> {
    let config = world.balancers[name].file.config()?;
    let rendered = match render(config, &places()) {
        Ok(rendered) => rendered,
        Err(error) => return Some(format!("{name}: {error}")),
    };
    lint(config, &rendered, &places()).err().map(|error| format!("{name}: {error}"))
}
