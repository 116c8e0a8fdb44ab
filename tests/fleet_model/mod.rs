//! A fleet of any size as plain data: manifests, what they declare, and an observation in which
//! all of it is there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use plimsoll::manifest::Reader;
use plimsoll::model::{
    AdminState, App, AppId, BackendName, BalancerState, Birth, CheckState, CommitId, Container,
    ContainerId, ContainerState, Content, Desired, Files, HostState, ImageContent, Observed, Pin,
    ProxyConfig, ProxyFile, ProxyProcess, ProxyRuntime, ProxyStructure, RouteKey, RuntimeServer,
    Server, ServerName, Sha256, Slot, View,
};
use plimsoll::plan::{Input, Known, plan};
use plimsoll::proxy::Places;

/// How many hosts each app is on.
const HOSTS_OF_AN_APP: usize = 5;

/// What is declared, and what is there.
#[derive(Clone)]
pub struct Model {
    pub desired: Desired,
    pub observed: Observed,
    pub known: Known,
}

impl Model {
    /// `apps` apps with `containers` containers each, on a tenth as many hosts as apps (at least
    /// five), everything in place.
    pub fn converged(apps: usize, containers: usize) -> Self {
        let files = files(apps, containers / HOSTS_OF_AN_APP.min(containers));
        let desired = Reader::new().read(&files).desired.expect("the manifests are sound");
        let known = Known {
            pins: desired.apps.values().map(|app| (app.id.clone(), Ok(pin(app)))).collect(),
            ..Known::default()
        };
        let observed = observed(&desired);
        let model = Self { desired, observed, known };
        let plan = plan(&model.input());
        assert!(plan.is_empty(), "{:?} {:?}", plan.steps.first(), plan.waiting.first());
        model
    }

    /// The manifests of such a fleet, two replicas on each host.
    pub fn files(apps: usize) -> Files {
        files(apps, 2)
    }

    /// The same files, but for the environment of one app.
    pub fn with_one_file_changed(files: &Files, number: usize) -> Files {
        let mut files = files.clone();
        let changed = app_text(7, files.files.len(), 2, &number.to_string());
        files.files.insert(app_path(7), content(changed));
        files.commit = CommitId(format!("{number:040}"));
        files
    }

    pub fn input(&self) -> Input<'_> {
        Input {
            desired: &self.desired,
            observed: &self.observed,
            known: &self.known,
            previous: None,
        }
    }

    /// Another image is declared for one app.
    pub fn with_one_app_changed(mut self) -> Self {
        let id: AppId = "production/app-7".parse().expect("a name");
        let app = Arc::make_mut(self.desired.apps.get_mut(&id).expect("the app"));
        app.template.image = "registry.example/web:2".parse().expect("a reference");
        let pin = pin(app);
        self.known.pins.insert(id, Ok(pin));
        self
    }

    /// The configuration that the balancer has.
    pub fn proxy_config(&self) -> ProxyConfig {
        let balancer = self.observed.balancers.values().next().and_then(View::seen);
        match balancer.map(|state| &state.file) {
            Some(ProxyFile::Ours(config)) => config.as_ref().clone(),
            _ => panic!("there is a balancer"),
        }
    }

    pub fn places() -> Places {
        Places {
            runtime_socket: "/run/plimsoll/runtime.sock".parse().expect("a path"),
            routes: "/run/plimsoll/routes.map".parse().expect("a path"),
        }
    }
}

fn content(text: String) -> Content {
    let blob = Sha256::of(text.as_bytes()).hex();
    Content::Bytes { blob, bytes: text.into() }
}

fn hosts(apps: usize) -> usize {
    (apps / 10).max(HOSTS_OF_AN_APP)
}

fn app_path(number: usize) -> String {
    format!("apps/production/{}/app-{number}.yaml", number % 100)
}

fn app_text(number: usize, apps: usize, replicas: usize, value: &str) -> String {
    let first = number * HOSTS_OF_AN_APP;
    let on: Vec<String> = (first..first + HOSTS_OF_AN_APP)
        .map(|host| format!("host-{}", host % hosts(apps)))
        .collect();
    format!(
        "apiVersion: plimsoll/v1alpha1
kind: App
metadata: {{name: app-{number}, environment: production}}
spec:
  image: registry.example/web:1
  env: {{NUMBER: \"{number}\", VALUE: \"{value}\"}}
  port: 8080
  hosts: [{}]
  replicas: {replicas}
  routes: [{{balancer: edge, listener: web, host: app-{number}.example.com, path: /}}]
  health: {{path: /_status}}
  limits: {{memory: 64MiB}}
",
        on.join(", ")
    )
}

fn files(apps: usize, replicas: usize) -> Files {
    let mut files = BTreeMap::new();
    let shared = "apiVersion: plimsoll/v1alpha1
kind: Installation
metadata: {name: bench, uid: 8f14e45f}
---
apiVersion: plimsoll/v1alpha1
kind: Environment
metadata: {name: production}
spec: {env: {REGION: eu}}
---
apiVersion: plimsoll/v1alpha1
kind: Balancer
metadata: {name: edge}
spec:
  listen: [{name: web, bind: \"127.0.0.1:8080\"}]
  stats: \"127.0.0.1:8404\"
";
    files.insert("installation.yaml".to_owned(), content(shared.to_owned()));
    for host in 0..hosts(apps) {
        let text = format!(
            "apiVersion: plimsoll/v1alpha1
kind: Host
metadata: {{name: host-{host}}}
spec: {{engine: \"unix:///run/engine-{host}.sock\", address: 10.1.{}.{}, ports: 20000-29999}}
",
            host / 250,
            host % 250 + 1
        );
        files.insert(format!("hosts/host-{host}.yaml"), content(text));
    }
    for number in 0..apps {
        files.insert(app_path(number), content(app_text(number, apps, replicas, "0")));
    }
    Files { commit: CommitId("c".repeat(40)), files }
}

fn pin(app: &App) -> Pin {
    let reference = app.template.image.clone();
    let digest = Sha256::of(reference.to_string().as_bytes());
    Pin { reference, content: ImageContent::Digest(digest) }
}

fn observed(desired: &Desired) -> Observed {
    let mut observed = Observed::default();
    let mut states: BTreeMap<_, HostState> =
        desired.hosts.keys().map(|host| (host.clone(), HostState::default())).collect();
    let mut runtime = ProxyRuntime::default();
    let balancer = desired.balancers.values().next().expect("a balancer");
    let mut structure = ProxyStructure {
        stats: balancer.stats,
        x_host: balancer.x_host,
        listeners: balancer.listeners.clone(),
        backends: BTreeMap::new(),
    };
    let mut servers: BTreeMap<BackendName, BTreeMap<ServerName, Server>> = BTreeMap::new();
    for app in desired.apps.values() {
        let check = plimsoll::model::Check {
            path: app.health.path.as_deref().map(|path| path.parse().expect("a path")),
            interval: app.health.interval,
            timeout: app.health.timeout,
        };
        let backend = plimsoll::model::Backend { check };
        let stable = BackendName::stable(app.id.clone());
        structure.backends.insert(BackendName::candidate(app.id.clone()), backend.clone());
        structure.backends.insert(stable.clone(), backend);
        for route in &app.routes {
            let (listener, host, path) =
                (route.listener.clone(), route.host.clone(), route.path.clone());
            runtime.routes.insert(RouteKey { listener, host, path }, stable.clone());
        }
        let pin = pin(app);
        let revision = app.template.resolve(&pin, &BTreeMap::new()).expect("no secrets").revision();
        for (host, placement) in &app.placement {
            let state = states.get_mut(host).expect("the host");
            for slot in 0..placement.replicas {
                let port = 20_000 + state.containers.len() as u16;
                let birth = Birth {
                    installation: desired.installation.name.clone(),
                    uid: desired.installation.uid.clone(),
                    app: app.id.clone(),
                    revision,
                    slot: Slot(slot),
                    port: Some(port),
                    commit: desired.commit.clone(),
                    pin: pin.clone(),
                };
                let name = birth.container_name();
                let id = ContainerId(Sha256::of(format!("{host} {name}").as_bytes()).hex());
                let address = SocketAddr::new(desired.hosts[host].address, port);
                let server =
                    ServerName::new(host.clone(), pin.content.sha256(), &revision, Slot(slot));
                let weight = placement.weight;
                let (admin, check) = (AdminState::Ready, CheckState::Up);
                let seen = RuntimeServer { address, weight, admin, check };
                runtime.servers.entry(stable.clone()).or_default().insert(server.clone(), seen);
                let in_file = Server { address, weight };
                servers.entry(stable.clone()).or_default().insert(server, in_file);
                let (state_of, health, restarts) = (ContainerState::Running, None, 0);
                let container = Container { id, name, birth, state: state_of, health, restarts };
                state.containers.push(Arc::new(container));
            }
        }
    }
    for (host, mut state) in states {
        state.containers.sort_by(|a, b| a.name.cmp(&b.name));
        observed.hosts.insert(host, View::Seen(Arc::new(state)));
    }
    runtime.structure = Some(structure.digest());
    let config = ProxyConfig { structure, routes: runtime.routes.clone(), servers };
    let state = BalancerState {
        file: ProxyFile::Ours(Arc::new(config)),
        process: ProxyProcess::Up(Arc::new(runtime)),
    };
    observed.balancers.insert(balancer.name.clone(), View::Seen(Arc::new(state)));
    observed
}
