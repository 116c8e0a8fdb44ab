//! Routes of different Apps: two that meet are refused, in both. An exact host and a wildcard,
//! or two paths of which one is longer, don't meet: the more exact one wins.

use super::super::decode::AppDraft;
use super::super::mistake::Texts;
use super::super::text::Extent;
use crate::model::{AppId, Route};

/// A route that is refused: message and place, to be added to the App.
pub(super) struct Conflict {
    pub app: AppId,
    pub at: Extent,
    pub message: String,
}

/// Every route that is declared more than once, among drafts in the order of their names. Host names and paths are normalized already.
pub(super) fn conflicts(drafts: &[(&AppId, &AppDraft)], texts: &Texts) -> Vec<Conflict> {
    let mut routes: Vec<(&Route, &AppId, Extent)> = Vec::new();
    for (app, draft) in drafts {
        routes.extend(draft.routes.iter().map(|route| (&route.route, *app, route.at)));
    }
    // Apps come in order, and so do, of one route, those that declare it.
    routes.sort_by_key(|(route, _, _)| *route);
    let mut conflicts = Vec::new();
    for owners in routes.chunk_by(|(a, _, _), (b, _, _)| a == b).filter(|all| all.len() > 1) {
        for (number, (route, app, at)) in owners.iter().enumerate() {
            let (_, other, other_at) = owners[usize::from(number == 0)];
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
