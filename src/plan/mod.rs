//! The planner: what is desired and what was observed, to the steps that bring the second to
//! the first, and a report of what is not in them and why.
//!
//! It is pure and total: the same input gives the same bytes, whatever the order in which
//! manifests, hosts and containers were met. It never awaits, reads a clock, or names an engine,
//! HAProxy's socket, git or the store. What could not be seen is left alone.
//!
//! The way of a plan: `index` tells which apps the input touches since the last plan, `survey`
//! finds for each of them what is kept, new and leaving, `memo` remembers those of which nothing
//! is to be done. Of the others, `takeover` and `guards` hold back what must wait, `places` finds
//! slots and ports, `balancing` decides about reloads, `rolling` writes the steps, at the pace
//! that `pace` gives, `floor` computes how low each route gets on the way, `digest` names the
//! whole.
//!
//! A [`Planner`] that remembers gives the very plan that one without memory gives: only quicker.

mod balancing;
mod changes;
mod cursor;
mod digest;
mod draft;
mod fleet;
mod floor;
mod guards;
mod index;
mod input;
mod leaving;
mod memo;
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

use crate::model::{AppId, Desired, Observed, Owner, Placed};
use crate::mutant::{self, Mutant};

use balancing::Planned;
use draft::Draft;
use fleet::{Finder, Fleet, Found};
use index::{Index, Touched};
use memo::{Memo, Quiet};
use rolling::Rolling;
use survey::{Survey, Work};

/// Plans everything, without memory.
pub fn plan(input: &Input<'_>) -> Plan {
    Planner::default().plan(input)
}

/// Plans one input after the other, and remembers of each app what it concluded: a plan costs
/// what changed since the last one, and what is unfinished.
#[derive(Debug, Clone, Default)]
pub struct Planner {
    index: Index,
    memo: Memo,
    planned: BTreeSet<AppId>,
}

impl Planner {
    /// The apps that the last plan looked at: those that something touched since the plan before,
    /// and those of which something was to be done.
    pub fn planned(&self) -> &BTreeSet<AppId> {
        &self.planned
    }

    /// The containers of an app in the last input, with their hosts.
    pub fn containers_of(&self, app: &AppId) -> &[Placed] {
        self.index.containers_of(app)
    }

    /// Plans everything.
    pub fn plan(&mut self, input: &Input<'_>) -> Plan {
        let Self { index, memo, planned } = self;
        let apps = match index.update(input) {
            Touched::Some(apps) => apps.union(memo.unfinished()).cloned().collect(),
            Touched::All => {
                memo.clear();
                all_apps(input, index)
            }
        };
        *planned = apps;
        let fleet = Fleet::new(input, index, planned.len() >= MANY);
        let mut report = Report::new(input);
        let works = survey_all(input, &fleet, planned, memo, &mut report);
        report.add(memo);
        let works = takeover::hold_back(input, &fleet, memo, works, &mut report.waiting);
        let mut works = guards::hold_back(input, &fleet, works, &mut report.waiting);
        let mut ports = places::Ports::default();
        for work in &mut works {
            report.waiting.extend(places::fill(input, &fleet, &mut ports, work));
        }
        let mut draft = Draft::default();
        let now = Planned::new(input, memo, &works);
        let balancing = balancing::begin(input, &fleet, &now, &mut draft, &mut report.waiting);
        for work in &works {
            Rolling { input, fleet: &fleet, balancing: &balancing, draft: &mut draft }.write(work);
        }
        takeover::gate(&fleet, &mut draft);
        balancing.end(input, &fleet, &mut draft);
        let steps = draft.in_order();
        let routes = floor::floors(input, &works, &steps);
        let totals = totals(&steps, &works);
        for work in &works {
            memo.leaves.set(work.app, Some(digest::leaf(input, &fleet, work)));
        }
        let Report { waiting, blocked } = report.sorted();
        Plan {
            commit: input.desired.commit.clone(),
            digest: digest::digest(input, &fleet, memo.leaves.root(), &waiting, &blocked),
            routes,
            changes: changes_of(input, &steps),
            totals,
            steps,
            waiting,
            blocked,
        }
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

    /// What the apps that weren't looked at wait for.
    fn add(&mut self, memo: &Memo) {
        self.waiting.extend(memo.waiting().cloned());
        self.blocked.extend(memo.blocked().cloned());
    }

    fn sorted(mut self) -> Self {
        self.waiting.sort_by(|a, b| (&a.app, &a.reason).cmp(&(&b.app, &b.reason)));
        self.blocked.sort_by(|a, b| (&a.app, &a.location).cmp(&(&b.app, &b.location)));
        self
    }
}

/// Every app that is declared, or of which something stands.
fn all_apps(input: &Input<'_>, index: &Index) -> BTreeSet<AppId> {
    let mut apps: BTreeSet<AppId> = input.desired.apps.keys().cloned().collect();
    apps.extend(input.desired.blocked.keys().cloned());
    apps.extend(index::undeclared(index, input.desired, input.observed));
    apps
}

/// Looks at these apps. Those of which nothing is to be done are noted, the others returned.
fn survey_all<'a>(
    input: &Input<'a>,
    fleet: &Fleet<'a>,
    apps: &'a BTreeSet<AppId>,
    memo: &mut Memo,
    report: &mut Report,
) -> Vec<Work<'a>> {
    let (mut works, mut quiet_apps) = (Vec::new(), Vec::new());
    let is_first = memo.is_empty();
    for (app, verdict) in apps.iter().zip(judge_all(input, fleet, apps)) {
        match verdict {
            Verdict::Busy => memo.unfinish(app),
            Verdict::Gone => memo.forget(app),
            Verdict::Quiet(quiet) if is_first => quiet_apps.push((app, quiet)),
            Verdict::Quiet(quiet) => memo.settle(app, quiet),
            Verdict::Open(work, waiting) => {
                memo.unfinish(app);
                report.waiting.extend(waiting);
                works.push(*work);
            }
        }
    }
    memo.settle_all(quiet_apps);
    works
}

/// What was found of one app.
enum Verdict<'a> {
    /// Its steps are being executed.
    Busy,
    /// Nothing declares it, and nothing of it is left.
    Gone,
    /// Nothing is to be done, or nothing can be.
    Quiet(Quiet),
    /// Something is to be done.
    Open(Box<Work<'a>>, Vec<Waiting>),
}

/// From so many apps on, all processors look at them.
const MANY: usize = 1024;

/// Apps are looked at one by one, and none knows of another: the order of the verdicts is that of
/// the apps, whoever comes to them.
fn judge_all<'a>(
    input: &Input<'a>,
    fleet: &Fleet<'a>,
    apps: &'a BTreeSet<AppId>,
) -> Vec<Verdict<'a>> {
    let apps: Vec<&AppId> = apps.iter().collect();
    let judge_some = |apps: &[&'a AppId]| -> Vec<Verdict<'a>> {
        let mut finder = Finder::new(input, fleet);
        apps.iter().map(|app| judge(input, fleet, app, finder.find(app))).collect()
    };
    if apps.len() < MANY {
        return judge_some(&apps);
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let parts = apps.chunks(apps.len().div_ceil(processors));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || judge_some(part))).collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(verdicts) => verdicts,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    })
}

fn judge<'a>(
    input: &Input<'a>,
    fleet: &Fleet<'a>,
    app: &'a AppId,
    found: Found<'a>,
) -> Verdict<'a> {
    if input.known.busy.contains(app) {
        return Verdict::Busy;
    }
    if input.desired.blocked.contains_key(app) && !mutant::is(Mutant::UnreadableAsGone) {
        return Verdict::Quiet(Quiet::default());
    }
    if is_held_up_by_others(input) {
        return Verdict::Quiet(Quiet::default());
    }
    let survey = match found.declared {
        Some(declared) => survey::declared(input, fleet, declared, found),
        None => survey::departed(input, fleet, app, found),
    };
    match survey {
        Survey::Work(work, waiting) if is_quiet(input, fleet, &work) => {
            let differing = balancing::differing(&work);
            let leaf = Some(digest::leaf(input, fleet, &work));
            match work.target.is_none() && waiting.is_empty() && differing.is_empty() {
                true => Verdict::Gone,
                false => Verdict::Quiet(Quiet { leaf, waiting, blocked: None, differing }),
            }
        }
        Survey::Work(work, waiting) => Verdict::Open(work, waiting),
        Survey::Waiting(waiting) => {
            Verdict::Quiet(Quiet { waiting: vec![waiting], ..Quiet::default() })
        }
        Survey::Blocked(blocked) => {
            Verdict::Quiet(Quiet { blocked: Some(blocked), ..Quiet::default() })
        }
    }
}

/// Never: S11. Two deliberate bugs break that.
fn is_held_up_by_others(input: &Input<'_>) -> bool {
    let Observed { hosts, balancers } = input.observed;
    let sees_all = || {
        hosts.values().all(|view| view.seen().is_some())
            && balancers.values().all(|view| view.seen().is_some())
    };
    let reads_all = || input.desired.blocked.is_empty() && input.desired.unreadable.is_empty();
    (mutant::is(Mutant::UnseenHoldsUp) && !sees_all())
        || (mutant::is(Mutant::UnreadableHoldsUp) && !reads_all())
}

/// True where no step is to be written for it, whatever becomes of the others.
fn is_quiet(input: &Input<'_>, fleet: &Fleet<'_>, work: &Work<'_>) -> bool {
    let stays = |host: &survey::HostWork<'_>| {
        host.fresh.is_empty()
            && host.leaving.is_empty()
            && host.dead.is_empty()
            && host.missing() == 0
    };
    if !work.hosts.values().all(stays) {
        return false;
    }
    let (mut draft, balancing) = (Draft::default(), balancing::Balancing::default());
    let mut rolling = Rolling { input, fleet, balancing: &balancing, draft: &mut draft };
    match &work.target {
        Some(target) => rolling.write_standing(work, target),
        None => rolling.write(work),
    }
    draft.steps().is_empty()
}

/// The field-level changes of the apps that have steps.
fn changes_of(input: &Input<'_>, steps: &[Step]) -> BTreeMap<AppId, Vec<FieldChange>> {
    let Some(previous) = input.previous else { return BTreeMap::new() };
    let apps: BTreeSet<&AppId> = steps.iter().filter_map(|step| step.app.as_ref()).collect();
    apps.into_iter()
        .map(|app| {
            let (old, new) = (previous.apps.get(app), input.desired.apps.get(app));
            (app.clone(), changes::changes(old.map(AsRef::as_ref), new.map(AsRef::as_ref)))
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
    let planned: BTreeSet<&AppId> = works.iter().map(|work| work.app).collect();
    let mut counts: BTreeMap<&AppId, (usize, usize)> = BTreeMap::new();
    for step in steps {
        let Some(app) = step.app.as_ref().filter(|app| planned.contains(app)) else { continue };
        let (created, removed) = counts.entry(app).or_default();
        match step.action {
            Action::Create { .. } => *created += 1,
            Action::Remove { .. } => *removed += 1,
            _ => {}
        }
    }
    for (created, removed) in counts.into_values() {
        let replaced = created.min(removed);
        totals.replaces += replaced;
        totals.creates += created - replaced;
        totals.removes += removed - replaced;
    }
    totals.apps = apps.len();
    totals.hosts = hosts.len();
    totals
}
