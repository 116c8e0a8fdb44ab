//! The fault catalogue's part on HAProxy, line by line: real HAProxy, real engines, the real
//! binary. Each test is named after its line, reads what a person would read, and ends with
//! everything converged and nothing left to do.

#[path = "faults/b_haproxy_program.rs"]
mod haproxy_program;
mod harness;
#[path = "faults/b_wire.rs"]
mod wire;
#[path = "faults/b_words.rs"]
mod words;

use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use haproxy_program::haproxy_that;
use harness::{Installation, Load, app, document, set, signal, wait_until};
use wire::{Break, Wire};
use words::{apply, events, expect_words, let_users_come, said, status};

const BACKEND: &str = "production.web";

/// One container on each host.
fn web() -> Value {
    set(app("web"), "/replicas", 1)
}

/// Balancer `edge` with one more listener.
fn with_listener(shop: &Installation, bind: &str) -> Value {
    let spec = json!({
        "listen": [
            {"name": "web", "bind": format!("127.0.0.1:{}", shop.http_port())},
            {"name": "more", "bind": bind},
        ],
        "stats": format!("127.0.0.1:{}", shop.ports.balancer_port(1)),
        "xHost": true,
    });
    document("Balancer", "edge", &spec)
}

fn socket(shop: &Installation, name: &str) -> std::path::PathBuf {
    shop.state().join("haproxy/edge").join(name)
}

/// The files of HAProxy that a person, or the next start, would find.
fn files(shop: &Installation) -> (String, String) {
    let routes = shop.state().join("haproxy/edge/routes.map");
    (shop.balancer().file(), std::fs::read_to_string(routes).unwrap())
}

#[test]
fn h1_a_file_that_haproxy_refuses_is_never_live() {
    let shop = Installation::new("h1");
    shop.deploy(&web());
    let (before, generation) = (files(&shop), shop.balancer().generation());
    let load = Load::start(shop.load_on("web"));

    let complaint = "[ALERT] (1) : parsing [haproxy.cfg.new:7]: unknown keyword 'plimsole'";
    let refuse = format!("if [ -n \"$check\" ]; then echo \"{complaint}\" >&2; exit 1; fi");
    let refusing = haproxy_that(shop.folder(), &refuse);
    let port = shop.ports.balancer_port(2);
    shop.write("balancers/edge.yaml", &with_listener(&shop, &format!("127.0.0.1:{port}")));
    shop.repository.push("A listener more");
    let output = shop.plimsoll(["apply", "--haproxy", refusing.to_str().unwrap()]).expect(1);
    expect_words(&said(&output), &["haproxy -c refused", complaint]);
    assert_eq!(files(&shop), before, "the live files are untouched");
    assert_eq!(shop.balancer().generation(), generation, "nothing was reloaded");
    assert!(!shop.state().join("haproxy/edge/haproxy.cfg.new").exists());
    expect_words(&events(&shop), &["haproxy -c refused", complaint]);

    // With a HAProxy that takes it.
    shop.converge();
    assert!(shop.balancer().file().contains(&format!("127.0.0.1:{port}")));
    let_users_come(&load, 100);
    load.stop().expect_none_lost(100);
}

#[test]
fn h2_new_bind_port_taken_or_address_not_there_is_refused_before_the_reload() {
    let shop = Installation::new("h2");
    shop.deploy(&web());
    let (before, generation) = (files(&shop), shop.balancer().generation());
    let port = shop.ports.balancer_port(2);
    let holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let load = Load::start(shop.load_on("web"));

    let taken = format!("127.0.0.1:{port}");
    for (bind, why) in [
        (taken.as_str(), "another process listens there"),
        ("203.0.113.5:80", "the machine has no such address"),
    ] {
        shop.write("balancers/edge.yaml", &with_listener(&shop, bind));
        shop.repository.push(&format!("Listen on {bind}"));
        let (code, text) = apply(&shop);
        assert_eq!(code, 1, "{text}");
        expect_words(&text, &[bind, "can't be bound", why]);
        expect_words(&events(&shop), &[bind, why]);
        assert_eq!(files(&shop), before, "{bind}");
        assert_eq!(shop.balancer().generation(), generation, "{bind}");
    }
    drop(holder);
    shop.write("balancers/edge.yaml", &with_listener(&shop, &taken));
    shop.repository.push("The port is free now");
    shop.converge();
    let_users_come(&load, 100);
    load.stop().expect_none_lost(200);
}

#[test]
fn h3_a_new_file_that_is_cut_at_a_line_is_refused() {
    let shop = Installation::new("h3");
    shop.deploy(&web());
    let (before, generation) = (files(&shop), shop.balancer().generation());
    let load = Load::start(shop.load_on("web"));

    // Between its writing and its being taken up the file loses its last lines, as on a disk
    // that fills up. What is left is valid for `haproxy -c`.
    let cut = "if [ -n \"$check\" ]; then head -n -6 \"$check\" >\"$check.cut\"; \
               cat \"$check.cut\" >\"$check\"; rm \"$check.cut\"; fi";
    let cutting = haproxy_that(shop.folder(), cut);
    let bind = format!("127.0.0.1:{}", shop.ports.balancer_port(2));
    shop.write("balancers/edge.yaml", &with_listener(&shop, &bind));
    shop.repository.push("A listener more");
    let output = shop.plimsoll(["apply", "--haproxy", cutting.to_str().unwrap()]).expect(1);
    expect_words(&said(&output), &["haproxy.cfg.new", "isn't what was written"]);
    assert_eq!(files(&shop), before, "the live files are untouched");
    assert_eq!(shop.balancer().generation(), generation, "nothing was reloaded");
    shop.converge();

    // The live file is cut: it is seen, said, and written anew, and nobody notices.
    let whole = shop.balancer().file();
    let lines: Vec<_> = whole.lines().collect();
    let cut = lines[..lines.len() - 6].join("\n") + "\n";
    std::fs::write(shop.state().join("haproxy/edge/haproxy.cfg"), cut).unwrap();
    let (code, text) = apply(&shop);
    assert_eq!(code, 0, "{text}");
    expect_words(&text, &["haproxy.cfg"]);
    assert_eq!(shop.balancer().file(), whole);
    shop.expect_nothing_to_do();
    let_users_come(&load, 100);
    load.stop().expect_none_lost(200);
}

#[test]
fn h4_a_reload_that_is_signalled_and_not_taken_is_no_success() {
    let shop = Installation::new("h4");
    shop.deploy(&web());
    let (before, generation) = (files(&shop), shop.balancer().generation());
    let load = Load::start(shop.load_on("web"));

    let wire = Wire::before(&socket(&shop, "master.sock"));
    wire.plan("reload", Break::Swallow);
    let bind = format!("127.0.0.1:{}", shop.ports.balancer_port(2));
    shop.write("balancers/edge.yaml", &with_listener(&shop, &bind));
    shop.repository.push("A listener more");
    let (code, text) = apply(&shop);
    assert_eq!(code, 1, "{text}");
    assert!(wire.hits() > 0);
    expect_words(&text, &["the reload didn't take", "there is no new worker"]);
    assert_eq!(files(&shop), before, "the file that isn't served was taken back");
    drop(wire);
    assert_eq!(shop.balancer().generation(), generation);

    shop.converge();
    assert_ne!(shop.balancer().generation(), generation);
    let_users_come(&load, 100);
    load.stop().expect_none_lost(200);
}

/// HAProxy reloads, and nobody can read it back: that isn't believed to be a success, whatever
/// comes in place of the answers.
#[test]
fn h4_a_reload_that_cannot_be_read_back_is_no_success() {
    let shop = Installation::new("h4-back");
    shop.deploy(&web());
    let (containers, generation) = (shop.containers(), shop.balancer().generation());
    let before = files(&shop);
    let load = Load::start(shop.load_on("web").through_reloads());
    let wire = Wire::before(&socket(&shop, "master.sock"));
    let broken = [Break::LoseAnswer, Break::Garbage, Break::Half, Break::Swallow, Break::Stall];
    wire.plan_after_reload("show proc", &broken);
    let port = shop.ports.balancer_port(2);
    shop.write("balancers/edge.yaml", &with_listener(&shop, &format!("127.0.0.1:{port}")));
    shop.repository.push("Another listener, and a reload that can't be read back");
    let (code, text) = apply(&shop);
    assert!(wire.hits() >= broken.len() as u64, "{} answers were broken: {text}", wire.hits());
    assert_eq!(code, 1, "{text}");
    expect_words(&text, &["look at the processes on balancer edge", "HAProxy says"]);
    let told = ["StepRetried", "the reload didn't take", "no new generation within 10s"];
    expect_words(&events(&shop), &told);
    expect_words(&status(&shop), &["edge", "no"]);
    assert_eq!(files(&shop), before, "a file that nobody is known to serve was taken back");
    assert_eq!(shop.containers(), containers, "nothing is stopped while nobody sees who serves");
    drop(wire);
    // What is seen then decides.
    shop.converge();
    assert_ne!(shop.balancer().generation(), generation);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert_eq!(shop.containers(), containers);

    // The answer to the reload itself is lost, as HAProxy does it too: what is read back counts.
    let generation = shop.balancer().generation();
    let wire = Wire::before(&socket(&shop, "master.sock"));
    wire.plan("reload", Break::LoseAnswer);
    let bind = format!("127.0.0.1:{}", shop.ports.balancer_port(3));
    shop.write("balancers/edge.yaml", &with_listener(&shop, &bind));
    shop.repository.push("Another listener, and no answer to the reload");
    let (code, text) = apply(&shop);
    assert_eq!((code, wire.hits()), (0, 1), "{text}");
    drop(wire);
    assert_ne!(shop.balancer().generation(), generation);
    shop.expect_nothing_to_do();
    let_users_come(&load, 100);
    load.stop().expect_none_lost(500);
}

/// How often the worker was replaced, as the master counts it.
fn reloads(shop: &Installation) -> u32 {
    let answer = wire::ask(&socket(shop, "master.sock"), "show proc\n").unwrap();
    let processes = String::from_utf8(answer).unwrap();
    let master = processes.lines().find(|line| line.contains("master")).unwrap();
    master.split_whitespace().nth(2).unwrap().parse().unwrap()
}

#[test]
fn h6_a_hundred_commits_make_few_reloads() {
    let shop = Installation::new("h6");
    let commit = shop.deploy(&web());
    let mut controller = shop.start();
    controller.wait_for_commit(&commit);
    let (before, containers) = (reloads(&shop), shop.containers());
    let load = Load::start(shop.load_on("web").through_reloads());

    // Every one of them changes the structure of HAProxy's file, and no container.
    let mut last = String::new();
    let begin = tokio::time::Instant::now();
    for number in 1..=100 {
        let interval = format!("{}ms", 500 + number);
        shop.write_app(&set(web(), "/health/interval", interval));
        last = shop.repository.push(&format!("Check every {} ms", 500 + number));
    }
    controller.wait_for_commit(&last);
    let made = reloads(&shop) - before;
    println!("{made} reloads for 100 commits");
    // The loop looks at the remote once a second, and what it finds then is one reload.
    let most = 20.max(begin.elapsed().as_secs() as u32 + 1);
    assert!((1..=most.min(50)).contains(&made), "{made} reloads for 100 commits, not {most}");
    assert_eq!(shop.containers(), containers);
    controller.stop();
    shop.expect_nothing_to_do();

    // Six new apps in one commit are one reload.
    let before = reloads(&shop);
    for number in 0..6 {
        let new = set(app(&format!("new{number}")), "/replicas", json!({"alpha": 1, "beta": 0}));
        shop.write_app(&new);
    }
    shop.repository.push("Six apps");
    shop.converge();
    assert_eq!(reloads(&shop) - before, 1);
    let_users_come(&load, 100);
    load.stop().expect_none_lost(500);
}

#[test]
fn h8_a_haproxy_that_is_killed_comes_back_with_the_weights_of_its_file() {
    let shop = Installation::new("h8");
    shop.deploy(&set(web(), "/weights", json!({"alpha": 100, "beta": 50})));
    let (declared, before) = (shop.balancer().weights(BACKEND), files(&shop));
    let containers = shop.containers();
    for which in ["worker", "master"] {
        let balancer = shop.balancer();
        let pid = if which == "worker" { balancer.worker() } else { balancer.master() };
        signal(pid, Signal::KILL);
        wait_until(Duration::from_secs(10), "HAProxy is gone", || shop.get("web").is_err());
        let plan = shop.diff();
        assert!(!plan.steps.is_empty(), "{which}: it is seen");
        let (code, text) = apply(&shop);
        assert_eq!(code, 0, "{text}");
        assert_eq!(balancer.weights(BACKEND), declared, "{which}");
        assert_eq!(shop.get("web").unwrap().status, 200);
        shop.expect_nothing_to_do();
        assert_eq!(files(&shop), before, "{which}");
    }
    assert_eq!(shop.containers(), containers);
    let load = Load::start(shop.load_on("web"));
    let_users_come(&load, 100);
    load.stop().expect_none_lost(100);
}

#[test]
fn h9_no_such_server_is_an_error_and_what_is_read_back_decides() {
    let shop = Installation::new("h9");
    shop.deploy(&set(web(), "/weights", json!({"alpha": 100, "beta": 100})));
    let load = Load::start(shop.load_on("web"));

    // A person deletes a server from the process: the file still has it.
    let (server, _) = shop.balancer().weights(BACKEND).pop_first().unwrap();
    for command in ["set server NAME state maint", "del server NAME"] {
        let command = command.replace("NAME", &format!("{BACKEND}/{server}"));
        wait_until(Duration::from_secs(10), "the server can be deleted", || {
            let answer = shop.balancer().runtime(&command).unwrap();
            answer.trim().is_empty() || answer.contains("deleted")
        });
    }
    assert_eq!(shop.balancer().servers_of(BACKEND).len(), 1);
    assert!(!shop.diff().steps.is_empty(), "it is seen");
    shop.converge();
    assert_eq!(shop.balancer().servers_of(BACKEND).len(), 2);

    // HAProxy refuses with a text instead of a status.
    let wire = Wire::before(&socket(&shop, "runtime.sock"));
    wire.plan("weight 40", Break::Say("No such server."));
    let declared = set(web(), "/weights", json!({"alpha": 100, "beta": 40}));
    shop.write_app(&declared);
    shop.repository.push("Less for beta");
    let (code, text) = apply(&shop);
    assert_eq!(code, 1, "{text}");
    expect_words(&text, &["HAProxy says", "No such server."]);
    expect_words(&events(&shop), &["No such server."]);
    wire.heal();

    // The answer is lost, though HAProxy did it: it isn't believed, it is read back.
    wire.plan("weight 40", Break::LoseAnswer);
    let (_, text) = apply(&shop);
    assert!(wire.hits() > 1, "{text}");
    drop(wire);
    shop.converge();
    let weights = shop.balancer().weights(BACKEND);
    assert!(weights.iter().any(|(_, weight)| *weight == 40), "{weights:?}");
    let_users_come(&load, 100);
    load.stop().expect_none_lost(100);
}

#[test]
fn h10_what_a_person_changes_at_runtime_is_reported_and_healed() {
    let shop = Installation::new("h10");
    shop.deploy(&set(web(), "/weights", json!({"alpha": 100, "beta": 50})));
    let declared = shop.balancer().weights(BACKEND);
    let generation = shop.balancer().generation();
    let load = Load::start(shop.load_on("web"));
    let (server, weight) = declared.first_key_value().unwrap();
    for command in ["weight 7", "state drain", "state maint", "weight 0"] {
        shop.balancer().runtime(&format!("set server {BACKEND}/{server} {command}")).unwrap();
        let shown = said(&shop.plimsoll(["diff"]).expect(1));
        expect_words(&shown, &[server, &weight.to_string()]);
        let state = shop.status();
        assert_eq!(state.app("production/web").sync, "OutOfSync", "{command}: {state:?}");
        shop.converge();
        assert_eq!(shop.balancer().weights(BACKEND), declared, "{command}");
        assert!(shop.balancer().servers_of(BACKEND).iter().all(|s| s.serves()), "{command}");
    }
    assert_eq!(shop.balancer().generation(), generation);
    expect_words(&events(&shop), &["WeightChanged", server]);
    load.stop().expect_none_lost(100);
}

#[test]
fn h11_a_reload_by_somebody_else_loses_no_weight() {
    let shop = Installation::new("h11");
    shop.deploy(&set(app("web"), "/weights", json!({"alpha": 100, "beta": 100})));
    // Now by runtime commands: weights, a server that left, one that came.
    shop.deploy(&set(web(), "/weights", json!({"alpha": 90, "beta": 7})));
    let (declared, file) = (shop.balancer().weights(BACKEND), files(&shop));
    let load = Load::start(shop.load_on("web"));

    let worker = shop.balancer().worker();
    signal(shop.balancer().master(), Signal::USR2);
    wait_until(Duration::from_secs(10), "a new worker", || {
        let info = shop.balancer().runtime("show info").unwrap_or_default();
        info.contains("Pid: ") && !info.contains(&format!("Pid: {worker}\n"))
    });
    wait_until(Duration::from_secs(10), "the servers are checked", || {
        shop.balancer().try_servers().is_ok_and(|s| s.iter().filter(|s| s.serves()).count() == 2)
    });
    assert_eq!(shop.balancer().weights(BACKEND), declared);
    shop.expect_nothing_to_do();
    assert_eq!(files(&shop), file);
    let_users_come(&load, 100);
    // A worker that ends may close a kept connection at the very moment at which a request is
    // sent on it (HAPROXY.md: 26 in a million). Nothing else may be lost.
    let report = load.stop();
    assert!(report.good > 100 && report.lost() == report.reset && report.reset < 5, "{report:#?}");
}

#[test]
fn h12_a_file_that_a_person_edits_is_reported_and_restored() {
    let shop = Installation::new("h12");
    shop.deploy(&web());
    let before = files(&shop);
    let load = Load::start(shop.load_on("web"));
    let path = shop.state().join("haproxy/edge/haproxy.cfg");
    for (edited, words) in [
        (format!("{}# tuned by hand\n", before.0), "somebody added to it"),
        (before.0.replace("weight 100", "weight 7"), "it was edited"),
        (before.0.replacen("mode http", "mode tcp", 1), "it was edited"),
    ] {
        assert_ne!(edited, before.0);
        std::fs::write(&path, edited).unwrap();
        let shown = said(&shop.plimsoll(["diff"]).expect(1));
        expect_words(&shown, &["haproxy.cfg", words]);
        expect_words(&status(&shop), &["haproxy.cfg", words]);
        shop.converge();
        assert_eq!(files(&shop), before);
    }
    expect_words(&events(&shop), &["FileDamaged", "haproxy.cfg", "it was edited"]);
    let_users_come(&load, 100);
    load.stop().expect_none_lost(100);
}

#[test]
fn h14_a_frozen_socket_is_a_timeout_and_no_step_counts_as_done() {
    let shop = Installation::new("h14");
    shop.deploy(&web());
    let containers = shop.containers();
    let load = Load::start(shop.load_on("web"));
    shop.write_app(&set(web(), "/image", "web:2"));
    shop.repository.push("Version 2, while HAProxy doesn't answer");

    let wire = Wire::before(&socket(&shop, "runtime.sock"));
    // Frozen when the look comes.
    wire.plan("", Break::Stall);
    let (code, text) = apply(&shop);
    assert_eq!(code, 1, "{text}");
    expect_words(&text, &["balancer edge", "no answer", "within 5s"]);
    expect_words(&status(&shop), &["edge", "no answer"]);
    let kept = |shop: &Installation| {
        let now = shop.containers();
        containers.iter().all(|(name, id)| now.get(name) == Some(id))
    };
    assert!(kept(&shop), "what serves isn't stopped while nobody sees who serves");

    // Frozen in the middle, at the moment of a weight.
    wire.plan("weight 100", Break::Stall);
    let (code, text) = apply(&shop);
    assert_eq!(code, 1, "{text}");
    expect_words(&text, &["no answer"]);
    assert!(kept(&shop), "no old one is stopped where the new one's weight isn't known");

    // Answers that can't be relied on are no answers either.
    for broken in [Break::Garbage, Break::Half] {
        wire.plan("show servers state", broken);
        let (code, text) = apply(&shop);
        assert_eq!(code, 1, "{broken:?}: {text}");
        assert!(kept(&shop), "{broken:?}");
    }
    drop(wire);
    shop.converge();
    assert!(shop.get("web").unwrap().text().contains("version=2"));
    let_users_come(&load, 100);
    load.stop().expect_none_lost(500);

    // One that hangs up on every question isn't frozen: it counts as down, and another takes its
    // listeners over.
    let wire = Wire::before(&socket(&shop, "runtime.sock"));
    wire.plan("show servers state", Break::Swallow);
    let (code, text) = apply(&shop);
    assert_eq!(code, 0, "{text}");
    expect_words(&events(&shop), &["Reloaded", "edge"]);
    drop(wire);
    shop.expect_nothing_to_do();
    assert_eq!(shop.get("web").unwrap().status, 200);

    // The process itself is frozen, and wakes up again.
    let worker = shop.balancer().worker();
    signal(worker, Signal::STOP);
    let text = status(&shop);
    signal(worker, Signal::CONT);
    expect_words(&text, &["edge", "no answer"]);
    wait_until(Duration::from_secs(10), "it serves", || shop.get("web").is_ok());
    shop.converge();
}

/// A look that waits for an answer held up the end once.
#[test]
fn c5_sigterm_while_haproxy_is_frozen_ends_at_once() {
    let shop = Installation::new("c5-frozen");
    shop.deploy(&web());
    let mut controller = shop.start();
    controller.wait_for_status("it has looked", |status| {
        status.app("production/web").health == "Healthy"
    });
    let wire = Wire::before(&socket(&shop, "runtime.sock"));
    wire.plan("", Break::Stall);
    wait_until(Duration::from_secs(10), "a look waits for HAProxy", || wire.hits() > 0);
    let took = controller.stop();
    assert!(took < Duration::from_secs(3), "nothing was in progress, and it took {took:?}");
    drop(wire);
    shop.expect_nothing_to_do();
}
