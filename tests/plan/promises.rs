//! Each promise against plans that were broken by hand: a checker that finds nothing would pass
//! every other test.

use plimsoll::check::{Promise, findings};
use plimsoll::model::{AppId, CheckState, ContainerId, ProxyProcess, View};
use plimsoll::plan::{Action, Place, Plan, Step};

use crate::world::{Order, Refusal, World, read};

const FLEET: &str = include_str!("../golden/plan/fleet.yaml");

fn web(image: &str) -> String {
    format!(
        "{FLEET}---\napiVersion: plimsoll/v1alpha1\nkind: App\n\
         metadata: {{name: web, environment: production}}\nspec:\n  image: {image}\n  \
         hosts: [alpha, beta]\n  replicas: 2\n  port: 8080\n  \
         routes: [{{balancer: edge, listener: web, host: www.example.com}}]\n"
    )
}

/// A world in the middle of nothing, with another image declared.
fn updating() -> World {
    let mut world = World::new(read(&web("web:1"), 1));
    world.converge(Order::Printed, 4);
    world.declare(read(&web("web:2"), 2));
    world
}

fn is(kind: &'static str) -> impl Fn(&Action) -> bool {
    move |action| action.kind() == kind
}

fn position(plan: &Plan, which: impl Fn(&Action) -> bool) -> usize {
    plan.steps.iter().position(|step| which(&step.action)).expect("such a step")
}

#[test]
fn what_is_taken_away_needs_what_came_in_its_place() {
    let mut world = updating();
    let plan = world.plan();
    for kind in ["setWeight", "waitDrained", "removeServer"] {
        for host in ["alpha", "beta"] {
            let of_host = |step: &&Step| match &step.action {
                Action::SetWeight { server, weight: 0, .. }
                | Action::WaitDrained { server, .. }
                | Action::RemoveServer { server, .. } => server.host.as_str() == host,
                _ => false,
            };
            let steps = plan.steps.iter().filter(|step| step.action.kind() == kind).filter(of_host);
            // The second of a host needs more of those that came than the first.
            let needed: Vec<usize> = steps.map(|step| step.needs.len()).collect();
            assert!(
                needed.len() == 2 && needed[0] >= 1 && needed[1] > needed[0],
                "{kind}: {needed:?}"
            );
        }
    }
    // With the new ones down again nothing more is taken away.
    let first = position(&plan, is("removeServer"));
    for step in &plan.steps[..first] {
        world.act(step).unwrap();
    }
    let down = plan.steps[first].needs[0].server.clone();
    let state = world.balancers.values_mut().next().unwrap();
    let ProxyProcess::Up(runtime) = &mut state.process else { panic!("it runs") };
    for servers in std::sync::Arc::make_mut(runtime).servers.values_mut() {
        if let Some(server) = servers.get_mut(&down) {
            server.check = CheckState::Down;
        }
    }
    assert!(matches!(world.act(&plan.steps[first]), Err(Refusal::Revision(_))));
}

/// Breaks a sound plan, and sees that this promise, and no other, is found broken.
fn check(promise: Promise, break_it: impl Fn(&mut Plan, &mut World)) {
    let mut world = updating();
    let mut plan = world.plan();
    assert_eq!(findings(&plan, &world.desired, &world.observed()), []);
    break_it(&mut plan, &mut world);
    let found = findings(&plan, &world.desired, &world.observed());
    assert!(found.iter().any(|finding| finding.promise == promise), "{found:#?}");
    assert!(found.iter().all(|finding| finding.promise == promise), "{found:#?}");
    for finding in found {
        assert!(finding.app.is_some(), "no app is named: {finding:?}");
    }
}

#[test]
fn s1_what_is_not_ours_is_not_stopped_or_removed() {
    check(Promise::S1, |plan, _| {
        let at = position(plan, is("stop"));
        if let Action::Stop { id, .. } = &mut plan.steps[at].action {
            *id = ContainerId("f".repeat(64));
        }
        // Removing it without a stop would be another promise.
        plan.steps.retain(|step| step.action.kind() != "remove");
    });
    check(Promise::S1, |plan, _| {
        let at = position(plan, is("remove"));
        if let Action::Remove { id, .. } = &mut plan.steps[at].action {
            *id = ContainerId("f".repeat(64));
        }
    });
    // Another app's container is as foreign.
    check(Promise::S1, |plan, _| {
        let other = AppId::new("production", "api").unwrap();
        for step in plan.steps.iter_mut().filter(|step| step.action.kind() == "remove") {
            step.app = Some(other.clone());
        }
    });
}

#[test]
fn s2_no_route_falls_below_its_minimum() {
    check(Promise::S2, |plan, _| plan.routes[0].lowest_healthy = plan.routes[0].minimum - 1);
    check(Promise::S2, |plan, _| {
        plan.routes[0].healthy = 1;
        plan.routes[0].minimum = 4;
        plan.routes[0].lowest_healthy = 0;
    });
}

#[test]
fn s3_nothing_is_stopped_before_it_is_drained_nor_removed_while_it_runs() {
    check(Promise::S3, |plan, _| {
        let at = position(plan, is("stop"));
        plan.steps[at].after.clear();
    });
    check(Promise::S3, |plan, _| {
        plan.steps.retain(|step| step.action.kind() != "waitDrained");
    });
    check(Promise::S3, |plan, _| {
        let at = position(plan, is("remove"));
        plan.steps[at].after.clear();
    });
}

#[test]
fn s6_nothing_is_created_twice() {
    check(Promise::S6, |plan, _| {
        let at = position(plan, is("create"));
        let mut twice = plan.steps[at].clone();
        twice.id.0.push_str("/again");
        plan.steps.push(twice);
    });
    // What stands there already.
    check(Promise::S6, |plan, world| {
        let standing = world.observed().containers().next().unwrap().1.birth.clone();
        let at = position(plan, is("create"));
        if let Action::Create { container } = &mut plan.steps[at].action {
            container.birth = standing;
        }
    });
}

#[test]
fn s8_nothing_is_done_at_what_was_not_seen() {
    check(Promise::S8, |plan, world| {
        let host = plan
            .steps
            .iter()
            .find_map(|step| match (&step.place, step.action.kind()) {
                (Place::Host(host), "pull") => Some(host.clone()),
                _ => None,
            })
            .unwrap();
        // Only what brings something up: ending what isn't seen breaks ownership as well.
        plan.steps.retain(|step| {
            matches!(step.action.kind(), "pull" | "create")
                && step.place == Place::Host(host.clone())
        });
        world.unseen_hosts.insert(host);
    });
    check(Promise::S8, |plan, world| {
        plan.steps.retain(|step| step.action.kind() == "addServer");
        world.unseen_balancers.insert("edge".parse().unwrap());
        let observed = world.observed();
        assert!(observed.balancers.values().any(|view| matches!(view, View::Unseen { .. })));
    });
}
