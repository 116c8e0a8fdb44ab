//! The planner: what is desired and what was observed, to the steps that bring the second to
//! the first, and a report of what is not in them and why.
//!
//! It is pure and total: the same input gives the same bytes, whatever the order in which
//! manifests, hosts and containers were met. It never awaits, reads a clock, or names an engine,
//! HAProxy's socket, git or the store. What could not be seen is left alone.
//!
//! The way of a plan: `fleet` indexes the observation, `survey` finds for each app what is
//! kept, new and leaving, `takeover` and `guards` hold back what must wait, `places` finds slots
//! and ports, `balancing` decides about reloads, `rolling` writes the steps, at the pace that
//! `pace` gives, `floor` computes how low each route gets on the way, `digest` names the whole.

mod balancing;
mod changes;
mod digest;
mod draft;
mod fleet;
mod floor;
mod guards;
mod input;
mod leaving;
mod outcome;
mod pace;
mod places;
mod render;
mod rolling;
mod step;
mod survey;
mod takeover;

use std::collections::{BTreeMap, BTreeSet};

pub use input::{Fallback, Input, Known};
pub use outcome::{StepOutcome, StepResult};
pub use render::render;
pub use step::*;
pub use survey::hold_approval;

use crate::model::{AppId, Desired, Owner};

use balancing::Planned;
use draft::Draft;
use fleet::Fleet;
use rolling::Rolling;
use survey::{Survey, Work};

/// Plans everything.
pub fn plan(input: &Input<'_>) -> Plan {
    let fleet = Fleet::new(input);
    let mut report = Report::new(input);
    let works = survey_all(input, &fleet, &mut report);
    let works = takeover::hold_back(input, &fleet, works, &mut report.waiting);
    let mut works = guards::hold_back(input, works, &mut report.waiting);
    let mut ports = places::Ports::default();
    for work in &mut works {
        report.waiting.extend(places::fill(input, &fleet, &mut ports, work));
    }
    let mut draft = Draft::default();
    let planned = planned(input, &works);
    let balancing = balancing::begin(input, &fleet, &planned, &mut draft, &mut report.waiting);
    for work in &works {
        Rolling { input, fleet: &fleet, balancing: &balancing, draft: &mut draft }.write(work);
    }
    takeover::gate(&fleet, &works, &mut draft);
    balancing.end(input, &fleet, &mut draft);
    let steps = draft.in_order();
    let Report { waiting, blocked } = report.sorted();
    Plan {
        commit: input.desired.commit.clone(),
        digest: digest::digest(input, &fleet, &works, &waiting, &blocked),
        routes: floor::floors(input, &fleet, &works, &steps),
        changes: changes_of(input, &steps),
        totals: totals(&steps, &works),
        steps,
        waiting,
        blocked,
    }
}

/// Whose containers are ours.
pub fn owner(desired: &Desired) -> Owner {
    let installation = &desired.installation;
    Owner { installation: installation.name.clone(), uid: installation.uid.clone() }
}

/// What is not in the plan, and why.
struct Report {
    waiting: Vec<Waiting>,
    blocked: Vec<BlockedApp>,
}

impl Report {
    fn new(input: &Input<'_>) -> Self {
        let desired = input.desired;
        let apps = desired.blocked.iter().map(|(app, blocked)| (Some(app.clone()), blocked));
        let files = desired.unreadable.iter().map(|blocked| (None, blocked));
        let blocked = apps.chain(files).map(|(app, blocked)| BlockedApp {
            app,
            location: blocked.location.clone(),
            reason: blocked.reason.clone(),
        });
        Self { waiting: Vec::new(), blocked: blocked.collect() }
    }

    fn sorted(mut self) -> Self {
        self.waiting.sort_by(|a, b| (&a.app, &a.reason).cmp(&(&b.app, &b.reason)));
        self.blocked.sort_by(|a, b| (&a.app, &a.location).cmp(&(&b.app, &b.location)));
        self
    }
}

/// Every app that is declared, or of which something stands.
fn survey_all<'a>(input: &Input<'a>, fleet: &Fleet<'a>, report: &mut Report) -> Vec<Work<'a>> {
    let desired = input.desired;
    let mut apps: BTreeSet<&AppId> = desired.apps.keys().collect();
    apps.extend(fleet.containers.keys());
    for proxied in fleet.balancers.values() {
        apps.extend(proxied.servers.iter().filter(|(_, s)| !s.is_empty()).map(|(b, _)| &b.app));
        apps.extend(proxied.routes.values().map(|backend| &backend.app));
        // An empty backend may be all that a removal left that was cut short.
        let backends = proxied.structure.map(|structure| structure.backends.keys());
        apps.extend(backends.into_iter().flatten().map(|backend| &backend.app));
    }
    let mut works = Vec::new();
    for app in apps {
        if input.known.busy.contains(app) || desired.blocked.contains_key(app) {
            continue;
        }
        let survey = match desired.apps.get(app) {
            Some(declared) => survey::declared(input, fleet, declared),
            None => survey::departed(input, fleet, app),
        };
        match survey {
            Survey::Work(work, waiting) => {
                report.waiting.extend(waiting);
                works.push(*work);
            }
            Survey::Waiting(waiting) => report.waiting.push(waiting),
            Survey::Blocked(blocked) => report.blocked.push(blocked),
        }
    }
    works
}

fn planned<'a>(input: &Input<'a>, works: &[Work<'a>]) -> Planned<'a> {
    let declared = works
        .iter()
        .filter(|work| work.target.is_some())
        .filter_map(|work| input.desired.apps.get_key_value(work.app))
        .collect();
    let departed = works.iter().filter(|work| work.target.is_none()).map(|work| work.app).collect();
    Planned { declared, departed }
}

/// The field-level changes of the apps that have steps.
fn changes_of(input: &Input<'_>, steps: &[Step]) -> BTreeMap<AppId, Vec<FieldChange>> {
    let Some(previous) = input.previous else { return BTreeMap::new() };
    let apps: BTreeSet<&AppId> = steps.iter().filter_map(|step| step.app.as_ref()).collect();
    apps.into_iter()
        .map(|app| {
            let (old, new) = (previous.apps.get(app), input.desired.apps.get(app));
            (app.clone(), changes::changes(old, new))
        })
        .filter(|(_, changes)| !changes.is_empty())
        .collect()
}

fn totals(steps: &[Step], works: &[Work<'_>]) -> Totals {
    let mut totals = Totals::default();
    let mut apps = BTreeSet::new();
    let mut hosts = BTreeSet::new();
    for step in steps {
        apps.extend(&step.app);
        if let Place::Host(host) = &step.place {
            hosts.insert(host);
        }
        if let Action::Restructure { .. } = step.action {
            totals.reloads += 1;
        }
    }
    for work in works.iter().filter(|work| apps.contains(work.app)) {
        let count = |action: fn(&Action) -> bool| {
            let of = steps.iter().filter(|step| step.app.as_ref() == Some(work.app));
            of.filter(|step| action(&step.action)).count()
        };
        let created = count(|action| matches!(action, Action::Create { .. }));
        let removed = count(|action| matches!(action, Action::Remove { .. }));
        let replaced = created.min(removed);
        totals.replaces += replaced;
        totals.creates += created - replaced;
        totals.removes += removed - replaced;
    }
    totals.apps = apps.len();
    totals.hosts = hosts.len();
    totals
}
