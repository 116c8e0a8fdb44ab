//! A model of the world that a plan acts on: engines with containers, HAProxies with a file and
//! a process, as pure data. Steps change it as the real ones change the machines; a step that
//! no sound plan has at that moment panics with what is wrong. It never waits, and does no I/O.

mod act;
mod mishap;
mod oracle;
mod run;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use plimsoll::check::{Finding, findings};
use plimsoll::manifest::Reader;
use plimsoll::model::{
    AppId, BackendName, BalancerName, BalancerState, CommitId, Container, ContainerState, Content,
    Desired, EngineHealth, Files, HostName, HostState, Observed, Pin, ProxyFile, ProxyProcess,
    Revision, SecretDigest, SecretName, ServerName, Sha256, View,
};
use plimsoll::plan::{Fallback, Input, Known, Plan, Planner, plan, render};

pub use act::Refusal;
pub use mishap::Mishap;
pub use run::{Fault, Order};

/// Everything that is there, and what is declared and remembered.
#[derive(Clone)]
pub struct World {
    pub desired: Desired,
    pub previous: Option<Desired>,
    pub known: Known,
    pub hosts: BTreeMap<HostName, HostState>,
    pub balancers: BTreeMap<BalancerName, BalancerState>,
    pub unseen_hosts: BTreeSet<HostName>,
    pub unseen_balancers: BTreeSet<BalancerName>,
    /// Revisions that start, but never get well.
    pub bad: BTreeSet<Revision>,
    /// One that remembers, whose plans have to be those of one that doesn't.
    planner: RefCell<Planner>,
    /// How many containers were made so far: their ids are counted.
    born: u32,
    commits: u32,
    secrets: BTreeMap<SecretName, String>,
}

/// Reads manifests as the controller does; they have to be sound as far as YAML goes.
pub fn read(text: &str, commit: u32) -> Desired {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    let content = Content::Bytes { blob: Sha256::of(&bytes).hex(), bytes };
    let files = BTreeMap::from([("fleet.yaml".to_owned(), content)]);
    let files = Files { commit: CommitId(format!("{commit:040x}")), files };
    let reading = Reader::new().read(&files);
    reading.desired.unwrap_or_else(|| panic!("no Installation: {:?}\n{text}", reading.diagnostics))
}

impl World {
    /// Machines with nothing on them.
    pub fn new(desired: Desired) -> Self {
        let mut world = Self {
            desired: desired.clone(),
            previous: None,
            known: Known::default(),
            hosts: BTreeMap::new(),
            balancers: BTreeMap::new(),
            unseen_hosts: BTreeSet::new(),
            unseen_balancers: BTreeSet::new(),
            bad: BTreeSet::new(),
            planner: RefCell::default(),
            born: 0,
            commits: 0,
            secrets: BTreeMap::new(),
        };
        world.declare(desired);
        world.previous = None;
        world
    }

    /// Another commit. Machines that come with it are empty, hosts that go are remembered while
    /// something of ours is on them.
    pub fn declare(&mut self, desired: Desired) {
        self.commits += 1;
        for (name, host) in &self.desired.hosts {
            let used = self.hosts.get(name).is_some_and(|state| !state.containers.is_empty());
            if used && !desired.hosts.contains_key(name) {
                self.known.departed_hosts.insert(name.clone(), plimsoll::model::Host::clone(host));
            }
        }
        let hosts = &self.hosts;
        self.known.departed_hosts.retain(|name, _| {
            let empty = hosts.get(name).is_none_or(|state| state.containers.is_empty());
            !desired.hosts.contains_key(name) && !empty
        });
        for name in desired.hosts.keys() {
            self.hosts.entry(name.clone()).or_default();
        }
        for name in desired.balancers.keys() {
            self.balancers.entry(name.clone()).or_insert_with(|| BalancerState {
                file: ProxyFile::Missing,
                process: ProxyProcess::Down { reason: "it was never started".into() },
            });
        }
        self.known.guards = self.desired.installation.guards;
        self.known.pins = desired
            .apps
            .values()
            .map(|app| {
                let reference = app.template.image.clone();
                let content = plimsoll::model::ImageContent::Digest(Sha256::of(
                    reference.to_string().as_bytes(),
                ));
                (app.id.clone(), Ok(Pin { reference, content }))
            })
            .collect();
        self.previous = Some(std::mem::replace(&mut self.desired, desired));
        self.read_secrets();
    }

    /// Gives a secret another value.
    pub fn set_secret(&mut self, name: SecretName, value: &str) {
        self.secrets.insert(name, value.to_owned());
        self.read_secrets();
    }

    fn read_secrets(&mut self) {
        let fallbacks = self.known.fallbacks.values().map(|fallback| &fallback.app);
        let names = self.desired.apps.values().chain(fallbacks).flat_map(|a| a.template.secrets());
        let digest = |name: &SecretName| {
            let value = self.secrets.get(name).map_or("one", String::as_str);
            Ok(SecretDigest(Sha256::of(format!("{name} {value}").as_bytes())))
        };
        self.known.secrets = names.map(|name| (name.clone(), digest(name))).collect();
    }

    /// What a look finds.
    pub fn observed(&self) -> Observed {
        let unseen = |what: &str| format!("{what} doesn't answer");
        let hosts = self.desired.hosts.keys().chain(self.known.departed_hosts.keys());
        let hosts = hosts.map(|name| match self.hosts.get(name) {
            Some(state) if !self.unseen_hosts.contains(name) => {
                (name.clone(), View::Seen(state.clone()))
            }
            _ => (name.clone(), View::Unseen { reason: unseen("its engine") }),
        });
        let balancers = self.desired.balancers.keys().map(|name| match self.balancers.get(name) {
            Some(state) if !self.unseen_balancers.contains(name) => {
                (name.clone(), View::Seen(state.clone()))
            }
            _ => (name.clone(), View::Unseen { reason: unseen("its socket") }),
        });
        Observed {
            hosts: hosts.map(|(name, view)| (name, view.map(Arc::new))).collect(),
            balancers: balancers.map(|(name, view)| (name, view.map(Arc::new))).collect(),
        }
    }

    pub fn plan(&self) -> Plan {
        let observed = self.observed();
        let input = Input {
            desired: &self.desired,
            observed: &observed,
            known: &self.known,
            previous: self.previous.as_ref(),
        };
        let (new, remembered) = (plan(&input), self.planner.borrow_mut().plan(&input));
        assert_eq!(render(&new, false), render(&remembered, false), "what is remembered is wrong");
        assert_eq!(new, remembered, "what is remembered is wrong");
        new
    }

    pub fn findings(&self, plan: &Plan) -> Vec<Finding> {
        findings(plan, &self.desired, &self.observed())
    }

    /// Time passes: checks find out, restart policies work.
    pub fn pass_time(&mut self) {
        for state in self.hosts.values_mut() {
            for container in state.containers.iter_mut().map(Arc::make_mut) {
                let bad = self.bad.contains(&container.birth.revision);
                if matches!(container.state, ContainerState::Restarting { .. }) && !bad {
                    container.state = ContainerState::Running;
                }
                if container.health == Some(EngineHealth::Starting) {
                    let healthy = if bad { EngineHealth::Unhealthy } else { EngineHealth::Healthy };
                    container.health = Some(healthy);
                }
            }
        }
        let names: Vec<_> = self.balancers.keys().cloned().collect();
        for name in names {
            self.check_servers(&name);
        }
    }

    /// Notes what every app has as what worked, as the controller does after convergence.
    pub fn remember(&mut self) {
        for (id, app) in &self.desired.apps {
            if let Some(Ok(pin)) = self.known.pins.get(id) {
                let fallback = Fallback { app: app.clone(), pin: pin.clone() };
                self.known.fallbacks.insert(id.clone(), Arc::new(fallback));
            }
        }
        let hosts = &self.hosts;
        self.known
            .departed_hosts
            .retain(|name, _| hosts.get(name).is_some_and(|state| !state.containers.is_empty()));
    }

    /// The container that a server stands for.
    pub fn container_of(&self, app: &AppId, server: &ServerName) -> Option<&Container> {
        let is_it = |container: &&Arc<Container>| {
            let birth = &container.birth;
            birth.app == *app && server.is_of(&birth.revision) && birth.slot == server.slot
        };
        self.hosts.get(&server.host)?.containers.iter().find(is_it).map(AsRef::as_ref)
    }

    /// True where requests to that server are answered.
    pub fn answers(&self, app: &AppId, server: &ServerName) -> bool {
        self.container_of(app, server)
            .is_some_and(|c| c.runs() && !self.bad.contains(&c.birth.revision))
    }

    /// The servers of an app that a balancer sends requests to and that answer.
    pub fn serving(&self, app: &AppId, balancer: &BalancerName) -> u32 {
        let Some(state) = self.balancers.get(balancer) else { return 0 };
        let ProxyProcess::Up(runtime) = &state.process else { return 0 };
        let servers = runtime.servers.get(&BackendName::stable(app.clone()));
        let serving = servers.into_iter().flatten().filter(|(name, server)| {
            server.admin == plimsoll::model::AdminState::Ready
                && server.weight > 0
                && server.check == plimsoll::model::CheckState::Up
                && self.answers(app, name)
        });
        serving.count() as u32
    }
}
