//! The promises as functions over a finished plan. The controller asks before it executes: an
//! app whose steps break a promise is left alone, and said so. Nothing is changed here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{
    AppId, BackendName, BalancerName, BalancerState, ContainerId, Desired, HostName, Observed,
    ProxyProcess, ServerName,
};
use crate::plan::{Action, Place, Plan, Step, StepId};

/// A promise that a plan would break.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub promise: Promise,
    pub app: Option<AppId>,
    pub step: Option<StepId>,
    pub message: String,
}

/// The promises of which a plan alone can show that they hold. The names are those of the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Promise {
    /// Nothing that isn't ours is stopped or removed.
    S1,
    /// No route falls below its minimum, or below what it has now where that is less.
    S2,
    /// A running container is stopped after its servers were silenced and drained, and removed
    /// after it was stopped.
    S3,
    /// At most one container for app, revision, host and slot.
    S6,
    /// Nothing is done at what couldn't be seen.
    S8,
}

/// Everything that is wrong with a plan; nothing for every plan of our own planner.
pub fn findings(plan: &Plan, desired: &Desired, observed: &Observed) -> Vec<Finding> {
    let order = Order::new(plan);
    let mut findings = Vec::new();
    findings.extend(plan.steps.iter().filter_map(|step| ownership(step, observed)));
    findings.extend(availability(plan));
    findings.extend(plan.steps.iter().filter_map(|step| stops_in_order(step, &order, observed)));
    findings.extend(uniqueness(plan, observed));
    findings.extend(plan.steps.iter().filter_map(|step| seen(step, desired, observed)));
    findings
}

fn finding(promise: Promise, step: &Step, message: String) -> Finding {
    Finding { promise, app: step.app.clone(), step: Some(step.id.clone()), message }
}

/// S1: what is stopped or removed was observed there as ours, and of that app.
fn ownership(step: &Step, observed: &Observed) -> Option<Finding> {
    let (Action::Stop { id, name, .. } | Action::Remove { id, name }) = &step.action else {
        return None;
    };
    let ours = match &step.place {
        Place::Host(host) => observed.host(host).is_some_and(|state| {
            let same = |c: &crate::model::Container| {
                c.id == *id && Some(&c.birth.app) == step.app.as_ref()
            };
            state.containers.iter().any(|container| same(container))
        }),
        Place::Balancer(_) => false,
    };
    (!ours).then(|| finding(Promise::S1, step, format!("{name} isn't known to be ours")))
}

/// S2: as the plan itself has computed it.
fn availability(plan: &Plan) -> Vec<Finding> {
    let low =
        plan.routes.iter().filter(|floor| floor.lowest_healthy < floor.minimum.min(floor.healthy));
    low.map(|floor| Finding {
        promise: Promise::S2,
        app: Some(floor.app.clone()),
        step: None,
        message: format!(
            "route {} could fall to {} healthy servers, its minimum is {}",
            floor.route, floor.lowest_healthy, floor.minimum
        ),
    })
    .collect()
}

/// S3: before a running container is stopped, each of its servers in the plan is removed, and
/// before that drained; a container that is stopped is removed afterwards only.
fn stops_in_order(step: &Step, order: &Order<'_>, observed: &Observed) -> Option<Finding> {
    match &step.action {
        Action::Stop { id, name, .. } => {
            let drained: BTreeSet<(&BalancerName, &ServerName)> =
                order.before(&step.id).filter_map(drained_by).collect();
            let servers = servers_of(step, id, observed);
            let undrained =
                servers.iter().find(|(balancer, server)| !drained.contains(&(*balancer, server)));
            undrained.map(|(_, server)| {
                let message = format!("{name} would be stopped before {server} is drained");
                finding(Promise::S3, step, message)
            })
        }
        Action::Remove { id, name } => {
            let runs = container(step, id, observed).is_some_and(crate::model::Container::runs);
            let stopped = order.before(&step.id).any(
                |earlier| matches!(&earlier.action, Action::Stop { id: stopped, .. } if stopped == id),
            );
            (runs && !stopped).then(|| {
                finding(Promise::S3, step, format!("{name} would be removed while it runs"))
            })
        }
        _ => None,
    }
}

fn drained_by(step: &Step) -> Option<(&BalancerName, &ServerName)> {
    match (&step.action, &step.place) {
        (Action::WaitDrained { server, .. }, Place::Balancer(balancer)) => Some((balancer, server)),
        _ => None,
    }
}

fn container<'a>(
    step: &Step,
    id: &ContainerId,
    observed: &'a Observed,
) -> Option<&'a crate::model::Container> {
    let Place::Host(host) = &step.place else { return None };
    let containers = &observed.host(host)?.containers;
    containers.iter().find(|container| container.id == *id).map(AsRef::as_ref)
}

/// The servers of a container that processes of balancers know.
fn servers_of<'a>(
    step: &Step,
    id: &ContainerId,
    observed: &'a Observed,
) -> Vec<(&'a BalancerName, ServerName)> {
    let (Some(container), Place::Host(host)) = (container(step, id, observed), &step.place) else {
        return Vec::new();
    };
    let birth = &container.birth;
    let name = birth.server_name(host);
    let app = &birth.app;
    let tracks = [BackendName::stable(app.clone()), BackendName::candidate(app.clone())];
    let knows = |state: &BalancerState| match &state.process {
        ProxyProcess::Up(runtime) => {
            let backends = tracks.iter().filter_map(|backend| runtime.servers.get(backend));
            backends.into_iter().any(|servers| servers.contains_key(&name))
        }
        ProxyProcess::Down { .. } => false,
    };
    let balancers = observed.balancers.iter();
    let balancers = balancers.filter(|(_, view)| view.seen().is_some_and(|state| knows(state)));
    balancers.map(|(balancer, _)| (balancer, name.clone())).collect()
}

/// S6: nothing is created twice, nor where it stands already.
fn uniqueness(plan: &Plan, observed: &Observed) -> Vec<Finding> {
    let mut taken: BTreeMap<&HostName, BTreeSet<String>> = BTreeMap::new();
    let mut findings = Vec::new();
    for step in &plan.steps {
        if let (Action::Create { container }, Place::Host(host)) = (&step.action, &step.place) {
            let name = container.birth.container_name();
            let standing = || {
                let containers = observed.host(host).map(|state| &state.containers);
                containers.into_iter().flatten().map(|c| c.birth.container_name()).collect()
            };
            if !taken.entry(host).or_insert_with(standing).insert(name.clone()) {
                findings.push(finding(Promise::S6, step, format!("{name} is there already")));
            }
        }
    }
    findings
}

/// S8: steps are at hosts and balancers that were seen.
fn seen(step: &Step, desired: &Desired, observed: &Observed) -> Option<Finding> {
    let seen = match &step.place {
        Place::Host(host) => {
            observed.host(host).is_some() && !desired.broken_hosts.contains_key(host)
        }
        Place::Balancer(name) => {
            observed.balancer(name).is_some() && !desired.broken_balancers.contains_key(name)
        }
    };
    (!seen).then(|| finding(Promise::S8, step, format!("{} wasn't seen", step.place)))
}

/// For each step all that must be done before it.
struct Order<'p> {
    steps: BTreeMap<&'p StepId, &'p Step>,
    before: BTreeMap<&'p StepId, BTreeSet<&'p StepId>>,
}

impl<'p> Order<'p> {
    /// The plan is in an order in which each step comes after those it waits for.
    fn new(plan: &'p Plan) -> Self {
        let mut before: BTreeMap<&StepId, BTreeSet<&StepId>> = BTreeMap::new();
        for step in &plan.steps {
            let mut all: BTreeSet<&StepId> = BTreeSet::new();
            for id in &step.after {
                all.insert(id);
                all.extend(before.get(id).into_iter().flatten().copied());
            }
            before.insert(&step.id, all);
        }
        let steps = plan.steps.iter().map(|step| (&step.id, step)).collect();
        Self { steps, before }
    }

    fn before(&self, step: &StepId) -> impl Iterator<Item = &'p Step> {
        let ids = self.before.get(step).into_iter().flatten();
        ids.filter_map(|id| self.steps.get(*id).copied())
    }
}
