//! The digest of a plan: a Merkle hash, app by app, over what is desired and those observed
//! facts that the planner reads; never over counters or times.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::model::{
    App, AppId, BackendName, Container, ContainerState, Health, Placement, Rollout, Route,
    RuntimeServer, Server, Sha256,
};

use super::fleet::{Fleet, Proxied, Seat};
use super::survey::Work;
use super::{BlockedApp, Input, Waiting};

/// The digest of what a plan was made from.
pub(super) fn digest(
    input: &Input<'_>,
    fleet: &Fleet<'_>,
    apps: Sha256,
    waiting: &[Waiting],
    blocked: &[BlockedApp],
) -> Sha256 {
    let mut text = format!("plimsoll plan 2\n{}\n", input.desired.commit);
    push(&mut text, &input.desired.installation);
    push(&mut text, &fleet.index.hosts());
    push(&mut text, &input.desired.balancers);
    push(&mut text, &(waiting, blocked));
    for (balancer, proxied) in &fleet.balancers {
        push(&mut text, &(balancer, whole(proxied)));
    }
    push(&mut text, &apps);
    Sha256::of(text.as_bytes())
}

/// The leaf of one app: everything of it that the planner read. What is made of it is taken
/// apart whole, so that a new field isn't forgotten.
pub(super) fn leaf(input: &Input<'_>, fleet: &Fleet<'_>, work: &Work<'_>) -> Sha256 {
    let mut bytes = Bytes(Vec::with_capacity(4096));
    bytes.text(work.app.environment.as_str()).text(work.app.name.as_str());
    let begin = bytes.0.len();
    if let Some(app) = work.declared {
        declaration(&mut bytes, app);
    }
    match work.target.as_ref().map(|target| &target.app) {
        // The same once more, which takes no second look.
        Some(Cow::Borrowed(_)) if work.declared.is_some() => bytes.0.extend_from_within(begin..),
        Some(app) => declaration(&mut bytes, app),
        None => {}
    }
    if let Some(target) = &work.target {
        bytes.raw(target.revision.as_bytes()).text(&target.pin.reference.to_string());
    }
    if let Some(hold) = input.known.holds.get(work.app) {
        bytes.json(hold);
    }
    for (host, container) in work.containers {
        let Container { id, name, birth, state, health, restarts: _ } = container.as_ref();
        // What a container was born with never changes under its id.
        bytes.text(host.as_str()).text(&id.0).text(name).raw(birth.revision.as_bytes());
        match state {
            ContainerState::Running => bytes.raw(b"running"),
            other => bytes.json(other),
        };
        bytes.raw(&[health.map_or(0, |health| health as u8 + 1)]);
    }
    for (balancer, backend, name, seat) in work.seats.all() {
        let Seat { runtime, file } = seat;
        bytes.text(balancer.as_str()).raw(&[backend.track as u8]);
        bytes.text(name.host.as_str()).text(name.image12()).text(name.revision8());
        bytes.number(u64::from(name.slot.0));
        if let Some(Server { address, weight }) = file {
            bytes.raw(b"file").address(address).number(u64::from(weight));
        }
        if let Some(RuntimeServer { address, weight, admin, check }) = runtime {
            bytes.raw(b"process").address(address).number(u64::from(weight));
            bytes.raw(&[admin as u8, check as u8]);
        }
    }
    for route in work.declared.into_iter().flat_map(|app| &app.routes) {
        let proxied = fleet.balancers.get(&route.balancer);
        let now = proxied.and_then(|proxied| proxied.routes.get(&route.key()));
        if let Some(BackendName { app, track }) = now {
            bytes.text(app.environment.as_str()).text(app.name.as_str()).raw(&[*track as u8]);
        }
    }
    bytes.hash()
}

/// What is declared beside what the revision says, and where.
fn declaration(bytes: &mut Bytes, app: &App) {
    let App { id: _, template, placement, routes, health, drain, rollout, location } = app;
    bytes.json(&(template.image.to_string(), template.port, template.stop.grace));
    bytes.raw(&[u8::from(template.writes_a_volume())]);
    for (host, Placement { replicas, weight }) in placement {
        bytes.text(host.as_str()).number(u64::from(*replicas)).number(u64::from(*weight));
    }
    for Route { balancer, listener, host, path } in routes {
        bytes.text(balancer.as_str()).text(listener.as_str());
        bytes.text(host.as_str()).text(path.as_str());
    }
    let Health { path, interval, timeout, deadline, settle } = health;
    bytes.text(path.as_deref().unwrap_or_default());
    for span in [interval, timeout, deadline, settle, drain] {
        bytes.number(span.as_millis());
    }
    let Rollout::Rolling { surge, unavailable } = rollout;
    bytes.number(u64::from(*surge)).number(u64::from(*unavailable));
    bytes.text(&location.file).number(u64::from(location.line));
}

/// Bytes to be hashed, in which no two different things look the same: texts are behind their
/// lengths.
struct Bytes(Vec<u8>);

impl Bytes {
    fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len() as u64).raw(text.as_bytes())
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.raw(&number.to_le_bytes())
    }

    fn address(&mut self, address: SocketAddr) -> &mut Self {
        match address.ip() {
            IpAddr::V4(ip) => self.raw(b"4").raw(&ip.octets()),
            IpAddr::V6(ip) => self.raw(b"6").raw(&ip.octets()),
        };
        self.raw(&address.port().to_le_bytes())
    }

    fn json(&mut self, value: &impl Serialize) -> &mut Self {
        let json = serde_json::to_string(value).unwrap_or_default();
        self.text(&json)
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn hash(&self) -> Sha256 {
        Sha256::of(&self.0)
    }
}

fn push(text: &mut String, value: &impl Serialize) {
    text.push_str(&serde_json::to_string(value).unwrap_or_default());
    text.push('\n');
}

fn whole(proxied: &Proxied<'_>) -> String {
    format!("{} {:?} {:?}", proxied.runs, proxied.written, proxied.loaded)
}

/// The leaves of all apps, and the hash over them. They lie in buckets, so that a leaf that
/// changes costs its bucket and the row of buckets, whatever the number of apps.
#[derive(Debug, Clone)]
pub(super) struct Leaves {
    buckets: Vec<Bucket>,
}

const BUCKETS: usize = 256;

#[derive(Debug, Clone, Default)]
struct Bucket {
    leaves: BTreeMap<AppId, Sha256>,
    /// None since a leaf changed.
    hash: Option<Sha256>,
}

impl Default for Leaves {
    fn default() -> Self {
        Self { buckets: vec![Bucket::default(); BUCKETS] }
    }
}

impl Leaves {
    /// Sets an app's leaf, or takes it away.
    pub fn set(&mut self, app: &AppId, leaf: Option<Sha256>) {
        let number = bucket_of(app);
        let Some(bucket) = self.buckets.get_mut(number) else { return };
        if bucket.leaves.get(app) == leaf.as_ref() {
            return;
        }
        bucket.hash = None;
        match leaf {
            Some(leaf) => bucket.leaves.insert(app.clone(), leaf),
            None => bucket.leaves.remove(app),
        };
    }

    /// Adds the leaves of apps that come in order and have none yet.
    pub fn add(&mut self, leaves: impl Iterator<Item = (AppId, Sha256)>) {
        let mut new: Vec<Vec<(AppId, Sha256)>> = vec![Vec::new(); BUCKETS];
        for (app, leaf) in leaves {
            if let Some(bucket) = new.get_mut(bucket_of(&app)) {
                bucket.push((app, leaf));
            }
        }
        for (bucket, new) in self.buckets.iter_mut().zip(new).filter(|(_, new)| !new.is_empty()) {
            bucket.leaves.append(&mut new.into_iter().collect());
            bucket.hash = None;
        }
    }

    /// The hash over all of them.
    pub fn root(&mut self) -> Sha256 {
        let mut row = Vec::with_capacity(BUCKETS * 32);
        for bucket in &mut self.buckets {
            let leaves = &bucket.leaves;
            let hash = bucket.hash.get_or_insert_with(|| {
                let bytes: Vec<u8> = leaves.values().flat_map(|leaf| *leaf.as_bytes()).collect();
                Sha256::of(&bytes)
            });
            row.extend_from_slice(hash.as_bytes());
        }
        Sha256::of(&row)
    }
}

fn bucket_of(app: &AppId) -> usize {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(app.environment.as_str().as_bytes());
    hasher.update(b"/");
    hasher.update(app.name.as_str().as_bytes());
    hasher.finalize() as usize % BUCKETS
}
