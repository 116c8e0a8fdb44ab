//! Simulated HAProxies: a file and a process as two states, and what the process does by itself.
//! It checks its servers, begins anew from its file, and lets old workers finish what they began.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::model::{
    AdminState, BackendName, BalancerName, CheckState, ProxyConfig, ProxyStructure, RouteKey,
    Server, ServerName, Sha256,
};
use tokio::time::Instant;

use super::mark::Mark;
use super::world::World;

/// How long old frontends are paused when a new listener can't be bound.
const PAUSED: Duration = Duration::from_millis(2030);

/// What lies in the place of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    Missing,
    Whole(Arc<ProxyConfig>),
    /// Somebody changed it: its trailer doesn't fit. HAProxy reads it all the same.
    Edited(Arc<ProxyConfig>),
}

impl File {
    pub fn config(&self) -> Option<&Arc<ProxyConfig>> {
        match self {
            Self::Missing => None,
            Self::Whole(config) | Self::Edited(config) => Some(config),
        }
    }
}

/// A server in a worker.
#[derive(Debug, Clone)]
pub struct Seat {
    pub address: SocketAddr,
    pub weight: u16,
    pub admin: AdminState,
    /// `Unknown` until its first check has ended: HAProxy sends requests to it meanwhile.
    pub check: CheckState,
    /// Requests that it had are answered by then.
    pub busy_until: Instant,
    /// When its weight was raised last.
    pub raised: Option<Instant>,
}

impl Seat {
    /// HAProxy sends requests to it.
    pub fn takes(&self) -> bool {
        self.weight > 0 && self.admin == AdminState::Ready && self.check != CheckState::Down
    }
}

pub type Seats = BTreeMap<BackendName, BTreeMap<ServerName, Seat>>;

/// The newest worker.
#[derive(Debug, Clone)]
pub struct Worker {
    pub number: u64,
    /// As its description says.
    pub structure: Sha256,
    pub listeners: BTreeSet<SocketAddr>,
    pub routes: BTreeMap<RouteKey, BackendName>,
    pub seats: Seats,
    /// Between two checks of a server that is up.
    pub intervals: BTreeMap<BackendName, Duration>,
}

/// A worker of an earlier generation.
#[derive(Debug, Clone)]
pub struct OldWorker {
    pub ends: Instant,
    pub seats: Seats,
}

/// One HAProxy.
#[derive(Debug)]
pub struct Haproxy {
    pub name: BalancerName,
    pub file: File,
    pub worker: Option<Worker>,
    pub old: Vec<OldWorker>,
    /// Reloads that weren't taken since the last that was.
    pub failed: u32,
    pub frozen_until: Option<Instant>,
    /// The next reload isn't taken.
    pub refuses: bool,
    /// Addresses that other programs have.
    pub others: BTreeSet<SocketAddr>,
    /// Its frontends refuse everybody until then.
    pub paused_until: Option<Instant>,
    pub reloads: u32,
}

impl Haproxy {
    pub fn new(name: BalancerName) -> Self {
        Self {
            name,
            file: File::Missing,
            worker: None,
            old: Vec::new(),
            failed: 0,
            frozen_until: None,
            refuses: false,
            others: BTreeSet::new(),
            paused_until: None,
            reloads: 0,
        }
    }

    pub fn is_frozen(&self, now: Instant) -> bool {
        self.frozen_until.is_some_and(|until| until > now)
    }

    pub fn seat(&mut self, backend: &BackendName, name: &ServerName) -> Option<&mut Seat> {
        self.worker.as_mut()?.seats.get_mut(backend)?.get_mut(name)
    }

    /// The addresses that old workers may still send requests to.
    pub fn old_addresses(&self, now: Instant) -> BTreeSet<SocketAddr> {
        let old = self.old.iter().filter(|old| old.ends > now);
        old.flat_map(|old| old.seats.values().flatten().map(|(_, seat)| seat.address)).collect()
    }
}

impl World {
    pub fn balancer(&mut self, name: &BalancerName) -> &mut Haproxy {
        self.balancers.get_mut(name).expect("a balancer of this world")
    }

    /// Requests that are on a server, in all workers.
    pub fn sessions(&self, name: &BalancerName, backend: &BackendName, server: &ServerName) -> u64 {
        let Some(balancer) = self.balancers.get(name) else { return 0 };
        let now = self.now();
        let count = |seat: &Seat, is_new: bool| {
            if !self.answers(seat.address) {
                return 0;
            }
            u64::from(is_new && seat.takes()) + u64::from(seat.busy_until > now)
        };
        let seat = |seats: &Seats| seats.get(backend).and_then(|all| all.get(server)).cloned();
        let new = balancer.worker.as_ref().and_then(|worker| seat(&worker.seats));
        let old = balancer.old.iter().filter(|old| old.ends > now);
        let old = old.filter_map(|old| seat(&old.seats)).map(|seat| count(&seat, false));
        new.map_or(0, |seat| count(&seat, true)) + old.sum::<u64>()
    }

    /// Ends what is on a server, in all workers.
    pub fn cut(&mut self, name: &BalancerName, backend: &BackendName, server: &ServerName) {
        let now = self.now();
        let balancer = self.balancer(name);
        if let Some(seat) = balancer.seat(backend, server) {
            seat.busy_until = now;
        }
        for old in &mut balancer.old {
            if let Some(seat) = old.seats.get_mut(backend).and_then(|all| all.get_mut(server)) {
                seat.busy_until = now;
                // It ends with the last of what it has.
                let seats = old.seats.values().flatten();
                let last = seats.map(|(_, seat)| seat.busy_until).max();
                old.ends = old.ends.min(last.unwrap_or(now));
            }
        }
    }

    /// Gives a server of the process a weight, and makes it ready. False where there is none.
    pub fn weigh(
        &mut self,
        name: &BalancerName,
        backend: &BackendName,
        server: &ServerName,
        weight: u16,
    ) -> bool {
        let (now, rest) = (self.now(), self.chance(0, 1500));
        let Some(seat) = self.balancer(name).seat(backend, server) else { return false };
        let took = seat.takes();
        if weight > 0 && seat.weight == 0 {
            seat.raised = Some(now);
        }
        (seat.weight, seat.admin) = (weight, AdminState::Ready);
        if took && weight == 0 {
            // What doesn't end by itself outlives the weight.
            seat.busy_until = seat.busy_until.max(now + rest);
        }
        self.touch();
        true
    }

    /// Something at that address begins or ceases to answer: the checks find out.
    pub fn check_servers_at(&mut self, address: SocketAddr) {
        let mut found = Vec::new();
        for (name, balancer) in &self.balancers {
            let Some(worker) = &balancer.worker else { continue };
            for (backend, seats) in &worker.seats {
                let at = seats.iter().filter(|(_, seat)| seat.address == address);
                found.extend(at.map(|(server, _)| (name.clone(), backend.clone(), server.clone())));
            }
        }
        for (name, backend, server) in found {
            self.check(&name, &backend, &server);
        }
    }

    /// The checks of one server find out how it is doing, if that is news.
    pub fn check(&mut self, name: &BalancerName, backend: &BackendName, server: &ServerName) {
        let Some(worker) = &self.balancers[name].worker else { return };
        let Some(seat) = worker.seats.get(backend).and_then(|all| all.get(server)) else { return };
        let (number, address, check) = (worker.number, seat.address, seat.check);
        let interval = worker.intervals.get(backend).copied().unwrap_or(Duration::from_secs(1));
        let answers = self.answers(address);
        let takes = match (answers, check) {
            (true, CheckState::Up) | (false, CheckState::Down) => return,
            (true, _) | (false, CheckState::Unknown) => self.chance(5, 60),
            (false, CheckState::Up) => {
                let interval = interval.as_millis() as u64;
                self.chance(100, 100 + interval)
            }
        };
        let (name, backend, server) = (name.clone(), backend.clone(), server.clone());
        self.after(takes, move |world| {
            let same = world.answers(address) == answers;
            let Some(worker) = &mut world.balancer(&name).worker else { return };
            let is_same = worker.number == number && same;
            let seats = worker.seats.get_mut(&backend);
            let seat = seats.and_then(|all| all.get_mut(&server));
            if let Some(seat) = seat.filter(|seat| is_same && seat.address == address) {
                seat.check = if answers { CheckState::Up } else { CheckState::Down };
                world.touch();
            }
        });
    }

    /// SIGUSR2 to the master, or a start where no process is: a new worker comes from the file,
    /// or doesn't. `done` is called when that is known.
    pub fn reload(
        &mut self,
        name: &BalancerName,
        done: impl FnOnce(&mut World, Result<(), String>) + Send + 'static,
    ) {
        let takes = self.chance(60, 130);
        let name = name.clone();
        self.after(takes, move |world| {
            let taken = world.take_file(&name);
            done(world, taken);
        });
    }

    fn take_file(&mut self, name: &BalancerName) -> Result<(), String> {
        let now = self.now();
        let balancer = self.balancer(name);
        let Some(config) = balancer.file.config().cloned() else {
            return Err("there is no file".into());
        };
        if std::mem::take(&mut balancer.refuses) {
            balancer.failed += 1;
            self.mark(Mark::ReloadFailed);
            return Err("HAProxy's master refused the new file, the old worker serves on".into());
        }
        let balancer = self.balancer(name);
        let listeners = addresses(&config.structure);
        if let Some(taken) = listeners.intersection(&balancer.others).next().copied() {
            balancer.failed += 1;
            balancer.paused_until = Some(now + PAUSED);
            self.touch();
            return Err(format!("{taken} can't be bound"));
        }
        balancer.failed = 0;
        balancer.reloads += 1;
        let number = self.number();
        let worker = Worker {
            number,
            structure: config.structure.digest(),
            listeners,
            routes: config.routes.clone(),
            seats: config.servers.iter().map(|(b, all)| (b.clone(), seats(all, now))).collect(),
            intervals: (config.structure.backends.iter())
                .map(|(name, backend)| (name.clone(), backend.check.interval.duration()))
                .collect(),
        };
        self.tell(|| format!("{name} runs worker {number}"));
        let ends = self.chance(0, 1500);
        let old = self.balancer(name).worker.replace(worker);
        if let Some(old) = old {
            let mut seats = old.seats;
            for seat in seats.values_mut().flat_map(BTreeMap::values_mut) {
                if seat.takes() {
                    seat.busy_until = seat.busy_until.max(now + ends);
                }
            }
            let all = seats.values().flatten();
            let ends = all.map(|(_, seat)| seat.busy_until).fold(now + ends, Instant::max);
            let balancer = self.balancer(name);
            balancer.old.retain(|old| old.ends > now);
            balancer.old.push(OldWorker { ends, seats });
        }
        self.touch();
        let all: Vec<_> = config
            .servers
            .iter()
            .flat_map(|(backend, all)| all.keys().map(move |name| (backend.clone(), name.clone())))
            .collect();
        for (backend, server) in all {
            self.check(name, &backend, &server);
        }
        Ok(())
    }

    /// `kill -9` of master and workers.
    pub fn kill_balancer(&mut self, name: &BalancerName) {
        let balancer = self.balancer(name);
        balancer.worker = None;
        balancer.old.clear();
        self.mark(Mark::BalancerKilled);
        self.touch();
    }
}

/// Where it listens: for requests, and for its page of statistics.
pub fn addresses(structure: &ProxyStructure) -> BTreeSet<SocketAddr> {
    let listeners = structure.listeners.values().map(|listener| listener.bind);
    structure.stats.into_iter().chain(listeners).collect()
}

/// The servers of a file in a worker that was just started.
fn seats(servers: &BTreeMap<ServerName, Server>, now: Instant) -> BTreeMap<ServerName, Seat> {
    let seat = |server: &Server| Seat {
        address: server.address,
        weight: server.weight,
        admin: AdminState::Ready,
        check: CheckState::Unknown,
        busy_until: now,
        raised: None,
    };
    servers.iter().map(|(name, server)| (name.clone(), seat(server))).collect()
}
