//! The fault catalogue's part on Docker hosts, line by line: real engines, a real registry, real
//! HAProxy, the real binary. Each test is named after its line, reads what a person would read,
//! and ends with everything converged and nothing left to do.

#[path = "faults/b_engine.rs"]
mod engine;
#[path = "harness/engine_proxy.rs"]
mod engine_proxy;
mod harness;
#[path = "faults/b_registry.rs"]
mod registry;
#[path = "faults/b_words.rs"]
mod words;

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use engine::BrokenEngine;
use engine_proxy::Fault;
use harness::{
    Controller, Engine, Fleet, Gate, Installation, Load, LoadOptions, LowestServing, Output,
    Registry, app, host, run, set, wait_until,
};
use registry::{RegistryProxy, Trouble};
use words::{apply, events, expect_words, let_users_come, said, status};

const BACKEND: &str = "production.web";

/// One container on each host.
fn web() -> Value {
    set(app("web"), "/replicas", 1)
}

/// One container, on alpha.
fn alone(name: &str) -> Value {
    set(set(app(name), "/replicas", 1), "/hosts", json!(["alpha"]))
}

#[test]
fn d1_an_engine_that_answers_nonsense_or_nothing_is_an_error_and_is_tried_again() {
    let shop = Installation::new("d1");
    let fleet = Fleet::shared();
    let broken = BrokenEngine::before(&fleet.beta);
    shop.write("hosts/beta.yaml", &broken.host(&shop, "beta", "127.0.0.2"));
    shop.deploy(&web());
    let containers = shop.containers();
    let load = Load::start(shop.load_on("web"));

    // Nothing can be seen: unknown isn't gone.
    for (fault, words) in [
        (Fault::Status(500), "status 500 on purpose"),
        (Fault::Close, "beta"),
        (Fault::Garbage, "beta"),
        (Fault::BadBody, "its reply is cut short or can't be understood"),
        (Fault::Silence, "no answer within"),
    ] {
        broken.plan("/containers/json", fault);
        let (code, text) = apply(&shop);
        assert_eq!(code, 1, "{fault:?}: {text}");
        expect_words(&text, &["host beta", words]);
        let seen = shop.status();
        let beta = seen.hosts.iter().find(|host| host.name == "beta").unwrap();
        assert!(!beta.reachable, "{fault:?}: {beta:?}");
        assert!(beta.message.as_ref().is_some_and(|m| m.contains(words) || words == "beta"));
        assert_eq!(shop.containers(), containers, "{fault:?}");
        broken.heal();
        shop.expect_nothing_to_do();
    }

    // Each call that changes something goes wrong, and is tried again by itself.
    for (number, (fault, times)) in [
        (Fault::Status(500), 2),
        (Fault::Status(503), 1),
        (Fault::Close, 2),
        (Fault::Garbage, 2),
        // What was done isn't asked for again, though nobody heard of it.
        (Fault::LoseReply, 1),
    ]
    .into_iter()
    .enumerate()
    {
        shop.write_app(&set(web(), "/env/NUMBER", number.to_string()));
        shop.repository.push(&format!("Every change suffers {fault:?}"));
        let changes = ["/containers/create", "/start", "/stop", "DELETE "];
        broken.plan_each(&changes.map(|part| (part, fault, times)));
        let (code, text) = apply(&shop);
        assert_eq!(code, 0, "{fault:?}: {text}");
        assert_eq!(broken.left(), Vec::<String>::new(), "{fault:?}: calls that didn't suffer");
        let created = |line: &&String| line.contains("/containers/create");
        let asked = broken.seen().iter().filter(created).count();
        assert_eq!(asked, times + 1, "{fault:?}: it is asked until it is answered");
        expect_words(&events(&shop), &["StepRetried"]);
        shop.expect_nothing_to_do();
        assert_eq!(shop.containers().len(), 2, "{fault:?}: nothing is made twice");
        broken.heal();
    }
    let_users_come(&load, 100);
    load.stop().expect_none_lost(500);
}

#[test]
fn d1_an_engine_whose_socket_is_missing_is_an_error_and_is_tried_again() {
    let shop = Installation::new("d1-socket");
    let path = shop.folder().join("beta.sock");
    let mut gate = Gate::open(&Fleet::shared().beta, &path);
    let ports = shop.ports.container_ports();
    shop.write("hosts/beta.yaml", &host("beta", &gate.engine(), "127.0.0.2", &ports));
    shop.deploy(&web());
    let containers = shop.containers();
    let load = Load::start(shop.load_on("web"));
    gate.close();
    let (code, text) = apply(&shop);
    assert_eq!(code, 1, "{text}");
    expect_words(&text, &["host beta", path.to_str().unwrap(), "No such file"]);
    // The socket is there, and nobody listens: as after a crash of the engine.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (code, text) = apply(&shop);
    assert_eq!(code, 1, "{text}");
    expect_words(&text, &["host beta", path.to_str().unwrap(), "onnection refused"]);

    // It is there, and isn't for us. Root may open every socket, but for one without that power.
    gate.reopen();
    let mode = |bits| std::os::unix::fs::PermissionsExt::from_mode(bits);
    std::fs::set_permissions(&path, mode(0o000)).unwrap();
    let said = said(&without_power(&shop, &["apply"]));
    expect_words(&said, &["host beta", path.to_str().unwrap(), "ermission denied"]);
    assert_eq!(shop.containers(), containers, "unknown isn't gone");
    std::fs::set_permissions(&path, mode(0o600)).unwrap();
    shop.expect_nothing_to_do();
    load.stop().expect_none_lost(100);
    shop.converge();
    assert_eq!(shop.containers(), containers);
}

/// `plimsoll` as a root that permissions hold for.
fn without_power(shop: &Installation, words: &[&str]) -> Output {
    let command = shop.command(words.iter().copied());
    let mut setpriv = Command::new("setpriv");
    setpriv.arg("--bounding-set=-dac_override,-dac_read_search");
    setpriv.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => setpriv.env(name, value),
            None => setpriv.env_remove(name),
        };
    }
    run(setpriv.current_dir(shop.folder()))
}

#[test]
fn d3_a_name_that_a_foreign_container_holds_is_left_to_it() {
    let fleet = Fleet::shared();
    let shop = Installation::new("d3");
    let first = alone("web");
    shop.deploy(&first);
    let (name, _) = shop.containers().pop_first().unwrap();
    let name = name.strip_prefix("alpha/").unwrap().to_owned();
    shop.deploy(&set(first.clone(), "/image", "web:2"));
    let load = Load::start(shop.load_on("web"));

    // The name of the first version's container is somebody else's by now.
    let foreign = fleet.alpha.run_foreign(["--name", &name, "web:3"]);
    let started = |id: &str| fleet.alpha.inspect(id).map(|c| c["State"]["StartedAt"].clone());
    let (before, serving) = (started(&foreign), shop.containers());
    shop.write_app(&first);
    shop.repository.push("Back to the first version");
    let (code, text) = apply(&shop);
    assert_eq!(code, 1, "{text}");
    let words = format!("the name {name} is in use by container {foreign}, which isn't ours");
    expect_words(&text, &[&words, "production/web"]);
    expect_words(&events(&shop), &[&words]);
    let seen = shop.status();
    assert_eq!(seen.app("production/web").sync, "OutOfSync", "{seen:?}");
    assert!(before.is_some() && started(&foreign) == before, "it isn't touched");
    assert_eq!(shop.containers(), serving, "the old one serves on");
    assert!(shop.get("web").unwrap().text().contains("version=2"));

    // With the name free, nothing is in the way.
    fleet.alpha.remove(&foreign);
    shop.converge();
    assert!(shop.get("web").unwrap().text().contains("version=1"));
    load.stop().expect_none_lost(100);
}

#[test]
fn d5_published_port_taken_means_another_port_and_the_old_one_serves() {
    let fleet = Fleet::shared();
    let shop = Installation::new("d5");
    let first = alone("web");
    shop.deploy(&first);
    let load = Load::start(shop.load_on("web"));

    // Processes that no engine knows of hold the ports that come next.
    let range = shop.ports.first_container_port();
    let held: Vec<TcpListener> =
        (range..range + 4).filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).collect();
    assert_eq!(held.len(), 3, "one of four is the app's own");
    shop.write_app(&set(first.clone(), "/image", "web:2"));
    shop.repository.push("Version 2");
    let (code, text) = apply(&shop);
    assert_eq!(code, 0, "{text}");
    expect_words(&text, &["of host alpha is taken", "address already in use"]);
    expect_words(&events(&shop), &["of host alpha is taken"]);
    assert!(shop.get("web").unwrap().text().contains("version=2"));
    assert_eq!(shop.containers().len(), 1);
    let (name, id) = shop.containers().pop_first().unwrap();
    let ports = fleet.alpha.docker(["port", &id]).expect(0);
    assert!(ports.text().contains(&format!(":{}", range + 4)), "{name}: {ports}");
    shop.expect_nothing_to_do();
    load.stop().expect_none_lost(100);
    drop(held);
    shop.expect_nothing_to_do();
}

/// Makes an image that no engine has, in the registry.
fn publish(registry: &Registry, engine: &Engine, number: usize) -> String {
    let name = format!("shop/web:{number}");
    let container = engine.docker(["create", "web:2"]).expect(0).text().to_owned();
    let change = format!("ENV NUMBER={number}");
    engine.docker(["commit", "--change", &change, &container, "plimsoll-d6"]).expect(0);
    registry.push(engine, "plimsoll-d6", &name);
    engine.docker(["rm", &container]).expect(0);
    engine.docker(["rmi", "plimsoll-d6"]).expect(0);
    name
}

#[test]
fn d6_a_pull_that_fails_shows_why_keeps_the_old_and_is_tried_again() {
    let fleet = Fleet::shared();
    let shop = Installation::new("d6");
    shop.deploy(&web());
    let containers = shop.containers();
    let real = Registry::start();
    let port = real.name("").trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    let way = RegistryProxy::before(port);
    let load = Load::start(shop.load_on("web"));

    // A tag that isn't there.
    shop.write_app(&set(web(), "/image", way.name("shop/web:none")));
    shop.repository.push("A tag that nobody pushed");
    let (code, text) = apply(&shop);
    assert_eq!(code, 1, "{text}");
    expect_words(&text, &["shop/web:none", "manifest unknown", "production/web"]);
    expect_words(&status(&shop), &["shop/web:none", "manifest unknown"]);
    assert_eq!(shop.containers(), containers);

    for (number, (trouble, words)) in [
        (Trouble::Status(401), "401"),
        (Trouble::Status(429), "toomanyrequests"),
        (Trouble::Cut, "connection broken"),
    ]
    .into_iter()
    .enumerate()
    {
        let image = way.name(&publish(&real, &fleet.alpha, number));
        way.plan(trouble);
        let mut app = set(web(), "/image", image.as_str());
        if number == 2 {
            // Also where the old one is to leave before the new one is made.
            app = set(app, "/rollout", json!({"surge": 0, "unavailable": 1}));
        }
        shop.write_app(&app);
        let serving = shop.containers();
        let mut commit = shop.repository.push(&format!("Image {number}, {trouble:?}"));
        let (code, text) = apply(&shop);
        assert_eq!(code, 1, "{trouble:?}: {text}");
        expect_words(&text, &[&image]);
        let text = text.to_lowercase();
        let words = words.to_lowercase();
        assert!(text.contains(&words), "{trouble:?}: {words:?} isn't said: {text}");
        let now = shop.containers();
        let kept = serving.iter().filter(|(name, id)| now.get(*name) == Some(id));
        assert_eq!(kept.count(), serving.len(), "{trouble:?}: the old ones serve");
        assert_eq!(shop.running().len(), 2, "{trouble:?}");

        way.heal();
        if number == 2 {
            // One leaves after the other: the load goes on.
            shop.write_app(&set(web(), "/image", image.as_str()));
            commit = shop.repository.push("One after the other");
        }
        shop.converge();
        assert!(shop.status().is_converged_at(&commit), "{trouble:?}");
    }

    // A registry that refuses isn't asked again and again: each pause is longer than the last.
    let serving = shop.containers();
    let image = way.name(&publish(&real, &fleet.alpha, 8));
    way.plan(Trouble::Status(429));
    let before = way.refused().len();
    shop.write_app(&set(web(), "/image", image.as_str()));
    let commit = shop.repository.push("An image of a registry that has had enough");
    let mut controller = shop.start();
    let mut asked = Vec::new();
    wait_until(Duration::from_secs(60), "the registry was asked again and again", || {
        // One try asks more than once: requests within half a second are one.
        asked = way.refused().split_off(before);
        asked.dedup_by(|later, first| later.duration_since(*first) < Duration::from_millis(500));
        asked.len() >= 4
    });
    let pauses: Vec<Duration> = asked.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses[2] > pauses[0] && pauses[1] > pauses[0], "it doesn't back off: {pauses:?}");
    assert_eq!(shop.containers(), serving, "the old ones serve");
    way.heal();
    controller.wait_for_commit(&commit);
    controller.stop();

    // Bytes that aren't those of the digest: the pull is tried for minutes, and who looks
    // meanwhile learns why.
    let serving = shop.containers();
    let image = way.name(&publish(&real, &fleet.alpha, 9));
    way.plan(Trouble::Changed);
    shop.write_app(&set(web(), "/image", image.as_str()));
    let commit = shop.repository.push("An image whose bytes are changed on the way");
    let mut controller = shop.start();
    controller.wait_for_status("the image is being pulled", |status| {
        status.app("production/web").health == "Progressing"
    });
    wait_until(Duration::from_secs(90), "the cause is told", || {
        let told = shop.plimsoll(["events"]).stdout;
        told.contains("StepRetried")
            && told.contains(&image)
            && told.contains("verification failed")
    });
    controller.wait_for_status("the status says why nothing comes of it", |status| {
        let conditions = &status.app("production/web").conditions;
        conditions.iter().any(|c| c.kind == "Synced" && c.message.contains("verification failed"))
    });
    assert_eq!(shop.containers(), serving, "the old ones serve");
    way.heal();
    controller.wait_for_commit(&commit);
    controller.stop();
    shop.expect_nothing_to_do();
    load.stop().expect_none_lost(300);
}

/// A version that fails, with the words that say how.
fn failing() -> Vec<(&'static str, Value, Vec<&'static str>)> {
    let failing = |pointer, value: &str| {
        set(set(set(web(), "/image", "web:2"), "/health/deadline", "3s"), pointer, value)
    };
    vec![
        ("never healthy", failing("/env/FAIL_STATUS", "1"), vec!["its health check fails"]),
        ("for ever starting", failing("/env/START_DELAY_MS", "600000"), vec!["its health check"]),
        ("never listens", failing("/env/NEVER_LISTEN", "1"), vec!["its health check fails"]),
    ]
}

/// Deploys a failing version under load; it has to be taken back, held, and let through again.
#[track_caller]
fn is_rolled_back_and_held(shop: &Installation, what: &str, manifest: &Value, words: &[&str]) {
    let before = shop.containers();
    let applied = shop.status().commit.applied;
    let load = Load::start(shop.load_on("web"));
    let lowest = LowestServing::watch(shop.balancer(), BACKEND);
    shop.write_app(manifest);
    shop.repository.push(what);
    let begin = Instant::now();
    let (code, text) = apply(shop);
    assert_eq!(code, 1, "{what}: {text}");
    assert!(begin.elapsed() < Duration::from_secs(40), "{what}: {:?}", begin.elapsed());
    expect_words(&text, words);
    expect_words(&events(shop), words);
    assert_eq!(shop.containers(), before, "{what}: the healthy old ones, and no others");

    // The hold is there to be seen, with what lifts it.
    let seen = shop.status();
    let web = seen.app("production/web");
    assert_eq!((web.sync.as_str(), web.health.as_str()), ("OutOfSync", "RolledBack"), "{what}");
    assert_eq!(seen.commit.applied, applied, "{what}");
    assert_eq!(seen.approvals.len(), 1, "{what}: {seen:?}");
    let approval = &seen.approvals[0];
    expect_words(&status(shop), words);
    expect_words(&status(shop), &["is held", &approval.id, "plimsoll approve"]);
    // Without a word from a person it isn't tried again.
    let (code, plan) = shop.apply();
    assert!(code == 1 && plan.steps.is_empty(), "{what}: {plan:?}");

    // A person lifts it: it is tried once more.
    shop.approve(&approval.id);
    assert!(shop.diff().steps_of("production/web").count() > 0, "{what}: it is tried again");
    let (code, text) = apply(shop);
    assert_eq!(code, 1, "{what}: {text}");
    expect_words(&text, words);
    assert_eq!(shop.containers(), before, "{what}");
    let lowest = lowest.stop();
    assert_eq!(lowest, before.len(), "{what}: fewer servers than the minimum");
    let_users_come(&load, 50);
    load.stop().expect_none_lost(50);
}

#[test]
fn d8_a_version_that_is_never_healthy_is_rolled_back_and_held() {
    let shop = Installation::new("d8");
    shop.deploy(&web());
    for (what, manifest, words) in failing() {
        is_rolled_back_and_held(&shop, what, &manifest, &words);
    }
    shop.deploy(&set(web(), "/image", "web:3"));
    assert!(shop.get("web").unwrap().text().contains("version=3"));
    assert!(shop.status().approvals.is_empty());
}

#[test]
fn d9_a_version_that_dies_while_the_old_one_drains_gives_the_weight_back() {
    let shop = Installation::new("d9");
    let first = set(alone("web"), "/drain", "30s");
    shop.deploy(&first);
    let before = shop.containers();
    // Requests that keep the old one from being drained.
    let slow = LoadOptions {
        path: "/slow?ms=8000".to_owned(),
        timeout: Duration::from_secs(20),
        users_of_each_kind: 1,
        requests_per_second: 1,
        ..shop.load_on("web")
    };
    let long = Load::start(slow);
    wait_until(Duration::from_secs(10), "requests are on the old one", || {
        long.so_far().requests > 0
    });
    let dying = set(set(first.clone(), "/image", "web:2"), "/env/EXIT_AFTER_MS", "3000");
    shop.write_app(&set(dying, "/env/EXIT_CODE", "3"));
    shop.repository.push("A version that dies after three seconds");
    let mut controller = shop.start();
    wait_until(Duration::from_secs(20), "the new one serves", || {
        shop.get("web").is_ok_and(|answer| answer.text().contains("version=2"))
    });
    let begin = Instant::now();
    controller.wait_for_status("it is rolled back", |status| {
        status.app("production/web").health == "RolledBack"
    });
    assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
    assert!(shop.get("web").unwrap().text().contains("version=1"));
    expect_words(&events(&shop), &["didn't stay up", "restarted"]);
    expect_words(&status(&shop), &["is held", "plimsoll approve"]);
    controller.wait_for_status("the dead one is gone", |_| shop.containers() == before);
    controller.stop();
    let long = long.stop();
    assert!(long.reset == 0 && long.timed_out == 0, "what was on the old one ended: {long:#?}");
    shop.deploy(&set(first, "/image", "web:3"));
    assert!(shop.get("web").unwrap().text().contains("version=3"));
}

#[test]
fn d10_a_crash_loop_never_counts_as_running() {
    let shop = Installation::new("d10");
    shop.deploy(&web());
    let crashing = set(set(web(), "/image", "web:2"), "/health/deadline", "4s");
    let crashing = set(set(crashing, "/env/EXIT_AFTER_MS", "50"), "/env/EXIT_CODE", "3");
    is_rolled_back_and_held(&shop, "a crash loop", &crashing, &["it exited with 3", "restarted"]);

    // A worker has no port: it has to run for a while without an end.
    let mut worker = set(alone("worker"), "/env/EXIT_AFTER_MS", "700");
    let spec = worker["spec"].as_object_mut().unwrap();
    for field in ["port", "routes", "health"] {
        spec.remove(field);
    }
    let worker = set(set(worker, "/env/EXIT_CODE", "4"), "/health/deadline", "6s");
    shop.write_app(&worker);
    shop.write_app(&web());
    shop.repository.push("A worker that ends");
    let (code, text) = apply(&shop);
    assert_eq!(code, 1, "{text}");
    expect_words(&text, &["it exited with 4"]);
    let seen = shop.status();
    assert_ne!(seen.app("production/worker").health, "Healthy", "{seen:?}");
    let well = set(worker, "/env/EXIT_AFTER_MS", "");
    shop.deploy(&well);
}

#[test]
fn d15_what_a_person_does_to_containers_is_seen_and_healed() {
    let fleet = Fleet::shared();
    let shop = Installation::new("d15");
    shop.deploy(&set(web(), "/hosts", json!(["alpha"])));
    let two = set(set(web(), "/hosts", json!(["alpha"])), "/replicas", 3);
    shop.deploy(&two);
    let load = Load::start(shop.load_on("web"));
    for words in [
        &["stop", "-t", "5"][..],
        &["rm", "-f"],
        &["kill"],
        &["pause"],
        &["kill", "-s", "STOP"],
        &["rename"],
        &["restart", "-t", "5"],
    ] {
        let (name, id) = shop.containers().pop_first().unwrap();
        let mut all = words.to_vec();
        all.push(&id);
        let other = format!("{}-by-hand", shop.name);
        if words == ["rename"] {
            all.push(&other);
        }
        fleet.alpha.docker(all).expect(0);
        if !matches!(words[0], "rename" | "restart") && words != ["kill", "-s", "STOP"] {
            let state = shop.status();
            let app = state.app("production/web");
            assert_eq!(app.sync, "OutOfSync", "{words:?} {name}: {app:?}");
            assert!(!shop.diff().steps.is_empty(), "{words:?}");
        }
        if words == ["kill", "-s", "STOP"] {
            // To the engine it runs; to HAProxy it is down.
            wait_until(Duration::from_secs(15), "HAProxy finds it down", || {
                shop.balancer().servers_of(BACKEND).iter().any(|s| s.status.starts_with("DOWN"))
            });
            assert_eq!(shop.status().app("production/web").health, "Degraded");
            fleet.alpha.docker(["kill", "-s", "CONT", &id]).expect(0);
        }
        wait_until(Duration::from_secs(15), "HAProxy has seen it", || {
            let servers = shop.balancer().servers_of(BACKEND);
            servers.iter().filter(|server| server.serves()).count() >= 2
        });
        let (code, text) = apply(&shop);
        assert_eq!(code, 0, "{words:?}: {text}");
        wait_until(Duration::from_secs(15), "all three serve", || {
            let servers = shop.balancer().servers_of(BACKEND);
            servers.len() == 3 && servers.iter().all(|server| server.serves())
        });
        shop.expect_nothing_to_do();
        assert_eq!(shop.running().len(), 3, "{words:?}");
    }
    // What was on a container when a person killed it is lost; nothing after that.
    let lost = load.so_far().lost();
    let_users_come(&load, 200);
    assert_eq!(load.stop().lost(), lost);
}

#[test]
fn d17_an_out_of_memory_kill_is_said_as_such() {
    let shop = Installation::new("d17");
    shop.deploy(&web());
    let hungry = set(set(web(), "/image", "web:2"), "/health/deadline", "6s");
    let hungry = set(set(hungry, "/env/EAT_MEMORY_MB", "200"), "/limits/memory", "24MiB");
    is_rolled_back_and_held(&shop, "too hungry", &hungry, &["killed at its memory limit"]);

    // An app that nothing can be rolled back to: its containers stay in their loop meanwhile.
    let mut hungry = set(alone("hungry"), "/env/EAT_MEMORY_MB", "200");
    hungry = set(set(hungry, "/limits/memory", "24MiB"), "/health/deadline", "90s");
    shop.write_app(&hungry);
    shop.write_app(&web());
    shop.repository.push("A hungry app");
    let mut controller = shop.start();
    controller.wait_for_status("the reason is shown", |status| {
        status.find("production/hungry").is_some_and(|app| {
            app.conditions.iter().any(|c| c.message.contains("killed at its memory limit"))
        })
    });
    let (name, _) = shop.containers_of("hungry").pop_first().unwrap();
    wait_until(Duration::from_secs(30), "describe says it", || {
        let described = shop.plimsoll(["describe", "container", &name]);
        described.stdout.contains("killed at its memory limit")
    });
    controller.stop();
    // With enough memory it runs.
    shop.deploy(&set(set(hungry, "/env/EAT_MEMORY_MB", "1"), "/limits/memory", "64MiB"));
}

#[test]
fn d18_a_program_that_ignores_sigterm_is_killed_at_its_grace() {
    let shop = Installation::new("d18");
    let stubborn = set(set(web(), "/env/IGNORE_SIGTERM", "1"), "/stop/grace", "2s");
    shop.deploy(&stubborn);
    let stubborn_ones = shop.containers();
    let load = Load::start(shop.load_on("web"));
    let begin = Instant::now();
    shop.deploy(&set(stubborn, "/image", "web:2"));
    let took = begin.elapsed();
    assert!((2.0..25.0).contains(&took.as_secs_f64()), "{took:?}");
    assert_eq!(shop.containers().len(), 2);
    // The engine tells what it sent: first the word to end, and after the grace the end.
    let fleet = Fleet::shared();
    for (name, id) in &stubborn_ones {
        let engine = if name.starts_with("alpha/") { &fleet.alpha } else { &fleet.beta };
        let format = "{{.TimeNano}} {{.Actor.Attributes.signal}}";
        let about = format!("container={id}");
        let filters = ["--filter", "event=kill", "--filter", &about, "--format", format];
        // The engine's client cuts the time off at the second that has begun.
        let words = ["events", "--since=5m", "--until=-1s"].into_iter().chain(filters);
        let told = engine.docker(words).expect(0);
        let signals: Vec<(u64, &str)> = told
            .text()
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(time, signal)| (time.parse().unwrap(), signal))
            .collect();
        let [(asked, "15"), (killed, "9")] = signals[..] else { panic!("{name}: {told}") };
        let grace = Duration::from_nanos(killed - asked);
        assert!((1.9..6.0).contains(&grace.as_secs_f64()), "{name}: {grace:?}");
    }
    load.stop().expect_none_lost(100);
}

#[test]
fn d19_one_host_of_two_is_unreachable_and_comes_back() {
    let mut fleet = Fleet::start();
    let shop = Installation::on(&fleet, "d19");
    shop.write_app(&alone("local"));
    let first = shop.deploy(&web());
    let mut controller: Controller<'_> = shop.start();
    controller.wait_for_commit(&first);
    let local = Load::start(shop.load_on("local"));
    let on_beta = fleet.beta.containers(&shop.name);

    fleet.kill(1);
    controller.wait_for_status("beta is unreachable", |status| {
        status.hosts.iter().any(|host| host.name == "beta" && !host.reachable)
    });
    // The others go on meanwhile.
    shop.write_app(&set(alone("local"), "/image", "web:2"));
    shop.write_app(&set(web(), "/image", "web:2"));
    let commit = shop.repository.push("Version 2, while beta is away");
    wait_until(Duration::from_secs(60), "local is at version 2", || {
        shop.get("local").is_ok_and(|answer| answer.text().contains("version=2"))
    });
    controller.wait_for_status("local is done, and web isn't known", |status| {
        let sync = |app: &str| status.app(app).sync.clone();
        sync("production/local") == "InSync" && sync("production/web") == "Unknown"
    });
    expect_words(&status(&shop), &["beta", "no", "production/web", "Unknown"]);
    assert_eq!(shop.get("web").unwrap().status, 200, "alpha serves");

    fleet.dockerds[1].run();
    let status = controller.wait_for_commit(&commit);
    assert!(status.hosts.iter().all(|host| host.reachable), "{status:?}");
    let now = fleet.beta.containers(&shop.name);
    assert!(now.len() == 1 && now.keys().all(|name| !on_beta.contains_key(name)), "{now:?}");
    controller.stop();
    shop.expect_nothing_to_do();
    local.stop().expect_none_lost(200);
    let output = shop.plimsoll(["doctor"]);
    expect_words(&said(&output), &["host beta"]);
}
