//! The digest of a plan: a Merkle hash, app by app, over what is desired and those observed
//! facts that the planner reads; never over counters or times.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{
    App, AppId, BackendName, BalancerName, ContainerSpec, Hold, RouteKey, ServerName, Sha256,
};

use super::fleet::{Fleet, Proxied, Seat};
use super::index::Placed;
use super::survey::Work;
use super::{BlockedApp, Input, Waiting};

/// Everything of one app that the planner read.
#[derive(Serialize)]
struct Leaf<'a> {
    app: &'a AppId,
    declared: Option<&'a App>,
    target: Option<&'a ContainerSpec>,
    hold: Option<&'a Hold>,
    containers: &'a [Placed],
    servers: Vec<(&'a BalancerName, BackendName, &'a ServerName, String)>,
    /// The routes that it declares, and where they lead to now.
    routes: Vec<(&'a BalancerName, RouteKey, Option<&'a BackendName>)>,
}

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

/// The leaf of one app: everything of it that the planner read.
pub(super) fn leaf(input: &Input<'_>, fleet: &Fleet<'_>, work: &Work<'_>) -> Sha256 {
    let mut servers = Vec::new();
    for (balancer, proxied) in &fleet.balancers {
        let here = proxied.servers_of(work.app);
        servers.extend(here.map(|(backend, name, seat)| (*balancer, backend, name, words(seat))));
    }
    let declared = input.desired.apps.get(work.app);
    let leaf = Leaf {
        app: work.app,
        declared: declared.map(AsRef::as_ref),
        target: work.target.as_ref().map(|target| &target.spec),
        hold: input.known.holds.get(work.app),
        containers: fleet.containers_of(work.app),
        servers,
        routes: routes(fleet, declared.map(AsRef::as_ref)),
    };
    Sha256::of(&serde_json::to_vec(&leaf).unwrap_or_default())
}

/// Where the routes that it declares lead to now. Those that lead to it without being declared
/// are steps, if they may go.
fn routes<'a>(
    fleet: &Fleet<'a>,
    declared: Option<&App>,
) -> Vec<(&'a BalancerName, RouteKey, Option<&'a BackendName>)> {
    let routes = declared.into_iter().flat_map(|app| &app.routes);
    routes
        .filter_map(|route| {
            let (balancer, proxied) = fleet.balancers.get_key_value(&route.balancer)?;
            let key = route.key();
            let now = proxied.routes.get(&key);
            Some((*balancer, key, now))
        })
        .collect()
}

fn push(text: &mut String, value: &impl Serialize) {
    text.push_str(&serde_json::to_string(value).unwrap_or_default());
    text.push('\n');
}

fn whole(proxied: &Proxied<'_>) -> String {
    format!("{} {:?} {:?}", proxied.runs, proxied.written, proxied.loaded)
}

fn words(seat: Seat) -> String {
    let Seat { runtime, file } = seat;
    serde_json::to_string(&(runtime, file)).unwrap_or_default()
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
