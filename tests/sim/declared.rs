//! What is declared, found out without the controller, and what the controller wrote down of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll::model::{
    App, AppId, CommitId, Desired, HostName, ImageContent, Pin, Revision, Rollout,
};

use super::engine::digest_of;
use super::machine::Nature;

/// What a commit declares of one app.
#[derive(Debug, Clone)]
pub struct Declared {
    pub app: Arc<App>,
    pub revision: Revision,
    pub nature: Nature,
    /// Replicas and weight on each host that isn't drained.
    pub hosts: BTreeMap<HostName, (u32, u16)>,
}

impl Declared {
    /// How many servers a route of it keeps.
    pub fn minimum(&self) -> u32 {
        let Rollout::Rolling { unavailable, .. } = self.app.rollout;
        let hosts = self.hosts.values().filter(|(_, weight)| *weight > 0);
        hosts.map(|(replicas, _)| replicas.saturating_sub(unavailable)).sum()
    }
}

/// What a commit declares.
#[derive(Debug, Clone)]
pub struct Declaration {
    pub desired: Arc<Desired>,
    pub apps: BTreeMap<AppId, Declared>,
}

/// What the controller wrote down of the commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Belief {
    pub attempted: Option<CommitId>,
    pub applied: Option<CommitId>,
    pub result: String,
}

impl Belief {
    pub fn of(status: &serde_json::Value) -> Self {
        let commit = |name: &str| Some(CommitId(status.get(name)?.as_str()?.to_owned()));
        let last = status["history"].as_array().and_then(|history| history.last());
        let result = last.and_then(|last| last["result"].as_str()).unwrap_or("").to_owned();
        Self { attempted: commit("attempted"), applied: commit("applied"), result }
    }
}

/// What an app will be made of, found out without the controller.
pub fn declared(desired: &Desired, app: &Arc<App>) -> Declared {
    let reference = app.template.image.clone();
    let nature = Nature::of(&reference.to_string());
    let content = ImageContent::Digest(digest_of(&reference));
    let spec = app.template.resolve(&Pin { reference, content }, &BTreeMap::new());
    let revision = spec.expect("no secrets").revision();
    let drained = |host: &HostName| desired.hosts.get(host).is_some_and(|host| host.drain);
    let all = app.placement.keys().all(drained);
    let placed = app.placement.iter().filter(|(host, _)| all || !drained(host));
    let hosts = placed.map(|(host, at)| (host.clone(), (at.replicas, at.weight))).collect();
    Declared { app: app.clone(), revision, nature, hosts }
}
