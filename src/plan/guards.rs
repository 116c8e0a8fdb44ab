//! What a plan would remove, and whether a person has to look at it first.

use std::collections::BTreeSet;

use crate::model::{AppId, Container, ContainerId, ContainerState, HostName, Sha256};

use crate::mutant::{self, Mutant};

use super::fleet::Fleet;
use super::survey::Work;
use super::{Input, WaitCause, Waiting};

/// Below this number of containers no removal needs approval, but of the last App.
const HARMLESS: usize = 10;

/// Takes out of `works` what waits for approval, and says so.
pub(super) fn hold_back<'a>(
    input: &Input<'_>,
    fleet: &Fleet<'_>,
    works: Vec<Work<'a>>,
    waiting: &mut Vec<Waiting>,
) -> Vec<Work<'a>> {
    let goes = |work: &Work<'_>| removals(work).len() + out_of_sight(input, work);
    let removed: usize = works.iter().map(goes).sum();
    let total = fleet.index.count();
    let share = usize::from(input.known.guards.prune_percent);
    let too_many = removed > HARMLESS && removed * 100 > total * share;
    let last_app = input.desired.apps.is_empty() && input.desired.blocked.is_empty() && removed > 0;
    if (!too_many && !last_app) || mutant::is(Mutant::MassDeletion) {
        return works;
    }
    let id = approval(input, &works);
    if input.known.approvals.contains(&id) {
        return works;
    }
    let (held, free): (Vec<_>, Vec<_>) = works.into_iter().partition(|work| goes(work) > 0);
    let why = if last_app {
        "no App is declared any more".to_owned()
    } else {
        format!("{removed} of {total} containers would go, more than {share}%")
    };
    waiting.extend(held.iter().map(|work| Waiting {
        app: work.app.clone(),
        reason: format!("{why}: {} of this app wait for approval", goes(work)),
        cause: WaitCause::Prune,
        approval: Some(id.clone()),
    }));
    free
}

/// The containers of a work that go without another in their place.
fn removals<'a>(work: &Work<'a>) -> Vec<(&'a HostName, &'a ContainerId)> {
    let replaced = work.target.as_ref().map_or(0, |_| {
        work.hosts
            .values()
            .map(|host| host.fresh.iter().filter(|u| u.existing.is_none()).count())
            .sum()
    });
    let goes = work
        .hosts
        .iter()
        .flat_map(|(host, of)| of.leaving.iter().map(move |container| (*host, &container.id)));
    // What ended and is declared is only begun anew. What isn't declared any more may have ended
    // with its host, and is as gone when it is removed as one that runs.
    let ended = work.hosts.iter().filter(|_| work.target.is_none()).flat_map(|(host, of)| {
        let ended = |c: &&&Container| matches!(c.state, ContainerState::Exited { .. });
        of.dead.iter().filter(ended).map(move |container| (*host, &container.id))
    });
    goes.skip(replaced).chain(ended).collect()
}

/// How many servers an app that isn't declared any more has on hosts that can't be seen: they would
/// lose its routes, and go when they are seen.
fn out_of_sight(input: &Input<'_>, work: &Work<'_>) -> usize {
    if work.target.is_some() {
        return 0;
    }
    let names: BTreeSet<_> = work.seats.all().map(|(_, _, name, _)| name).collect();
    names.into_iter().filter(|name| input.observed.host(&name.host).is_none()).count()
}

/// Holds for one commit and the very containers that it was asked for.
fn approval(input: &Input<'_>, works: &[Work<'_>]) -> String {
    let mut containers: BTreeSet<(&AppId, &HostName, &ContainerId)> = BTreeSet::new();
    for work in works {
        containers.extend(removals(work).into_iter().map(|(host, id)| (work.app, host, id)));
    }
    let mut text = format!("prune {}\n", input.desired.commit);
    for (app, host, id) in containers {
        text.push_str(&format!("{app} {host} {id}\n"));
    }
    Sha256::of(text.as_bytes()).short(12)
}
