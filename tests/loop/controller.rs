//! The controller as a process: it follows the repository, may be killed at any time, and there
//! is one of it.

use std::time::Duration;

use crate::harness::{Controller, Installation, Load, LowestServing, app, set, wait_until};

#[test]
fn the_controller_follows_a_push_and_ends_in_order() {
    let shop = Installation::new("controller");
    shop.write_app(&app("web"));
    let commit = shop.repository.push("Version 1");
    let mut controller = shop.start();
    controller.wait_for_commit(&commit);
    assert!(shop.get("web").unwrap().text().contains("version=1"));

    shop.write_app(&set(app("web"), "/image", "web:2"));
    let commit = shop.repository.push("Version 2");
    let status = controller.wait_for_commit(&commit);
    assert_eq!(status.commit.attempted, Some(commit));
    assert!(shop.get("web").unwrap().text().contains("version=2"));

    let load = Load::start(shop.load_on("web"));
    let took = controller.stop();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let good = load.so_far().good;
    wait_until(Duration::from_secs(10), "HAProxy outlives it", || load.so_far().good > good + 200);
    load.stop().expect_none_lost(200);
    shop.expect_nothing_to_do();
}

/// S7: what the loop fetched before somebody applied by hand is old by then. It once made
/// containers of the commit before, and removed them again.
#[test]
fn what_is_applied_by_hand_is_not_taken_back() {
    let shop = Installation::new("by-hand");
    shop.deploy(&app("web"));
    let first = shop.repository.push("Version 1");
    let command = &mut shop.command(["run", "--interval", "1h"]);
    let mut controller = Controller::spawn(&shop, command);
    controller.wait_for_commit(&first);
    for version in [2, 3, 2] {
        shop.write_app(&set(app("web"), "/image", format!("web:{version}")));
        let commit = shop.repository.push(&format!("Version {version}"));
        let (code, plan) = shop.apply();
        assert_eq!(code, 0, "{plan:?}");
        let containers = shop.containers();
        let created = || shop.plimsoll(["events"]).stdout.matches("Created").count();
        let then = created();
        let looks = || {
            let status = shop.plimsoll(["status", "-o", "json"]).json::<serde_json::Value>();
            status["counters"]["looks"].as_u64().unwrap_or_default()
        };
        let seen = looks();
        wait_until(Duration::from_secs(20), "more looks", || looks() >= seen + 3);
        assert!(controller.wait_for_commit(&commit).is_converged_at(&commit));
        assert_eq!(created(), then, "version {version}");
        assert_eq!(shop.containers(), containers, "version {version}");
    }
    controller.stop();
}

#[test]
fn a_controller_that_is_killed_in_a_rollout_is_continued_by_the_next() {
    let shop = Installation::new("killed");
    shop.deploy(&app("web"));
    let load = Load::start(shop.load_on("web"));
    let lowest = LowestServing::watch(shop.balancer(), "production.web");
    let first = shop.containers();

    // Slow to start, so that the rollout takes a while.
    let web = set(set(app("web"), "/image", "web:2"), "/env/START_DELAY_MS", "1000");
    shop.write_app(&web);
    let commit = shop.repository.push("Version 2");
    // Killed twice: while the first new container comes up, and when some have been replaced.
    for enough in [1, 3] {
        let controller = shop.start();
        wait_until(Duration::from_secs(60), "the rollout is under way", || {
            let containers = shop.containers();
            containers.keys().filter(|name| !first.contains_key(*name)).count() >= enough
        });
        controller.kill();
    }
    assert_eq!(shop.get("web").unwrap().status, 200, "HAProxy outlives the controller");

    let mut controller = shop.start();
    controller.wait_for_commit(&commit);
    controller.stop();
    let after = shop.containers();
    assert_eq!(after.len(), 4, "{after:?}");
    assert!(after.keys().all(|name| !first.contains_key(name)), "{after:?}");
    assert_eq!(shop.running(), after);
    assert_eq!(lowest.stop(), 4, "fewer servers than the minimum");
    load.stop().expect_none_lost(300);
    shop.expect_nothing_to_do();
}

#[test]
fn a_controller_that_is_asked_to_end_in_a_rollout_ends_within_ten_seconds() {
    let shop = Installation::new("asked-to-end");
    shop.deploy(&app("web"));
    let load = Load::start(shop.load_on("web"));
    let first = shop.containers();
    shop.write_app(&set(app("web"), "/env/START_DELAY_MS", "3000"));
    shop.repository.push("Slow to start");
    let controller = shop.start();
    wait_until(Duration::from_secs(60), "the rollout is under way", || {
        shop.containers().keys().any(|name| !first.contains_key(name))
    });
    let took = controller.stop();
    assert!(took < Duration::from_secs(10), "{took:?}");
    shop.converge();
    load.stop().expect_none_lost(100);
}

#[test]
fn a_second_controller_is_refused() {
    let shop = Installation::new("second");
    let commit = shop.deploy(&set(app("web"), "/replicas", 1));
    let mut controller = shop.start();
    controller.wait_for_commit(&commit);
    let refused = shop.plimsoll(["run", "--interval", "1s"]);
    assert!(refused.code != 0, "{refused}");
    assert!(refused.stderr.contains(&controller.pid().to_string()), "who holds it? {refused}");
    // The first goes on, and answers the commands of persons.
    assert!(shop.status().is_converged_at(&commit));
    shop.expect_nothing_to_do();
    controller.stop();
}

#[test]
fn commands_say_the_same_with_and_without_a_controller() {
    let shop = Installation::new("both-ways");
    let commit = shop.deploy(&set(app("web"), "/replicas", 1));
    let mut controller = shop.start();
    controller.wait_for_commit(&commit);
    let ask = || {
        let apps: serde_json::Value = shop.plimsoll(["get", "apps", "-o", "json"]).expect(0).json();
        let app: serde_json::Value =
            shop.plimsoll(["get", "app", "production/web", "-o", "json"]).expect(0).json();
        assert!(apps.to_string().contains("production"), "{apps}");
        assert_eq!(app["apiVersion"], "plimsoll/v1alpha1");
        assert_eq!(app["kind"], "App");
        (shop.diff().digest, app["spec"].clone())
    };
    let with = ask();
    controller.stop();
    assert_eq!(ask(), with);
    for words in
        [&["events"][..], &["history"], &["describe", "app", "production/web"], &["schema"]]
    {
        let output = shop.plimsoll(words.iter().copied()).expect(0);
        assert!(!output.stdout.trim().is_empty(), "{output}");
    }
    let events = shop.plimsoll(["events", "-o", "json"]).expect(0);
    for line in events.stdout.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("a line is an object");
        for field in ["time", "type", "reason", "object", "message"] {
            assert!(event[field].is_string(), "{field} of {line}");
        }
    }
    let logs = shop.plimsoll(["logs", "production/web"]).expect(0);
    assert!(logs.stdout.contains("status=200"), "{logs}");
}
