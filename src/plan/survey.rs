//! One app: what is declared beside what stands, and from that what is kept, what is new and
//! what leaves, host by host. Nothing is ordered yet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::model::{
    AdminState, App, AppId, BalancerName, Container, ContainerSpec, ContainerState, HostName, Pin,
    Placed, Placement, Revision, Rollout, SecretName, ServerName, Slot,
};

use crate::mutant::{self, Mutant};

use super::fleet::{Fleet, Found, HostFacts, Seat, Seats};
use super::takeover::{self, Unclaimed};
use super::{BlockedApp, Input, WaitCause, Waiting};

/// What an app needs, and what it waits for.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub app: &'a AppId,
    pub declared: Option<&'a App>,
    /// None for an app that isn't declared any more.
    pub target: Option<Target<'a>>,
    pub hosts: BTreeMap<&'a HostName, HostWork<'a>>,
    /// Its containers, ordered by host, name and id.
    pub containers: &'a [Placed],
    /// Its servers.
    pub seats: Seats<'a>,
    /// Balancers that may hold servers of it and can't be seen: nothing of it is stopped.
    pub unseen_balancers: BTreeSet<&'a BalancerName>,
}

/// What is to run.
#[derive(Debug)]
pub(super) struct Target<'a> {
    /// The declaration; the one that last worked where the newest is held.
    pub app: std::borrow::Cow<'a, App>,
    pub spec: ContainerSpec,
    pub pin: Pin,
    pub revision: Revision,
}

/// One app on one host.
#[derive(Debug, Default)]
pub(super) struct HostWork<'a> {
    /// How many are declared.
    pub replicas: u32,
    pub weight: u16,
    /// Serving, and to stay.
    pub kept: Vec<Unit<'a>>,
    /// To be made, or to be brought to where it serves.
    pub fresh: Vec<Unit<'a>>,
    /// Running, and to go.
    pub leaving: Vec<&'a Container>,
    /// Not running, and to go.
    pub dead: Vec<&'a Container>,
}

/// One container of the target revision.
#[derive(Debug, Clone)]
pub(super) struct Unit<'a> {
    pub existing: Option<&'a Container>,
    pub slot: Slot,
    /// Where it is published, once a port was found.
    pub publish: Option<SocketAddr>,
    /// Its address and name for balancers; none where the app has no port.
    pub server: Option<(ServerName, SocketAddr)>,
}

/// An app's survey, or why there is none.
pub(super) enum Survey<'a> {
    Work(Box<Work<'a>>, Vec<Waiting>),
    Waiting(Waiting),
    Blocked(BlockedApp),
}

/// Looks at a declared app.
pub(super) fn declared<'a>(
    input: &Input<'a>,
    fleet: &Fleet<'a>,
    app: &'a App,
    found: Found<'a>,
) -> Survey<'a> {
    let Found { declared, pin, containers, seats } = found;
    if let Some(why) = input.known.failing_checks.get(&app.id) {
        return Survey::Waiting(failing_check(app, why));
    }
    let mut waiting = Vec::new();
    match takeover::unclaimed(fleet, app) {
        Some(Unclaimed { waiting, whole: true }) => return Survey::Waiting(waiting),
        Some(Unclaimed { waiting: route, whole: false }) => waiting.push(route),
        None => {}
    }
    let target = match target(input, app, pin) {
        Ok((target, held)) => {
            waiting.extend(held);
            target
        }
        Err(Refusal::Waiting(waiting)) => return Survey::Waiting(*waiting),
        Err(Refusal::Blocked(blocked)) => return Survey::Blocked(*blocked),
    };
    let drained = |host: &HostName| fleet.host(host).is_some_and(|host| host.drain);
    let all_drained = !app.placement.is_empty() && app.placement.keys().all(drained);
    if all_drained {
        let names: Vec<_> = app.placement.keys().map(HostName::as_str).collect();
        waiting.push(Waiting {
            app: app.id.clone(),
            reason: format!(
                "all its hosts are drained ({}): add another host to it",
                names.join(", ")
            ),
            cause: WaitCause::Draining,
            approval: None,
        });
    }
    let mut work = Work {
        app: &app.id,
        declared,
        hosts: BTreeMap::new(),
        unseen_balancers: unseen_balancers(input, fleet, declared, containers),
        containers,
        seats,
        target: Some(target),
    };
    for (host, placement, containers) in hosts_of(app, containers) {
        let HostFacts { host: declared, is_seen } = fleet.host_facts(host);
        if !is_seen {
            waiting.push(unseen_host(input, &app.id, host));
            continue;
        }
        let is_drained = declared.is_some_and(|host| host.drain);
        let placement = placement.filter(|_| all_drained || !is_drained);
        let address = declared.map(|host| host.address);
        let host_work = survey_host(fleet, &work, (host, address), placement, containers);
        work.hosts.insert(host, host_work);
    }
    waiting.extend(work.unseen_balancers.iter().map(|name| unseen_balancer(input, &app.id, name)));
    Survey::Work(Box::new(work), waiting)
}

/// What an app is to have on a host, and what it has there.
type OnHost<'a> = (&'a HostName, Option<Placement>, &'a [Placed]);

/// The hosts that an app is placed on or has containers on, in order.
fn hosts_of<'a>(app: &'a App, containers: &'a [Placed]) -> Vec<OnHost<'a>> {
    let mut hosts: Vec<OnHost<'a>> = Vec::with_capacity(app.placement.len());
    let mut placed = app.placement.iter().peekable();
    for here in containers.chunk_by(|(a, _), (b, _)| a == b) {
        let Some((host, _)) = here.first() else { continue };
        while let Some((other, placement)) = placed.next_if(|(other, _)| *other < host) {
            hosts.push((other, Some(*placement), &[]));
        }
        let placement =
            placed.next_if(|(other, _)| *other == host).map(|(_, placement)| *placement);
        hosts.push((host, placement, here));
    }
    hosts.extend(placed.map(|(host, placement)| (host, Some(*placement), &[][..])));
    hosts
}

/// Looks at an app that no manifest declares any more.
pub(super) fn departed<'a>(
    input: &Input<'a>,
    fleet: &Fleet<'a>,
    app: &'a AppId,
    found: Found<'a>,
) -> Survey<'a> {
    let Found { declared, pin: _, containers, seats } = found;
    if let Some(waiting) = takeover::undeclared(fleet, app) {
        return Survey::Waiting(waiting);
    }
    let mut hosts: BTreeMap<&HostName, HostWork> = BTreeMap::new();
    for (host, container) in containers {
        hosts.entry(host).or_default().let_go(container);
    }
    let unseen_balancers = unseen_balancers(input, fleet, declared, containers);
    let unseen: BTreeSet<&HostName> = seats
        .all()
        .map(|(_, _, name, _)| &name.host)
        .filter(|host| fleet.host(host).is_some() && input.observed.host(host).is_none())
        .collect();
    let unseen_hosts = unseen.into_iter().map(|host| unseen_host(input, app, host));
    let waiting = unseen_balancers.iter().map(|name| unseen_balancer(input, app, name));
    let waiting = waiting.chain(unseen_hosts).collect();
    let work = Work { app, declared, target: None, hosts, containers, seats, unseen_balancers };
    Survey::Work(Box::new(work), waiting)
}

fn failing_check(app: &App, why: &str) -> Waiting {
    Waiting {
        app: app.id.clone(),
        reason: format!(
            "what serves now doesn't pass the health check that is declared ({why}), and a reload would take it down: deploy a version that passes both checks first, and change the check in a commit of its own"
        ),
        cause: WaitCause::Check,
        approval: None,
    }
}

enum Refusal {
    Waiting(Box<Waiting>),
    Blocked(Box<BlockedApp>),
}

/// What of the app is to run: the declared revision, or where that one is held, the one that
/// last worked.
fn target<'a>(
    input: &Input<'a>,
    app: &'a App,
    pin: Option<&Result<Pin, String>>,
) -> Result<(Target<'a>, Option<Waiting>), Refusal> {
    let pin = match pin {
        Some(Ok(pin)) => pin.clone(),
        Some(Err(reason)) => return Err(no_image(app, reason.clone())),
        None => return Err(no_image(app, format!("{} isn't resolved yet", app.template.image))),
    };
    let spec = resolve(input, app, &pin)?;
    let revision = spec.revision();
    let declared = Target { app: std::borrow::Cow::Borrowed(app), spec, pin, revision };
    let Some(hold) = input.known.holds.get(&app.id).filter(|hold| hold.revision == revision) else {
        return Ok((declared, None));
    };
    let held = Waiting {
        app: app.id.clone(),
        reason: format!("revision {} is held: {}", revision.short8(), hold.reason),
        cause: WaitCause::Held { revision },
        approval: Some(hold_approval(&app.id, &revision)),
    };
    let Some(fallback) = input.known.fallbacks.get(&app.id) else {
        return Err(Refusal::Waiting(Box::new(held)));
    };
    let old = App {
        placement: app.placement.clone(),
        routes: app.routes.clone(),
        location: app.location.clone(),
        ..App::clone(&fallback.app)
    };
    let spec = resolve(input, &old, &fallback.pin)?;
    let old_revision = spec.revision();
    if old_revision == revision {
        return Err(Refusal::Waiting(Box::new(held)));
    }
    let target = Target {
        app: std::borrow::Cow::Owned(old),
        spec,
        pin: fallback.pin.clone(),
        revision: old_revision,
    };
    Ok((target, Some(held)))
}

fn resolve(input: &Input<'_>, app: &App, pin: &Pin) -> Result<ContainerSpec, Refusal> {
    let mut digests = BTreeMap::new();
    for name in app.template.secrets() {
        match input.known.secrets.get(name) {
            Some(Ok(digest)) => drop(digests.insert(name.clone(), *digest)),
            Some(Err(reason)) => return Err(no_secret(app, name, reason)),
            None => return Err(no_secret(app, name, "it wasn't read")),
        }
    }
    app.template.resolve(pin, &digests).map_err(|name| no_secret(app, &name, "it wasn't read"))
}

fn no_secret(app: &App, name: &SecretName, reason: &str) -> Refusal {
    Refusal::Blocked(Box::new(BlockedApp {
        app: Some(app.id.clone()),
        location: app.location.clone(),
        reason: format!("secret {name}: {reason}"),
    }))
}

fn no_image(app: &App, reason: String) -> Refusal {
    Refusal::Waiting(Box::new(Waiting {
        app: app.id.clone(),
        reason,
        cause: WaitCause::Image,
        approval: None,
    }))
}

/// The id under which a person lifts a hold.
pub fn hold_approval(app: &AppId, revision: &Revision) -> String {
    crate::model::Sha256::of(format!("hold {app} {revision}").as_bytes()).short(12)
}

fn unseen_host(input: &Input<'_>, app: &AppId, host: &HostName) -> Waiting {
    let why = match input.observed.hosts.get(host) {
        Some(crate::model::View::Unseen { reason }) => reason.as_str(),
        _ => "it wasn't looked at",
    };
    Waiting {
        app: app.clone(),
        reason: format!("host {host} can't be seen: {why}"),
        cause: WaitCause::HostUnseen { unseen: host.clone() },
        approval: None,
    }
}

pub(super) fn why_unseen<'a>(input: &Input<'a>, balancer: &BalancerName) -> &'a str {
    match input.observed.balancers.get(balancer) {
        Some(crate::model::View::Unseen { reason }) => reason.as_str(),
        _ => "it wasn't looked at",
    }
}

fn unseen_balancer(input: &Input<'_>, app: &AppId, balancer: &BalancerName) -> Waiting {
    let why = why_unseen(input, balancer);
    Waiting {
        app: app.clone(),
        reason: format!("balancer {balancer} can't be seen, so nothing is stopped: {why}"),
        cause: WaitCause::BalancerUnseen { unseen: balancer.clone() },
        approval: None,
    }
}

/// The balancers that may send requests to the app and can't be seen: those of its routes,
/// those that pointed to one of its containers when they were seen last, and those of which
/// that isn't known, if anything of it could be pointed to.
fn unseen_balancers<'a>(
    input: &Input<'a>,
    fleet: &Fleet<'a>,
    declared: Option<&App>,
    containers: &[Placed],
) -> BTreeSet<&'a BalancerName> {
    let unseen: Vec<_> = fleet.unseen_balancers().collect();
    if unseen.is_empty() || mutant::is(Mutant::UnseenBalancer) {
        return BTreeSet::new();
    }
    let published = |(host, container): &Placed| {
        let ip = fleet.host(host)?.address;
        Some(SocketAddr::new(ip, container.birth.port?))
    };
    let published: BTreeSet<SocketAddr> = containers.iter().filter_map(published).collect();
    let concerns = |name: &BalancerName| {
        let routed = |app: &App| app.routes.iter().any(|route| route.balancer == *name);
        let pointed = match input.known.last_pointers.get(name) {
            Some(last) => !last.addresses.is_disjoint(&published),
            None => !published.is_empty(),
        };
        declared.is_some_and(routed) || pointed
    };
    unseen.into_iter().filter(|name| concerns(name)).collect()
}

fn survey_host<'a>(
    fleet: &Fleet<'a>,
    work: &Work<'a>,
    (host, address): (&'a HostName, Option<IpAddr>),
    placement: Option<Placement>,
    containers: &'a [Placed],
) -> HostWork<'a> {
    let mut found = HostWork::default();
    let Some(target) = &work.target else { return found };
    found.replicas = placement.map_or(0, |placement| placement.replicas);
    found.weight = placement.map_or(0, |placement| placement.weight);
    let routed = routed_balancers(&target.app);
    let mut current = Vec::with_capacity(containers.len());
    for (_, container) in containers {
        let unit = existing_unit(address, host, container);
        let misplaced = || {
            unit.publish.is_some_and(|publish| {
                address.is_some_and(|ip| ip != publish.ip())
                    || has_other_address(&work.seats, &unit)
            })
        };
        if container.birth.revision == target.revision && is_sound(container) && !misplaced() {
            let serves = serves(fleet, work, &routed, &unit, found.weight);
            current.push((serves, unit));
        } else {
            found.let_go(container);
        }
    }
    let is_ready = |unit: &Unit<'_>| unit.existing.is_some_and(Container::is_ready);
    current.sort_by_key(|(serves, unit)| (!serves, !is_ready(unit), unit.slot));
    let surplus = current.split_off(current.len().min(found.replicas as usize));
    for container in surplus.iter().filter_map(|(_, unit)| unit.existing) {
        found.let_go(container);
    }
    // What serves nobody leaves first, and what serves at few balancers before what serves at all:
    // those that it doesn't serve at can spare it.
    found.leaving.sort_by_key(|container| match container.runs() {
        true => serving_balancers(&work.seats, host, container),
        false => 0,
    });
    let rolling = !found.leaving.is_empty();
    for (serves, unit) in current {
        if stays(fleet, work, &routed, &unit, found.weight, (serves, rolling)) {
            found.kept.push(unit);
        } else {
            found.fresh.push(unit);
        }
    }
    found
}

fn existing_unit<'a>(
    address: Option<IpAddr>,
    host: &HostName,
    container: &'a Container,
) -> Unit<'a> {
    let birth = &container.birth;
    let publish = birth.port.zip(address).map(|(port, ip)| SocketAddr::new(ip, port));
    let name = birth.server_name(host);
    Unit {
        existing: Some(container),
        slot: birth.slot,
        publish,
        server: publish.map(|at| (name, at)),
    }
}

/// True for a container that may be kept as it is.
fn is_sound(container: &Container) -> bool {
    use crate::model::EngineHealth::Unhealthy;
    match container.state {
        ContainerState::Created | ContainerState::Restarting { .. } => true,
        ContainerState::Running => container.health != Some(Unhealthy),
        ContainerState::Paused
        | ContainerState::Exited { .. }
        | ContainerState::Removing
        | ContainerState::Dead => false,
    }
}

/// Some balancer has the app's server of that name with another address. Two apps of one image
/// have servers of one name, each in a backend of its own.
fn has_other_address(seats: &Seats<'_>, unit: &Unit<'_>) -> bool {
    let Some((name, address)) = &unit.server else { return false };
    let mut seats = seats.named(name);
    seats.any(|(_, _, seat)| seat.address() != Some(*address))
}

/// How many balancers send requests to it.
fn serving_balancers(seats: &Seats<'_>, host: &HostName, container: &Container) -> usize {
    let name = container.birth.server_name(host);
    seats.named(&name).filter(|(_, _, seat)| seat.serves()).count()
}

/// The balancers of an app's routes.
pub(super) fn routed_balancers(app: &App) -> BTreeSet<&BalancerName> {
    app.routes.iter().map(|route| &route.balancer).collect()
}

/// The server of a unit in one balancer.
pub(super) fn seat(work: &Work<'_>, balancer: &BalancerName, unit: &Unit<'_>) -> Option<Seat> {
    let (name, _) = unit.server.as_ref()?;
    work.seats.stable(balancer, name)
}

/// True where every balancer of its routes that can be seen sends requests to it, or would if
/// its weight weren't 0.
fn serves(
    fleet: &Fleet<'_>,
    work: &Work<'_>,
    routed: &BTreeSet<&BalancerName>,
    unit: &Unit<'_>,
    weight: u16,
) -> bool {
    unit.existing.is_some_and(Container::runs) && is_seated(fleet, work, routed, unit, weight)
}

/// True where every balancer of its routes that can be seen has it ready, and with a weight
/// unless its weight is 0.
fn is_seated(
    fleet: &Fleet<'_>,
    work: &Work<'_>,
    routed: &BTreeSet<&BalancerName>,
    unit: &Unit<'_>,
    weight: u16,
) -> bool {
    routed.iter().filter(|name| fleet.balancers.contains_key(*name)).all(|balancer| {
        seat(work, balancer, unit).is_some_and(|seat| {
            let ready = seat.runtime.is_none_or(|server| server.admin == AdminState::Ready);
            let in_both =
                seat.file.is_some() && (seat.runtime.is_some() || !runs_at(fleet, balancer));
            ready && in_both && (weight == 0 || seat.weight() > 0)
        })
    })
}

/// True for a container without routes, or whose weight is to be 0, that isn't to be waited for. No
/// weight shows of these whether they ever were well: one that ended is, where its revision worked
/// before.
fn is_settled(fleet: &Fleet<'_>, work: &Work<'_>, container: &Container) -> bool {
    if container.health == Some(crate::model::EngineHealth::Starting) {
        return false;
    }
    // A list tells of no restarts but the one that is due.
    let ended =
        container.restarts > 0 || matches!(container.state, ContainerState::Restarting { .. });
    !ended || has_worked(&fleet.input, work)
}

/// The app converged with the revision that is to run.
fn has_worked(input: &Input<'_>, work: &Work<'_>) -> bool {
    let (Some(target), Some(then)) = (&work.target, input.known.fallbacks.get(work.app)) else {
        return false;
    };
    resolve(input, &then.app, &then.pin).is_ok_and(|spec| spec.revision() == target.revision)
}

fn runs_at(fleet: &Fleet<'_>, balancer: &BalancerName) -> bool {
    fleet.balancers.get(balancer).is_some_and(|proxied| proxied.runs)
}

/// True for a container that needs nothing but perhaps another weight. While others leave, it
/// must be up as well: else it is waited for, and they stay until it is. One that ends again and
/// again stays where it had a weight before: what never was up gets none.
fn stays(
    fleet: &Fleet<'_>,
    work: &Work<'_>,
    routed: &BTreeSet<&BalancerName>,
    unit: &Unit<'_>,
    weight: u16,
    (serves, rolling): (bool, bool),
) -> bool {
    let Some(container) = unit.existing else { return false };
    let unweighted = routed.is_empty() || weight == 0;
    if unweighted && !is_settled(fleet, work, container) {
        return false;
    }
    let up = || {
        routed
            .iter()
            .filter(|name| runs_at(fleet, name))
            .all(|balancer| seat(work, balancer, unit).is_some_and(|seat| seat.is_up()))
    };
    if weight == 0 && !up() && !has_worked(&fleet.input, work) {
        return false;
    }
    let restarting = matches!(container.state, ContainerState::Restarting { .. });
    if restarting && !rolling {
        return is_seated(fleet, work, routed, unit, weight);
    }
    serves && (!rolling || up())
}

impl Work<'_> {
    /// Some host that it is to have containers on can't be seen.
    pub fn lacks_a_host(&self) -> bool {
        let placed = self.target.iter().flat_map(|target| &target.app.placement);
        let needed = placed.filter(|(_, placement)| placement.replicas > 0);
        needed.into_iter().any(|(host, _)| !self.hosts.contains_key(host))
    }

    /// Containers of it are to come or to go.
    pub fn is_on_its_way(&self) -> bool {
        self.hosts.values().any(|of| !of.fresh.is_empty() || !of.leaving.is_empty())
    }
}

impl<'a> HostWork<'a> {
    fn let_go(&mut self, container: &'a Container) {
        match container.state {
            ContainerState::Running
            | ContainerState::Restarting { .. }
            | ContainerState::Paused => {
                self.leaving.push(container);
            }
            ContainerState::Created
            | ContainerState::Exited { .. }
            | ContainerState::Removing
            | ContainerState::Dead => self.dead.push(container),
        }
    }

    /// How many containers are yet to be made.
    pub fn missing(&self) -> u32 {
        self.replicas.saturating_sub((self.kept.len() + self.fresh.len()) as u32)
    }
}

impl Target<'_> {
    /// `surge` and `unavailable`.
    pub fn rolling(&self) -> (u32, u32) {
        let Rollout::Rolling { surge, unavailable } = self.app.rollout;
        (surge, unavailable)
    }
}
