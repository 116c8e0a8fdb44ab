//! The digest of a plan: a Merkle hash, app by app, over what is desired and those observed
//! facts that the planner reads; never over counters or times.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{
    App, AppId, BackendName, BalancerName, Container, ContainerSpec, Hold, HostName, RouteKey,
    ServerName, Sha256,
};

use super::fleet::{Fleet, Proxied, Seat};
use super::survey::Work;
use super::{BlockedApp, Input, Waiting};

/// Everything of one app that the planner read.
#[derive(Serialize)]
struct Leaf<'a> {
    app: &'a AppId,
    declared: Option<&'a App>,
    target: Option<&'a ContainerSpec>,
    hold: Option<&'a Hold>,
    containers: Vec<(&'a HostName, &'a Container)>,
    servers: Vec<(&'a BalancerName, &'a BackendName, &'a ServerName, String)>,
    routes: Vec<(&'a BalancerName, &'a RouteKey, &'a BackendName)>,
}

/// The digest of what a plan was made from.
pub(super) fn digest(
    input: &Input<'_>,
    fleet: &Fleet<'_>,
    works: &[Work<'_>],
    waiting: &[Waiting],
    blocked: &[BlockedApp],
) -> Sha256 {
    let mut routes: BTreeMap<&AppId, Vec<_>> = BTreeMap::new();
    for (balancer, proxied) in &fleet.balancers {
        for (key, backend) in proxied.routes {
            routes.entry(&backend.app).or_default().push((*balancer, key, backend));
        }
    }
    let mut text = format!("plimsoll plan 1\n{}\n", input.desired.commit);
    push(&mut text, &input.desired.installation);
    push(&mut text, &fleet.hosts);
    push(&mut text, &input.desired.balancers);
    push(&mut text, &(waiting, blocked));
    for (balancer, proxied) in &fleet.balancers {
        push(&mut text, &(balancer, whole(proxied)));
    }
    for work in works {
        let leaf = Leaf {
            app: work.app,
            declared: input.desired.apps.get(work.app),
            target: work.target.as_ref().map(|target| &target.spec),
            hold: input.known.holds.get(work.app),
            containers: fleet.containers_of(work.app).to_vec(),
            servers: servers(fleet, work.app),
            routes: routes.remove(work.app).unwrap_or_default(),
        };
        push(&mut text, &Sha256::of(&serde_json::to_vec(&leaf).unwrap_or_default()));
    }
    Sha256::of(text.as_bytes())
}

fn push(text: &mut String, value: &impl Serialize) {
    text.push_str(&serde_json::to_string(value).unwrap_or_default());
    text.push('\n');
}

fn whole(proxied: &Proxied<'_>) -> String {
    let structure = proxied.structure.map(crate::model::ProxyStructure::digest);
    format!("{} {structure:?} {:?}", proxied.runs, proxied.loaded)
}

fn servers<'a>(
    fleet: &Fleet<'a>,
    app: &'a AppId,
) -> Vec<(&'a BalancerName, &'a BackendName, &'a ServerName, String)> {
    fleet
        .balancers
        .iter()
        .flat_map(|(balancer, proxied)| {
            proxied
                .servers_of(app)
                .map(move |(backend, name, seat)| (*balancer, backend, name, words(seat)))
        })
        .collect()
}

fn words(seat: Seat) -> String {
    let Seat { runtime, file } = seat;
    serde_json::to_string(&(runtime, file)).unwrap_or_default()
}
