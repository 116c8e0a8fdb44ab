//! What is declared comes true, the plan that is shown is the plan that is run, and then there
//! is nothing left to do.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Installation, Load, LoadReport, Plan, app, set, wait_for, wait_until};

#[test]
fn a_push_converges_and_then_nothing_is_left_to_do() {
    let shop = Installation::new("converge");
    let commit = shop.deploy(&app("web"));

    let containers = shop.containers();
    assert_eq!(containers.len(), 4, "{containers:?}");
    assert_eq!(shop.running(), containers);
    let servers = shop.balancer().servers_of("production.web");
    assert!(servers.len() == 4 && servers.iter().all(|server| server.serves()), "{servers:?}");
    let answer = shop.get("web").unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("environment=production"), "{}", answer.text());
    assert!(answer.text().contains(&commit), "{}", answer.text());

    let status = shop.status();
    assert!(status.is_converged_at(&commit), "{status:?}");
    assert!(status.hosts.iter().all(|host| host.reachable), "{status:?}");

    let generation = shop.balancer().generation();
    let (code, plan) = shop.apply();
    assert!(code == 0 && plan.steps.is_empty(), "{plan:?}");
    assert_eq!(shop.containers(), containers);
    assert_eq!(shop.balancer().generation(), generation);
}

#[test]
fn a_commit_that_changes_no_container_restarts_none() {
    let shop = Installation::new("untouched");
    shop.deploy(&app("web"));
    let containers = shop.containers();
    shop.repository.write("README.md", "Not a manifest.\n");
    let commit = shop.repository.push("Write a readme");
    let plan = shop.converge();
    assert!(plan.steps.is_empty(), "{plan:?}");
    assert_eq!(plan.commit, commit);
    assert_eq!(shop.containers(), containers);
}

#[test]
fn a_deleted_store_is_rebuilt_without_a_step() {
    let shop = Installation::new("store");
    let commit = shop.deploy(&set(app("web"), "/weights", json!({"alpha": 100, "beta": 50})));
    let (containers, generation) = (shop.containers(), shop.balancer().generation());

    // HAProxy's own files are no part of the store: it runs from them.
    for entry in std::fs::read_dir(shop.state()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("haproxy") {
            std::fs::remove_dir_all(path).unwrap();
        } else if path.is_file() {
            std::fs::remove_file(path).unwrap();
        }
    }

    shop.expect_nothing_to_do();
    let (code, plan) = shop.apply();
    assert!(code == 0 && plan.steps.is_empty(), "{plan:?}");
    assert_eq!(shop.containers(), containers);
    assert_eq!(shop.balancer().generation(), generation);
    assert!(shop.status().is_converged_at(&commit));
}

fn digest_and_steps(plan: &Plan) -> (&str, String) {
    (&plan.digest, format!("{:#?}", plan.steps))
}

#[test]
fn apply_runs_the_very_plan_that_diff_shows() {
    let shop = Installation::new("fidelity");
    shop.write_app(&set(app("web"), "/replicas", 1));
    shop.write_app(&set(app("api"), "/replicas", 1));
    shop.repository.push("Deploy two apps");

    let shown = shop.diff();
    assert!(!shown.steps.is_empty());
    assert_eq!(digest_and_steps(&shop.diff()), digest_and_steps(&shown), "two diffs differ");
    let (code, run) = shop.apply();
    assert_eq!(code, 0, "{run:?}");
    assert_eq!(digest_and_steps(&run), digest_and_steps(&shown));
    for step in &run.steps {
        let outcome = run.outcome.iter().find(|outcome| outcome.id == step.id);
        assert!(outcome.is_some_and(|outcome| outcome.result == "done"), "{step:?}: {outcome:?}");
    }

    // An update as well, in which there is something to keep.
    shop.write_app(&set(set(app("web"), "/replicas", 1), "/image", "web:2"));
    shop.repository.push("Version 2");
    let shown = shop.diff();
    let (code, run) = shop.apply();
    assert_eq!(code, 0, "{run:?}");
    assert_eq!(digest_and_steps(&run), digest_and_steps(&shown));
    assert!(shown.steps_of("production/api").next().is_none(), "{shown:?}");
    shop.expect_nothing_to_do();
}

#[test]
fn diff_changes_nothing_and_plans_another_revision() {
    let shop = Installation::new("diff");
    shop.deploy(&set(app("web"), "/replicas", 1));
    let (containers, file) = (shop.containers(), shop.balancer().file());
    shop.write_app(&set(set(app("web"), "/replicas", 1), "/image", "web:2"));
    let next = shop.repository.commit("Version 2");
    shop.repository.git(["push", "-q", "origin", "main:next"]);

    let output = shop.plimsoll(["diff", "--rev", "next", "-o", "json"]).expect(1);
    let plan: Plan = output.json();
    assert_eq!(plan.commit, next);
    assert!(plan.steps_of("production/web").count() > 0, "{plan:?}");
    shop.plimsoll(["diff", "--rev", "next"]).expect(1);
    shop.plimsoll(["diff", "--rev", "no-such-revision"]).expect_error();

    assert_eq!((shop.containers(), shop.balancer().file()), (containers, file));
    shop.expect_nothing_to_do();
}

#[test]
fn a_kept_plan_is_refused_when_commit_or_fleet_moved() {
    let shop = Installation::new("kept-plan");
    let web = set(app("web"), "/replicas", 1);
    shop.deploy(&web);
    let keep_plan = || {
        let file = shop.folder().join("plan.json");
        let path = file.to_str().unwrap().to_owned();
        shop.plimsoll(["diff", "--out", &path]).expect(1);
        path
    };

    // The commit moves.
    shop.write_app(&set(web.clone(), "/image", "web:2"));
    shop.repository.push("Version 2");
    let plan = keep_plan();
    shop.write_app(&set(web.clone(), "/image", "web:3"));
    shop.repository.push("Version 3");
    let before = shop.containers();
    let refused = shop.plimsoll(["apply", "--plan", &plan]).expect_error();
    assert!(refused.stderr.contains("commit"), "{refused}");
    assert_eq!(shop.containers(), before);

    // The fleet moves.
    let plan = keep_plan();
    let (name, id) = shop.containers().pop_first().unwrap();
    crate::drift::engine_of(&name).remove(&id);
    let before = shop.containers();
    shop.plimsoll(["apply", "--plan", &plan]).expect_error();
    assert_eq!(shop.containers(), before);

    // Nothing moves, once HAProxy has noticed too.
    wait_until(Duration::from_secs(20), "HAProxy finds a server down", || {
        let servers = shop.balancer().try_servers();
        servers.is_ok_and(|all| all.iter().any(|server| !server.serves()))
    });
    let plan = keep_plan();
    shop.plimsoll(["apply", "--plan", &plan]).expect(0);
    shop.expect_nothing_to_do();
    assert!(shop.get("web").unwrap().text().contains("version=3"));
}

/// Which part of the requests between two reports alpha answered.
fn share_of_alpha(before: &LoadReport, after: &LoadReport) -> f64 {
    let of_alpha = |report: &LoadReport| {
        let servers = report.by_server.iter().filter(|(name, _)| name.starts_with("alpha:"));
        servers.map(|(_, count)| count).sum::<u64>()
    };
    (of_alpha(after) - of_alpha(before)) as f64 / (after.good - before.good) as f64
}

#[test]
fn a_weight_changes_without_a_reload_and_without_touching_a_container() {
    let shop = Installation::new("weights");
    let web = set(app("web"), "/weights", json!({"alpha": 100, "beta": 100}));
    shop.deploy(&web);
    let (containers, generation) = (shop.containers(), shop.balancer().generation());
    let load = Load::start(shop.load_on("web"));

    for (alpha, beta) in [(100, 50), (256, 1), (100, 0), (0, 100), (60, 20)] {
        shop.deploy(&set(web.clone(), "/weights", json!({"alpha": alpha, "beta": beta})));
        let weights = shop.balancer().weights("production.web");
        assert_eq!(weights.len(), 4);
        for (server, weight) in weights {
            let expected = if server.starts_with("alpha:") { alpha } else { beta };
            assert_eq!(weight, expected, "{server}");
        }
    }

    // Three in four requests go to alpha, as 60 to 20 says, once HAProxy's round robin has left
    // the weights of before behind, which takes it some hundred requests.
    let mut before = load.so_far();
    wait_for(Duration::from_secs(60), "requests are spread by weight", || {
        wait_until(Duration::from_secs(20), "more requests", || {
            load.so_far().good > before.good + 400
        });
        let now = load.so_far();
        let share = share_of_alpha(&before, &now);
        before = now;
        if (0.73..0.77).contains(&share) { Ok(()) } else { Err(format!("{share} went to alpha")) }
    });
    wait_until(Duration::from_secs(30), "a thousand requests", || load.so_far().good >= 1000);
    load.stop().expect_none_lost(1000);
    assert_eq!(shop.containers(), containers);
    assert_eq!(shop.balancer().generation(), generation);
}

#[test]
fn replicas_grow_and_shrink_and_apps_join_without_a_reload_of_the_others() {
    let shop = Installation::new("scale");
    shop.deploy(&set(app("web"), "/replicas", 1));
    let before = shop.containers();
    let generation = shop.balancer().generation();
    let load = Load::start(shop.load_on("web"));

    shop.deploy(&set(app("web"), "/replicas", json!({"alpha": 3, "beta": 1})));
    let grown = shop.containers();
    assert_eq!(grown.len(), 4);
    assert!(before.iter().all(|(name, id)| grown.get(name) == Some(id)), "{before:?} {grown:?}");

    shop.deploy(&set(app("web"), "/replicas", 1));
    assert_eq!(shop.containers().len(), 2);
    assert_eq!(shop.balancer().generation(), generation, "servers come and go at runtime");

    load.stop().expect_none_lost(100);
}

#[test]
fn the_structured_output_of_validate_names_every_mistake() {
    let shop = Installation::new("validate");
    shop.write_app(&app("web"));
    shop.write_app(&set(set(app("bad"), "/weights", json!({"alpha": 257})), "/hots", "typo"));
    shop.repository.push("Two mistakes in one file");
    let output = shop.validate(["-o", "json"]).expect(1);
    let found: serde_json::Value = output.json();
    let errors = found["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2, "{output}");
    for error in errors {
        assert_eq!(error["file"], "apps/bad.yaml", "{output}");
        assert!(error["line"].as_u64() > Some(1) && error["column"].as_u64() > Some(0), "{output}");
        assert!(error["message"].is_string() && found["warnings"].is_array(), "{output}");
    }
    shop.remove_app("bad");
    shop.repository.push("No mistakes");
    shop.validate([]).expect(0);
}
