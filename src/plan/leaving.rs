//! The other half of `rolling`: a container's way out. Its servers get weight 0, are drained and
//! removed, then it is stopped, then removed; what has lost its container goes too.

use crate::model::{
    AppId, BackendName, BalancerName, Container, ContainerState, HostName, ServerName, Span,
};

use super::draft::NewStep;
use super::fleet::Seat;
use super::rolling::{ENGINE, QUICK, Rolling};
use super::survey::{HostWork, Work, routed_balancers};
use super::{Action, Place, StepId};

impl Rolling<'_, '_> {
    /// Steps of the containers that don't run.
    pub(super) fn write_dead(
        &mut self,
        work: &Work<'_>,
        host: &HostName,
        host_work: &HostWork<'_>,
        unrouted: &[StepId],
    ) {
        for container in &host_work.dead {
            let gone = self.take_out(work, host, container, unrouted, false).gone;
            self.remove(work.app, host, container, gone);
        }
    }

    /// Steps of running containers that go. Returns the way out of each.
    pub(super) fn write_leaving(
        &mut self,
        work: &Work<'_>,
        host: &HostName,
        leaving: &[&Container],
        unrouted: &[StepId],
    ) -> Vec<Leaving> {
        if !work.unseen_balancers.is_empty() {
            return Vec::new();
        }
        leaving
            .iter()
            .map(|container| {
                let out = self.take_out(work, host, container, unrouted, true);
                let grace =
                    work.target.as_ref().map_or(crate::model::Stop::default().grace, |target| {
                        target.app.template.stop.grace
                    });
                let stop = self.stop(work.app, host, container, grace, out.gone);
                self.remove(work.app, host, container, vec![stop.clone()]);
                let at_balancers = out.steps;
                let silent = if out.silent.is_empty() { vec![stop.clone()] } else { out.silent };
                let out = if self.stops_first(work) { vec![stop] } else { silent.clone() };
                Leaving { silent, out, at_balancers }
            })
            .collect()
    }

    /// Two containers of it can't run at once.
    fn stops_first(&self, work: &Work<'_>) -> bool {
        work.target.as_ref().is_some_and(|target| target.app.template.writes_a_volume())
    }

    /// Takes a container's servers out of every balancer.
    fn take_out(
        &mut self,
        work: &Work<'_>,
        host: &HostName,
        container: &Container,
        after: &[StepId],
        runs: bool,
    ) -> Out {
        let name = container.birth.server_name(host);
        let drain = work.target.as_ref().map_or(Span::from_secs(30), |target| target.app.drain);
        let mut out = Out { gone: after.to_vec(), ..Out::default() };
        for (balancer, backend, seat) in Self::seats_of(work, &name) {
            let here = self.take_out_of(
                work.app,
                &balancer,
                &backend,
                &name,
                seat,
                runs.then_some(drain),
                after,
            );
            out.silent.extend(here.silent);
            out.steps.extend(here.steps);
            out.gone.extend(here.gone);
        }
        out
    }

    /// Weight 0, wait until it is drained (where `drain` says so), remove.
    #[allow(clippy::too_many_arguments, reason = "each is one word of one sentence")]
    fn take_out_of(
        &mut self,
        app: &AppId,
        balancer: &BalancerName,
        backend: &BackendName,
        name: &ServerName,
        seat: Seat,
        drain: Option<Span>,
        after: &[StepId],
    ) -> Out {
        let mut before = self.first_at(balancer);
        before.extend(after.iter().cloned());
        let mut out = Out::default();
        if !seat.has_weight(0, self.runs(balancer)) {
            let step = self.weight_step(app, balancer, backend, name, Some(seat.weight()), 0);
            let id = self.draft.add(step, before.clone());
            out.silent.push(id.clone());
            out.steps.push(id.clone());
            before = vec![id];
        }
        if let Some(drain) = drain {
            let step = NewStep {
                app: Some(app.clone()),
                place: Place::Balancer(balancer.clone()),
                object: name.to_string(),
                action: Action::WaitDrained { backend: backend.clone(), server: name.clone() },
                deadline: drain,
                summary: format!("wait until no request is on {name}, at most {drain}"),
            };
            let id = self.draft.add(step, before);
            if out.silent.is_empty() {
                out.silent.push(id.clone());
            }
            out.steps.push(id.clone());
            before = vec![id];
        }
        let step = NewStep {
            app: Some(app.clone()),
            place: Place::Balancer(balancer.clone()),
            object: name.to_string(),
            action: Action::RemoveServer { backend: backend.clone(), server: name.clone() },
            deadline: QUICK,
            summary: format!("remove server {name} from {backend}"),
        };
        let id = self.draft.add(step, before);
        out.steps.push(id.clone());
        out.gone.push(id);
        out
    }

    fn stop(
        &mut self,
        app: &AppId,
        host: &HostName,
        container: &Container,
        grace: Span,
        after: Vec<StepId>,
    ) -> StepId {
        let step = NewStep {
            app: Some(app.clone()),
            place: Place::Host(host.clone()),
            object: container.id.short().to_owned(),
            action: Action::Stop { id: container.id.clone(), name: container.name.clone(), grace },
            deadline: Span::from_millis(grace.as_millis() + ENGINE.as_millis()),
            summary: format!("stop {}", container.name),
        };
        self.draft.add(step, after)
    }

    fn remove(&mut self, app: &AppId, host: &HostName, container: &Container, after: Vec<StepId>) {
        let why = match &container.state {
            ContainerState::Exited { out_of_memory: true, .. } => " (out of memory)".to_owned(),
            ContainerState::Exited { code, .. } => format!(" (exited with {code})"),
            ContainerState::Dead => " (dead)".to_owned(),
            _ => String::new(),
        };
        let step = NewStep {
            app: Some(app.clone()),
            place: Place::Host(host.clone()),
            object: container.id.short().to_owned(),
            action: Action::Remove { id: container.id.clone(), name: container.name.clone() },
            deadline: ENGINE,
            summary: format!("remove {}{why}", container.name),
        };
        self.draft.add(step, after);
    }

    /// Servers whose containers are gone, or that are at a balancer where the app has no route
    /// any more.
    pub(super) fn drop_orphans(&mut self, work: &Work<'_>, unrouted: &[StepId]) {
        let routed = work.target.as_ref().map(|t| routed_balancers(&t.app)).unwrap_or_default();
        let mut orphans = Vec::new();
        for (number, (balancer, backend, name, seat)) in work.seats.all().enumerate() {
            // Servers and containers are in one order, most of the time: it is the first looked at.
            let (before, behind) = work.containers.split_at(number.min(work.containers.len()));
            let has_container = behind.iter().chain(before).any(|(host, container)| {
                let birth = &container.birth;
                birth.slot == name.slot && *host == name.host && name.is_of(&birth.revision)
            });
            let unrouted_here = work.target.is_some() && !routed.contains(balancer);
            if has_container && !unrouted_here {
                continue;
            }
            let host_is_seen = self.input.observed.host(&name.host).is_some();
            let host_is_known = self.fleet.host(&name.host).is_some();
            let gone = !has_container && (host_is_seen || !host_is_known);
            if gone || (has_container && unrouted_here) {
                orphans.push((balancer.clone(), backend.clone(), name.clone(), seat, gone));
            }
        }
        let drain = work.target.as_ref().map(|target| target.app.drain);
        for (balancer, backend, name, seat, gone) in orphans {
            let drain = drain.filter(|_| !gone);
            self.take_out_of(work.app, &balancer, &backend, &name, seat, drain, unrouted);
        }
    }

    fn seats_of(work: &Work<'_>, name: &ServerName) -> Vec<(BalancerName, BackendName, Seat)> {
        let all = work.seats.named(name);
        all.map(|(balancer, backend, seat)| (balancer.clone(), backend.clone(), seat)).collect()
    }
}

/// A running container's way out.
pub(super) struct Leaving {
    /// After these it takes no new requests; its stop where no balancer knows it.
    pub silent: Vec<StepId>,
    /// After these another may take its place.
    pub out: Vec<StepId>,
    /// Those that take it out of the balancers: until they are done it can be given back its
    /// weight at once.
    pub at_balancers: Vec<StepId>,
}

/// The steps of a container's way out of the balancers.
#[derive(Default)]
struct Out {
    /// All of them.
    steps: Vec<StepId>,
    /// After these it takes no new requests.
    silent: Vec<StepId>,
    /// After these no balancer knows it.
    gone: Vec<StepId>,
}
