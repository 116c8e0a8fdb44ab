//! Routes that pass from one app to another: an app that was renamed, or split. The old one serves
//! until the new one has taken its routes, and while what may take them can't be read.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{App, AppId, BalancerName, Location, RouteKey};

use super::draft::Draft;
use super::fleet::Fleet;
use super::memo::Memo;
use super::survey::Work;
use super::{Action, Input, Place, StepId, WaitCause, Waiting};

/// Takes out of `works` the departed apps whose routes an app is to take that isn't planned now,
/// and says so.
pub(super) fn hold_back<'a>(
    input: &Input<'_>,
    fleet: &Fleet<'_>,
    memo: &Memo,
    works: Vec<Work<'a>>,
    waiting: &mut Vec<Waiting>,
) -> Vec<Work<'a>> {
    let departed = departed(&works);
    if departed.is_empty() {
        return works;
    }
    let unfinished: BTreeSet<&AppId> =
        works.iter().filter(|work| work.target.is_some()).map(|work| work.app).collect();
    // What can't be seen may be what is to serve.
    let lacking: BTreeSet<&AppId> =
        works.iter().filter(|work| work.lacks_a_host()).map(|work| work.app).collect();
    let is_planned = |app: &AppId| {
        let declared = || input.desired.apps.contains_key(app) && memo.is_planned(app);
        !lacking.contains(app) && (unfinished.contains(app) || declared())
    };
    let mut held: BTreeMap<&AppId, Waiting> = BTreeMap::new();
    for (balancer, proxied) in &fleet.balancers {
        for (key, backend) in proxied.routes.iter().filter(|(_, b)| departed.contains(&b.app)) {
            let Some(heir) = fleet.index.heir(balancer, key) else { continue };
            if !is_planned(heir) {
                let waits = waits(&backend.app, key, heir);
                held.entry(&backend.app).or_insert(waits);
            }
        }
    }
    let works = works.into_iter().filter(|work| !held.contains_key(work.app)).collect();
    waiting.extend(held.into_values());
    works
}

fn waits(app: &AppId, key: &RouteKey, heir: &AppId) -> Waiting {
    Waiting {
        app: app.clone(),
        reason: format!("it serves on: {heir} is to take its route {key}, and isn't ready to"),
        cause: WaitCause::Takeover { by: heir.clone() },
        approval: None,
    }
}

/// A declared app that has a route which no manifest declares any more, while one that can't be read
/// may.
pub(super) struct Unclaimed {
    pub waiting: Waiting,
    /// What it is to have in place of what serves the route couldn't serve it: all of it stays.
    pub whole: bool,
}

/// The route stays until everything can be read.
pub(super) fn unclaimed(fleet: &Fleet<'_>, app: &App) -> Option<Unclaimed> {
    let location = fleet.unread?;
    let mut unclaimed = fleet.balancers.keys().flat_map(|balancer| {
        let routes = fleet.index.routes_to(balancer, &app.id);
        let nobody_declares = |key: &&RouteKey| fleet.index.heir(balancer, key).is_none();
        routes.filter(nobody_declares).map(move |key| (*balancer, key))
    });
    let goes_on = |balancer: &BalancerName| app.routes.iter().any(|r| r.balancer == *balancer);
    let first = unclaimed.next()?;
    let lost = std::iter::once(first).chain(unclaimed).find(|(balancer, _)| !goes_on(balancer));
    let (_, key) = lost.unwrap_or(first);
    let what = if lost.is_some() { "it serves on as it is" } else { "a route of it stays" };
    let what = format!("{what}: no manifest declares {key} any more");
    let waiting = in_doubt(location, &app.id, &what, "");
    Some(Unclaimed { waiting, whole: lost.is_some() })
}

/// An app that no manifest declares any more, while one that can't be read may.
pub(super) fn undeclared(fleet: &Fleet<'_>, app: &AppId) -> Option<Waiting> {
    let location = fleet.unread?;
    Some(in_doubt(location, app, "no manifest declares it", ": nothing of it is removed"))
}

fn in_doubt(location: &Location, app: &AppId, what: &str, so: &str) -> Waiting {
    let Location { file, line, .. } = location;
    Waiting {
        app: app.clone(),
        reason: format!("{what}, but {file}:{line} can't be read and may{so}"),
        cause: WaitCause::Unreadable { location: location.clone() },
        approval: None,
    }
}

/// Lets what an app has taken out of a balancer wait until its routes there are taken by others.
/// Where one that takes a route loses another, nobody waits: they might wait for each other.
pub(super) fn gate(fleet: &Fleet<'_>, draft: &mut Draft) {
    let mut taken: BTreeMap<(AppId, BalancerName), Vec<(AppId, StepId)>> = BTreeMap::new();
    for step in draft.steps() {
        let (Action::SetRoutes { changes }, Place::Balancer(balancer)) =
            (&step.action, &step.place)
        else {
            continue;
        };
        let Some(proxied) = fleet.balancers.get(balancer) else { continue };
        for key in changes.iter().filter(|(_, to)| to.is_some()).map(|(key, _)| key) {
            let Some(owner) = proxied.routes.get(key).map(|backend| &backend.app) else { continue };
            let Some(taker) = step.app.as_ref().filter(|taker| *taker != owner) else { continue };
            let steps = taken.entry((owner.clone(), balancer.clone())).or_default();
            steps.push((taker.clone(), step.id.clone()));
        }
    }
    let losers: BTreeSet<AppId> = taken.keys().map(|(loser, _)| loser.clone()).collect();
    let silencing: Vec<(StepId, Vec<StepId>)> = draft
        .steps()
        .iter()
        .filter(|step| {
            matches!(step.action, Action::SetWeight { weight: 0, .. } | Action::WaitDrained { .. })
        })
        .filter_map(|step| {
            let (Some(app), Place::Balancer(balancer)) = (&step.app, &step.place) else {
                return None;
            };
            let after = taken.get(&(app.clone(), balancer.clone()))?;
            let free = after.iter().filter(|(taker, _)| !losers.contains(taker));
            Some((step.id.clone(), free.map(|(_, id)| id.clone()).collect()))
        })
        .collect();
    for (step, after) in silencing {
        draft.also_after(&step, after);
    }
}

fn departed<'a>(works: &[Work<'a>]) -> BTreeSet<&'a AppId> {
    works.iter().filter(|work| work.target.is_none()).map(|work| work.app).collect()
}
