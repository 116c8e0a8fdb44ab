//! A plan as plain data: steps, what each waits for, and what is not in it and why.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::model::{
    AppId, BackendName, BalancerName, CommitId, ContainerId, HostName, Location, NewContainer, Pin,
    ProxyStructure, Revision, Route, RouteKey, ServerName, Sha256, Span, UrlPath,
};

/// Everything that `diff` prints, a person approves and `apply` runs: one value, computed once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub commit: CommitId,
    /// Merkle hash over the desired state and the observed facts that the planner read.
    pub digest: Sha256,
    /// In an order in which they could run one after the other.
    pub steps: Vec<Step>,
    pub routes: Vec<RouteFloor>,
    /// What is held back until something happens.
    pub waiting: Vec<Waiting>,
    /// What is declared but can't be applied.
    pub blocked: Vec<BlockedApp>,
    /// What changes in each app, field by field.
    pub changes: BTreeMap<AppId, Vec<FieldChange>>,
    pub totals: Totals,
}

impl Plan {
    /// True where nothing would change.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub fn step(&self, id: &StepId) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == *id)
    }
}

/// The line of totals below a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    pub apps: usize,
    /// Containers that are made without one in their place.
    pub creates: usize,
    /// Containers that are made in the place of others.
    pub replaces: usize,
    /// Containers that go without another in their place.
    pub removes: usize,
    pub hosts: usize,
    pub reloads: usize,
}

/// A readable name of a step, unique in its plan and the same for the same situation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepId(pub String);

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub id: StepId,
    /// None for what several apps share: a reload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppId>,
    #[serde(flatten)]
    pub place: Place,
    /// The steps that must be done before.
    pub after: Vec<StepId>,
    /// What must still be up in its backend when it begins: it serves in the place of what the
    /// step takes away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// One line for people.
    pub summary: String,
    /// How long it may take.
    pub deadline: Span,
    #[serde(flatten)]
    pub action: Action,
}

/// A server that serves on where another is taken away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Need {
    pub server: ServerName,
    pub revision: Revision,
    /// What is behind it, where it was there before the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerId>,
    /// It served before the plan: where it goes down, that says nothing against its revision.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standing: bool,
}

/// Where a step acts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    Host(HostName),
    Balancer(BalancerName),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => name.fmt(f),
            Self::Balancer(name) => name.fmt(f),
        }
    }
}

/// What a step does. Each names all it needs, and doing it twice equals doing it once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "action")]
pub enum Action {
    /// Brings the image onto the host.
    Pull {
        pin: Pin,
    },
    Create {
        container: Box<NewContainer>,
    },
    /// By name: the id isn't known when the plan is made.
    Start {
        name: String,
    },
    /// Until the container runs and its own health check, if it has one, is content.
    WaitReady {
        name: String,
        revision: Revision,
        probe: Probe,
    },
    /// Into the process and the file, with weight 0.
    AddServer {
        backend: BackendName,
        server: ServerName,
        address: SocketAddr,
    },
    /// Until HAProxy's check found it up.
    WaitUp {
        backend: BackendName,
        server: ServerName,
        revision: Revision,
    },
    SetWeight {
        backend: BackendName,
        server: ServerName,
        weight: u16,
    },
    /// Until no worker has a session on it, or the deadline: it passes either way.
    WaitDrained {
        backend: BackendName,
        server: ServerName,
    },
    RemoveServer {
        backend: BackendName,
        server: ServerName,
    },
    /// Sets (`Some`) and removes routes. No reload.
    SetRoutes {
        changes: BTreeMap<RouteKey, Option<BackendName>>,
    },
    /// New listeners, backends or settings: a reload.
    Restructure {
        structure: Box<ProxyStructure>,
    },
    Stop {
        id: ContainerId,
        name: String,
        grace: Span,
    },
    Remove {
        id: ContainerId,
        name: String,
    },
}

impl Action {
    /// The word under which scripts find it in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Pull { .. } => "pull",
            Self::Create { .. } => "create",
            Self::Start { .. } => "start",
            Self::WaitReady { .. } => "waitReady",
            Self::AddServer { .. } => "addServer",
            Self::WaitUp { .. } => "waitUp",
            Self::SetWeight { .. } => "setWeight",
            Self::WaitDrained { .. } => "waitDrained",
            Self::RemoveServer { .. } => "removeServer",
            Self::SetRoutes { .. } => "setRoutes",
            Self::Restructure { .. } => "restructure",
            Self::Stop { .. } => "stop",
            Self::Remove { .. } => "remove",
        }
    }
}

/// What tells that a container is ready beyond that it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Probe {
    /// HAProxy checks it, or the engine does.
    None,
    /// It must have run for so long: nothing else tells.
    Settle(Span),
    /// The controller asks it: an HTTP GET of `path`, or a TCP connection without one.
    Ask { address: SocketAddr, path: Option<UrlPath>, interval: Span, timeout: Span },
}

/// The lowest number of healthy servers of a route on the way: the minimum over every order
/// that the steps allow, with any one step failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteFloor {
    #[serde(with = "by_text")]
    pub route: Route,
    pub app: AppId,
    pub lowest_healthy: u32,
    /// Healthy now.
    pub healthy: u32,
    /// What may not be undercut: its servers with a weight above 0 when converged, less
    /// `unavailable` on each host.
    pub minimum: u32,
}

mod by_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::{Route, RouteKey};

    pub fn serialize<S: Serializer>(route: &Route, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(route)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Route, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bad = || serde::de::Error::custom(format!("{text:?} is no route"));
        let (balancer, rest) = text.split_once('/').ok_or_else(bad)?;
        let RouteKey { listener, host, path } = rest.parse().map_err(|_| bad())?;
        Ok(Route { balancer: balancer.parse().map_err(|_| bad())?, listener, host, path })
    }
}

/// Why an app, or a part of it, isn't in the plan now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    pub app: AppId,
    pub reason: String,
    #[serde(flatten)]
    pub cause: WaitCause,
    /// What `plimsoll approve` lets it through with; none where no person is asked.
    pub approval: Option<String>,
}

/// What is waited for, for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "cause")]
pub enum WaitCause {
    HostUnseen {
        unseen: HostName,
    },
    BalancerUnseen {
        unseen: BalancerName,
    },
    /// The image isn't resolved yet.
    Image,
    /// A person has to look at what would be removed.
    Prune,
    /// Another app is to take its routes, and can't yet.
    Takeover {
        by: AppId,
    },
    /// What serves doesn't pass the health check that is declared now.
    Check,
    /// This revision failed.
    Held {
        revision: Revision,
    },
    /// All its hosts are drained.
    Draining,
    /// No port of the host's range is free.
    NoPort {
        host: HostName,
    },
    /// It may be declared in a file that can't be read.
    Unreadable {
        location: Location,
    },
    /// The balancer's file is damaged, and holds what no manifest tells.
    ProxyFile {
        balancer: BalancerName,
    },
}

/// Something that is declared but can't be applied, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockedApp {
    /// `ENVIRONMENT/NAME`; empty where it isn't known which apps a file declares.
    pub app: Option<AppId>,
    #[serde(flatten)]
    pub location: Location,
    pub reason: String,
}

/// One line of what changes in an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "op")]
pub enum FieldChange {
    /// `+`
    Add { path: String, to: String },
    /// `-`
    Remove { path: String, from: String },
    /// `~`
    Change { path: String, from: String, to: String },
}
