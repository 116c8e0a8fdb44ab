//! The fault of one file, host or app holds up no other.

use serde_json::json;

use crate::harness::{Fleet, Gate, Installation, Load, app, host, set};

#[test]
fn a_broken_manifest_leaves_the_other_apps_converging() {
    let shop = Installation::new("broken-file");
    shop.deploy(&set(app("web"), "/replicas", 1));
    let web = shop.containers_of("web");

    let broken = "apiVersion: plimsoll/v1alpha1\nkind: App\nmetadata: {name: api, environment: \
                  production}\nspec:\n  image: web:1\n  replicas: many\n";
    shop.repository.write("apps/api.yaml", broken);
    shop.write_app(&set(app("new"), "/replicas", 1));
    let commit = shop.repository.push("One app is broken, another one is new");
    shop.validate([]).expect(1);
    let (code, plan) = shop.apply();
    assert_eq!(code, 1, "{plan:?}");
    let blocked = plan.blocked.iter().find(|blocked| blocked.file == "apps/api.yaml");
    let blocked = blocked.unwrap_or_else(|| panic!("nothing is blocked: {plan:?}"));
    assert!((1..=6).contains(&blocked.line) && !blocked.reason.is_empty(), "{blocked:?}");
    assert_eq!(shop.get("new").unwrap().status, 200);
    assert_eq!(shop.containers_of("web"), web);
    assert_eq!(plan.commit, commit);

    // An app that serves, and whose file breaks, goes on as it is.
    shop.repository.write("apps/web.yaml", "apiVersion: plimsoll/v1alpha1\nkind: App\n  bad: [");
    shop.repository.push("Now the file of web isn't even YAML");
    let (code, plan) = shop.apply();
    assert_eq!(code, 1, "{plan:?}");
    assert_eq!(shop.containers_of("web"), web, "what can't be read isn't deleted");
    assert_eq!(shop.get("web").unwrap().status, 200);

    shop.repository.remove("apps/api.yaml");
    shop.deploy(&set(app("web"), "/replicas", 1));
    assert_eq!(shop.containers_of("web"), web);
}

#[test]
fn an_unreachable_host_leaves_the_others_converging() {
    let fleet = Fleet::shared();
    let shop = Installation::new("unreachable");
    let mut gate = Gate::open(&fleet.beta, &shop.folder().join("beta.sock"));
    let ports = shop.ports.container_ports();
    shop.write("hosts/beta.yaml", &host("beta", &gate.engine(), "127.0.0.2", &ports));
    let local = set(set(app("local"), "/hosts", json!(["alpha"])), "/replicas", 1);
    shop.write_app(&local);
    shop.deploy(&set(app("web"), "/replicas", 1));
    let on_beta = fleet.beta.running(&shop.name);
    let load = Load::start(shop.load_on("web"));

    gate.close();
    shop.write_app(&set(local, "/image", "web:2"));
    shop.write_app(&set(set(app("web"), "/replicas", 1), "/image", "web:2"));
    shop.repository.push("Version 2, while beta can't be reached");
    let (code, plan) = shop.apply();
    assert_eq!(code, 1, "{plan:?}");
    assert!(shop.get("local").unwrap().text().contains("version=2"), "{plan:?}");
    assert_eq!(fleet.beta.running(&shop.name), on_beta, "unknown isn't gone");
    let status = shop.status();
    let beta = status.hosts.iter().find(|host| host.name == "beta").unwrap();
    assert!(!beta.reachable && beta.message.is_some(), "{beta:?}");
    assert!(status.hosts.iter().any(|host| host.name == "alpha" && host.reachable));

    gate.reopen();
    shop.converge();
    assert!(fleet.beta.running(&shop.name).values().all(|id| !on_beta.values().any(|o| o == id)));
    load.stop().expect_none_lost(100);
}

/// What is wrong with a new version, by the manifest's fields.
fn failing_versions() -> Vec<(&'static str, serde_json::Value)> {
    let web = |pointer, value: serde_json::Value| {
        let web = set(set(app("web"), "/replicas", 1), "/image", "web:2");
        set(set(web, "/health/deadline", "3s"), pointer, value)
    };
    vec![
        ("its check always fails", web("/env/FAIL_STATUS", json!("1"))),
        ("it never listens", web("/env/NEVER_LISTEN", json!("1"))),
        ("it ends by itself", web("/env/EXIT_AFTER_MS", json!("1"))),
        ("its command isn't in the image", web("/command", json!(["/no/such/program"]))),
        ("its image doesn't exist", web("/image", json!("no-such-image:1"))),
    ]
}

#[test]
fn a_failing_version_is_taken_back_and_leaves_the_other_apps_converging() {
    let shop = Installation::new("failing");
    let good = set(app("web"), "/replicas", 1);
    shop.write_app(&set(app("other"), "/replicas", 1));
    shop.deploy(&good);
    let web = shop.containers_of("web");
    let load = Load::start(shop.load_on("web"));

    for (number, (what, failing)) in failing_versions().into_iter().enumerate() {
        shop.write_app(&failing);
        let other = set(set(app("other"), "/replicas", 1), "/env/NUMBER", number.to_string());
        shop.write_app(&other);
        shop.repository.push(what);
        let (code, plan) = shop.apply();
        assert_eq!(code, 1, "{what}: {plan:?}");

        // A second look tries nothing again.
        let (code, again) = shop.apply();
        assert_eq!(code, 1, "{what}: {again:?}");
        assert_eq!(shop.containers_of("web"), web, "{what}: the healthy ones aren't touched");
        let status = shop.status();
        let app = status.app("production/web");
        assert!(["RolledBack", "Degraded"].contains(&app.health.as_str()), "{what}: {app:?}");
        assert!(app.conditions.iter().any(|c| !c.message.is_empty()), "{what}: {app:?}");
        let other = status.app("production/other");
        assert_eq!((other.sync.as_str(), other.health.as_str()), ("InSync", "Healthy"), "{what}");
    }

    shop.deploy(&set(good, "/image", "web:3"));
    assert!(shop.get("web").unwrap().text().contains("version=3"));
    load.stop().expect_none_lost(200);
}

#[test]
fn an_app_that_fails_from_the_start_is_reported_with_its_cause() {
    let shop = Installation::new("never-well");
    let failing = set(set(app("web"), "/replicas", 1), "/env/FAIL_STATUS", "1");
    shop.write_app(&set(failing, "/health/deadline", "2s"));
    shop.write_app(&set(app("other"), "/replicas", 1));
    shop.repository.push("Two apps, one is never well");
    let (code, plan) = shop.apply();
    assert_eq!(code, 1, "{plan:?}");
    assert_eq!(shop.get("other").unwrap().status, 200);
    assert_ne!(shop.get("web").unwrap().status, 200);
    let status = shop.status();
    assert_eq!(status.app("production/other").health, "Healthy");
    assert_ne!(status.app("production/web").health, "Healthy");
}

/// The tests above are worth nothing if the gate doesn't hide the engine.
#[test]
fn a_closed_gate_hides_an_engine_and_an_open_one_shows_it() {
    let fleet = Fleet::shared();
    let folder = tempfile::tempdir().unwrap();
    let mut gate = Gate::open(&fleet.beta, &folder.path().join("gate.sock"));
    for _ in 0..2 {
        gate.engine().docker(["version"]).expect(0);
        gate.close();
        gate.engine().docker(["version"]).expect_failure();
        gate.reopen();
    }
    fleet.beta.docker(["version"]).expect(0);
}

#[test]
fn a_health_path_that_nobody_answers_takes_nothing_down() {
    let shop = Installation::new("wrong-check");
    shop.deploy(&set(app("web"), "/replicas", 1));
    let (containers, generation) = (shop.containers(), shop.balancer().generation());
    let load = Load::start(shop.load_on("web"));
    let wrong = set(set(app("web"), "/replicas", 1), "/health/path", "/nonesuch");
    for (what, web) in
        [("alone", wrong.clone()), ("with a new version", set(wrong, "/image", "web:2"))]
    {
        shop.write_app(&web);
        shop.repository.push(what);
        let (code, plan) = shop.apply();
        assert_eq!(code, 1, "{what}: {plan:?}");
        let status = shop.status();
        let app = status.app("production/web");
        let said = app.conditions.iter().any(|c| c.message.contains("/nonesuch answered 404"));
        assert!(said, "{what}: {app:?}");
        assert_eq!(shop.get("web").unwrap().status, 200, "{what}");
    }
    assert_eq!((shop.containers(), shop.balancer().generation()), (containers, generation));

    // One that they answer is taken, with one reload.
    shop.deploy(&set(set(app("web"), "/replicas", 1), "/health/path", "/"));
    assert_eq!(shop.containers().len(), 2);
    load.stop().expect_none_lost(100);
}
