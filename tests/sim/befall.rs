//! What happens to the world without the controller: machines, networks, people.

use std::time::Duration;

use plimsoll::model::{
    AdminState, BackendName, BalancerName, ContainerId, ContainerState, HostName, ServerName,
};

use super::balancer::File;
use super::fault::What;
use super::mark::{Mark, rolls_out};
use super::world::World;

impl World {
    /// Lets it happen, and what ends it later.
    pub fn befall(&mut self, what: &What) {
        self.tell(|| format!("{what:?}"));
        self.audit.disturbed_at = Some(self.now());
        let lasts = Duration::from_millis(what.lasts());
        self.audit.mended_at = self.audit.mended_at.max(Some(self.now() + lasts));
        match what {
            What::Crash => self.crash(),
            What::DropEvents { host, .. } => {
                let Some(host) = self.nth_host(*host) else { return };
                self.mark(Mark::EventsDropped);
                // What no event tells is in the next list, at most 30 s later.
                let until = self.now() + lasts + Duration::from_secs(30);
                let machine = self.machine(&host);
                machine.is_mute = true;
                machine.unheard_until = machine.unheard_until.max(Some(until));
                self.after(lasts, move |world| world.machine(&host).is_mute = false);
            }
            What::HostDown { host, .. } => {
                let Some(host) = self.nth_host(*host) else { return };
                self.mark(Mark::HostLost);
                if rolls_out(self) {
                    self.mark(Mark::HostLostInRollout);
                }
                self.take_down(&host);
                self.after(lasts, move |world| {
                    world.tell(|| format!("{host} is back"));
                    world.bring_up(&host);
                });
            }
            What::EngineDown { host, .. } => {
                let Some(host) = self.nth_host(*host) else { return };
                self.mark(Mark::EngineLost);
                // In the middle of what the call that it comes with began.
                let ends = host.clone();
                self.after(Duration::from_millis(15), move |world| world.stop_engine(&ends));
                self.after(lasts, move |world| {
                    world.tell(|| format!("the engine of {host} is back"));
                    world.machine(&host).engine = true;
                    world.touch();
                });
            }
            What::HostFull { host, .. } => {
                let Some(host) = self.nth_host(*host) else { return };
                self.mark(Mark::HostFull);
                self.machine(&host).is_full = true;
                self.after(lasts, move |world| world.machine(&host).is_full = false);
            }
            What::PortTaken { host } => self.take_port(*host),
            What::RegistriesDown { .. } => {
                self.mark(Mark::RegistryLost);
                self.registries_down_until = Some(self.now() + lasts);
            }
            What::GitDown { .. } => {
                self.mark(Mark::RemoteLost);
                self.remote.is_down = true;
                self.after(lasts, |world| world.remote.is_down = false);
            }
            What::GitMirror { .. } => {
                let first = |world: &World| {
                    let commits = world.remote.commits.iter();
                    let mut first = commits.filter(|(_, commit)| commit.parent.is_none());
                    first.next().map(|(id, _)| id.clone())
                };
                self.mark(Mark::OldMirror);
                self.remote.mirror = first(self);
                self.after(lasts, |world| world.remote.mirror = None);
            }
            What::GitRewritten => self.rewrite(),
            What::StoreLost => {
                self.mark(Mark::StoreLost);
                self.crash();
                self.disk.lose();
            }
            What::StoreFull { .. } => {
                self.mark(Mark::StoreFull);
                self.disk.is_full = true;
                self.after(lasts, |world| world.disk.is_full = false);
            }
            other => self.befall_balancers(other, lasts),
        }
        self.excuse();
    }

    fn befall_balancers(&mut self, what: &What, lasts: Duration) {
        match what {
            What::BalancerKilled { balancer } => {
                let Some(name) = self.nth_balancer(*balancer) else { return };
                self.kill_balancer(&name);
            }
            What::BalancerFrozen { balancer, .. } => {
                let Some(name) = self.nth_balancer(*balancer) else { return };
                self.mark(Mark::BalancerFrozen);
                self.balancer(&name).frozen_until = Some(self.now() + lasts);
            }
            What::ReloadRefused { balancer } => {
                let Some(name) = self.nth_balancer(*balancer) else { return };
                self.balancer(&name).refuses = true;
            }
            What::PersonEdits { balancer } => {
                let Some(name) = self.nth_balancer(*balancer) else { return };
                let balancer = self.balancer(&name);
                if let Some(config) = balancer.file.config().cloned() {
                    balancer.file = File::Edited(config);
                    self.mark(Mark::FileEdited);
                }
            }
            What::PersonReloads { balancer } => {
                let Some(name) = self.nth_balancer(*balancer) else { return };
                if self.balancer(&name).worker.is_some() {
                    self.mark(Mark::PersonReloaded);
                    self.reload(&name, |world, _| world.excuse());
                }
            }
            What::PersonStops { nth } => {
                self.with_unit(*nth, |world, host, id| world.halt(host, id, 0));
            }
            What::PersonRemoves { nth } => self.with_unit(*nth, |world, host, id| {
                let birth = world.unit(host, id).and_then(|unit| unit.birth.clone());
                world.erase(host, id);
                if let Some(birth) = birth {
                    world.audit.removed(&birth, host);
                }
            }),
            What::ProgramKilled { nth } => {
                self.with_unit(*nth, |world, host, id| world.kill(host, id));
            }
            What::PersonWeighs { nth, weight } => {
                let weight = *weight;
                self.with_seat(*nth, move |world, name, backend, server| {
                    world.weigh(name, backend, server, weight);
                });
            }
            What::PersonDrains { nth } => self.with_seat(*nth, |world, name, backend, server| {
                if let Some(seat) = world.balancer(name).seat(backend, server) {
                    seat.admin = AdminState::Drain;
                    world.touch();
                }
            }),
            What::PersonDeletesServer { nth } => {
                self.with_seat(*nth, |world, name, backend, server| {
                    let worker = world.balancer(name).worker.as_mut();
                    let seats = worker.and_then(|worker| worker.seats.get_mut(backend));
                    seats.and_then(|seats| seats.remove(server));
                    world.touch();
                });
            }
            _ => {}
        }
    }

    /// What a fault takes away by itself isn't laid at the controller's door.
    pub fn excuse(&mut self) {
        self.with_audit(|audit, world| audit.excuse(world));
        self.touch();
    }

    fn nth_host(&self, nth: usize) -> Option<HostName> {
        self.machines.keys().nth(nth % self.machines.len().max(1)).cloned()
    }

    fn nth_balancer(&self, nth: usize) -> Option<BalancerName> {
        self.balancers.keys().nth(nth % self.balancers.len().max(1)).cloned()
    }

    fn with_unit(&mut self, nth: usize, act: impl FnOnce(&mut Self, &HostName, &ContainerId)) {
        let machines = self.machines.values().filter(|machine| machine.up);
        let ours: Vec<_> = machines
            .flat_map(|machine| machine.units.values().map(|unit| (&machine.name, unit)))
            .filter(|(host, unit)| {
                unit.birth.is_some() && !self.machines[*host].foreign.contains_key(&unit.id)
            })
            .map(|(host, unit)| (host.clone(), unit.id.clone(), unit.name.clone()))
            .collect();
        let mut ours = ours;
        ours.sort_by(|a, b| (&a.0, &a.2).cmp(&(&b.0, &b.2)));
        if let Some((host, id, name)) = ours.get(nth % ours.len().max(1)).cloned() {
            self.mark(Mark::PersonMeddled);
            self.tell(|| format!("it is {name} on {host}"));
            act(self, &host, &id);
        }
    }

    fn with_seat(
        &mut self,
        nth: usize,
        act: impl FnOnce(&mut Self, &BalancerName, &BackendName, &ServerName),
    ) {
        let workers = self.balancers.values().filter_map(|b| Some((&b.name, b.worker.as_ref()?)));
        let all: Vec<_> = workers
            .flat_map(|(name, worker)| {
                worker.seats.iter().flat_map(move |(backend, seats)| {
                    seats.iter().map(move |(server, seat)| {
                        (name.clone(), backend.clone(), server.clone(), seat.address)
                    })
                })
            })
            .collect();
        if let Some((name, backend, server, address)) = all.get(nth % all.len().max(1)).cloned() {
            self.mark(Mark::PersonMeddled);
            self.audit.meddled.insert(address);
            self.tell(|| format!("it is {server} of {backend} at {name}"));
            act(self, &name, &backend, &server);
        }
    }

    fn take_port(&mut self, host: usize) {
        let Some(host) = self.nth_host(host) else { return };
        let machine = self.machine(&host);
        let taken = |port: &u16| {
            machine.busy_ports.contains(port)
                || machine.units.values().any(|unit| unit.port == Some(*port))
        };
        if let Some(port) = (20000..20016).find(|port| !taken(port)) {
            machine.busy_ports.insert(port);
        }
    }

    /// `push -f`: the last commit is another of the same content.
    fn rewrite(&mut self) {
        let Some(tip) = self.remote.tip.clone() else { return };
        let commit = self.remote.commits[&tip].clone();
        // The first commit has nothing before it that would make the new one a rewrite.
        self.mark(Mark::HistoryRewritten);
        let salt = self.remote.commits.len();
        let id = super::walk::commit_id(&format!("{tip} rewritten {salt}"));
        let mut files = plimsoll::model::Files::clone(&commit.files);
        files.commit = id.clone();
        let commit = super::remote::Commit { files: std::sync::Arc::new(files), ..commit };
        self.remote.commits.insert(id.clone(), commit);
        self.remote.tip = Some(id.clone());
        self.with_audit(|audit, world| audit.declare(world, &id));
    }
}
