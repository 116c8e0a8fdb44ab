//! What each kind of step does to the world, with what must be true before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll::model::{
    AdminState, AppId, BackendName, BalancerName, CheckState, Container, ContainerId,
    ContainerState, EngineHealth, HostName, NewContainer, ProxyConfig, ProxyFile, ProxyProcess,
    ProxyRuntime, ProxyStructure, Revision, RouteKey, RuntimeServer, Server, ServerName, Sha256,
};
use plimsoll::plan::{Action, Need, Place, Step};

use super::World;

/// Why a step that is sound isn't done all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The revision never gets well.
    Revision(Revision),
    /// The network, the engine, HAProxy.
    Passing,
}

impl World {
    /// Does one step.
    pub fn act(&mut self, step: &Step) -> Result<(), Refusal> {
        match &step.place {
            Place::Host(host) => {
                assert!(!self.unseen_hosts.contains(host), "{}: {host} is unseen", step.id);
                self.act_on_host(step, &host.clone())
            }
            Place::Balancer(name) => {
                assert!(!self.unseen_balancers.contains(name), "{}: {name} is unseen", step.id);
                self.act_on_balancer(step, &name.clone())
            }
        }
    }

    fn act_on_host(&mut self, step: &Step, host: &HostName) -> Result<(), Refusal> {
        match &step.action {
            Action::Pull { .. } => Ok(()),
            Action::Create { container } => {
                assert_eq!(container.host, *host, "{}", step.id);
                self.create(container);
                Ok(())
            }
            Action::Start { name } => {
                let container = self.by_name(host, name);
                assert!(
                    matches!(
                        container.state,
                        ContainerState::Created
                            | ContainerState::Running
                            | ContainerState::Restarting { .. }
                    ),
                    "{}: it is {:?}",
                    step.id,
                    container.state
                );
                // An engine begins its checks anew with each start.
                if container.state != ContainerState::Running {
                    container.health = container.health.map(|_| EngineHealth::Starting);
                }
                container.state = ContainerState::Running;
                Ok(())
            }
            Action::WaitReady { name, revision, .. } => {
                let bad = self.bad.contains(revision);
                let container = self.by_name(host, name);
                assert_eq!(container.birth.revision, *revision, "{}", step.id);
                if bad || container.health == Some(EngineHealth::Unhealthy) {
                    return Err(Refusal::Revision(*revision));
                }
                if matches!(container.state, ContainerState::Restarting { .. }) {
                    container.state = ContainerState::Running;
                }
                assert_eq!(container.state, ContainerState::Running, "{}", step.id);
                container.health = container.health.map(|_| EngineHealth::Healthy);
                Ok(())
            }
            Action::Stop { id, .. } => {
                self.stop(step, host, id);
                Ok(())
            }
            Action::Remove { id, .. } => {
                let state = self.hosts.get_mut(host).expect("a host");
                let runs = |c: &Arc<Container>| c.id == *id && c.state == ContainerState::Running;
                assert!(!state.containers.iter().any(runs), "{}: it runs", step.id);
                state.containers.retain(|container| container.id != *id);
                Ok(())
            }
            other => panic!("{} on a host", other.kind()),
        }
    }

    fn create(&mut self, new: &NewContainer) {
        let NewContainer { birth, spec, host, publish } = new;
        let name = birth.container_name();
        let declared = self.desired.hosts.get(host).expect("created on a declared host");
        let state = self.hosts.get_mut(host).expect("a host");
        if state.containers.iter().any(|c| c.name == name && c.birth == *birth) {
            return;
        }
        let same_name = state.containers.iter().any(|c| c.birth.container_name() == name);
        assert!(!same_name, "{name} is there already on {host}");
        assert!(!state.foreign_names.contains_key(&name), "{name} is somebody else's");
        assert_eq!(spec.port.is_some(), birth.port.is_some(), "{name}: a port to publish");
        assert_eq!(publish.map(|at| at.port()), birth.port, "{name}");
        if let Some(port) = birth.port {
            let range = declared.ports;
            assert!((range.first..=range.last).contains(&port), "{name}: port {port}");
            assert!(!state.foreign_ports.contains(&port), "{name}: port {port} is foreign");
            let taken = state.containers.iter().find(|c| c.birth.port == Some(port));
            assert!(taken.is_none(), "{name}: port {port} is {}'s", taken.expect("one").name);
        }
        self.born += 1;
        let id = ContainerId(Sha256::of(format!("container {}", self.born).as_bytes()).hex());
        let health = spec.health.as_ref().map(|_| EngineHealth::Starting);
        let state = self.hosts.get_mut(host).expect("a host");
        state.containers.push(Arc::new(Container {
            id,
            name,
            birth: birth.clone(),
            state: ContainerState::Created,
            health,
            restarts: 0,
        }));
        state.containers.sort_by(|a, b| a.name.cmp(&b.name));
    }

    fn by_name(&mut self, host: &HostName, name: &str) -> &mut Container {
        let state = self.hosts.get_mut(host).expect("a host");
        let found = state.containers.iter_mut().find(|container| container.name == name);
        Arc::make_mut(found.unwrap_or_else(|| panic!("{name} isn't on {host}")))
    }

    fn stop(&mut self, step: &Step, host: &HostName, id: &ContainerId) {
        let found = self.hosts[host].containers.iter().find(|c| c.id == *id).cloned();
        let Some(container) = found else { return };
        assert_eq!(Some(&container.birth.app), step.app.as_ref(), "{}: another app's", step.id);
        let sends = self.sends_to(host, &container);
        assert!(sends.is_none(), "{}: {} still sends to it", step.id, sends.expect("one"));
        let state = self.hosts.get_mut(host).expect("a host");
        for container in state.containers.iter_mut().filter(|container| container.id == *id) {
            Arc::make_mut(container).state =
                ContainerState::Exited { code: 0, out_of_memory: false };
        }
    }

    /// A balancer whose process sends requests to that container.
    fn sends_to(&self, host: &HostName, container: &Container) -> Option<&BalancerName> {
        let birth = &container.birth;
        let named = self.balancers.iter().filter(|(n, _)| self.desired.balancers.contains_key(n));
        let sends = |runtime: &ProxyRuntime| {
            let backends = runtime.servers.iter().filter(|(b, _)| b.app == birth.app);
            backends.flat_map(|(_, servers)| servers).any(|(name, server)| {
                name.host == *host
                    && name.is_of(&birth.revision)
                    && name.slot == birth.slot
                    && server.admin == AdminState::Ready
                    && server.weight > 0
            })
        };
        let mut found = named.filter(|(_, state)| match &state.process {
            ProxyProcess::Up(runtime) => sends(runtime),
            ProxyProcess::Down { .. } => false,
        });
        found.next().map(|(name, _)| name)
    }

    // ---- balancers ----

    fn act_on_balancer(&mut self, step: &Step, name: &BalancerName) -> Result<(), Refusal> {
        if let Action::SetWeight { backend, .. } | Action::RemoveServer { backend, .. } =
            &step.action
        {
            let (_, runtime) = self.sides(step, name);
            for Need { server, revision, standing, .. } in &step.needs {
                match runtime.servers.get(backend).and_then(|all| all.get(server)) {
                    Some(server) if server.check == CheckState::Up => {}
                    Some(_) if !standing => return Err(Refusal::Revision(*revision)),
                    _ => return Err(Refusal::Passing),
                }
            }
        }
        if let Action::Restructure { structure } = &step.action {
            self.restructure(name, structure);
            return Ok(());
        }
        if let Action::WaitUp { backend, server, revision } = &step.action {
            return self.wait_up(step, name, backend, server, *revision);
        }
        let (config, runtime) = self.sides(step, name);
        match &step.action {
            Action::AddServer { backend, server, address } => {
                let joining = Server { address: *address, weight: 0 };
                let there = backend_of(config, backend).entry(server.clone()).or_insert(joining);
                assert_eq!(there.address, *address, "{}", step.id);
                let servers = runtime.servers.get_mut(backend);
                let servers = servers.unwrap_or_else(|| panic!("{}: no {backend}", step.id));
                let there = servers.entry(server.clone()).or_insert(RuntimeServer {
                    address: *address,
                    weight: 0,
                    admin: AdminState::Ready,
                    check: CheckState::Unknown,
                });
                assert_eq!(there.address, *address, "{}", step.id);
            }
            Action::SetWeight { backend, server, weight } => {
                let in_file = backend_of(config, backend).get_mut(server);
                if let Some(in_file) = in_file {
                    in_file.weight = *weight;
                } else {
                    assert_eq!(*weight, 0, "{}: it isn't in the file", step.id);
                }
                match runtime.servers.get_mut(backend).and_then(|all| all.get_mut(server)) {
                    Some(running) => {
                        let now = effective(running);
                        let raised = now == 0 && *weight > 0;
                        assert!(
                            !raised || running.check == CheckState::Up,
                            "{}: raised while {:?}",
                            step.id,
                            running.check
                        );
                        running.weight = *weight;
                        running.admin = AdminState::Ready;
                    }
                    None => assert_eq!(*weight, 0, "{}: the process has no such", step.id),
                }
            }
            Action::WaitDrained { backend, server } => {
                let running = runtime.servers.get(backend).and_then(|all| all.get(server));
                let weight = running.map_or(0, effective);
                assert_eq!(weight, 0, "{}: it isn't silenced", step.id);
            }
            Action::RemoveServer { backend, server } => {
                let running = runtime.servers.get_mut(backend).and_then(|all| all.remove(server));
                let weight = running.as_ref().map_or(0, effective);
                assert_eq!(weight, 0, "{}: it isn't silenced", step.id);
                backend_of(config, backend).remove(server);
            }
            Action::SetRoutes { changes } => set_routes(step, config, runtime, changes),
            other => panic!("{} at a balancer", other.kind()),
        }
        Ok(())
    }

    /// File and process of a balancer, which have to be sound.
    fn sides(&mut self, step: &Step, name: &BalancerName) -> (&mut ProxyConfig, &mut ProxyRuntime) {
        let state = self.balancers.get_mut(name).expect("a balancer");
        let ProxyFile::Ours(config) = &mut state.file else {
            panic!("{}: the file of {name} isn't ours", step.id)
        };
        let ProxyProcess::Up(runtime) = &mut state.process else {
            panic!("{}: {name} is down", step.id)
        };
        (Arc::make_mut(config), Arc::make_mut(runtime))
    }

    fn wait_up(
        &mut self,
        step: &Step,
        name: &BalancerName,
        backend: &BackendName,
        server: &ServerName,
        revision: Revision,
    ) -> Result<(), Refusal> {
        let answers = self.answers(&backend.app, server);
        let address = self.address_of(&backend.app, server);
        let (_, runtime) = self.sides(step, name);
        let running = runtime.servers.get_mut(backend).and_then(|all| all.get_mut(server));
        let running = running.unwrap_or_else(|| panic!("{}: no such server", step.id));
        assert_eq!(Some(running.address.port()), address, "{}: another's port", step.id);
        assert_eq!(running.admin, AdminState::Ready, "{}: not checked", step.id);
        if !answers {
            running.check = CheckState::Down;
            return Err(Refusal::Revision(revision));
        }
        running.check = CheckState::Up;
        Ok(())
    }

    fn address_of(&self, app: &AppId, server: &ServerName) -> Option<u16> {
        self.container_of(app, server)?.birth.port
    }

    /// As the adapter: routes and servers of the backends that stay are kept from the file, and
    /// what the process sends requests to beside it; a new worker has what the file says.
    fn restructure(&mut self, name: &BalancerName, structure: &ProxyStructure) {
        let state = self.balancers.get_mut(name).expect("a balancer");
        let (mut routes, mut servers) = match &state.process {
            ProxyProcess::Up(runtime) => (runtime.routes.clone(), as_in_file(runtime)),
            ProxyProcess::Down { .. } => (BTreeMap::new(), BTreeMap::new()),
        };
        if let ProxyFile::Ours(config) = &state.file {
            routes.extend(config.routes.clone());
            let serving = std::mem::replace(&mut servers, config.servers.clone());
            for (backend, all) in serving {
                let known = servers.entry(backend).or_default();
                for (server, seat) in all.into_iter().filter(|(_, seat)| seat.weight > 0) {
                    if known.get(&server).is_none_or(|known| known.weight == 0) {
                        known.insert(server, seat);
                    }
                }
            }
        }
        if let (ProxyFile::Ours(config), ProxyProcess::Up(runtime)) = (&state.file, &state.process)
        {
            let digest = Some(structure.digest());
            if config.structure == *structure && runtime.structure == digest {
                return;
            }
        }
        let stays = |(key, backend): &(RouteKey, BackendName)| {
            structure.listeners.contains_key(&key.listener)
                && structure.backends.contains_key(backend)
        };
        let of = |name: &BackendName| (name.clone(), servers.remove(name).unwrap_or_default());
        let kept: BTreeMap<_, _> = structure.backends.keys().map(of).collect();
        let lost = servers.iter().find(|(_, all)| !all.is_empty());
        assert!(lost.is_none(), "{name}: the servers of {} would be lost", lost.expect("one").0);
        let config = ProxyConfig {
            structure: structure.clone(),
            routes: routes.into_iter().filter(stays).collect(),
            servers: kept,
        };
        state.process = ProxyProcess::Up(Arc::new(started(&config, &state.process)));
        state.file = ProxyFile::Ours(Arc::new(config));
        self.check_servers(name);
    }

    /// Reads the file into a new worker, as a reload by anybody does.
    pub fn reload(&mut self, name: &BalancerName) {
        let Some(state) = self.balancers.get_mut(name) else { return };
        if let ProxyFile::Ours(config) = &state.file {
            state.process = ProxyProcess::Up(Arc::new(started(config, &state.process)));
            self.check_servers(name);
        }
    }

    /// HAProxy's checks.
    pub(super) fn check_servers(&mut self, name: &BalancerName) {
        let Some(state) = self.balancers.get(name) else { return };
        let ProxyProcess::Up(runtime) = &state.process else { return };
        let mut runtime = ProxyRuntime::clone(runtime);
        for (backend, servers) in &mut runtime.servers {
            for (name, server) in servers {
                let port = self.address_of(&backend.app, name);
                let up = self.answers(&backend.app, name) && port == Some(server.address.port());
                server.check = if up { CheckState::Up } else { CheckState::Down };
            }
        }
        if let Some(state) = self.balancers.get_mut(name) {
            state.process = ProxyProcess::Up(Arc::new(runtime));
        }
    }
}

/// The weight by which requests are spread.
pub fn effective(server: &RuntimeServer) -> u16 {
    if server.admin == AdminState::Ready { server.weight } else { 0 }
}

fn backend_of<'a>(
    config: &'a mut ProxyConfig,
    backend: &BackendName,
) -> &'a mut BTreeMap<ServerName, Server> {
    assert!(config.structure.backends.contains_key(backend), "the file has no {backend}");
    config.servers.entry(backend.clone()).or_default()
}

fn set_routes(
    step: &Step,
    config: &mut ProxyConfig,
    runtime: &mut ProxyRuntime,
    changes: &BTreeMap<RouteKey, Option<BackendName>>,
) {
    for (key, to) in changes {
        match to {
            Some(backend) => {
                let listeners = &config.structure.listeners;
                assert!(listeners.contains_key(&key.listener), "{}: no listener", step.id);
                assert!(config.structure.backends.contains_key(backend), "{}", step.id);
                assert!(runtime.servers.contains_key(backend), "{}: no backend", step.id);
                config.routes.insert(key.clone(), backend.clone());
                runtime.routes.insert(key.clone(), backend.clone());
            }
            None => {
                config.routes.remove(key);
                runtime.routes.remove(key);
            }
        }
    }
}

/// A worker that was just started with that file.
fn started(config: &ProxyConfig, before: &ProxyProcess) -> ProxyRuntime {
    let server = |(name, server): (&ServerName, &Server)| {
        let Server { address, weight } = *server;
        let admin = AdminState::Ready;
        (name.clone(), RuntimeServer { address, weight, admin, check: CheckState::Unknown })
    };
    let backend = |(name, servers): (&BackendName, &BTreeMap<ServerName, Server>)| {
        (name.clone(), servers.iter().map(server).collect())
    };
    let old_addresses = match before {
        ProxyProcess::Up(runtime) => runtime.old_addresses.clone(),
        ProxyProcess::Down { .. } => Default::default(),
    };
    ProxyRuntime {
        structure: Some(config.structure.digest()),
        routes: config.routes.clone(),
        servers: config.servers.iter().map(backend).collect(),
        old_addresses,
    }
}

fn as_in_file(runtime: &ProxyRuntime) -> BTreeMap<BackendName, BTreeMap<ServerName, Server>> {
    let server = |(name, server): (&ServerName, &RuntimeServer)| {
        let weight = if server.check == CheckState::Up { effective(server) } else { 0 };
        (name.clone(), Server { address: server.address, weight })
    };
    let backend = |(name, servers): (&BackendName, &BTreeMap<ServerName, RuntimeServer>)| {
        (name.clone(), servers.iter().map(server).collect())
    };
    runtime.servers.iter().map(backend).collect()
}
