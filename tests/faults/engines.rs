//! The fault catalogue's part on engines that have trouble of their own: no room, a restart, a
//! removal that they don't finish, events that are lost, ports that change hands.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::engine::BrokenEngine;
use crate::engine_proxy::Fault;
use crate::harness::{
    Engine, Fleet, Installation, Load, Registry, app, run, set, wait_for, wait_until,
};
use crate::small_disk::SmallDisk;
use crate::words::{apply, events, expect_words, let_users_come, status};

const BACKEND: &str = "production.web";

/// One container, on that host.
fn alone(name: &str, host: &str) -> Value {
    set(set(app(name), "/replicas", 1), "/hosts", json!([host]))
}

/// A service that no balancer knows: nothing but its engine tells of it.
fn worker(name: &str, host: &str) -> Value {
    let mut worker = alone(name, host);
    let spec = worker["spec"].as_object_mut().unwrap();
    for field in ["port", "routes", "health"] {
        spec.remove(field);
    }
    worker
}

/// Publishes an image of `web:2` and what `fill` writes into a folder.
fn publish(registry: &Registry, engine: &Engine, name: &str, fill: impl Fn(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let container = engine.docker(["create", "web:2"]).expect(0).text().to_owned();
    let from = format!("{}/.", folder.path().display());
    engine.docker(["cp", &from, &format!("{container}:/")]).expect(0);
    let local = format!("plimsoll-{name}");
    engine.docker(["commit", &container, &local]).expect(0);
    registry.push(engine, &local, name);
    engine.docker(["rm", &container]).expect(0);
    engine.docker(["rmi", &local]).expect(0);
    registry.name(name)
}

fn images(engine: &Engine) -> BTreeSet<String> {
    engine
        .docker(["images", "-aq", "--no-trunc"])
        .expect(0)
        .text()
        .lines()
        .map(Into::into)
        .collect()
}

#[test]
fn d7_a_pull_without_room_says_so_keeps_the_old_and_goes_on_with_room() {
    let folder = tempfile::Builder::new().prefix("plt-d7").tempdir().unwrap();
    let root = folder.path().join("data");
    let disk = SmallDisk::mount(&root, 128 << 10);
    let argument = format!("--data-root={}", root.display());
    let fleet = Fleet::start_with([&[], &[&argument]]);
    let shop = Installation::on(&fleet, "d7");
    shop.deploy(&alone("web", "beta"));
    let load = Load::start(shop.load_on("web"));
    let registry = Registry::start();

    // Bytes that can't be packed any tighter, and files without a byte.
    let bytes = publish(&registry, &fleet.alpha, "bytes", |folder| {
        let mut random = std::fs::File::open("/dev/urandom").unwrap();
        let mut file = std::fs::File::create(folder.join("ballast")).unwrap();
        std::io::copy(&mut std::io::Read::take(&mut random, 150 << 20), &mut file).unwrap();
    });
    let inodes = publish(&registry, &fleet.alpha, "inodes", |folder| {
        for number in 0..6000 {
            std::fs::File::create(folder.join(number.to_string())).unwrap();
        }
    });
    for (image, narrow, wide) in [
        (&bytes, "size=128m".to_owned(), "size=1g"),
        (&inodes, format!("nr_inodes={}", used_inodes(&root) + 2000), "nr_inodes=200000"),
    ] {
        disk.remount(&narrow);
        let (containers, all) = (shop.containers(), images(&fleet.beta));
        shop.write_app(&set(alone("web", "beta"), "/image", image.as_str()));
        let commit = shop.repository.push(image);
        let mut controller = shop.start();
        wait_until(Duration::from_secs(60), "the want of room is told", || {
            // It may not listen yet.
            let told = shop.plimsoll(["events"]).stdout;
            told.contains("no room on the host") && told.contains(image.as_str())
        });
        expect_words(&events(&shop), &["beta", "no space left on device", "docker image prune"]);
        assert_eq!(shop.containers(), containers, "the old one serves");
        assert!(images(&fleet.beta).is_superset(&all), "no image is taken away");
        disk.remount(wide);
        controller.wait_for_commit(&commit);
        controller.stop();
        shop.expect_nothing_to_do();
    }
    let_users_come(&load, 50);
    load.stop().expect_none_lost(200);
}

fn used_inodes(folder: &Path) -> u64 {
    let found = rustix::fs::statvfs(folder).unwrap();
    found.f_files - found.f_ffree
}

#[test]
fn d11_an_engine_that_restarts_is_taken_up_again_with_and_without_live_restore() {
    let mut fleet = Fleet::start_with([&["--live-restore"], &[]]);
    let shop = Installation::on(&fleet, "d11");
    shop.write_app(&alone("on-alpha", "alpha"));
    let commit = shop.deploy(&alone("on-beta", "beta"));
    let mut controller = shop.start();
    controller.wait_for_commit(&commit);
    let mut containers = shop.containers();
    for (nth, host, other) in [(0, "alpha", "on-beta"), (1, "beta", "on-alpha")] {
        for is_killed in [false, true] {
            let load = Load::start(shop.load_on(other));
            let began = started(&fleet, nth, &shop);
            if is_killed {
                fleet.kill(nth);
            } else {
                fleet.terminate(nth);
            }
            controller.wait_for_status("it is away", |status| {
                status.hosts.iter().any(|seen| seen.name == host && !seen.reachable)
            });
            expect_words(&status(&shop), &[&format!("production/on-{host}"), "Unknown"]);
            fleet.dockerds[nth].run();
            controller.wait_for_status("all is well again", |status| {
                status.is_converged_at(&commit) && status.hosts.iter().all(|host| host.reachable)
            });
            let what = format!("{host}, killed: {is_killed}");
            let (now, live_restore) = (shop.containers(), host == "alpha");
            let lasted = started(&fleet, nth, &shop) == began;
            assert!(lasted == live_restore, "{what}: live-restore keeps what runs");
            // A killed engine comes back without the containers that it lost, and calls them
            // exited: then ours may be replaced before the engine starts it by itself.
            assert_eq!(now.len(), 2, "{what}: {now:?}");
            assert!(now == containers || (is_killed && !live_restore), "{what}: {now:?}");
            containers = now;
            wait_for(Duration::from_secs(30), &what, || {
                let answer = shop.get(&format!("on-{host}"))?;
                if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
            });
            load.stop().expect_none_lost(50);
        }
    }
    controller.stop();
    shop.expect_nothing_to_do();
}

/// Begins a rollout of a version that takes a while to start, and returns its commit when its
/// container runs.
fn begin_slow_rollout(shop: &Installation, manifest: Value) -> String {
    shop.write_app(&set(manifest, "/env/START_DELAY_MS", "3000"));
    let commit = shop.repository.push("Slow to start");
    wait_until(Duration::from_secs(30), "the new one runs beside the old one", || {
        shop.running().len() == 2
    });
    commit
}

#[test]
fn d11_an_engine_that_is_killed_in_a_rollout_is_no_fault_of_the_version() {
    let mut fleet = Fleet::start();
    let shop = Installation::on(&fleet, "d11-rollout");
    let commit = shop.deploy(&alone("web", "beta"));
    let mut controller = shop.start();
    controller.wait_for_commit(&commit);
    let commit = begin_slow_rollout(&shop, alone("web", "beta"));
    fleet.kill(1);
    fleet.dockerds[1].run();
    let status = controller.wait_for_commit(&commit);
    assert!(status.approvals.is_empty(), "{status:?}");
    assert_eq!(shop.containers().len(), 1);
    controller.stop();
    shop.expect_nothing_to_do();
}

#[test]
fn d15_what_a_person_stops_in_a_rollout_is_no_fault_of_the_version() {
    let shop = Installation::new("d15-rollout");
    let commit = shop.deploy(&alone("web", "alpha"));
    let before = shop.containers();
    let load = Load::start(shop.load_on("web"));
    let mut controller = shop.start();
    controller.wait_for_commit(&commit);
    let commit = begin_slow_rollout(&shop, alone("web", "alpha"));
    let (_, new) = shop.running().into_iter().find(|(name, _)| !before.contains_key(name)).unwrap();
    Fleet::shared().alpha.docker(["stop", "-t", "5", &new]).expect(0);
    let status = controller.wait_for_commit(&commit);
    assert!(status.approvals.is_empty(), "{status:?}");
    assert_eq!(shop.containers().len(), 1);
    controller.stop();
    shop.expect_nothing_to_do();
    load.stop().expect_none_lost(100);
}

/// When the installation's container on that engine was started.
fn started(fleet: &Fleet, nth: usize, shop: &Installation) -> Value {
    let engine = fleet.hosts()[nth].1;
    let (_, id) = engine.containers(&shop.name).pop_first().unwrap();
    engine.inspect(&id).unwrap()["State"]["StartedAt"].clone()
}

/// A file that nobody can remove, root and engines included, until it is dropped.
struct Stuck(PathBuf);

impl Stuck {
    fn new(path: PathBuf) -> Self {
        std::fs::write(&path, "stays").unwrap();
        run(Command::new("chattr").arg("+i").arg(&path)).expect(0);
        Self(path)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.0).status();
    }
}

#[test]
fn d12_a_removal_that_its_engine_did_not_finish_is_finished() {
    let mut fleet = Fleet::start();
    let shop = Installation::on(&fleet, "d12");
    shop.deploy(&alone("web", "alpha"));
    let (_, old) = shop.containers().pop_first().unwrap();
    let seen = fleet.alpha.inspect(&old).unwrap();
    let layer = seen["GraphDriver"]["Data"]["UpperDir"].as_str().expect("overlay2");
    let stuck = Stuck::new(Path::new(layer).join("stuck"));

    shop.write_app(&set(alone("web", "alpha"), "/image", "web:2"));
    let commit = shop.repository.push("Version 2, and the old one can't be removed");
    let mut controller = shop.start();
    let state =
        |fleet: &Fleet| fleet.alpha.inspect(&old).map(|seen| seen["State"]["Status"].clone());
    wait_until(Duration::from_secs(60), "a dead container", || {
        state(&fleet) == Some(json!("dead"))
    });
    fleet.kill(0);
    fleet.dockerds[0].run();
    assert_eq!(state(&fleet), Some(json!("dead")), "it is dead after the restart too");
    drop(stuck);
    controller.wait_for_commit(&commit);
    assert!(state(&fleet).is_none(), "it is removed");
    assert_eq!(shop.containers().len(), 1);
    assert!(shop.get("web").unwrap().text().contains("version=2"));
    controller.stop();
    shop.expect_nothing_to_do();
}

#[test]
fn d13_what_somebody_else_removes_at_the_same_time_is_no_error() {
    let fleet = Fleet::shared();
    let shop = Installation::new("d13");
    for round in 0..3 {
        shop.deploy(&set(alone("web", "alpha"), "/replicas", 4));
        let load = Load::start(shop.load_on("web"));
        let before: Vec<_> = shop.containers().into_values().collect();
        shop.write_app(&alone("web", "alpha"));
        shop.repository.push("One of four");
        // As soon as one is stopped, a person removes it as well, and again.
        let (code, text) = std::thread::scope(|scope| {
            let applying = scope.spawn(|| apply(&shop));
            while !applying.is_finished() {
                let running: Vec<_> = shop.running().into_values().collect();
                for id in before.iter().filter(|id| !running.contains(id)) {
                    fleet.alpha.docker(["rm", "-f", id]);
                }
            }
            applying.join().unwrap()
        });
        assert_eq!(code, 0, "{round}: {text}");
        assert!(!text.contains("failed"), "{round}: {text}");
        shop.expect_nothing_to_do();
        assert_eq!(shop.containers().len(), 1, "{round}");
        load.stop().expect_none_lost(20);
    }
}

#[test]
fn d14_what_no_event_told_of_is_found_by_the_next_list() {
    let fleet = Fleet::shared();
    let shop = Installation::new("d14");
    let broken = BrokenEngine::before(&fleet.alpha);
    shop.write("hosts/alpha.yaml", &broken.host(&shop, "alpha", "127.0.0.1"));
    let commit = shop.deploy(&worker("worker", "alpha"));
    // The events are listened to, and none arrives.
    broken.plan("/events", Fault::HeadOnly);
    let mut controller = shop.start();
    controller.wait_for_commit(&commit);
    wait_until(Duration::from_secs(30), "events are listened to", || {
        broken.seen().iter().any(|line| line.contains("/events"))
    });
    let (_, id) = shop.containers().pop_first().unwrap();
    fleet.alpha.remove(&id);
    wait_until(Duration::from_secs(60), "it is there again", || shop.running().len() == 1);
    controller.wait_for_commit(&commit);
    controller.stop();
    shop.expect_nothing_to_do();
}

/// The ports on which the installation's containers on alpha are published.
fn published(shop: &Installation) -> BTreeSet<String> {
    let engine = &Fleet::shared().alpha;
    let of = |id: &String| {
        let seen = engine.inspect(id).unwrap();
        let bound = &seen["NetworkSettings"]["Ports"]["8080/tcp"][0];
        format!("{}:{}", bound["HostIp"].as_str().unwrap(), bound["HostPort"].as_str().unwrap())
    };
    shop.running().values().map(of).collect()
}

/// The addresses to which HAProxy sends requests.
fn serving(shop: &Installation) -> BTreeSet<String> {
    let servers = shop.balancer().servers_of(BACKEND).into_iter();
    servers.filter(|server| server.serves()).map(|server| server.address).collect()
}

#[test]
fn d16_a_port_that_changed_hands_gets_no_weight() {
    let fleet = Fleet::shared();
    let shop = Installation::new("d16");
    shop.deploy(&set(alone("web", "alpha"), "/replicas", 2));
    assert_eq!(serving(&shop), published(&shop));

    // A restart changes nothing that was declared.
    let (_, id) = shop.containers().pop_first().unwrap();
    let port_of = |id: &str| {
        let seen = fleet.alpha.inspect(id).unwrap();
        let bindings = &seen["HostConfig"]["PortBindings"]["8080/tcp"][0];
        bindings["HostPort"].as_str().unwrap().to_owned()
    };
    let port = port_of(&id);
    fleet.alpha.docker(["restart", "-t", "5", &id]).expect(0);
    shop.converge();
    assert_eq!(port_of(&id), port);
    wait_until(Duration::from_secs(10), "HAProxy finds it up again", || {
        serving(&shop) == published(&shop)
    });

    // While it is stopped, somebody else's server takes its port, and is healthy there.
    fleet.alpha.docker(["stop", "-t", "5", &id]).expect(0);
    let publish = format!("127.0.0.1:{port}:8080");
    let foreign = fleet.alpha.run_foreign(["-p", &publish, "web:3"]);
    let (code, text) = apply(&shop);
    assert_eq!(code, 0, "{text}");
    shop.expect_nothing_to_do();
    assert_eq!(shop.running().len(), 2);
    let now = serving(&shop);
    assert_eq!(now, published(&shop));
    assert!(now.iter().all(|address| !address.ends_with(&format!(":{port}"))), "{now:?}, {port}");
    // From here on nobody meets the foreign server.
    for _ in 0..20 {
        let answer = shop.get("web").unwrap().text();
        assert!(answer.contains("version=1"), "{answer}");
    }
    assert_eq!(fleet.alpha.inspect(&foreign).unwrap()["State"]["Running"], true);
    fleet.alpha.remove(&foreign);
    shop.expect_nothing_to_do();
}
