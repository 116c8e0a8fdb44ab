//! Routes of different Apps: two that meet are refused, in both. An exact host and a wildcard,
//! or two paths of which one is longer, don't meet: the more exact one wins.

use std::collections::BTreeMap;

use super::super::decode::AppDraft;
use super::super::mistake::Texts;
use super::super::text::Extent;
use super::Apps;
use crate::model::{AppId, Route};

/// A route that is refused: message and place, to be added to the App.
pub(super) struct Conflict {
    pub app: AppId,
    pub at: Extent,
    pub message: String,
}

/// Every route that is declared more than once. Host names and paths are normalized already.
pub(super) fn conflicts(drafts: &Apps<&AppDraft>, texts: &Texts) -> Vec<Conflict> {
    let mut by_route: BTreeMap<&Route, Vec<(&AppId, Extent)>> = BTreeMap::new();
    for (app, draft) in drafts {
        for route in &draft.routes {
            by_route.entry(&route.route).or_default().push((app, route.at));
        }
    }
    let mut conflicts = Vec::new();
    for (route, owners) in by_route.into_iter().filter(|(_, owners)| owners.len() > 1) {
        for (number, (app, at)) in owners.iter().enumerate() {
            let (other, other_at) = owners[usize::from(number == 0)];
            let place = texts.place(other_at);
            let message = match *app == other {
                true => format!("the route {route} is there twice in this app: also in {place}"),
                false => format!("the route {route} is declared by {other} too, in {place}"),
            };
            conflicts.push(Conflict { app: (*app).clone(), at: *at, message });
        }
    }
    conflicts
}
