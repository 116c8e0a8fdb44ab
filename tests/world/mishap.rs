//! What happens to the world without a plan: people, crashes, machines. Each is applied where
//! there is something that it can happen to, and does nothing elsewhere.

use std::sync::Arc;

use plimsoll::model::{
    AdminState, AppId, BackendName, BalancerName, BalancerState, Container, ContainerId,
    ContainerState, EngineHealth, HostName, HostState, ProxyConfig, ProxyFile, ProxyProcess,
    ProxyRuntime, ServerName, Sha256, Slot,
};

use super::World;

/// One of them. `nth` picks a container or server, counted round and round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mishap {
    /// `docker rm -f`.
    ContainerGone {
        nth: usize,
    },
    ContainerState {
        nth: usize,
        state: ContainerState,
    },
    ContainerHealth {
        nth: usize,
        health: EngineHealth,
    },
    /// `docker rename`.
    ContainerRenamed {
        nth: usize,
    },
    /// A second one of the same revision, in a slot and at a port of its own.
    ContainerDoubled {
        nth: usize,
    },
    ServerWeight {
        nth: usize,
        weight: u16,
    },
    ServerAdmin {
        nth: usize,
        admin: AdminState,
    },
    /// `del server`: the file still has it.
    ServerGone {
        nth: usize,
    },
    /// The file has lost it, the process still has it.
    ServerUnwritten {
        nth: usize,
    },
    ServerWeightInFile {
        nth: usize,
        weight: u16,
    },
    RouteGone {
        nth: usize,
    },
    RouteUnwritten {
        nth: usize,
    },
    FileMissing {
        nth: usize,
    },
    FileDamaged {
        nth: usize,
    },
    ProcessDown {
        nth: usize,
    },
    /// Somebody reloaded: the process has what the file says.
    Reloaded {
        nth: usize,
    },
    /// The process was started with another file.
    OtherStructure {
        nth: usize,
    },
    ForeignPort {
        nth: usize,
        port: u16,
    },
}

impl World {
    pub fn befall(&mut self, mishap: &Mishap) {
        match mishap {
            Mishap::ContainerGone { nth } => self.drop_container(*nth),
            Mishap::ContainerState { nth, state } => {
                self.with_container(*nth, |container| container.state = state.clone());
            }
            Mishap::ContainerHealth { nth, health } => {
                self.with_container(*nth, |container| {
                    if container.state == ContainerState::Running {
                        container.health = Some(*health);
                    }
                });
            }
            Mishap::ContainerRenamed { nth } => self.with_container(*nth, |container| {
                container.name = format!("renamed-{}", container.id.short());
            }),
            Mishap::ContainerDoubled { nth } => self.double(*nth),
            Mishap::ServerWeight { nth, weight } => {
                self.with_server(*nth, |runtime, backend, name| {
                    let server = runtime.servers.get_mut(backend).and_then(|all| all.get_mut(name));
                    if let Some(server) = server {
                        server.weight = *weight;
                    }
                });
            }
            Mishap::ServerAdmin { nth, admin } => {
                self.with_server(*nth, |runtime, backend, name| {
                    let server = runtime.servers.get_mut(backend).and_then(|all| all.get_mut(name));
                    if let Some(server) = server {
                        server.admin = *admin;
                    }
                });
            }
            Mishap::ServerGone { nth } => self.with_server(*nth, |runtime, backend, name| {
                if let Some(servers) = runtime.servers.get_mut(backend) {
                    servers.remove(name);
                }
            }),
            Mishap::ServerUnwritten { nth } => self.with_written(*nth, |config, backend, name| {
                if let Some(servers) = config.servers.get_mut(backend) {
                    servers.remove(name);
                }
            }),
            Mishap::ServerWeightInFile { nth, weight } => {
                self.with_written(*nth, |config, backend, name| {
                    let server = config.servers.get_mut(backend).and_then(|all| all.get_mut(name));
                    if let Some(server) = server {
                        server.weight = *weight;
                    }
                });
            }
            Mishap::RouteGone { nth } => self.with_balancer(*nth, |state| {
                if let ProxyProcess::Up(runtime) = &mut state.process {
                    Arc::make_mut(runtime).routes.pop_first();
                }
            }),
            Mishap::RouteUnwritten { nth } => self.with_balancer(*nth, |state| {
                if let ProxyFile::Ours(config) = &mut state.file {
                    Arc::make_mut(config).routes.pop_first();
                }
            }),
            Mishap::FileMissing { nth } => {
                self.with_balancer(*nth, |state| state.file = ProxyFile::Missing);
            }
            Mishap::FileDamaged { nth } => self.with_balancer(*nth, |state| {
                state.file = ProxyFile::Damaged { reason: "its trailer doesn't match".into() };
            }),
            Mishap::ProcessDown { nth } => self.with_balancer(*nth, |state| {
                state.process = ProxyProcess::Down { reason: "it was killed".into() };
            }),
            Mishap::Reloaded { nth } => {
                if let Some(name) = self.nth_balancer(*nth) {
                    self.reload(&name);
                }
            }
            Mishap::OtherStructure { nth } => self.with_balancer(*nth, |state| {
                if let ProxyProcess::Up(runtime) = &mut state.process {
                    Arc::make_mut(runtime).structure = Some(Sha256::of(b"another"));
                }
            }),
            Mishap::ForeignPort { nth, port } => {
                let hosts = self.hosts.len().max(1);
                let free = |state: &&mut HostState| {
                    state.containers.iter().all(|c| c.birth.port != Some(*port))
                };
                if let Some(state) = self.hosts.values_mut().nth(nth % hosts).filter(free) {
                    state.foreign_ports.insert(*port);
                }
            }
        }
    }

    fn nth_container(&self, nth: usize) -> Option<(HostName, ContainerId)> {
        let all = || {
            self.hosts
                .iter()
                .flat_map(|(host, state)| state.containers.iter().map(move |c| (host, c)))
        };
        let count = all().count().max(1);
        all().nth(nth % count).map(|(host, container)| (host.clone(), container.id.clone()))
    }

    fn with_container(&mut self, nth: usize, change: impl Fn(&mut Container)) {
        let Some((host, id)) = self.nth_container(nth) else { return };
        let Some(state) = self.hosts.get_mut(&host) else { return };
        let containers = state.containers.iter_mut().map(Arc::make_mut);
        containers.filter(|container| container.id == id).for_each(change);
        state.containers.sort_by(|a, b| a.name.cmp(&b.name));
    }

    fn drop_container(&mut self, nth: usize) {
        let Some((host, id)) = self.nth_container(nth) else { return };
        if let Some(state) = self.hosts.get_mut(&host) {
            state.containers.retain(|container| container.id != id);
        }
    }

    fn double(&mut self, nth: usize) {
        let Some((host, id)) = self.nth_container(nth) else { return };
        let Some(ports) = self.desired.hosts.get(&host).map(|declared| declared.ports) else {
            return;
        };
        let Some(state) = self.hosts.get_mut(&host) else { return };
        let taken = |port: &u16| {
            state.foreign_ports.contains(port)
                || state.containers.iter().any(|c| c.birth.port == Some(*port))
        };
        let free = (ports.first..=ports.last).rev().find(|port| !taken(port));
        let Some(first) = state.containers.iter().find(|container| container.id == id) else {
            return;
        };
        let mut second = Container::clone(first);
        let same = |c: &&Arc<Container>| c.birth.revision == first.birth.revision;
        let slots = state.containers.iter().filter(same).map(|c| c.birth.slot.0).max();
        second.birth.slot = Slot(slots.unwrap_or_default() + 1);
        second.birth.port = second.birth.port.and(free);
        second.name = second.birth.container_name();
        second.id = ContainerId(Sha256::of(format!("double {}", second.name).as_bytes()).hex());
        if second.birth.port.is_some() == first.birth.port.is_some() {
            state.containers.push(Arc::new(second));
            state.containers.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }

    fn nth_balancer(&self, nth: usize) -> Option<BalancerName> {
        self.balancers.keys().nth(nth % self.balancers.len().max(1)).cloned()
    }

    fn with_balancer(&mut self, nth: usize, change: impl FnOnce(&mut BalancerState)) {
        let Some(name) = self.nth_balancer(nth) else { return };
        if let Some(state) = self.balancers.get_mut(&name) {
            change(state);
        }
    }

    fn with_server(
        &mut self,
        nth: usize,
        change: impl Fn(&mut ProxyRuntime, &BackendName, &ServerName),
    ) {
        let all: Vec<_> = self
            .balancers
            .iter()
            .filter_map(|(name, state)| match &state.process {
                ProxyProcess::Up(runtime) => Some((name, runtime)),
                ProxyProcess::Down { .. } => None,
            })
            .flat_map(|(name, runtime)| {
                let servers = runtime.servers.iter();
                servers.flat_map(move |(b, all)| all.keys().map(move |s| (name, b, s)))
            })
            .map(|(name, backend, server)| (name.clone(), backend.clone(), server.clone()))
            .collect();
        let Some((name, backend, server)) = all.get(nth % all.len().max(1)) else { return };
        if let Some(ProxyProcess::Up(runtime)) =
            self.balancers.get_mut(name).map(|state| &mut state.process)
        {
            change(Arc::make_mut(runtime), backend, server);
        }
    }

    fn with_written(
        &mut self,
        nth: usize,
        change: impl Fn(&mut ProxyConfig, &BackendName, &ServerName),
    ) {
        let all: Vec<_> = self
            .balancers
            .iter()
            .filter_map(|(name, state)| match &state.file {
                ProxyFile::Ours(config) => Some((name, config)),
                ProxyFile::Missing | ProxyFile::Damaged { .. } => None,
            })
            .flat_map(|(name, config)| {
                let servers = config.servers.iter();
                servers.flat_map(move |(b, all)| all.keys().map(move |s| (name, b, s)))
            })
            .map(|(name, backend, server)| (name.clone(), backend.clone(), server.clone()))
            .collect();
        let Some((name, backend, server)) = all.get(nth % all.len().max(1)) else { return };
        if let Some(ProxyFile::Ours(config)) =
            self.balancers.get_mut(name).map(|state| &mut state.file)
        {
            change(Arc::make_mut(config), backend, server);
        }
    }

    /// The place of an app's container among all, for mishaps.
    pub fn place_of(&self, host: &HostName, app: &AppId, index: usize) -> usize {
        let mut all = self
            .hosts
            .iter()
            .flat_map(|(host, state)| state.containers.iter().map(move |c| (host, c)))
            .enumerate()
            .filter(|(_, (on, container))| *on == host && container.birth.app == *app);
        all.nth(index).unwrap_or_else(|| panic!("no container {index} of {app} on {host}")).0
    }
}
