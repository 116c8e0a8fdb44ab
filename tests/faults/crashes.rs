//! The fault catalogue's crashes: the process ends before and after every step, an answer is lost,
//! a step panics. What the next one finds it finishes; nothing is made twice, and where something
//! served, no request is lost.
//!
//! The crashes are planted in the binary (`src/failpoint.rs`), which has them in tests only.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::engine::BrokenEngine;
use crate::engine_proxy::Fault;
use crate::harness::{
    Controller, Fleet, Installation, Load, LowestServing, app, run, set, wait_until,
};
use crate::words::{apply, events, expect_words, let_users_come, said, status};

const FAILPOINT: &str = "PLIMSOLL_FAILPOINT";

/// As a process ends that aborts.
const ABORTED: i32 = -6;

/// One container, on alpha.
fn alone(name: &str) -> Value {
    set(set(app(name), "/replicas", 1), "/hosts", json!(["alpha"]))
}

/// `plimsoll apply` with a failpoint: true where it ended there, false where it never got so far
/// and converged.
#[track_caller]
fn apply_until(shop: &Installation, failpoint: &str) -> bool {
    let output = run(shop.command(["apply"]).env(FAILPOINT, failpoint));
    assert!(output.code == 0 || output.code == ABORTED, "{failpoint}: {output}");
    output.code == ABORTED
}

/// Converges after a crash. What was there of the new containers must be there still: finished,
/// and not made anew.
#[track_caller]
fn finish(shop: &Installation, before: &BTreeMap<String, String>, at: &str) {
    let found = shop.containers();
    let (code, text) = apply(shop);
    assert_eq!(code, 0, "{at}: {text}");
    let now = shop.containers();
    for (name, id) in found.iter().filter(|(name, _)| !before.contains_key(*name)) {
        assert_eq!(now.get(name), Some(id), "{at}: {name} was made twice");
    }
    assert_eq!(shop.running(), now, "{at}");
}

/// One update after the other, each with a crash on that side of the next step, until an update
/// has no step left to crash at.
#[track_caller]
fn crash_in_updates(name: &str, side: &str) {
    let shop = Installation::new(name);
    shop.deploy(&alone("web"));
    let load = Load::start(shop.load_on("web"));
    let lowest = LowestServing::watch(shop.balancer(), "production.web");
    for step in 1.. {
        let at = format!("crash-{side}-step={step}");
        let before = shop.containers();
        shop.write_app(&set(alone("web"), "/env/NUMBER", step.to_string()));
        shop.repository.push(&at);
        let crashed = apply_until(&shop, &at);
        finish(&shop, &before, &at);
        let now = shop.containers();
        assert_eq!(now.len(), 1, "{at}: {now:?}");
        assert!(now.keys().all(|name| !before.contains_key(name)), "{at}: {now:?}");
        if !crashed {
            assert!(step > 8, "an update has more steps than {step}");
            println!("crashed {side} each of {} steps", step - 1);
            break;
        }
    }
    shop.expect_nothing_to_do();
    assert_eq!(lowest.stop(), 1, "a moment without a server");
    let_users_come(&load, 50);
    load.stop().expect_none_lost(200);
}

#[test]
fn c1_a_crash_before_every_step_of_a_rolling_update_doubles_and_loses_nothing() {
    crash_in_updates("c1-before", "before");
}

#[test]
fn c1_a_crash_after_every_step_of_a_rolling_update_doubles_and_loses_nothing() {
    crash_in_updates("c1-after", "after");
}

/// One app is deployed and another removed, over and over, each time with a crash on that side of
/// the next step. A third one serves beside them.
#[track_caller]
fn crash_in_first_deploys(name: &str, side: &str) {
    let shop = Installation::new(name);
    shop.write_app(&alone("first0"));
    shop.deploy(&alone("web"));
    let load = Load::start(shop.load_on("web").through_reloads());
    for step in 1.. {
        let at = format!("crash-{side}-step={step}");
        let before = shop.containers();
        let (old, new) = (format!("first{}", step - 1), format!("first{step}"));
        shop.remove_app(&old);
        shop.write_app(&alone(&new));
        shop.repository.push(&at);
        let crashed = apply_until(&shop, &at);
        finish(&shop, &before, &at);
        let now = shop.containers();
        assert_eq!(now.len(), 2, "{at}: {now:?}");
        assert_eq!(shop.containers_of(&new).len(), 1, "{at}: {now:?}");
        assert_eq!(shop.get(&new).unwrap().status, 200, "{at}");
        assert_eq!(shop.get(&old).unwrap().status, 404, "{at}");
        if !crashed {
            assert!(step > 10, "a deploy and a removal have more steps than {step}");
            println!("crashed {side} each of {} steps", step - 1);
            break;
        }
    }
    shop.expect_nothing_to_do();
    let_users_come(&load, 50);
    load.stop().expect_none_lost(200);
}

#[test]
fn c1_a_crash_before_every_step_of_a_first_deploy_and_a_removal_is_got_over() {
    crash_in_first_deploys("c1-first-before", "before");
}

#[test]
fn c1_a_crash_after_every_step_of_a_first_deploy_and_a_removal_is_got_over() {
    crash_in_first_deploys("c1-first-after", "after");
}

#[test]
fn c2_every_step_done_twice_leads_to_the_same_end() {
    let shop = Installation::new("c2");
    // What a step had its effect on is there, or gone, when it is done again: a first deploy, an
    // update, a change of weights, a removal beside a first deploy.
    let twice = |what: &str| {
        shop.repository.push(what);
        let output = run(shop.command(["apply"]).env(FAILPOINT, "each-step=twice")).expect(0);
        shop.expect_nothing_to_do();
        output
    };
    shop.write_app(&alone("web"));
    twice("First");
    let first = shop.containers();
    assert_eq!(first.len(), 1);
    let load = Load::start(shop.load_on("web").through_reloads());
    let lowest = LowestServing::watch(shop.balancer(), "production.web");
    shop.write_app(&set(alone("web"), "/image", "web:2"));
    twice("An update");
    let second = shop.containers();
    assert!(second.len() == 1 && second.keys().all(|name| !first.contains_key(name)));
    shop.write_app(&set(set(alone("web"), "/image", "web:2"), "/weights", json!({"alpha": 7})));
    twice("Another weight");
    assert_eq!(shop.containers(), second);
    assert!(shop.balancer().weights("production.web").values().all(|weight| *weight == 7));
    shop.write_app(&alone("other"));
    twice("Another app");
    shop.remove_app("other");
    twice("Without it");
    assert_eq!(shop.containers(), second);
    assert_eq!(lowest.stop(), 1, "a moment without a server");
    let_users_come(&load, 50);
    load.stop().expect_none_lost(100);
}

#[test]
fn c3_crashes_in_recoveries_three_deep_are_got_over() {
    let shop = Installation::new("c3");
    shop.deploy(&alone("web"));
    let load = Load::start(shop.load_on("web"));
    let lowest = LowestServing::watch(shop.balancer(), "production.web");
    // A recovery has fewer steps the later the crash was. One that has no third step converges.
    let mut crashes = 0;
    for (number, depths) in
        [[5, 1, 1], [2, 2, 2], [4, 3, 1], [7, 1, 2], [3, 4, 2], [6, 2, 1]].into_iter().enumerate()
    {
        let before = shop.containers();
        shop.write_app(&set(alone("web"), "/env/NUMBER", number.to_string()));
        shop.repository.push(&format!("{depths:?}"));
        for (depth, step) in depths.into_iter().enumerate() {
            let side = ["after", "before"][(number + depth) % 2];
            crashes += usize::from(apply_until(&shop, &format!("crash-{side}-step={step}")));
        }
        finish(&shop, &before, &format!("{depths:?}"));
        let now = shop.containers();
        assert_eq!(now.len(), 1, "{depths:?}: {now:?}");
        assert!(now.keys().all(|name| !before.contains_key(name)), "{depths:?}: {now:?}");
    }
    assert!(crashes >= 15, "{crashes} crashes");
    shop.expect_nothing_to_do();
    assert_eq!(lowest.stop(), 1, "a moment without a server");
    let_users_come(&load, 50);
    load.stop().expect_none_lost(100);
}

#[test]
fn d4_a_crash_between_create_and_start_is_finished_or_taken_back() {
    let fleet = Fleet::shared();
    let shop = Installation::new("d4");
    shop.deploy(&alone("web"));
    let load = Load::start(shop.load_on("web"));
    for (number, at) in ["crash-after=create", "crash-before=start"].into_iter().enumerate() {
        let before = shop.containers();
        let half = |shop: &Installation| {
            let new = shop.containers().into_iter().find(|(name, _)| !before.contains_key(name));
            let (_, id) = new.expect("it was created");
            assert_eq!(fleet.alpha.inspect(&id).unwrap()["State"]["Status"], "created", "{at}");
            id
        };
        shop.write_app(&set(alone("web"), "/env/NUMBER", number.to_string()));
        shop.repository.push(at);
        assert!(apply_until(&shop, at), "{at}");
        half(&shop);
        assert_eq!(shop.status().app("production/web").sync, "OutOfSync", "{at}");
        finish(&shop, &before, at);

        // Nobody wants it any more when the next process comes.
        let before = shop.containers();
        let half = |shop: &Installation| {
            let new = shop.containers().into_iter().find(|(name, _)| !before.contains_key(name));
            new.expect("it was created").1
        };
        shop.write_app(&set(alone("web"), "/env/NUMBER", format!("{number}-unwanted")));
        shop.repository.push("Not for long");
        assert!(apply_until(&shop, at), "{at}");
        let unwanted = half(&shop);
        shop.write_app(&set(alone("web"), "/env/NUMBER", number.to_string()));
        shop.repository.push("Back");
        shop.converge();
        assert_eq!(shop.containers(), before, "{at}: the old one serves on");
        assert!(fleet.alpha.inspect(&unwanted).is_none(), "{at}: our own is removed");
    }
    let_users_come(&load, 50);
    load.stop().expect_none_lost(100);
}

#[test]
fn d2_a_create_whose_reply_is_lost_is_found_and_not_made_twice() {
    let fleet = Fleet::shared();
    let shop = Installation::new("d2");
    let broken = BrokenEngine::before(&fleet.alpha);
    shop.write("hosts/alpha.yaml", &broken.host(&shop, "alpha", "127.0.0.1"));
    // A first deploy, where nothing of the app is there, and then an update.
    for version in ["web:1", "web:2"] {
        broken.plan_each(&[("/containers/create", Fault::LoseReply, 1)]);
        shop.write_app(&set(alone("web"), "/image", version));
        shop.repository.push(version);
        let (code, text) = apply(&shop);
        assert_eq!(code, 0, "{version}: {text}");
        assert!(broken.left().is_empty(), "{version}: the reply of a create was lost");
        broken.heal();
        shop.expect_nothing_to_do();
        assert_eq!(shop.containers().len(), 1, "{version}");
        assert_eq!(created(&shop), 1, "{version}");
    }

    // The process is killed before it could ask again with success.
    let before = shop.containers();
    broken.plan_each(&[("/containers/create", Fault::LoseReply, usize::MAX)]);
    shop.write_app(&set(alone("web"), "/image", "web:3"));
    shop.repository.push("web:3");
    let mut process = shop.command(["apply"]).stdout(Stdio::null()).spawn().unwrap();
    wait_until(Duration::from_secs(30), "it is created, and nobody hears of it", || {
        shop.containers().len() == 2
    });
    process.kill().unwrap();
    process.wait().unwrap();
    broken.heal();
    finish(&shop, &before, "the reply and the process are lost");
    shop.expect_nothing_to_do();
    assert_eq!(created(&shop), 1);
}

/// How often the engine created the container that is there now under its name.
fn created(shop: &Installation) -> usize {
    let (name, _) = shop.containers().pop_first().unwrap();
    let about = format!("container={}", name.trim_start_matches("alpha/"));
    let filters = ["--filter", "event=create", "--filter", &about];
    // The engine's client cuts the time off at the second that has begun.
    let words = ["events", "--since=5m", "--until=-0s"].into_iter().chain(filters);
    Fleet::shared().alpha.docker(words).expect(0).text().lines().count()
}

#[test]
fn c4_a_panic_in_one_apps_work_fails_that_app_and_no_other() {
    let shop = Installation::new("c4");
    for name in ["good", "bad"] {
        shop.write_app(&alone(name));
    }
    shop.repository.push("Two apps");
    shop.converge();
    let load = Load::start(shop.load_on("bad"));
    let before = shop.containers_of("bad");

    let both = |number: &str| {
        for name in ["good", "bad"] {
            shop.write_app(&set(alone(name), "/env/NUMBER", number));
        }
        shop.repository.push(&format!("Number {number}"))
    };
    let panics = "panic-in-app=production/bad";
    // By hand.
    both("1");
    let output = run(shop.command(["apply"]).env(FAILPOINT, panics)).expect(1);
    expect_words(&said(&output), &["production/bad", "panicked"]);
    let seen = shop.status();
    let sync = |app: &str| seen.app(app).sync.as_str();
    assert_eq!((sync("production/good"), sync("production/bad")), ("InSync", "OutOfSync"));
    assert_eq!(shop.containers_of("bad"), before, "the old one serves on");

    // By the controller, which lives on.
    let commit = both("2");
    let mut command = shop.command(["run", "--interval", "1s"]);
    let mut controller = Controller::spawn(&shop, command.env(FAILPOINT, panics));
    let good = shop.containers_of("good");
    controller.wait_for_status("the other one is updated", |status| {
        let sync = |app: &str| status.app(app).sync.as_str();
        shop.containers_of("good").keys().all(|name| !good.contains_key(name))
            && (sync("production/good"), sync("production/bad")) == ("InSync", "OutOfSync")
    });
    expect_words(&status(&shop), &["production/bad"]);
    expect_words(&events(&shop), &["production/bad", "panicked"]);
    assert_eq!(shop.containers_of("bad"), before, "the old one serves on");
    controller.stop();

    // One without that mistake finishes it.
    let mut controller = shop.start();
    controller.wait_for_commit(&commit);
    controller.stop();
    shop.expect_nothing_to_do();
    let_users_come(&load, 50);
    load.stop().expect_none_lost(100);
}

/// What `cargo build` makes has no failpoints: nothing but the package's dependency on itself in
/// tests asks for them.
#[test]
fn only_tests_have_failpoints() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let words = ["metadata", "--offline", "--no-deps", "--format-version=1"];
    let metadata: Value =
        run(Command::new(cargo).current_dir(env!("CARGO_MANIFEST_DIR")).args(words))
            .expect(0)
            .json();
    let packages = metadata["packages"].as_array().unwrap();
    let ours = packages.iter().find(|package| package["name"] == "plimsoll").unwrap();
    let features = ours["features"].as_object().unwrap();
    assert_eq!(features["failpoints"], json!([]));
    let wanted = |value: &Value| value.to_string().contains("failpoints");
    assert!(!features.values().any(wanted), "{features:?}");
    let dependencies = ours["dependencies"].as_array().unwrap();
    let asking: Vec<_> = dependencies.iter().filter(|one| wanted(&one["features"])).collect();
    assert!(asking.len() == 1 && asking[0]["kind"] == "dev", "{asking:?}");
    assert!(features.get("default").is_none(), "{features:?}");
}
