//! The lowest number of healthy servers of a route on the way to what is declared.
//!
//! While a plan runs, the set of steps that are done always contains, with each step, all that
//! it waits for; with one step failed, that step and what waits for it stay out. So the states
//! that can be met are the downward-closed sets of the steps, and the number sought is the
//! smallest sum, over all of them, of what each step adds to or takes from the servers that
//! serve. That is a maximum closure problem, and a minimum cut solves it (J. C. Picard,
//! "Maximal closure of a graph and applications to combinatorial problems", Management Science
//! 22, 1976).

use std::collections::{BTreeMap, BTreeSet};

use petgraph::graph::{DiGraph, NodeIndex};

use crate::model::{App, AppId, BalancerName, Route, ServerName};

use super::survey::Work;
use super::{Action, Input, Place, RouteFloor, Step, StepId};

/// The floors of the routes of the apps that have steps.
pub(super) fn floors(input: &Input<'_>, works: &[Work<'_>], steps: &[Step]) -> Vec<RouteFloor> {
    let mut by_app: BTreeMap<&AppId, Vec<&Step>> = BTreeMap::new();
    for step in steps {
        if let Some(app) = &step.app {
            by_app.entry(app).or_default().push(step);
        }
    }
    let mut floors = Vec::new();
    for work in works {
        let (Some(target), Some(steps)) = (&work.target, by_app.get(work.app)) else { continue };
        for route in &target.app.routes {
            floors.push(floor(input, work, &target.app, route, steps));
        }
    }
    floors
}

fn floor(
    input: &Input<'_>,
    work: &Work<'_>,
    app: &App,
    route: &Route,
    steps: &[&Step],
) -> RouteFloor {
    let serving = serving_now(input, work, &route.balancer);
    let values: BTreeMap<&StepId, i64> =
        steps.iter().map(|step| (&step.id, value(step, route, &serving))).collect();
    let change = lowest_sum(steps, &values);
    let healthy = serving.len() as i64;
    RouteFloor {
        route: route.clone(),
        app: app.id.clone(),
        lowest_healthy: (healthy + change).max(0) as u32,
        healthy: healthy as u32,
        minimum: minimum(work, app),
    }
}

/// The minimum of an app's routes: what serves once converged, less `unavailable` on each host.
pub(super) fn minimum(work: &Work<'_>, app: &App) -> u32 {
    let crate::model::Rollout::Rolling { unavailable, .. } = app.rollout;
    let weighted = work.hosts.values().filter(|host| host.weight > 0);
    weighted.map(|host| host.replicas.saturating_sub(unavailable)).sum()
}

/// Servers that are UP with a weight above 0 and whose container, where its host can be seen,
/// runs.
pub(super) fn serving_now<'a>(
    input: &Input<'_>,
    work: &Work<'a>,
    balancer: &BalancerName,
) -> BTreeSet<&'a ServerName> {
    let runs = |name: &ServerName| {
        input.observed.host(&name.host).is_none()
            || work.containers.iter().any(|(host, container)| {
                let birth = &container.birth;
                *host == name.host
                    && name.is_of(&birth.revision)
                    && birth.slot == name.slot
                    && container.runs()
            })
    };
    let seats = work.seats.stable_at(balancer);
    seats.filter(|(name, seat)| seat.serves() && runs(name)).map(|(name, _)| name).collect()
}

/// What a step adds to the servers of a route that serve.
fn value(step: &Step, route: &Route, serving: &BTreeSet<&ServerName>) -> i64 {
    let Action::SetWeight { server, weight, .. } = &step.action else { return 0 };
    if step.place != Place::Balancer(route.balancer.clone()) {
        return 0;
    }
    match (*weight > 0, serving.contains(server)) {
        (true, false) => 1,
        (false, true) => -1,
        (true, true) | (false, false) => 0,
    }
}

/// The smallest sum over all sets of steps that contain, with each step, what it waits for.
fn lowest_sum(steps: &[&Step], values: &BTreeMap<&StepId, i64>) -> i64 {
    let negative: i64 = values.values().filter(|value| **value < 0).sum();
    if negative == 0 {
        return 0;
    }
    let mut graph = DiGraph::<(), u64>::new();
    let (source, sink) = (graph.add_node(()), graph.add_node(()));
    let nodes: BTreeMap<&StepId, NodeIndex> =
        steps.iter().map(|step| (&step.id, graph.add_node(()))).collect();
    let unbounded = steps.len() as u64 + 1;
    for step in steps {
        let Some(node) = nodes.get(&step.id) else { continue };
        match values.get(&step.id) {
            Some(value) if *value < 0 => drop(graph.add_edge(source, *node, value.unsigned_abs())),
            Some(value) if *value > 0 => drop(graph.add_edge(*node, sink, value.unsigned_abs())),
            _ => {}
        }
        for earlier in step.after.iter().filter_map(|id| nodes.get(id)) {
            graph.add_edge(*node, *earlier, unbounded);
        }
    }
    let (cut, _) = petgraph::algo::ford_fulkerson(&graph, source, sink);
    negative + cut as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Span;

    fn check(steps: &[(&str, i64, &[&str])], lowest: i64) {
        let steps: Vec<Step> = steps
            .iter()
            .map(|(id, value, after)| Step {
                id: StepId((*id).into()),
                app: None,
                place: Place::Host("alpha".parse().unwrap()),
                after: after.iter().map(|id| StepId((*id).into())).collect(),
                needs: Vec::new(),
                summary: value.to_string(),
                deadline: Span::from_secs(1),
                action: Action::Start { name: (*id).into() },
            })
            .collect();
        let values = steps.iter().map(|step| (&step.id, step.summary.parse().unwrap())).collect();
        let refs: Vec<&Step> = steps.iter().collect();
        assert_eq!(lowest_sum(&refs, &values), lowest);
    }

    #[test]
    fn the_lowest_point_is_found_over_every_order() {
        check(&[], 0);
        check(&[("up", 1, &[]), ("down", -1, &["up"])], 0);
        check(&[("up", 1, &[]), ("down", -1, &[])], -1);
        check(&[("a", 1, &[]), ("b", -1, &["a"]), ("c", 1, &["b"]), ("d", -1, &["c"])], 0);
        // Two lowered after one raised.
        check(&[("a", 1, &[]), ("b", -1, &["a"]), ("d", -1, &["a"])], -1);
        // Through a step that changes nothing itself.
        check(&[("a", 1, &[]), ("w", 0, &["a"]), ("b", -1, &["w"])], 0);
        // Independent chains add up.
        check(&[("a", -1, &[]), ("b", 1, &["a"]), ("c", -1, &[]), ("d", 1, &["c"])], -2);
    }
}
