//! S11: what happens to one app, host or file holds up nothing else. An app that nothing concerns
//! is as it is declared after a while, whatever state the rest is in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll::model::{AppId, BackendName, BalancerName, Kind, RouteKey};
use tokio::time::Instant;

use super::balancer::{Seat, Worker};
use super::declared::{Declaration, Declared};
use super::world::World;

/// How long an app may take that nothing concerns any more: the longest pause of the loop, about
/// a minute after a step that failed, and a rollout.
const HELD_UP: Duration = Duration::from_secs(120);

/// Since when nothing concerns an app, as far as was looked.
#[derive(Debug, Default)]
pub struct Isolation {
    concerned: BTreeMap<AppId, Instant>,
    /// What concerns all of them: the number of commits that were pushed, of faults of calls
    /// that came to pass, and of controllers, as they were at the last look.
    numbers: (usize, u32, u64),
}

impl Isolation {
    /// Looks once; what was broken, in words. `declaration`: what the controller works on, where
    /// that is the newest. `disturbed`: when the last fault came, of whatever kind.
    pub fn look(
        &mut self,
        world: &World,
        declaration: Option<&Declaration>,
        disturbed: Option<Instant>,
    ) -> Option<String> {
        let now = world.now();
        let numbers = (world.remote.commits.len(), world.gate.met, world.life);
        let before = std::mem::replace(&mut self.numbers, numbers);
        let registries = world.registries_down_until.is_some_and(|until| until > now);
        let all = before != numbers
            || !world.alive
            || registries
            || world.disk.is_full
            || world.remote.is_down
            || world.remote.mirror.is_some();
        let Some(declaration) = declaration.filter(|_| !all) else {
            self.concerned.clear();
            return None;
        };
        let concerned = concerned(world, declaration);
        self.concerned.retain(|app, _| declaration.apps.contains_key(app));
        for (app, declared) in &declaration.apps {
            let since = self.concerned.entry(app.clone()).or_insert(now);
            *since = (*since).max(disturbed.unwrap_or(*since));
            if concerned.contains(app) {
                *since = now;
            } else if *since + HELD_UP < now
                && let Some(difference) = difference(world, declared)
            {
                let waited = (now - *since).as_secs();
                return Some(format!("{app} is held up by others for {waited} s: {difference}"));
            }
        }
        None
    }
}

/// As [`Isolation::look`], of a world in which nothing went wrong and nobody does anything more.
pub fn at_rest(world: &World, declaration: &Declaration) -> Option<String> {
    let concerned = concerned(world, declaration);
    let free = declaration.apps.values().filter(|declared| !concerned.contains(&declared.app.id));
    let held_up = free.filter_map(|declared| Some((declared, difference(world, declared)?))).next();
    held_up.map(|(declared, difference)| {
        format!("{} is held up by others: {difference}", declared.app.id)
    })
}

/// The apps that something which isn't well now has to do with, directly or by a route that is to
/// pass from one to the other.
fn concerned(world: &World, declaration: &Declaration) -> BTreeSet<AppId> {
    let desired = &declaration.desired;
    let reads_all = desired.blocked.is_empty() && desired.unreadable.is_empty();
    let ill = |declared: &&Declared| {
        is_concerned(world, declared) || (!reads_all && gives_up_a_route(world, declared))
    };
    let mut found: BTreeSet<AppId> =
        declaration.apps.values().filter(ill).map(|declared| declared.app.id.clone()).collect();
    let has = |app: &AppId| declaration.apps.contains_key(app);
    loop {
        let waits = |declared: &&Declared| {
            let mut owners = routes(declared).filter_map(|(name, key)| {
                let backend = worker(world, &name)?.routes.get(&key)?;
                Some(&backend.app)
            });
            !found.contains(&declared.app.id)
                && owners.any(|owner| found.contains(owner) || (!has(owner)))
        };
        let more: Vec<_> =
            declaration.apps.values().filter(waits).map(|app| app.app.id.clone()).collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// It doesn't work, a person has to decide something, or a host or balancer isn't well where it
/// is, or is to be.
fn is_concerned(world: &World, declared: &Declared) -> bool {
    let app = &declared.app.id;
    let held = world.disk.holds().iter().any(|hold| hold.app == *app);
    if held || !declared.nature.works() || waits_for_a_person(world, app) {
        return true;
    }
    let now = world.now();
    // Who began while it can't be seen doesn't know where it points to: see decision 0015.
    let unknown = world.life > 0 && world.balancers.values().any(|b| b.is_frozen(now));
    if unknown && declared.app.template.port.is_some() {
        return true;
    }
    let ill_hosts = world.machines.values().filter(|machine| {
        !machine.responds() || machine.is_full || machine.is_mute || machine.is_unheard(now)
    });
    for machine in ill_hosts {
        let mut units = machine.units.values().filter_map(|unit| unit.birth.as_ref());
        let mut servers =
            seats_of(world, app).filter(|(_, seat)| seat.address.ip() == machine.address);
        let placed = declared.app.placement.contains_key(&machine.name);
        if placed || units.any(|birth| birth.app == *app) || servers.next().is_some() {
            return true;
        }
    }
    let mut ill = world.balancers.values().filter(|balancer| {
        let paused = balancer.paused_until.is_some_and(|until| until > now);
        balancer.is_frozen(now) || balancer.refuses || paused
    });
    ill.any(|balancer| {
        let declared = declared.app.routes.iter().any(|route| route.balancer == balancer.name);
        let there = balancer.worker.iter().any(|worker| has_backend(worker, app));
        declared || there
    })
}

/// It has a route that it doesn't declare at a balancer where it isn't to serve any more: while a file
/// can't be read, that may be the one that takes it.
fn gives_up_a_route(world: &World, declared: &Declared) -> bool {
    let mut balancers =
        world.balancers.values().filter_map(|b| Some((&b.name, b.worker.as_ref()?)));
    balancers.any(|(name, worker)| {
        let leads = worker.routes.values().any(|backend| backend.app == declared.app.id);
        leads && !declared.app.routes.iter().any(|route| route.balancer == *name)
    })
}

/// Too much would go: only its owner can say whether it should.
fn waits_for_a_person(world: &World, app: &AppId) -> bool {
    let stored = world.disk.get(Kind::App, &app.to_string());
    stored.is_some_and(|object| object.status.to_string().contains("wait for approval"))
}

fn has_backend(worker: &Worker, app: &AppId) -> bool {
    worker.seats.keys().any(|backend| backend.app == *app)
}

fn worker<'a>(world: &'a World, name: &BalancerName) -> Option<&'a Worker> {
    world.balancers.get(name)?.worker.as_ref()
}

fn routes(declared: &Declared) -> impl Iterator<Item = (BalancerName, RouteKey)> {
    declared.app.routes.iter().map(|route| {
        let (listener, host, path) =
            (route.listener.clone(), route.host.clone(), route.path.clone());
        (route.balancer.clone(), RouteKey { listener, host, path })
    })
}

fn seats_of<'a>(
    world: &'a World,
    app: &'a AppId,
) -> impl Iterator<Item = (&'a BalancerName, &'a Seat)> {
    let workers = world.balancers.values().filter_map(|b| Some((&b.name, b.worker.as_ref()?)));
    workers.flat_map(move |(name, worker)| {
        let ours = worker.seats.iter().filter(move |(backend, _)| backend.app == *app);
        ours.flat_map(move |(_, seats)| seats.values().map(move |seat| (name, seat)))
    })
}

/// What isn't as it is declared, in words.
fn difference(world: &World, declared: &Declared) -> Option<String> {
    let app = &declared.app.id;
    for machine in world.machines.values() {
        let (wanted, _) = declared.hosts.get(&machine.name).copied().unwrap_or((0, 0));
        let (mut right, mut other) = (0, 0);
        for unit in machine.units.values() {
            let Some(birth) = unit.birth.as_ref().filter(|birth| birth.app == *app) else {
                continue;
            };
            if machine.foreign.contains_key(&unit.id) {
                continue;
            }
            match birth.revision == declared.revision && unit.runs() {
                true => right += 1,
                false => other += 1,
            }
        }
        if (right, other) != (wanted, 0) {
            let name = &machine.name;
            return Some(format!("{name} has {right} that run and {other} others, not {wanted}"));
        }
    }
    routes(declared).find_map(|(name, key)| {
        let worker = worker(world, &name)?;
        let Some(backend) = worker.routes.get(&key).filter(|backend| backend.app == *app) else {
            return Some(format!("{name} doesn't lead {key} to it"));
        };
        difference_of_seats(world, declared, &name, worker, backend)
    })
}

fn difference_of_seats(
    world: &World,
    declared: &Declared,
    name: &BalancerName,
    worker: &Worker,
    backend: &BackendName,
) -> Option<String> {
    let revision = declared.revision.short8();
    for (host, (replicas, weight)) in &declared.hosts {
        let seats = worker.seats.get(backend).into_iter().flatten();
        let right = seats.filter(|(server, seat)| {
            server.host == *host
                && server.revision8() == revision
                && seat.weight == *weight
                && (*weight == 0 || seat.takes())
                && world.answers(seat.address)
        });
        let right = right.count() as u32;
        if right != *replicas {
            return Some(format!(
                "{name} has {right} servers on {host} with the weight {weight}, not {replicas}"
            ));
        }
    }
    None
}
