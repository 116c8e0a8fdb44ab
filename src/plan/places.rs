//! Slots and ports for the containers that are to be made: the lowest free ones. What a balancer
//! that can't be seen pointed to when it was seen last isn't free; while nobody knows where one
//! points, no port is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::model::{AppId, BalancerName, HostName, Placed, ServerName, Slot};

use crate::mutant::{self, Mutant};

use super::fleet::{Fleet, Seats};
use super::survey::{self, Unit, Work};
use super::{Input, WaitCause, Waiting};

/// Which ports of a host are spoken for. Filled host by host when first asked for.
#[derive(Debug, Default)]
pub(super) struct Ports {
    used: BTreeMap<HostName, BTreeSet<u16>>,
}

/// Adds to the work the units that have to be made. What finds no port waits.
pub(super) fn fill<'a>(
    input: &Input<'a>,
    fleet: &Fleet<'a>,
    ports: &mut Ports,
    work: &mut Work<'a>,
) -> Vec<Waiting> {
    let Some(target) = &work.target else { return Vec::new() };
    let mut waiting = Vec::new();
    let missing = work.hosts.values().any(|host| host.missing() > 0);
    if let Some(balancer) = target.spec.port.and_then(|_| fleet.pointing_anywhere().next())
        && missing
    {
        return vec![may_be_pointed_at(input, work.app, balancer)];
    }
    for (host, host_work) in &mut work.hosts {
        let mut slots = used_slots((work.containers, &work.seats), host, target);
        slots.extend(fleet.slots_pointed_at(work.app, host, &target.revision));
        for _ in 0..host_work.missing() {
            let publish = match (target.spec.port, fleet.host(host)) {
                (Some(_), Some(declared)) => match ports.take(input, fleet, host) {
                    Some(port) => Some(SocketAddr::new(declared.address, port)),
                    None => {
                        waiting.push(no_port(work.app, host));
                        break;
                    }
                },
                _ => None,
            };
            let slot = lowest_free(&mut slots);
            let image = target.pin.content.sha256();
            let name = ServerName::new((*host).clone(), image, &target.revision, slot);
            let server = publish.map(|at| (name, at));
            host_work.fresh.push(Unit { existing: None, slot, publish, server });
        }
    }
    waiting
}

fn may_be_pointed_at(input: &Input<'_>, app: &AppId, balancer: &BalancerName) -> Waiting {
    let why = survey::why_unseen(input, balancer);
    Waiting {
        app: app.clone(),
        reason: format!(
            "balancer {balancer} can't be seen and may send requests to any port, so none is given out: {why}"
        ),
        cause: WaitCause::BalancerUnseen { unseen: balancer.clone() },
        approval: None,
    }
}

fn no_port(app: &AppId, host: &HostName) -> Waiting {
    Waiting {
        app: app.clone(),
        reason: format!("no port of host {host} is free: widen spec.ports of that Host"),
        cause: WaitCause::NoPort { host: host.clone() },
        approval: None,
    }
}

/// Slots that a container of that revision has, or a server that is still there for one.
fn used_slots(
    (containers, seats): (&[Placed], &Seats<'_>),
    host: &HostName,
    target: &super::survey::Target<'_>,
) -> BTreeSet<u32> {
    let of_containers = containers
        .iter()
        .filter(|(on, container)| on == host && container.birth.revision == target.revision)
        .map(|(_, container)| container.birth.slot.0);
    let of_servers = seats
        .all()
        .map(|(_, _, name, _)| name)
        .filter(|name| name.host == *host && name.is_of(&target.revision))
        .map(|name| name.slot.0);
    of_containers.chain(of_servers).collect()
}

fn lowest_free(used: &mut BTreeSet<u32>) -> Slot {
    let mut slot = 0;
    while !used.insert(slot) {
        slot += 1;
    }
    Slot(slot)
}

impl Ports {
    /// The lowest port of the host's range that nothing uses and no balancer points to.
    fn take(&mut self, input: &Input<'_>, fleet: &Fleet<'_>, host: &HostName) -> Option<u16> {
        let declared = fleet.host(host)?;
        let used = self.used.entry(host.clone()).or_insert_with(|| used_ports(input, fleet, host));
        let port =
            (declared.ports.first..=declared.ports.last).find(|port| !used.contains(port))?;
        used.insert(port);
        Some(port)
    }
}

fn used_ports(input: &Input<'_>, fleet: &Fleet<'_>, host: &HostName) -> BTreeSet<u16> {
    let mut used: BTreeSet<u16> = input.known.taken_ports.get(host).cloned().unwrap_or_default();
    if let Some(state) = input.observed.host(host) {
        used.extend(&state.foreign_ports);
        used.extend(state.containers.iter().filter_map(|container| container.birth.port));
    }
    if let Some(declared) = fleet.host(host).filter(|_| !mutant::is(Mutant::PortReused)) {
        used.extend(fleet.ports_pointed_at(declared.address));
    }
    used
}
