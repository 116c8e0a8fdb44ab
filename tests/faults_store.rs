//! The lines K4 to K7 and C5 of the fault catalogue, on real engines: whatever happens to the
//! state folder or to the process, no user notices, and the next look finds what is there.
//!
//! The store by itself, with its damage and its full disks, is in `tests/store.rs`; a controller
//! that is killed or asked to end, in `tests/loop/controller.rs`.

mod harness;
#[path = "faults/a_small_disk.rs"]
mod small_disk;

use std::process::{Child, Stdio};
use std::time::Duration;

use harness::{Installation, Load, LowestServing, app, set, wait_for, wait_until};
use rustix::process::Signal;
use small_disk::{BrittleDisk, SmallDisk};
use tokio::time::Instant;

/// Starts a rollout of `web` that takes a while, as `apply` in a process of its own, and returns
/// when its first new container is there.
fn begin_slow_apply(shop: &Installation) -> Child {
    let first = shop.containers();
    shop.write_app(&set(app("web"), "/env/START_DELAY_MS", "3000"));
    shop.repository.push("Slow to start");
    let apply =
        shop.command(["apply"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until(Duration::from_secs(60), "the rollout is under way", || {
        shop.containers().keys().any(|name| !first.contains_key(name))
    });
    apply
}

#[track_caller]
fn ends_within(process: &mut Child, deadline: Duration) -> i32 {
    let status = wait_for(deadline, "the process ends", || {
        process.try_wait().unwrap().ok_or_else(|| "it still runs".to_owned())
    });
    status.code().unwrap_or(-1)
}

/// What `status` says of the store by itself.
fn store_error(shop: &Installation) -> Option<String> {
    let status: serde_json::Value = shop.plimsoll(["status", "-o", "json"]).expect(0).json();
    status["storeError"].as_str().map(str::to_owned)
}

#[test]
fn k4_a_full_disk_degrades_the_controller_and_not_the_service() {
    let shop = Installation::new("k4");
    let disk = SmallDisk::mount(&shop.state(), 24 << 10);
    // Only the store is on it: what else lies in the state folder is on a disk with space.
    for name in ["haproxy", "source"] {
        let elsewhere = shop.folder().join(name);
        std::fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(elsewhere, shop.state().join(name)).unwrap();
    }
    let web = set(app("web"), "/replicas", 1);
    let first = shop.deploy(&web);
    let before = shop.containers();
    let load = Load::start(shop.load_on("web"));
    let mut controller = shop.start();
    controller.wait_for_commit(&first);
    assert!(store_error(&shop).is_none(), "{:?}", store_error(&shop));

    disk.fill();
    shop.write_app(&set(web.clone(), "/image", "web:2"));
    shop.repository.push("Version 2, and no space");
    // It lives, answers, and says what is wrong; nothing that served is taken away.
    // By its answers, and in its log, which may lie on another disk. What the store's files still
    // have room for in their last pages is used up by further commits.
    wait_until(Duration::from_secs(60), "the full disk is told", || {
        shop.repository.push("Nothing new");
        store_error(&shop).is_some_and(|told| told.to_lowercase().contains("no space left"))
    });
    let told = shop.plimsoll(["status"]).expect(0).stdout;
    let line = told.lines().find(|line| line.starts_with("store error"));
    assert!(line.is_some_and(|line| line.to_lowercase().contains("no space left")), "{told}");
    assert!(controller.log().to_lowercase().contains("no space left"), "{}", controller.log());
    assert_eq!(shop.get("web").unwrap().status, 200);
    assert!(shop.running().len() >= before.len());

    disk.free();
    controller.wait_for_commit(&shop.repository.head());
    wait_until(Duration::from_secs(30), "the store is brought up to date", || {
        store_error(&shop).is_none()
    });
    assert!(shop.get("web").unwrap().text().contains("version=2"));
    controller.stop();
    shop.expect_nothing_to_do();
    load.stop().expect_none_lost(200);
}

#[test]
fn k4_a_disk_that_fails_degrades_the_controller_and_not_the_service() {
    let shop = Installation::new("k4-io");
    let disk = BrittleDisk::mount(&shop.state(), &shop.folder().join("disk"));
    // Only the store is on it: what else lies in the state folder is on a disk that works.
    for name in ["haproxy", "source"] {
        let elsewhere = shop.folder().join(name);
        std::fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(elsewhere, shop.state().join(name)).unwrap();
    }
    let web = set(app("web"), "/replicas", 1);
    let first = shop.deploy(&web);
    let load = Load::start(shop.load_on("web"));
    let lowest = LowestServing::watch(shop.balancer(), "production.web");
    let mut controller = shop.start();
    controller.wait_for_commit(&first);

    disk.break_it();
    let is_broken = |told: &str| {
        let told = told.to_lowercase();
        ["input/output error", "read-only file system"].iter().any(|cause| told.contains(cause))
    };
    wait_until(Duration::from_secs(60), "the broken disk is told", || {
        shop.repository.push("Nothing new");
        store_error(&shop).is_some_and(|told| is_broken(&told))
    });
    // What is declared meanwhile comes true all the same.
    shop.write_app(&set(web.clone(), "/image", "web:2"));
    shop.repository.push("Version 2, and a broken disk");
    wait_until(Duration::from_secs(60), "version 2 serves", || {
        let answers = (0..6).map(|_| shop.get("web").map(|answer| answer.text()));
        answers.flatten().all(|text| text.contains("version=2"))
    });
    wait_until(Duration::from_secs(30), "the old ones are gone", || shop.containers().len() == 2);
    controller.kill();
    let containers = shop.containers();

    // A new disk, and nothing on it.
    drop(disk);
    let disk = BrittleDisk::mount(&shop.state(), &shop.folder().join("another"));
    for name in ["haproxy", "source"] {
        std::os::unix::fs::symlink(shop.folder().join(name), shop.state().join(name)).unwrap();
    }
    let (code, plan) = shop.apply();
    assert!(code == 0 && plan.steps.is_empty(), "{plan:?}");
    assert_eq!(shop.containers(), containers);
    assert!(store_error(&shop).is_none());
    assert_eq!(lowest.stop(), 2, "fewer servers than the minimum");
    load.stop().expect_none_lost(200);
    drop(disk);
}

#[test]
fn k5_a_second_process_is_told_who_holds_the_store() {
    let shop = Installation::new("k5");
    shop.deploy(&app("web"));
    let mut apply = begin_slow_apply(&shop);
    for words in [&["apply"][..], &["run"]] {
        let refused = shop.plimsoll(words.iter().copied());
        assert!(refused.code != 0, "{refused}");
        let who = format!("held by process {}", apply.id());
        assert!(refused.stderr.contains(&who), "no {who}: {refused}");
        assert!(refused.stderr.contains("--state"), "what to type? {refused}");
    }
    assert_eq!(ends_within(&mut apply, Duration::from_secs(90)), 0);
    shop.expect_nothing_to_do();
}

#[test]
fn k6_store_deleted_is_rebuilt_and_zero_steps_follow() {
    let shop = Installation::new("k6");
    let commit = shop.deploy(&set(app("web"), "/replicas", 1));
    let before = shop.containers();
    let load = Load::start(shop.load_on("web"));
    let store: &[&str] = &["store"];
    for (what, gone) in [
        ("the database", store),
        ("the journal", &["journal.log"]),
        ("both", &["store", "journal.log", "format"]),
        ("both, and the clone", &["store", "journal.log", "format", "source"]),
    ] {
        for name in gone {
            let path = shop.state().join(name);
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            removed.unwrap_or_else(|error| panic!("{what}: {name}: {error}"));
        }
        shop.expect_nothing_to_do();
        let (code, plan) = shop.apply();
        assert!(code == 0 && plan.steps.is_empty(), "{what}: {plan:?}");
        assert_eq!(shop.containers(), before, "{what}");
        assert!(shop.status().is_converged_at(&commit), "{what}: {:?}", shop.status());
    }

    // Under a controller that runs.
    let mut controller = shop.start();
    controller.wait_for_commit(&commit);
    for name in ["store", "journal.log"] {
        let path = shop.state().join(name);
        let _ = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
    }
    shop.write_app(&set(set(app("web"), "/replicas", 1), "/image", "web:2"));
    let commit = shop.repository.push("Version 2");
    controller.wait_for_commit(&commit);
    controller.stop();
    shop.expect_nothing_to_do();
    load.stop().expect_none_lost(200);
}

#[test]
fn k7_a_newer_format_is_refused_with_its_version_and_an_older_one_is_taken() {
    let shop = Installation::new("k7");
    shop.deploy(&set(app("web"), "/replicas", 1));
    let before = shop.containers();
    let format = shop.state().join("format");
    let ours = std::fs::read_to_string(&format).unwrap();
    std::fs::write(&format, "99\n").unwrap();
    for words in [&["apply"][..], &["run"], &["diff"]] {
        let told = shop.plimsoll(words.iter().copied()).expect_failure();
        let expected = format!("has format 99, this Plimsoll knows up to {}", ours.trim());
        assert!(told.stderr.contains(&expected), "{told}");
    }
    assert_eq!(shop.containers(), before);
    assert_eq!(shop.get("web").unwrap().status, 200);
    assert_eq!(std::fs::read_to_string(&format).unwrap(), "99\n", "what is newer isn't touched");
    // Of before there were formats, and torn.
    for older in ["0\n", "", "x"] {
        std::fs::write(&format, older).unwrap();
        shop.expect_nothing_to_do();
    }
    std::fs::remove_file(&format).unwrap();
    shop.expect_nothing_to_do();
}

#[test]
fn c5_sigterm_in_a_rollout_finishes_the_step_and_ends_within_ten_seconds() {
    let shop = Installation::new("c5");
    shop.deploy(&app("web"));
    let load = Load::start(shop.load_on("web"));
    let lowest = LowestServing::watch(shop.balancer(), "production.web");
    let mut apply = begin_slow_apply(&shop);
    let begin = Instant::now();
    harness::signal(apply.id() as i32, Signal::TERM);
    let code = ends_within(&mut apply, Duration::from_secs(11));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert!(code != 0, "it didn't converge, and says 0");
    // What was begun is finished by the next one, and nothing is made twice.
    shop.converge();
    assert_eq!(shop.containers().len(), 4);
    assert_eq!(lowest.stop(), 4, "fewer servers than the minimum");
    load.stop().expect_none_lost(200);
}
