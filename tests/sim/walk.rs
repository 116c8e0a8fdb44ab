//! Walks: sets of manifests that are declared one after the other, each a change of the one
//! before, as people make them. They are data, so that a failure can be shrunk and replayed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use plimsoll::model::{CommitId, Content, Files, Sha256};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};

pub const HOSTS: [&str; 3] = ["alpha", "beta", "gamma"];
pub const BALANCERS: [&str; 2] = ["edge", "inner"];
const NAMES: [&str; 5] = ["web", "api", "shop", "mail", "jobs"];

/// One set of manifests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fleet {
    /// Whether it is drained.
    pub hosts: BTreeMap<String, bool>,
    pub balancers: usize,
    pub apps: BTreeMap<String, Service>,
    /// Apps whose files can't be read.
    #[serde(default)]
    pub broken: BTreeSet<String>,
}

/// One app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub version: u32,
    /// What follows the version in the image's tag: see `machine::Nature`.
    #[serde(default)]
    pub nature: String,
    #[serde(default)]
    pub env: u32,
    pub kind: Kind,
    /// Replicas and weight.
    pub hosts: BTreeMap<String, (u32, u16)>,
    /// The host name of its route at each balancer.
    pub routes: BTreeMap<String, String>,
    pub surge: u32,
    pub unavailable: u32,
    /// Seconds between two checks. A change needs a reload.
    pub interval: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Routed,
    /// Stopped before it is started: it writes a volume.
    Volume,
    Worker,
    /// A worker that the engine checks.
    Checked,
}

pub fn commit_id(text: &str) -> CommitId {
    CommitId(Sha256::of(text.as_bytes()).hex()[..40].to_owned())
}

fn content(text: &str) -> Content {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    Content::Bytes { blob: Sha256::of(&bytes).hex(), bytes }
}

fn head(kind: &str, name: &str) -> String {
    format!("---\napiVersion: plimsoll/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n")
}

impl Fleet {
    /// The manifests, as the commit of that step.
    pub fn files(&self, step: usize) -> Arc<Files> {
        let mut files = BTreeMap::from([("fleet.yaml".to_owned(), content(&self.fleet()))]);
        for (name, service) in &self.apps {
            let text = match self.broken.contains(name) {
                true => format!("{}spec: [this is, no app\n", head("App", name)),
                false => service.document(name),
            };
            files.insert(format!("apps/{name}.yaml"), content(&text));
        }
        let json = serde_json::to_string(self).unwrap_or_default();
        let commit = commit_id(&format!("{step} {json}"));
        Arc::new(Files { commit, files })
    }

    /// Every app can be read, and no two declare one route: what has a mistake is left alone.
    pub fn has_no_mistake(&self) -> bool {
        let routes = self.apps.values().flat_map(|service| &service.routes);
        let mut seen = BTreeSet::new();
        self.broken.is_empty() && routes.into_iter().all(|route| seen.insert(route))
    }

    /// Some app never works.
    pub fn has_failing(&self) -> bool {
        let works = |(name, service): (&String, &Service)| {
            super::machine::Nature::of(&service.image(name)).works()
        };
        !self.apps.iter().all(works)
    }

    fn fleet(&self) -> String {
        let mut text = "apiVersion: plimsoll/v1alpha1\nkind: Installation\n\
             metadata: {name: shop, uid: 8f14e45f}\n"
            .to_owned();
        text.push_str(&head("Environment", "test"));
        for (name, drained) in &self.hosts {
            let number = 1 + HOSTS.iter().position(|host| host == name).unwrap_or_default();
            let _ = writeln!(
                text,
                "{}spec: {{engine: \"tcp://127.77.0.{number}:2376\", address: 127.77.0.{number}, \
                 ports: 20000-20015, drain: {drained}}}",
                head("Host", name)
            );
        }
        for (number, name) in BALANCERS.iter().take(self.balancers).enumerate() {
            let _ = writeln!(
                text,
                "{}spec: {{listen: [{{name: web, bind: \"127.0.0.1:{}\"}}]}}",
                head("Balancer", name),
                8080 + number
            );
        }
        text
    }
}

impl Service {
    pub fn image(&self, name: &str) -> String {
        let nature = if self.nature.is_empty() { "" } else { "-" };
        format!("registry.example/{name}:{}{nature}{}", self.version, self.nature)
    }

    fn document(&self, name: &str) -> String {
        let mut text = format!(
            "apiVersion: plimsoll/v1alpha1\nkind: App\n\
             metadata: {{name: {name}, environment: test}}\nspec:\n  image: {}\n  env: {{E: \"{}\"}}\n",
            self.image(name),
            self.env
        );
        let map = |of: fn(&(u32, u16)) -> String| {
            let all = self.hosts.iter().map(|(host, at)| format!("{host}: {}", of(at)));
            all.collect::<Vec<_>>().join(", ")
        };
        let hosts: Vec<_> = self.hosts.keys().map(String::as_str).collect();
        let _ = writeln!(text, "  hosts: [{}]", hosts.join(", "));
        let _ = writeln!(text, "  replicas: {{{}}}", map(|(replicas, _)| replicas.to_string()));
        let (surge, unavailable) = (self.surge, self.unavailable);
        let _ = writeln!(text, "  rollout: {{surge: {surge}, unavailable: {unavailable}}}");
        let _ = writeln!(text, "  drain: 3s\n  stop: {{grace: 2s}}");
        match self.kind {
            Kind::Routed | Kind::Volume => {
                let routes = self.routes.iter().map(|(balancer, host)| {
                    format!("{{balancer: {balancer}, listener: web, host: {host}}}")
                });
                let routes = routes.collect::<Vec<_>>().join(", ");
                let _ = writeln!(text, "  port: 8080\n  routes: [{routes}]");
                let _ = writeln!(text, "  weights: {{{}}}", map(|(_, weight)| weight.to_string()));
                let _ = writeln!(
                    text,
                    "  health: {{path: /_status, interval: {}s, deadline: 8s}}",
                    self.interval
                );
            }
            Kind::Worker => text.push_str("  health: {deadline: 8s, settle: 2s}\n"),
            Kind::Checked => {
                text.push_str("  health: {command: [/check], interval: 1s, deadline: 8s}\n");
            }
        }
        if self.kind == Kind::Volume {
            text.push_str("  volumes: [{name: data, at: /data}]\n");
        }
        text
    }
}

/// Draws walks.
pub struct Walker<'a> {
    pub rng: &'a mut StdRng,
}

impl Walker<'_> {
    /// So many sets of manifests.
    pub fn walk(&mut self, steps: usize) -> Vec<Fleet> {
        let mut fleet = self.fleet();
        let mut walk = vec![fleet.clone()];
        while walk.len() < steps {
            let before = fleet.clone();
            for _ in 0..self.rng.random_range(1..=2) {
                self.change(&mut fleet);
            }
            if fleet != before {
                walk.push(fleet.clone());
            }
        }
        // Everything goes at once, and comes back.
        if walk.len() > 1 && self.rng.random_bool(0.08) {
            let at = self.rng.random_range(1..walk.len());
            let nothing = Fleet { apps: BTreeMap::new(), ..walk[at - 1].clone() };
            walk.insert(at, Fleet { broken: BTreeSet::new(), ..nothing });
        }
        walk
    }

    fn fleet(&mut self) -> Fleet {
        let hosts = self.rng.random_range(2..=3);
        let hosts = HOSTS.iter().take(hosts).map(|host| ((*host).to_owned(), false)).collect();
        let balancers = if self.rng.random_bool(0.3) { 2 } else { 1 };
        let mut fleet = Fleet { hosts, balancers, ..Fleet::default() };
        for _ in 0..self.rng.random_range(1..=3) {
            self.add_app(&mut fleet);
        }
        fleet
    }

    fn add_app(&mut self, fleet: &mut Fleet) {
        let free: Vec<_> = NAMES.iter().filter(|name| !fleet.apps.contains_key(**name)).collect();
        let Some(name) = free.choose(self.rng).map(|name| (**name).to_owned()) else { return };
        let service = self.service(fleet, &name);
        fleet.apps.insert(name, service);
    }

    fn service(&mut self, fleet: &Fleet, name: &str) -> Service {
        let kinds =
            [Kind::Routed, Kind::Routed, Kind::Routed, Kind::Volume, Kind::Worker, Kind::Checked];
        let kind = *kinds.choose(self.rng).unwrap_or(&Kind::Routed);
        let mut hosts = BTreeMap::new();
        while hosts.is_empty() {
            for host in fleet.hosts.keys() {
                if self.rng.random_bool(0.6) {
                    hosts.insert(host.clone(), self.place(kind));
                }
            }
        }
        let mut routes = BTreeMap::new();
        if matches!(kind, Kind::Routed | Kind::Volume) {
            while routes.is_empty() {
                for balancer in BALANCERS.iter().take(fleet.balancers) {
                    if self.rng.random_bool(0.7) {
                        routes.insert((*balancer).to_owned(), format!("{name}.example"));
                    }
                }
            }
        }
        let (surge, unavailable) = self.pace(kind);
        Service {
            version: self.rng.random_range(1..=3),
            nature: String::new(),
            env: 0,
            kind,
            hosts,
            routes,
            surge,
            unavailable,
            interval: 1,
        }
    }

    fn place(&mut self, kind: Kind) -> (u32, u16) {
        let replicas = if kind == Kind::Volume { 1 } else { self.rng.random_range(1..=2) };
        (replicas, *[100, 100, 100, 50, 0].choose(self.rng).unwrap_or(&100))
    }

    fn pace(&mut self, kind: Kind) -> (u32, u32) {
        match kind {
            Kind::Volume => (0, 1),
            _ => *[(1, 0), (1, 0), (2, 0), (0, 1), (1, 1)].choose(self.rng).unwrap_or(&(1, 0)),
        }
    }

    fn change(&mut self, fleet: &mut Fleet) {
        let names: Vec<String> = fleet.apps.keys().cloned().collect();
        let Some(name) = names.choose(self.rng).cloned() else { return self.add_app(fleet) };
        let kind = self.rng.random_range(0..100);
        let count = fleet.apps.len();
        let Some(service) = fleet.apps.get_mut(&name) else { return };
        // Whatever was wrong is mended first, most of the time.
        if !fleet.broken.is_empty() && self.rng.random_bool(0.7) {
            fleet.broken.clear();
        }
        match kind {
            0..20 => {
                service.version += 1;
                service.nature = match self.rng.random_range(0..10) {
                    0..6 => "",
                    6 => "slow",
                    7 => "sick",
                    8 => "crash",
                    _ => ["nopull", "refused"].choose(self.rng).copied().unwrap_or("sick"),
                }
                .to_owned();
            }
            20..30 => {
                service.env += 1;
                service.nature.clear();
            }
            30..42 => {
                let kind = service.kind;
                let place = self.place(kind);
                let hosts: Vec<String> = service.hosts.keys().cloned().collect();
                if let Some(host) = hosts.choose(self.rng) {
                    service.hosts.insert(host.clone(), place);
                }
            }
            42..54 => self.move_app(fleet, &name),
            54..62 => self.add_app(fleet),
            62..70 if count > 1 => drop(fleet.apps.remove(&name)),
            70..74 if count < NAMES.len() => {
                // Renamed: another app takes its routes.
                let service = service.clone();
                let free = NAMES.iter().find(|free| !fleet.apps.contains_key(**free));
                if let Some(free) = free {
                    fleet.apps.remove(&name);
                    fleet.apps.insert((*free).to_owned(), service);
                }
            }
            74..80 => {
                for host in service.routes.values_mut() {
                    *host = format!("{name}{}.example", self.rng.random_range(1..=2));
                }
            }
            80..85 => service.interval = 3 - service.interval,
            85..92 => {
                let hosts: Vec<String> = fleet.hosts.keys().cloned().collect();
                if let Some(host) = hosts.choose(self.rng) {
                    let drained = fleet.hosts[host];
                    fleet.hosts.insert(host.clone(), !drained);
                }
            }
            92..96 => drop(fleet.broken.insert(name)),
            _ => {
                let kind = service.kind;
                (service.surge, service.unavailable) = self.pace(kind);
            }
        }
    }

    fn move_app(&mut self, fleet: &mut Fleet, name: &str) {
        let host = fleet.hosts.keys().nth(self.rng.random_range(0..fleet.hosts.len())).cloned();
        let (Some(host), Some(service)) = (host, fleet.apps.get_mut(name)) else { return };
        if service.hosts.contains_key(&host) {
            if service.hosts.len() > 1 {
                service.hosts.remove(&host);
            }
        } else {
            let place = self.place(service.kind);
            service.hosts.insert(host, place);
        }
    }
}
