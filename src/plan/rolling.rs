//! The strategy `rolling`: on each host, new containers come up a few at a time beside the old
//! ones, and each old one leaves when a new one serves in its place.
//!
//! With `n` replicas declared, `k` kept, `m` leaving, surge `s` and unavailable `u` on a host:
//! the i-th new container (from 0) may be made once `k + i + 1 + m - n - s` of the leaving ones
//! take no requests any more, so that never more than `n + s` are there beside those that drain;
//! the j-th leaving one may be taken out once `n - u - k - (m - j - 1)` new ones serve, so that
//! never fewer than `n - u` do. [`super::pace`] adds what the hosts owe each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::model::{
    AdminState, App, AppId, BackendName, BalancerName, Birth, Container, ContainerState, HostName,
    ImageContent, NewContainer, Owner, ServerName, Span,
};

use super::balancing::{Balancing, route_changes};
use super::draft::{Draft, NewStep};
use super::fleet::{Fleet, Seat};
use super::leaving::Leaving;
use super::survey::{HostWork, Target, Unit, Work, routed_balancers, seat};
use super::{Action, Input, Need, Place, Probe, StepId, pace};

/// Deadlines of what no manifest gives a time for. They cover one engine or runtime call, which
/// takes milliseconds, on a machine that is very busy.
pub(super) const QUICK: Span = Span::from_secs(15);
const PULL: Span = Span::from_secs(600);
pub(super) const ENGINE: Span = Span::from_secs(60);

/// Writes one app's steps.
pub(super) struct Rolling<'a, 'd> {
    pub input: &'a Input<'a>,
    pub fleet: &'a Fleet<'a>,
    pub balancing: &'a Balancing,
    pub draft: &'d mut Draft,
}

/// What of an app that is on its way up was planned.
#[derive(Debug, Default)]
struct Raised {
    /// By host, and there by new container: the last steps of its way up.
    ups: BTreeMap<HostName, Vec<Vec<StepId>>>,
}

impl Raised {
    fn all(&self) -> Vec<StepId> {
        self.ups.values().flatten().flatten().cloned().collect()
    }
}

impl Rolling<'_, '_> {
    /// All steps of one app.
    pub fn write(&mut self, work: &Work<'_>) {
        let unrouted = if work.target.is_none() { self.drop_routes(work.app) } else { Vec::new() };
        let mut raised = Raised::default();
        let leaves = work.hosts.values().any(|host| !host.leaving.is_empty());
        let target = work.target.as_ref().filter(|_| leaves);
        let gates = target.map(|t| pace::gates(self.input, self.fleet, work, t));
        // By host, in the order of leaving.
        let mut outs: BTreeMap<&HostName, Vec<Leaving>> = BTreeMap::new();
        for (host, host_work) in &work.hosts {
            let leaves = gates
                .as_ref()
                .map_or(host_work.leaving.len(), |gates| gates.get(host).map_or(0, Vec::len));
            let leaving = &host_work.leaving[..leaves.min(host_work.leaving.len())];
            self.write_dead(work, host, host_work, &unrouted);
            let outs_here = self.write_leaving(work, host, leaving, &unrouted);
            outs.insert(host, outs_here);
        }
        if let Some(target) = &work.target {
            for (host, host_work) in &work.hosts {
                let outs_here = outs.get(host).map_or(&[][..], Vec::as_slice);
                let ups = self.write_fresh(work, target, host, host_work, outs_here);
                raised.ups.insert((*host).clone(), ups);
            }
            self.gate_leaving(work, target, &gates.unwrap_or_default(), &raised, &outs);
            self.mend_weights(work, target, &raised);
            self.set_routes(work, target, &raised);
        }
        self.drop_orphans(work, &unrouted);
    }

    /// The steps of an app of which no container comes or leaves: all that [`Self::write`] would
    /// write for it.
    pub fn write_standing(&mut self, work: &Work<'_>, target: &Target<'_>) {
        let raised = Raised::default();
        self.mend_weights(work, target, &raised);
        self.set_routes(work, target, &raised);
        self.drop_orphans(work, &[]);
    }

    // ---- what comes ----

    /// Steps of the containers that come up, each gated by those that have to leave before.
    fn write_fresh(
        &mut self,
        work: &Work<'_>,
        target: &Target<'_>,
        host: &HostName,
        host_work: &HostWork<'_>,
        outs: &[Leaving],
    ) -> Vec<Vec<StepId>> {
        let (surge, _) = target.rolling();
        let mut ups = Vec::new();
        // Those out that a new container waits for already.
        let mut waited_for = 0;
        for (i, unit) in host_work.fresh.iter().enumerate() {
            let must_be_out = pace::must_be_out(host_work, i, surge);
            // It is made by a later plan, when more have left.
            let Some(out) = outs.get(..must_be_out) else { break };
            let gate =
                out.iter().skip(waited_for).flat_map(|leaving| leaving.out.clone()).collect();
            waited_for = waited_for.max(must_be_out);
            ups.push(self.write_unit(work, target, host, host_work, unit, gate));
        }
        ups
    }

    /// One container's way from nothing to its weight. Returns the last steps.
    fn write_unit(
        &mut self,
        work: &Work<'_>,
        target: &Target<'_>,
        host: &HostName,
        host_work: &HostWork<'_>,
        unit: &Unit<'_>,
        gate: Vec<StepId>,
    ) -> Vec<StepId> {
        let ready = self.write_container(work, target, host, unit, gate);
        let routed = routed_balancers(&target.app);
        let Some((name, address)) = unit.server.as_ref().filter(|_| !routed.is_empty()) else {
            return ready;
        };
        let mut ups = Vec::new();
        for balancer in routed {
            if self.fleet.balancers.contains_key(balancer) {
                let seat = seat(work, balancer, unit);
                let join = Join { target, balancer, name, address: *address, seat };
                ups.push(self.write_server(work.app, &join, host_work.weight, ready.clone()));
            }
        }
        ups
    }

    /// Create, start, ready; only what isn't done yet.
    fn write_container(
        &mut self,
        work: &Work<'_>,
        target: &Target<'_>,
        host: &HostName,
        unit: &Unit<'_>,
        gate: Vec<StepId>,
    ) -> Vec<StepId> {
        let birth = self.birth(work.app, target, unit);
        let name = unit.existing.map_or_else(|| birth.container_name(), |c| c.name.clone());
        let on_host = |object: String, action, deadline, summary| NewStep {
            app: Some(work.app.clone()),
            place: Place::Host(host.clone()),
            object,
            action,
            deadline,
            summary,
        };
        let label = format!("{}-{}", birth.revision.short8(), birth.slot);
        let mut before = gate;
        if unit.existing.is_none() {
            before.extend(self.pull(work.app, target, host));
            let at = unit.publish.map(|at| format!(", published at {at}")).unwrap_or_default();
            let summary = format!("create {name} from {}{at}", target.pin.reference);
            let container = Box::new(NewContainer {
                birth: birth.clone(),
                spec: target.spec.clone(),
                host: host.clone(),
                publish: self.bind_address(host, unit),
            });
            let create = on_host(label.clone(), Action::Create { container }, ENGINE, summary);
            before = vec![self.draft.add(create, before)];
        }
        let runs = unit.existing.is_some_and(|c| c.state != ContainerState::Created);
        if !runs {
            let action = Action::Start { name: name.clone() };
            let start = on_host(label.clone(), action, ENGINE, format!("start {name}"));
            before = vec![self.draft.add(start, before)];
        }
        if unit.existing.is_some_and(Container::is_ready)
            && !routed_balancers(&target.app).is_empty()
        {
            return before;
        }
        let probe = probe(&target.app, unit.publish);
        let deadline = match &probe {
            Probe::Settle(settle) => {
                Span::from_millis(target.app.health.deadline.as_millis() + settle.as_millis())
            }
            _ => target.app.health.deadline,
        };
        let action = Action::WaitReady { name: name.clone(), revision: birth.revision, probe };
        let summary = format!("wait until {name} is ready, at most {deadline}");
        vec![self.draft.add(on_host(label, action, deadline, summary), before)]
    }

    /// The pull of a host, once for all its containers; none where the host has the image.
    fn pull(&mut self, app: &AppId, target: &Target<'_>, host: &HostName) -> Option<StepId> {
        let ImageContent::Digest(digest) = &target.pin.content else { return None };
        let pin = target.pin.clone();
        let step = NewStep {
            app: Some(app.clone()),
            place: Place::Host(host.clone()),
            object: digest.short(12),
            summary: format!("pull {} unless it is there", pin.reference),
            action: Action::Pull { pin },
            deadline: PULL,
        };
        Some(self.draft.add(step, []))
    }

    fn birth(&self, app: &AppId, target: &Target<'_>, unit: &Unit<'_>) -> Birth {
        let Owner { installation, uid } = super::owner(self.input.desired);
        Birth {
            installation,
            uid,
            app: app.clone(),
            revision: target.revision,
            slot: unit.slot,
            port: unit.publish.map(|at| at.port()),
            commit: self.input.desired.commit.clone(),
            pin: target.pin.clone(),
        }
    }

    /// The address that the engine binds: not always the one that balancers use.
    fn bind_address(&self, host: &HostName, unit: &Unit<'_>) -> Option<SocketAddr> {
        let ip = self.fleet.host(host)?.publish;
        unit.publish.map(|at| SocketAddr::new(ip, at.port()))
    }

    /// Into the balancer at weight 0, up, weight. Returns the last step.
    fn write_server(
        &mut self,
        app: &AppId,
        join: &Join<'_>,
        weight: u16,
        ready: Vec<StepId>,
    ) -> StepId {
        let Join { target, balancer, name, address, seat } = *join;
        let backend = BackendName::stable(app.clone());
        let at_balancer = |action, deadline, summary| NewStep {
            app: Some(app.clone()),
            place: Place::Balancer(balancer.clone()),
            object: name.to_string(),
            action,
            deadline,
            summary,
        };
        let mut before = self.first_at(balancer);
        before.extend(ready);
        let runs = self.runs(balancer);
        let present =
            seat.is_some_and(|seat| seat.file.is_some() && (seat.runtime.is_some() || !runs));
        if !present {
            let action =
                Action::AddServer { backend: backend.clone(), server: name.clone(), address };
            let summary = format!("add server {name} at {address} to {backend}, weight 0");
            before = vec![self.draft.add(at_balancer(action, QUICK, summary), before)];
        }
        let taken_out =
            seat.and_then(|seat| seat.runtime).is_some_and(|s| s.admin != AdminState::Ready);
        if taken_out {
            let mut step = self.weight_step(app, balancer, &backend, name, None, 0);
            step.object = format!("{name}/ready");
            step.summary = format!("make {name} ready again, weight 0");
            before = vec![self.draft.add(step, before)];
        }
        let deadline = target.app.health.deadline;
        let action = Action::WaitUp {
            backend: backend.clone(),
            server: name.clone(),
            revision: target.revision,
        };
        let summary = format!("wait until {balancer} finds {name} up, at most {deadline}");
        let up = self.draft.add(at_balancer(action, deadline, summary), before);
        if weight == 0 {
            return up;
        }
        let step =
            self.weight_step(app, balancer, &backend, name, seat.map(|s| s.weight()), weight);
        self.draft.add(step, [up])
    }

    // ---- what binds both ----

    /// Lets what leaves wait for what comes up in its place, and stay where that doesn't last.
    fn gate_leaving(
        &mut self,
        work: &Work<'_>,
        target: &Target<'_>,
        gates: &pace::Gates<'_>,
        raised: &Raised,
        outs: &BTreeMap<&HostName, Vec<Leaving>>,
    ) {
        let routed = routed_balancers(&target.app);
        for (host, leaving) in outs {
            let comes = work.hosts.get(host).into_iter().flat_map(|of| &of.fresh);
            let is_made = comes.into_iter().any(|unit| unit.existing.is_none());
            for (leaving, gate) in leaving.iter().zip(gates.get(host).into_iter().flatten()) {
                let ups = gate.iter().filter_map(|(host, i)| raised.ups.get(*host)?.get(*i));
                let ups: Vec<StepId> = ups.flatten().cloned().collect();
                // What leaves before anything comes leaves only once its successor's image is there.
                let before = match ups.is_empty() && is_made {
                    true => self.pull(work.app, target, host).into_iter().collect(),
                    false => ups,
                };
                for step in &leaving.silent {
                    self.draft.also_after(step, before.clone());
                }
                let in_its_place = gate.iter().filter_map(|(host, i)| {
                    let of = work.hosts.get(host).filter(|of| of.weight > 0)?;
                    need(of.fresh.get(*i)?, target, false)
                });
                let needs: BTreeSet<Need> =
                    in_its_place.chain(standing(work, target, host)).collect();
                for step in &leaving.at_balancers {
                    self.draft.needs(step, &routed, &needs);
                }
            }
        }
    }

    /// Brings the weights of what is kept to what is declared. What falls to 0 falls after
    /// everything else has risen.
    fn mend_weights(&mut self, work: &Work<'_>, target: &Target<'_>, raised: &Raised) {
        let backend = BackendName::stable(work.app.clone());
        let mut rises = raised.all();
        let mut falls = Vec::new();
        let routed = routed_balancers(&target.app);
        for host_work in work.hosts.values() {
            // One that joins another balancer may have a weight at this one that it is to lose.
            let joining = host_work.fresh.iter().filter(|_| host_work.weight == 0);
            for unit in host_work.kept.iter().chain(joining) {
                for balancer in routed.iter().copied() {
                    let Some(seat) = seat(work, balancer, unit) else { continue };
                    let Some((name, _)) = &unit.server else { continue };
                    if seat.has_weight(host_work.weight, self.runs(balancer)) {
                        continue;
                    }
                    let from = Some(seat.weight());
                    let step = self.weight_step(
                        work.app,
                        balancer,
                        &backend,
                        name,
                        from,
                        host_work.weight,
                    );
                    let before = self.first_at(balancer);
                    let id = self.draft.add(step, before);
                    if host_work.weight == 0 { falls.push(id) } else { rises.push(id) }
                }
            }
        }
        for fall in falls {
            self.draft.also_after(&fall, rises.clone());
        }
    }

    /// A route is set once something serves it; one that another app has now, once all does.
    fn set_routes(&mut self, work: &Work<'_>, target: &Target<'_>, raised: &Raised) {
        let app = &target.app;
        let balancers: Vec<&BalancerName> = self.fleet.balancers.keys().copied().collect();
        for balancer in balancers {
            let changes = route_changes(self.fleet, work.app, Some(app), balancer);
            if changes.is_empty() {
                continue;
            }
            let Some(proxied) = self.fleet.balancers.get(balancer) else { continue };
            let takes_over = changes.iter().any(|(key, to)| {
                to.is_some() && proxied.routes.get(key).is_some_and(|now| now.app != *work.app)
            });
            if takes_over && work.lacks_a_host() {
                continue;
            }
            let serving = work.hosts.values().any(|host| !host.kept.is_empty());
            let mut after = self.first_at(balancer);
            let adds = changes.values().any(Option::is_some);
            if takes_over {
                after.extend(raised.all());
            } else if adds && !serving {
                // Something is yet to come or go, and can't now.
                if raised.ups.values().all(Vec::is_empty) && work.is_on_its_way() {
                    continue;
                }
                after.extend(raised.ups.values().flatten().next().into_iter().flatten().cloned());
            }
            self.route_step(work.app, balancer, changes, after);
        }
    }

    /// Takes the routes of an app that isn't declared any more.
    fn drop_routes(&mut self, app: &AppId) -> Vec<StepId> {
        let balancers: Vec<&BalancerName> = self.fleet.balancers.keys().copied().collect();
        let mut steps = Vec::new();
        for balancer in balancers {
            let changes = route_changes(self.fleet, app, None, balancer);
            if !changes.is_empty() {
                let before = self.first_at(balancer);
                steps.push(self.route_step(app, balancer, changes, before));
            }
        }
        steps
    }

    fn route_step(
        &mut self,
        app: &AppId,
        balancer: &BalancerName,
        changes: BTreeMap<crate::model::RouteKey, Option<BackendName>>,
        after: Vec<StepId>,
    ) -> StepId {
        let words: Vec<String> = changes
            .iter()
            .map(|(key, to)| match to {
                Some(to) => format!("{key} to {to}"),
                None => format!("{key} to nobody"),
            })
            .collect();
        let step = NewStep {
            app: Some(app.clone()),
            place: Place::Balancer(balancer.clone()),
            object: "routes".into(),
            action: Action::SetRoutes { changes },
            deadline: QUICK,
            summary: format!("route {}", words.join(", ")),
        };
        self.draft.add(step, after)
    }

    // ---- words ----

    pub(super) fn weight_step(
        &self,
        app: &AppId,
        balancer: &BalancerName,
        backend: &BackendName,
        name: &ServerName,
        from: Option<u16>,
        weight: u16,
    ) -> NewStep {
        let from = from
            .filter(|from| *from != weight)
            .map(|from| format!("{from} to "))
            .unwrap_or_default();
        NewStep {
            app: Some(app.clone()),
            place: Place::Balancer(balancer.clone()),
            object: name.to_string(),
            action: Action::SetWeight { backend: backend.clone(), server: name.clone(), weight },
            deadline: QUICK,
            summary: format!("weight of {name}: {from}{weight}"),
        }
    }

    pub(super) fn first_at(&self, balancer: &BalancerName) -> Vec<StepId> {
        self.balancing.first.get(balancer).cloned().into_iter().collect()
    }

    pub(super) fn runs(&self, balancer: &BalancerName) -> bool {
        self.fleet.balancers.get(balancer).is_some_and(|proxied| proxied.runs)
    }
}

/// A server that joins a balancer.
#[derive(Clone, Copy)]
struct Join<'a> {
    target: &'a Target<'a>,
    balancer: &'a BalancerName,
    name: &'a ServerName,
    address: SocketAddr,
    seat: Option<Seat>,
}

/// The servers that stay where one of that host leaves: those of the host, or of all where none
/// is to be there.
fn standing<'w>(
    work: &'w Work<'_>,
    target: &'w Target<'_>,
    host: &'w HostName,
) -> impl Iterator<Item = Need> + 'w {
    let leaves_all = work.hosts.get(host).is_none_or(|of| of.replicas == 0);
    let hosts = work.hosts.iter().filter(move |(name, _)| leaves_all || **name == host);
    let units = hosts.flat_map(|(_, of)| &of.kept);
    units.filter_map(move |unit| need(unit, target, true))
}

/// None for what has no server.
fn need(unit: &Unit<'_>, target: &Target<'_>, standing: bool) -> Option<Need> {
    let (server, _) = unit.server.clone()?;
    let container = unit.existing.map(|container| container.id.clone());
    Some(Need { server, revision: target.revision, container, standing })
}

/// What tells that a container without a route is ready.
fn probe(app: &App, publish: Option<SocketAddr>) -> Probe {
    match publish {
        _ if !app.routes.is_empty() => Probe::None,
        Some(address) => Probe::Ask {
            address,
            path: app.health.path.as_deref().and_then(|path| path.parse().ok()),
            interval: app.health.interval,
            timeout: app.health.timeout,
        },
        None if app.template.health.is_some() => Probe::None,
        None => Probe::Settle(app.health.settle),
    }
}
