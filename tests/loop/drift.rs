//! Persons and crashes change what is there, and the loop brings it back.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Engine, Fleet, Installation, Load, app, set, signal, wait_until};

/// The shared engine on which a container `HOST/NAME` lies.
pub fn engine_of(container: &str) -> &'static Engine {
    let fleet = Fleet::shared();
    if container.starts_with("alpha/") { &fleet.alpha } else { &fleet.beta }
}

#[test]
fn containers_that_a_person_removed_or_stopped_are_there_again() {
    let shop = Installation::new("drift");
    shop.deploy(&app("web"));
    let before = shop.containers();
    let names: Vec<_> = before.keys().cloned().collect();
    let load = Load::start(shop.load_on("web"));

    engine_of(&names[0]).remove(&before[&names[0]]);
    engine_of(&names[3]).docker(["stop", "-t", "3", &before[&names[3]]]).expect(0);
    let plan = shop.diff();
    assert!(!plan.steps.is_empty(), "drift is seen");
    shop.converge();

    let after = shop.containers();
    assert_eq!(after.len(), 4);
    assert_eq!(shop.running().len(), 4);
    for kept in &names[1..3] {
        assert_eq!(after[kept], before[kept], "a container that was well isn't touched");
    }
    // What a person kills may cost the requests that were on it; nothing after that is lost.
    let lost = load.so_far().lost();
    let good = load.so_far().good;
    wait_until(Duration::from_secs(20), "more requests", || load.so_far().good > good + 200);
    assert_eq!(load.stop().lost(), lost);
}

#[test]
fn what_a_person_changes_in_haproxy_is_put_right_by_the_controller() {
    let shop = Installation::new("drift-haproxy");
    shop.deploy(&set(app("web"), "/weights", json!({"alpha": 100, "beta": 50})));
    let declared = shop.balancer().weights("production.web");
    let mut controller = shop.start();
    controller.wait_for_commit(&shop.repository.head());

    let (server, _) = declared.first_key_value().unwrap();
    shop.balancer().runtime(&format!("set weight production.web/{server} 7")).unwrap();
    wait_until(Duration::from_secs(45), "the weight is as declared", || {
        shop.balancer().weights("production.web") == declared
    });

    shop.balancer().runtime(&format!("set server production.web/{server} state drain")).unwrap();
    wait_until(Duration::from_secs(45), "the server is ready again", || {
        let servers = shop.balancer().servers_of("production.web");
        servers.len() == 4 && servers.iter().all(|server| server.serves())
    });
    controller.stop();
    shop.expect_nothing_to_do();
}

#[test]
fn a_killed_haproxy_comes_back_with_its_weights() {
    let shop = Installation::new("haproxy-killed");
    shop.deploy(&set(app("web"), "/weights", json!({"alpha": 100, "beta": 50})));
    let declared = shop.balancer().weights("production.web");
    let containers = shop.containers();
    let mut controller = shop.start();
    controller.wait_for_commit(&shop.repository.head());

    for which in ["worker", "master"] {
        let balancer = shop.balancer();
        let (master, old) = balancer.generation();
        signal(if which == "worker" { old } else { master }, Signal::KILL);
        wait_until(Duration::from_secs(45), &format!("HAProxy serves without its {which}"), || {
            let weights = balancer.try_servers().is_ok_and(|servers| {
                servers.iter().filter(|server| server.serves()).count() == declared.len()
            });
            // A worker whose master was killed answers for a moment longer.
            let another = balancer.try_worker().is_ok_and(|worker| worker != old);
            weights && another && shop.get("web").is_ok_and(|a| a.status == 200)
        });
        assert_eq!(balancer.weights("production.web"), declared);
    }
    controller.stop();
    assert_eq!(shop.containers(), containers);
    shop.expect_nothing_to_do();
}

#[test]
fn an_engine_that_is_killed_and_restarted_is_taken_up_again() {
    let mut fleet = Fleet::start();
    let shop = Installation::on(&fleet, "engine-killed");
    let commit = shop.deploy(&app("web"));
    let mut controller = shop.start();
    controller.wait_for_commit(&commit);

    fleet.kill(1);
    let status = controller.wait_for_status("beta is unreachable", |status| {
        status.hosts.iter().any(|host| host.name == "beta" && !host.reachable)
    });
    assert!(status.hosts.iter().any(|host| host.name == "alpha" && host.reachable), "{status:?}");
    assert_eq!(shop.get("web").unwrap().status, 200, "alpha goes on");

    fleet.dockerds[1].run();
    controller.wait_for_status("all is well again", |status| {
        status.is_converged_at(&commit) && status.hosts.iter().all(|host| host.reachable)
    });
    wait_until(Duration::from_secs(30), "four servers serve", || {
        shop.balancer().servers_of("production.web").iter().filter(|s| s.serves()).count() == 4
    });
    controller.stop();
    assert_eq!(shop.running().len(), 4);
    assert_eq!(shop.containers().len(), 4);
    shop.expect_nothing_to_do();

    // All four answer.
    let load = Load::start(shop.load_on("web"));
    wait_until(Duration::from_secs(20), "requests", || load.so_far().good > 200);
    let report = load.stop();
    report.expect_none_lost(200);
    assert_eq!(report.by_server.len(), 4, "{report:?}");
}
