//! What is declared, compared with what is there, without asking the planner: containers,
//! servers in file and process, routes.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll::model::{
    AdminState, App, BackendName, Container, ContainerState, HostName, ProxyFile, ProxyProcess,
    Revision, RouteKey, ServerName,
};

use super::World;

impl World {
    /// Panics with the first thing that isn't as declared.
    ///
    /// It is for worlds in which everything can be seen, nothing is held and nothing waits.
    pub fn assert_as_declared(&self) {
        self.assert_containers();
        self.assert_balancers();
    }

    fn revision(&self, app: &App) -> Revision {
        let pin = self.known.pins[&app.id].clone().expect("a pin");
        let digest = |name: &plimsoll::model::SecretName| self.known.secrets[name].clone();
        let names = app.template.secrets();
        let secrets = names.map(|n| (n.clone(), digest(n).expect("a digest"))).collect();
        app.template.resolve(&pin, &secrets).expect("all secrets").revision()
    }

    /// Replicas of each host: drained hosts have none, unless all of the app's are drained.
    fn replicas(&self, app: &App) -> BTreeMap<HostName, (u32, u16)> {
        let drained = |host: &HostName| self.desired.hosts[host].drain;
        let all = app.placement.keys().all(drained);
        let placed = app.placement.iter().filter(|(host, _)| all || !drained(host));
        placed.map(|(host, at)| (host.clone(), (at.replicas, at.weight))).collect()
    }

    fn assert_containers(&self) {
        let mut left: BTreeMap<&HostName, Vec<&Container>> = BTreeMap::new();
        for (host, state) in &self.hosts {
            left.insert(host, state.containers.iter().map(AsRef::as_ref).collect());
        }
        for app in self.desired.apps.values() {
            let revision = self.revision(app);
            for (host, (replicas, _)) in self.replicas(app) {
                let here = left.get_mut(&host).expect("a host");
                let before = here.len();
                here.retain(|container| {
                    let runs = container.state == ContainerState::Running;
                    let ours = container.birth.app == app.id;
                    !(ours && runs && container.birth.revision == revision)
                });
                assert_eq!(before - here.len(), replicas as usize, "{} on {host}", app.id);
            }
        }
        for (host, containers) in left {
            assert!(containers.is_empty(), "{} is left on {host}", containers[0].name);
        }
    }

    fn assert_balancers(&self) {
        for name in self.desired.balancers.keys() {
            let state = &self.balancers[name];
            let ProxyFile::Ours(config) = &state.file else { panic!("{name}: {:?}", state.file) };
            let ProxyProcess::Up(runtime) = &state.process else {
                panic!("{name}: {:?}", state.process)
            };
            assert_eq!(runtime.structure, Some(config.structure.digest()), "{name}");
            assert_eq!(config.structure.listeners, self.desired.balancers[name].listeners);
            let mut routes: BTreeMap<RouteKey, BackendName> = BTreeMap::new();
            let mut backends: BTreeSet<BackendName> = BTreeSet::new();
            let mut servers: BTreeMap<(BackendName, ServerName), u16> = BTreeMap::new();
            for app in self.desired.apps.values() {
                let here = app.routes.iter().filter(|route| route.balancer == *name);
                let backend = BackendName::stable(app.id.clone());
                for route in here {
                    let (listener, host, path) =
                        (route.listener.clone(), route.host.clone(), route.path.clone());
                    routes.insert(RouteKey { listener, host, path }, backend.clone());
                    backends.insert(backend.clone());
                    backends.insert(BackendName::candidate(app.id.clone()));
                }
                if backends.contains(&backend) {
                    servers.extend(self.servers_of(app));
                }
            }
            assert_eq!(config.routes, routes, "routes in the file of {name}");
            assert_eq!(runtime.routes, routes, "routes of {name}");
            assert_eq!(
                config.structure.backends.keys().cloned().collect::<BTreeSet<_>>(),
                backends
            );
            let in_file = config.servers.iter().flat_map(|(b, all)| {
                all.iter().map(|(s, server)| ((b.clone(), s.clone()), server.weight))
            });
            assert_eq!(in_file.collect::<BTreeMap<_, _>>(), servers, "the file of {name}");
            let running = runtime.servers.iter().flat_map(|(b, all)| {
                all.iter().map(|(s, server)| {
                    assert_eq!(server.admin, AdminState::Ready, "{s} of {name}");
                    ((b.clone(), s.clone()), server.weight)
                })
            });
            assert_eq!(running.collect::<BTreeMap<_, _>>(), servers, "the process of {name}");
        }
    }

    fn servers_of(&self, app: &App) -> BTreeMap<(BackendName, ServerName), u16> {
        let weights = self.replicas(app);
        let mut servers = BTreeMap::new();
        for (host, state) in &self.hosts {
            let Some((_, weight)) = weights.get(host) else { continue };
            for container in state.containers.iter().filter(|c| c.birth.app == app.id) {
                let birth = &container.birth;
                let image = birth.pin.content.sha256();
                let name = ServerName::new(host.clone(), image, &birth.revision, birth.slot);
                servers.insert((BackendName::stable(app.id.clone()), name), *weight);
            }
        }
        servers
    }
}
