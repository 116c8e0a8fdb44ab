//! What everything simulated has in common: one state, one clock, one agenda of what will happen.
//!
//! Nothing here runs by itself. What is due is done, in the order of its time, whenever somebody
//! looks or acts; [`Sim::keep_time`] looks whenever something becomes due. Time is tokio's, which
//! a test pauses, so that the same seed gives the same run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plimsoll::model::{BalancerName, ContainerId, HostName};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::audit::Audit;
use super::balancer::Haproxy;
use super::fault::Gate;
use super::machine::Machine;
use super::mark::Mark;
use super::remote::Remote;
use super::store::Disk;
use super::trace::Trace;

/// Something that will happen.
type Job = Box<dyn FnOnce(&mut World) + Send>;

/// Everything that is there.
pub struct World {
    pub machines: BTreeMap<HostName, Machine>,
    pub balancers: BTreeMap<BalancerName, Haproxy>,
    pub remote: Remote,
    pub disk: Disk,
    pub gate: Gate,
    pub audit: Audit,
    pub trace: Trace,
    pub marks: BTreeSet<Mark>,
    /// Counts the controllers: calls of those that ended are never answered.
    pub life: u64,
    /// A controller runs.
    pub alive: bool,
    /// Registries answer nobody until then.
    pub registries_down_until: Option<Instant>,
    agenda: BTreeMap<(Instant, u64), Job>,
    numbers: u64,
    now: Instant,
    begun: Instant,
    rng: StdRng,
    /// Something is different from when the audit looked last.
    touched: bool,
    agenda_changed: Arc<Notify>,
    crashed: Arc<Notify>,
}

/// A handle of the world.
#[derive(Clone)]
pub struct Sim {
    world: Arc<Mutex<World>>,
    agenda_changed: Arc<Notify>,
    /// Told when a controller is to end without a word.
    pub crashed: Arc<Notify>,
}

impl Sim {
    /// An empty world. Its chances come from `seed`.
    pub fn new(seed: u64) -> Self {
        let (agenda_changed, crashed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let now = Instant::now();
        let world = World {
            machines: BTreeMap::new(),
            balancers: BTreeMap::new(),
            remote: Remote::default(),
            disk: Disk::default(),
            gate: Gate::default(),
            audit: Audit::default(),
            trace: Trace::default(),
            marks: BTreeSet::new(),
            life: 0,
            alive: true,
            registries_down_until: None,
            agenda: BTreeMap::new(),
            numbers: 0,
            now,
            begun: now,
            rng: StdRng::seed_from_u64(seed),
            touched: false,
            agenda_changed: agenda_changed.clone(),
            crashed: crashed.clone(),
        };
        Self { world: Arc::new(Mutex::new(world)), agenda_changed, crashed }
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is due, then `act`, then lets the audit look.
    pub fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.lock();
        world.catch_up(Instant::now());
        let result = act(&mut world);
        world.look_over();
        result
    }

    /// Does what becomes due when it does, for ever.
    pub async fn keep_time(self) {
        loop {
            let next = self.with(|world| world.agenda.first_key_value().map(|((at, _), _)| *at));
            let changed = self.agenda_changed.notified();
            match next {
                None => changed.await,
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, changed).await;
                }
            }
        }
    }
}

impl World {
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Milliseconds since the world began.
    pub fn millis(&self) -> u64 {
        (self.now - self.begun).as_millis() as u64
    }

    fn catch_up(&mut self, to: Instant) {
        while let Some(entry) = self.agenda.first_entry() {
            let at = entry.key().0;
            if at > to {
                break;
            }
            let job = entry.remove();
            self.now = self.now.max(at);
            job(self);
            self.look_over();
        }
        self.now = self.now.max(to);
    }

    /// Has `job` done in so long.
    pub fn after(&mut self, pause: Duration, job: impl FnOnce(&mut World) + Send + 'static) {
        let at = self.now + pause;
        let number = self.number();
        self.agenda.insert((at, number), Box::new(job));
        self.agenda_changed.notify_one();
    }

    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Between these two, in milliseconds.
    pub fn chance(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(from..=to.max(from)))
    }

    /// One of so many.
    pub fn pick(&mut self, of: usize) -> usize {
        self.rng.random_range(0..of.max(1))
    }

    /// Says that something is different now.
    pub fn touch(&mut self) {
        self.touched = true;
    }

    pub fn mark(&mut self, mark: Mark) {
        self.marks.insert(mark);
    }

    /// Notes what happens, for people and for the hash of the run.
    pub fn tell(&mut self, text: impl FnOnce() -> String) {
        let millis = self.millis();
        self.trace.tell(millis, text);
    }

    /// The audit with the world beside it.
    pub fn with_audit(&mut self, act: impl FnOnce(&mut Audit, &mut World)) {
        let mut audit = std::mem::take(&mut self.audit);
        act(&mut audit, self);
        self.audit = audit;
    }

    fn look_over(&mut self) {
        if std::mem::take(&mut self.touched) {
            self.with_audit(|audit, world| audit.look(world));
        }
    }

    /// The controller ends now: what it has sent is on its way, what it hasn't never will be.
    pub fn crash(&mut self) {
        if self.alive {
            self.tell(|| "the controller is killed".into());
            super::mark::of_crash(self);
            self.alive = false;
            self.life += 1;
            let kept = self.pick(usize::MAX);
            self.disk.crash(kept);
            self.with_audit(|audit, world| audit.forget(world));
            self.crashed.notify_one();
        }
    }

    /// Who answers requests at that address.
    pub fn behind(&self, address: SocketAddr) -> Option<(&HostName, &ContainerId)> {
        let at = |machine: &&Machine| machine.up && machine.address == address.ip();
        let machine = self.machines.values().find(at)?;
        let unit = machine
            .units
            .values()
            .find(|unit| unit.answers && unit.port == Some(address.port()))?;
        Some((&machine.name, &unit.id))
    }

    pub fn answers(&self, address: SocketAddr) -> bool {
        self.behind(address).is_some()
    }
}
