//! What is there, in a form in which two runs are compared: no ids, no ports, no slots.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use plimsoll::model::{AdminState, Backend, CheckState};

use super::balancer::{File, Seat};
use super::world::World;

/// Counts of facts, each in words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State(pub BTreeMap<String, u32>);

impl State {
    pub fn of(world: &World) -> Self {
        let mut state = Self::default();
        let result = &world.audit.belief.result;
        state.count(format!("the commit's result is {result}"));
        for machine in world.machines.values() {
            for unit in machine.units.values() {
                let Some(birth) = &unit.birth else { continue };
                if machine.foreign.contains_key(&unit.id) {
                    continue;
                }
                let how = match unit.runs() {
                    true => String::from("runs"),
                    false => format!("{:?}", unit.state),
                };
                let revision = birth.revision.short8();
                state.count(format!("{} {} {revision} {how}", machine.name, birth.app));
            }
        }
        for balancer in world.balancers.values() {
            state.of_file(world, balancer);
            state.of_worker(world, balancer);
        }
        state
    }

    /// Without what the controller says of the commit.
    pub fn without_result(mut self) -> Self {
        self.0.retain(|fact, _| !fact.starts_with("the commit's result"));
        self
    }

    fn count(&mut self, fact: String) {
        *self.0.entry(fact).or_default() += 1;
    }

    fn of_file(&mut self, world: &World, balancer: &super::balancer::Haproxy) {
        let name = balancer.name.as_str();
        let config = match &balancer.file {
            File::Missing => return self.count(format!("{name} has no file")),
            File::Edited(_) => return self.count(format!("the file of {name} is edited")),
            File::Whole(config) => config,
        };
        for (key, backend) in &config.routes {
            self.count(format!("file {name}: {key} to {backend}"));
        }
        let mut counted = BTreeSet::new();
        for (backend, servers) in &config.servers {
            for (server, seat) in servers {
                let seats = balancer.worker.as_ref().and_then(|worker| worker.seats.get(backend));
                let there = seats.and_then(|seats| seats.get(server));
                if there.is_some_and(|seat| is_nothing(world, seat)) {
                    continue;
                }
                let (host, revision) = (&server.host, server.revision8());
                self.count(format!("file {name}: {backend} {host} {revision} {}", seat.weight));
                counted.insert(backend);
            }
        }
        // Whether one without servers is there depends on how a rollout failed.
        for (backend, Backend { check }) in &config.structure.backends {
            if counted.contains(backend) {
                self.count(format!("file {name}: {backend} is checked every {:?}", check.interval));
            }
        }
    }

    fn of_worker(&mut self, world: &World, balancer: &super::balancer::Haproxy) {
        let name = &balancer.name;
        let Some(worker) = &balancer.worker else {
            return self.count(format!("{name} doesn't run"));
        };
        for (key, backend) in &worker.routes {
            self.count(format!("{name}: {key} to {backend}"));
        }
        for (backend, seats) in &worker.seats {
            if seats.values().any(|seat| !is_nothing(world, seat)) {
                let interval = worker.intervals.get(backend);
                self.count(format!("{name}: {backend} is checked every {interval:?}"));
            }
            for (server, seat) in seats {
                let (host, revision, weight) = (&server.host, server.revision8(), seat.weight);
                if is_nothing(world, seat) {
                    continue;
                }
                let how = if is_up(world, seat) { "up" } else { "not up" };
                self.count(format!("{name}: {backend} {host} {revision} {weight} {how}"));
            }
        }
    }

    /// What the other has and this one doesn't, and the other way round.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let keys: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        for key in keys {
            let (one, two) = (self.0.get(key), other.0.get(key));
            if one != two {
                let (one, two) = (one.copied().unwrap_or(0), two.copied().unwrap_or(0));
                found.push(format!("{key}: {one} and not {two}"));
            }
        }
        found
    }
}

fn is_up(world: &World, seat: &Seat) -> bool {
    let ready = seat.admin == AdminState::Ready && seat.check == CheckState::Up;
    ready && world.answers(seat.address)
}

/// How far a rollout that fails came: whether there is a server for what never came up.
fn is_nothing(world: &World, seat: &Seat) -> bool {
    seat.weight == 0 && !is_up(world, seat)
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fact, count) in &self.0 {
            writeln!(f, "{count} {fact}")?;
        }
        Ok(())
    }
}
