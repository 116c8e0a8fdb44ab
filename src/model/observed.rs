//! A snapshot of hosts and balancers. What could not be seen is recorded as unseen, with the
//! reason, and is never taken for absent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::mutant::{self, Mutant};

use super::{
    AppId, BackendName, BalancerName, Birth, ContainerId, HostName, InstallationName,
    InstallationUid, ProxyConfig, RouteKey, ServerName, Sha256,
};

/// Whose containers are ours: those with both in their labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub installation: InstallationName,
    pub uid: InstallationUid,
}

impl Owner {
    /// The birth of one of the owner's containers, out of its labels; none of others, and of
    /// those whose labels can't be read.
    pub fn birth_of(&self, labels: &BTreeMap<String, String>) -> Option<Birth> {
        let birth = Birth::from_labels(labels)?;
        let same_uid = birth.uid == self.uid || mutant::is(Mutant::Ownership);
        (birth.installation == self.installation && same_uid).then_some(birth)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    pub hosts: OrdMap<HostName, View<Arc<HostState>>>,
    pub balancers: BTreeMap<BalancerName, View<Arc<BalancerState>>>,
}

impl Observed {
    /// What was seen of that host; none where it couldn't be seen.
    pub fn host(&self, name: &HostName) -> Option<&HostState> {
        self.hosts.get(name).and_then(View::seen).map(Arc::as_ref)
    }

    /// What was seen of that balancer; none where it couldn't be seen.
    pub fn balancer(&self, name: &BalancerName) -> Option<&BalancerState> {
        self.balancers.get(name).and_then(View::seen).map(Arc::as_ref)
    }

    /// Our containers on all hosts that were seen, in the order of hosts and names.
    pub fn containers(&self) -> impl Iterator<Item = (&HostName, &Arc<Container>)> {
        self.hosts.iter().flat_map(|(host, view)| {
            view.seen()
                .into_iter()
                .flat_map(move |state| state.containers.iter().map(move |c| (host, c)))
        })
    }

    /// Our containers of one app.
    pub fn containers_of<'a>(
        &'a self,
        app: &'a AppId,
    ) -> impl Iterator<Item = (&'a HostName, &'a Arc<Container>)> {
        self.containers().filter(move |(_, container)| container.birth.app == *app)
    }
}

/// One look at one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum View<T> {
    Seen(T),
    /// It didn't answer, or not in a way that can be relied on.
    Unseen {
        reason: String,
    },
}

impl<T> View<T> {
    /// What was seen, made something else.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> View<U> {
        match self {
            Self::Seen(state) => View::Seen(make(state)),
            Self::Unseen { reason } => View::Unseen { reason },
        }
    }

    pub fn seen(&self) -> Option<&T> {
        match self {
            Self::Seen(state) => Some(state),
            Self::Unseen { .. } => None,
        }
    }
}

/// What is on one Docker Engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostState {
    /// Ours, ordered by name.
    pub containers: Vec<Arc<Container>>,
    /// Ports of the host that containers of others publish, running or not.
    pub foreign_ports: BTreeSet<u16>,
    /// Names that containers of others hold, with their ids: only those that begin with our
    /// installation's name and a dot.
    pub foreign_names: BTreeMap<String, ContainerId>,
}

/// A container and where it is.
pub type Placed = (HostName, Arc<Container>);

/// One of our containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    pub id: ContainerId,
    /// Without a leading slash. A person may have renamed it.
    pub name: String,
    pub birth: Birth,
    pub state: ContainerState,
    /// The engine's own health check; none where the container has no check.
    pub health: Option<EngineHealth>,
    /// How often the engine's restart policy started it again, where it was asked for: an
    /// inspection tells, a list doesn't (0). No plan depends on it.
    #[serde(skip)]
    pub restarts: u32,
}

impl Container {
    /// Running and not known to be unwell.
    pub fn runs(&self) -> bool {
        self.state == ContainerState::Running && self.health != Some(EngineHealth::Unhealthy)
    }

    /// Running, and healthy where it has a check.
    pub fn is_ready(&self) -> bool {
        self.runs() && self.health != Some(EngineHealth::Starting)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerState {
    Created,
    Running,
    /// The engine's restart policy is at work: it ended, and will be started again. How it ended
    /// is told to people; no digest of a plan depends on it.
    Restarting {
        #[serde(skip)]
        ended: Option<Ended>,
    },
    Paused,
    /// `out_of_memory`: the kernel killed it at its memory limit.
    Exited {
        code: i64,
        out_of_memory: bool,
    },
    Removing,
    Dead,
}

impl ContainerState {
    /// How its program ended, where it doesn't run and the engine told.
    pub fn ended(&self) -> Option<Ended> {
        match self {
            Self::Restarting { ended } => *ended,
            Self::Exited { code, out_of_memory } => {
                Some(Ended { code: *code, out_of_memory: *out_of_memory })
            }
            Self::Created | Self::Running | Self::Paused | Self::Removing | Self::Dead => None,
        }
    }
}

/// How a container's program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub code: i64,
    /// The kernel killed it at its memory limit.
    pub out_of_memory: bool,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { out_of_memory: true, .. } => f.write_str("it was killed at its memory limit"),
            Self { code, .. } => write!(f, "it exited with {code}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EngineHealth {
    Starting,
    Healthy,
    Unhealthy,
}

/// One HAProxy: its file, and its process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BalancerState {
    pub file: ProxyFile,
    pub process: ProxyProcess,
}

/// What a balancer may send requests to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pointers {
    /// Of servers, also of those that old workers have.
    pub addresses: BTreeSet<SocketAddr>,
    /// The servers that each app has.
    pub servers: BTreeMap<AppId, BTreeSet<ServerName>>,
}

impl BalancerState {
    /// Everything that it may send requests to, now or after a restart.
    pub fn pointers(&self) -> Pointers {
        let mut servers: BTreeMap<AppId, BTreeSet<ServerName>> = BTreeMap::new();
        let mut add = |backend: &BackendName, names: &mut dyn Iterator<Item = &ServerName>| {
            servers.entry(backend.app.clone()).or_default().extend(names.cloned());
        };
        if let ProxyFile::Ours(config) = &self.file {
            config.servers.iter().for_each(|(backend, all)| add(backend, &mut all.keys()));
        }
        if let ProxyProcess::Up(runtime) = &self.process {
            runtime.servers.iter().for_each(|(backend, all)| add(backend, &mut all.keys()));
        }
        Pointers { addresses: self.addresses(), servers }
    }

    /// Every address that it may send requests to, now or after a restart.
    pub fn addresses(&self) -> BTreeSet<SocketAddr> {
        let mut all = Vec::new();
        if let ProxyFile::Ours(config) = &self.file {
            let servers = config.servers.values().flat_map(BTreeMap::values);
            all.extend(servers.map(|server| server.address));
        }
        if let ProxyProcess::Up(runtime) = &self.process {
            let servers = runtime.servers.values().flat_map(BTreeMap::values);
            all.extend(servers.map(|server| server.address));
            all.extend(&runtime.old_addresses);
        }
        all.into_iter().collect()
    }
}

/// The file that a restart would give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProxyFile {
    Missing,
    Ours(Arc<ProxyConfig>),
    /// Edited, cut, or never ours.
    Damaged {
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProxyProcess {
    Down { reason: String },
    Up(Arc<ProxyRuntime>),
}

/// What the newest worker answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyRuntime {
    /// Digest of the structure that the worker was started with, as its `description` says.
    pub structure: Option<Sha256>,
    pub routes: BTreeMap<RouteKey, BackendName>,
    pub servers: BTreeMap<BackendName, BTreeMap<ServerName, RuntimeServer>>,
    /// Addresses of servers that workers of earlier generations may still send requests to.
    pub old_addresses: BTreeSet<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeServer {
    pub address: SocketAddr,
    pub weight: u16,
    pub admin: AdminState,
    pub check: CheckState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AdminState {
    Ready,
    Drain,
    Maintenance,
}

/// What HAProxy's own checks say of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckState {
    /// Checked, and up without a fraction.
    Up,
    /// Not checked often enough to tell. HAProxy sends requests to it if it has a weight.
    Unknown,
    Down,
}
