//! The fault catalogue's lines on what surrounds the controller: a wall clock that jumps, and lines
//! that are slow, lose packets or work in one direction only.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::bad_line::{BadLine, Delay, delayed};
use crate::harness::{
    Controller, Fleet, Installation, Load, LowestServing, app, document, run, set, wait_until,
};
use crate::words::{events, expect_words, let_users_come, status};

/// One container, on that host.
fn alone(name: &str, host: &str) -> Value {
    set(set(app(name), "/replicas", 1), "/hosts", json!([host]))
}

/// The library that makes a program believe in another time of day.
fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    libraries.find(|path| path.exists()).expect("`scripts/setup test` installs faketime")
}

#[test]
fn t1_a_wall_clock_that_jumps_by_a_year_moves_no_timer() {
    let shop = Installation::new("t1");
    // HAProxy is started here, with the right time.
    let commit = shop.deploy(&alone("web", "alpha"));
    let load = Load::start(shop.load_on("web"));
    let lowest = LowestServing::watch(shop.balancer(), "production.web");

    let offset = shop.folder().join("offset");
    let jump = |to: &str| {
        let beside = offset.with_extension("new");
        std::fs::write(&beside, format!("{to}\n")).unwrap();
        std::fs::rename(beside, &offset).unwrap();
    };
    jump("+0");
    let mut command = shop.command(["run", "--interval", "1s"]);
    command
        .env("LD_PRELOAD", faketime())
        .env("FAKETIME_TIMESTAMP_FILE", &offset)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let mut controller = Controller::spawn(&shop, &mut command);
    controller.wait_for_commit(&commit);

    // In the middle of a wait with a deadline, forth and back; what is slow isn't too slow, and
    // what is fetched is fetched again in a second.
    for (number, to) in ["+1y", "-1y", "+0"].into_iter().enumerate() {
        let before = shop.containers();
        let slow = set(alone("web", "alpha"), "/env/START_DELAY_MS", (3000 + number).to_string());
        shop.write_app(&slow);
        let commit = shop.repository.push(&format!("Slow to start, then {to}"));
        wait_until(Duration::from_secs(30), "it waits for the new one", || {
            shop.containers().keys().any(|name| !before.contains_key(name))
        });
        jump(to);
        let begin = Instant::now();
        controller.wait_for_commit(&commit);
        assert!(begin.elapsed() < Duration::from_secs(30), "{to}: {:?}", begin.elapsed());
        assert!(shop.status().approvals.is_empty(), "{to}: nothing is held");
        if to == "+1y" {
            let year: u32 = run(Command::new("date").arg("+%Y")).expect(0).text().parse().unwrap();
            expect_words(&events(&shop), &[&format!("{}-", year + 1)]);
        }
    }

    // A deadline that has to pass does so, a year back.
    jump("-1y");
    let bad = set(set(alone("web", "alpha"), "/env/FAIL_STATUS", "1"), "/health/deadline", "3s");
    shop.write_app(&bad);
    shop.repository.push("Never healthy");
    let begin = Instant::now();
    controller.wait_for_status("it is rolled back", |status| {
        status.app("production/web").health == "RolledBack"
    });
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    controller.stop();
    assert_eq!(lowest.stop(), 1, "a moment without a server");
    let_users_come(&load, 50);
    load.stop().expect_none_lost(200);
}

/// Host beta at that address.
fn host_at((host, port): (String, u16), shop: &Installation) -> Value {
    let ports = shop.ports.container_ports();
    let engine = format!("tcp://{host}:{port}");
    document("Host", "beta", &json!({"engine": engine, "address": "127.0.0.2", "ports": ports}))
}

#[test]
fn n1_loss_and_delay_make_it_slower_and_nothing_else() {
    const DELAY: Duration = Duration::from_secs(2);
    let mut shop = Installation::new("n1");
    let line = BadLine::to(&Fleet::shared().beta, shop.folder());
    let delay = Delay::default();
    let (engine, git) = (delayed(line.engine(), &delay), delayed(line.git(), &delay));
    shop.repository.reach_at(&format!("git://127.0.0.1:{git}/remote.git"));
    shop.write("hosts/beta.yaml", &host_at(("127.0.0.1".to_owned(), engine), &shop));
    shop.write_app(&alone("near", "alpha"));
    shop.deploy(&alone("far", "beta"));
    let load = Load::start(shop.load_on("far"));
    let lowest = LowestServing::watch(shop.balancer(), "production.far");

    line.lose(30);
    delay.set(DELAY);
    for name in ["near", "far"] {
        let host = if name == "near" { "alpha" } else { "beta" };
        shop.write_app(&set(alone(name, host), "/image", "web:2"));
    }
    let commit = shop.repository.push("Version 2, over a bad line");
    let (begin, before) = (Instant::now(), shop.containers());
    let mut controller = shop.start();
    // A packet that is lost again and again comes later and later.
    controller.deadline = Duration::from_secs(240);
    controller.wait_for_commit(&commit);
    let took = begin.elapsed();
    println!("an update over a line with 30 % loss and 2 s delay took {took:?}");
    assert!(took > DELAY * 4, "{took:?}: it wasn't slow at all");
    let now = shop.containers();
    assert_eq!(now.len(), 2, "{now:?}");
    assert!(now.keys().all(|name| !before.contains_key(name)), "{now:?}");
    for name in ["near", "far"] {
        assert!(shop.get(name).unwrap().text().contains("version=2"), "{name}");
    }
    controller.stop();
    line.heal();
    delay.set(Duration::ZERO);
    shop.expect_nothing_to_do();
    assert_eq!(lowest.stop(), 1, "a moment without a server");
    load.stop().expect_none_lost(300);
}

/// An update is in the middle of its work when the line is cut: what was asked for may be done, and
/// nobody hears of it.
#[track_caller]
fn keeps_what_is_there(name: &str, cut: fn(&BadLine)) {
    let shop = Installation::new(name);
    let line = BadLine::to(&Fleet::shared().beta, shop.folder());
    shop.write("hosts/beta.yaml", &host_at(line.engine(), &shop));
    shop.write_app(&alone("near", "alpha"));
    let commit = shop.deploy(&alone("far", "beta"));
    let load = Load::start(shop.load_on("far"));
    let lowest = LowestServing::watch(shop.balancer(), "production.far");
    let mut controller = shop.start();
    controller.wait_for_commit(&commit);
    let before = shop.containers_of("far");
    for (name, host) in [("near", "alpha"), ("far", "beta")] {
        shop.write_app(&set(alone(name, host), "/env/START_DELAY_MS", "500"));
    }
    let commit = shop.repository.push("Slow to start");
    wait_until(Duration::from_secs(30), "the update is under way", || {
        shop.containers_of("far").keys().any(|name| !before.contains_key(name))
    });
    cut(&line);
    controller.wait_for_status("beta isn't seen, and alpha is done", |status| {
        let sync = |app: &str| status.app(app).sync.clone();
        status.hosts.iter().any(|host| host.name == "beta" && !host.reachable)
            && sync("production/near") == "InSync"
            && sync("production/far") == "Unknown"
    });
    expect_words(&status(&shop), &["beta", "production/far", "Unknown"]);
    assert_eq!(shop.get("far").unwrap().status, 200, "what is there serves");
    line.heal();
    controller.wait_for_commit(&commit);
    let now = shop.containers_of("far");
    assert!(now.len() == 1 && !before.contains_key(now.keys().next().unwrap()), "{now:?}");
    controller.stop();
    shop.expect_nothing_to_do();
    assert_eq!(lowest.stop(), 1, "a moment without a server");
    let_users_come(&load, 50);
    load.stop().expect_none_lost(200);
}

#[test]
fn n2_a_line_on_which_no_answer_comes_keeps_what_is_there() {
    keeps_what_is_there("n2-answers", BadLine::cut_answers);
}

#[test]
fn n2_a_line_on_which_no_question_arrives_keeps_what_is_there() {
    keeps_what_is_there("n2-questions", BadLine::cut_questions);
}
