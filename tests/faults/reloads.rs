//! The fault catalogue's lines on what reloads leave behind and what comes between them: a master
//! that is always reloading, old workers that don't end, and routes whose servers all change their
//! weights.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{Installation, Load, LowestServing, app, set, signal, wait_until};
use crate::words::let_users_come;

const BACKEND: &str = "production.web";

/// One container on each host.
fn web() -> Value {
    set(app("web"), "/replicas", 1)
}

/// The workers that have got a signal to end, and haven't yet.
fn old_workers(shop: &Installation) -> Vec<i32> {
    let newest = shop.balancer().try_worker().unwrap_or_default();
    let master = shop.balancer().master();
    let children = format!("/proc/{master}/task/{master}/children");
    let children = std::fs::read_to_string(children).unwrap_or_default();
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter(|pid| *pid != newest).collect()
}

/// Waits until the newest worker has sent the beginning of this client's request on.
fn wait_for_request(shop: &Installation, client: &TcpStream) {
    let from = format!("src={} ", client.local_addr().unwrap());
    wait_until(Duration::from_secs(10), "the request is under way", || {
        let sessions = shop.balancer().runtime("show sess").unwrap_or_default();
        sessions.lines().any(|line| line.contains(&from) && line.contains("be=production.web"))
    });
}

/// Another way to check, which changes HAProxy's file and no container.
fn check_every(milliseconds: u32) -> Value {
    set(web(), "/health/interval", format!("{milliseconds}ms"))
}

#[test]
fn h5_a_master_that_reloads_all_the_time_is_asked_again() {
    let shop = Installation::new("h5");
    shop.deploy(&web());
    let load = Load::start(shop.load_on("web").through_reloads());
    let (stop, reloads) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        // Somebody else reloads, over and over: as soon as a worker is new, the next is asked for.
        scope.spawn(|| {
            let master = shop.balancer().master();
            let mut worker = 0;
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                wait_until(Duration::from_secs(20), "the next worker", || {
                    let now = shop.balancer().try_worker().unwrap_or(worker);
                    // A signal that comes while the master starts itself anew may be lost.
                    let is_late = asked.elapsed() > Duration::from_millis(500);
                    std::mem::replace(&mut worker, now) != now || is_late
                });
                signal(master, Signal::USR2);
                reloads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let ends = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // What needs a reload of our own, and what runtime commands do.
            for (number, manifest) in [
                check_every(700),
                set(check_every(700), "/weights", json!({"alpha": 10, "beta": 90})),
                set(check_every(800), "/image", "web:2"),
                check_every(900),
            ]
            .into_iter()
            .enumerate()
            {
                shop.write_app(&manifest);
                let commit = shop.repository.push(&format!("Change {number}"));
                let mut controller = shop.start();
                controller.wait_for_commit(&commit);
                controller.stop();
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = ends {
            std::panic::resume_unwind(panic);
        }
    });
    let reloads = reloads.into_inner();
    assert!(reloads > 8, "{reloads} reloads by somebody else");
    wait_until(Duration::from_secs(30), "the last worker serves", || {
        shop.balancer()
            .try_servers()
            .is_ok_and(|all| all.iter().filter(|s| s.serves()).count() == 2)
    });
    shop.converge();
    assert!(shop.get("web").unwrap().text().contains("version=1"));
    let_users_come(&load, 100);
    load.stop().expect_none_lost(300);
}

/// A client that sends this and goes silent.
fn half_open(shop: &Installation, bytes: &str) -> TcpStream {
    let mut client = TcpStream::connect(("127.0.0.1", shop.http_port())).unwrap();
    client.write_all(bytes.as_bytes()).unwrap();
    client
}

/// Half of a request's head.
const HALF_HEAD: &str = "GET / HTTP/1.1\r\nHost: web.exa";

/// Half of a request's body.
const HALF_BODY: &str =
    "POST /echo HTTP/1.1\r\nHost: web.example.com\r\nContent-Length: 20\r\n\r\n0123456789";

/// A client whose request has begun keeps its worker: until it is done or leaves, until it was
/// silent for 60 s (`timeout client`), and for 30 minutes after the reload at most
/// (`hard-stop-after`). That the file has this bound is seen here, and that it ends a worker is
/// tried with 2 s in a file that a person wrote: nobody waits for 30 minutes.
#[test]
fn h7_old_workers_with_half_open_clients_end() {
    let shop = Installation::new("h7");
    shop.deploy(&web());
    assert!(shop.balancer().file().contains("\n    hard-stop-after 30m\n"));
    let load = Load::start(shop.load_on("web").through_reloads());
    // Those that haven't said yet what they want keep no worker.
    let silent: Vec<_> = (0..5).map(|_| half_open(&shop, HALF_HEAD)).collect();
    shop.deploy(&check_every(500));
    wait_until(Duration::from_secs(15), "nobody is kept by half of a head", || {
        old_workers(&shop).is_empty()
    });
    drop(silent);

    // Those that have keep one worker each, while they are there.
    let mut clients = Vec::new();
    for number in 1..=5 {
        let client = half_open(&shop, HALF_BODY);
        wait_for_request(&shop, &client);
        clients.push(client);
        shop.deploy(&check_every(500 + number * 10));
    }
    let kept = old_workers(&shop).len();
    assert_eq!(kept, 5, "old workers");
    clients.clear();
    wait_until(Duration::from_secs(15), "the old workers have ended", || {
        old_workers(&shop).is_empty()
    });

    // One that never leaves, on a worker that has 2 s to end.
    let path = shop.state().join("haproxy/edge/haproxy.cfg");
    let ours = shop.balancer().file();
    std::fs::write(&path, ours.replace("hard-stop-after 30m", "hard-stop-after 2s")).unwrap();
    let before = shop.balancer().worker();
    signal(shop.balancer().master(), Signal::USR2);
    wait_until(Duration::from_secs(10), "a worker with the other bound", || {
        shop.balancer().try_worker().is_ok_and(|worker| worker != before)
    });
    let stays = half_open(&shop, HALF_BODY);
    wait_for_request(&shop, &stays);
    let bounded = shop.balancer().worker();
    let (code, text) = crate::words::apply(&shop);
    assert_eq!(code, 0, "the file is restored, and HAProxy reloaded: {text}");
    assert_eq!(shop.balancer().file(), ours);
    wait_until(Duration::from_secs(20), "its worker has ended", || {
        !std::path::Path::new(&format!("/proc/{bounded}")).exists()
    });
    wait_until(Duration::from_secs(15), "no old worker is left", || old_workers(&shop).is_empty());
    drop(stays);
    shop.expect_nothing_to_do();
    let_users_come(&load, 100);
    load.stop().expect_none_lost(300);
}

#[test]
fn h13_weights_that_change_places_are_raised_before_others_are_lowered() {
    let shop = Installation::new("h13");
    let weights =
        |alpha: u32, beta: u32| set(web(), "/weights", json!({"alpha": alpha, "beta": beta}));
    shop.deploy(&weights(100, 0));
    let load = Load::start(shop.load_on("web"));
    let lowest = LowestServing::watch(shop.balancer(), BACKEND);
    for (alpha, beta) in [(0, 100), (50, 0), (0, 7), (256, 0)] {
        shop.write_app(&weights(alpha, beta));
        shop.repository.push("The other way round");
        // The plan itself says so: what goes to 0 waits for what goes up.
        let plan = shop.diff();
        let is = |step: &&crate::harness::Step, to_zero: bool| {
            step.kind == "setWeight" && step.summary.ends_with(" to 0") == to_zero
        };
        let raise = plan.steps.iter().find(|step| is(step, false)).unwrap();
        let lower = plan.steps.iter().find(|step| is(step, true)).unwrap();
        assert!(lower.after.contains(&raise.id), "{plan:#?}");
        shop.converge();
        let now = shop.balancer().servers_of(BACKEND);
        assert_eq!(now.iter().filter(|server| server.serves()).count(), 1, "{now:?}");
    }
    assert_eq!(lowest.stop(), 1, "a moment without a server");
    let_users_come(&load, 50);
    load.stop().expect_none_lost(100);
}
