//! Rollouts under load: not one request may be lost, not one reload may happen, and HAProxy may
//! at no moment have fewer servers than the route's minimum.

mod harness;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use harness::{Installation, Load, LoadOptions, LowestServing, app, set, wait_until};
use serde_json::json;
use tokio::time::Instant;

const BACKEND: &str = "production.web";

#[test]
fn ten_rolling_deploys_lose_no_request_and_need_no_reload() {
    let shop = Installation::new("ten");
    shop.deploy(&app("web"));
    let generation = shop.balancer().generation();
    let mut controller = shop.start();
    controller.wait_for_commit(&shop.repository.head());
    let load = Load::start(shop.load_on("web"));
    let lowest = LowestServing::watch(shop.balancer(), BACKEND);

    let mut seen = shop.containers();
    for number in 1..=10 {
        let begin = Instant::now();
        let image = format!("web:{}", 1 + number % 3);
        let web = set(app("web"), "/image", image.as_str());
        shop.write_app(&set(web, "/env/DEPLOY", number.to_string()));
        let commit = shop.repository.push(&format!("Deploy number {number}"));
        controller.wait_for_commit(&commit);
        println!("deploy {number}: {:.1} s", begin.elapsed().as_secs_f64());

        let now = shop.containers();
        assert_eq!(now.len(), 4, "{now:?}");
        assert!(now.keys().all(|name| !seen.contains_key(name)), "all are new: {now:?}");
        seen = now;
        assert_eq!(load.so_far().lost(), 0, "deploy {number}: {:#?}", load.so_far());
    }

    assert_eq!(lowest.stop(), 4, "fewer servers than the minimum");
    let report = load.stop();
    println!("{} requests, the slowest took {:?}", report.requests, report.slowest);
    report.expect_none_lost(1000);
    assert_eq!(shop.balancer().generation(), generation, "HAProxy was reloaded");
    assert_eq!(shop.balancer().servers_of(BACKEND).len(), 4, "old servers are gone");
    controller.stop();
    shop.expect_nothing_to_do();
}

#[test]
fn long_requests_are_answered_before_their_server_is_stopped() {
    let shop = Installation::new("long");
    shop.deploy(&set(app("web"), "/replicas", 1));
    let options = LoadOptions { path: "/slow?ms=1500".to_owned(), ..shop.load_on("web") };
    let load = Load::start(options);
    wait_until(Duration::from_secs(20), "load is on", || load.so_far().good > 50);
    for image in ["web:2", "web:3"] {
        shop.deploy(&set(set(app("web"), "/replicas", 1), "/image", image));
    }
    load.stop().expect_none_lost(100);
}

/// Rollouts with other bounds: a name, the manifest's fields, and the fewest servers that may
/// serve meanwhile.
fn bounds() -> Vec<(&'static str, serde_json::Value, usize)> {
    let rollout = |surge: u32, unavailable: u32| {
        set(app("web"), "/rollout", json!({"surge": surge, "unavailable": unavailable}))
    };
    vec![
        ("in place", rollout(0, 1), 2),
        ("all at once", rollout(2, 0), 4),
        ("both", rollout(1, 1), 2),
        ("one that ignores SIGTERM", set(rollout(1, 0), "/env/IGNORE_SIGTERM", "1"), 4),
        ("away from one that ignores SIGTERM", rollout(1, 0), 4),
    ]
}

#[test]
fn every_bound_of_a_rollout_is_kept() {
    let shop = Installation::new("bounds");
    shop.deploy(&app("web"));
    let generation = shop.balancer().generation();
    let load = Load::start(shop.load_on("web"));
    for (number, (what, web, minimum)) in bounds().into_iter().enumerate() {
        let lowest = LowestServing::watch(shop.balancer(), BACKEND);
        let web = set(set(web, "/env/DEPLOY", number.to_string()), "/stop/grace", "1s");
        shop.deploy(&web);
        let lowest = lowest.stop();
        assert!(lowest >= minimum, "{what}: {lowest} servers, the minimum is {minimum}");
        assert_eq!(shop.containers().len(), 4, "{what}");
    }
    load.stop().expect_none_lost(300);
    assert_eq!(shop.balancer().generation(), generation, "HAProxy was reloaded");
}

#[test]
fn a_host_is_drained_under_load() {
    let shop = Installation::new("drain-host");
    shop.deploy(&set(app("web"), "/replicas", json!({"alpha": 2, "beta": 2})));
    let load = Load::start(shop.load_on("web"));
    shop.deploy(&set(app("web"), "/hosts", json!(["alpha"])));
    let containers = shop.containers();
    assert!(containers.len() == 2 && containers.keys().all(|name| name.starts_with("alpha/")));
    shop.deploy(&app("web"));
    assert_eq!(shop.containers().len(), 4);
    load.stop().expect_none_lost(100);
}

/// A server that treats every request in one bad way.
fn bad_server(answer: fn(&mut TcpStream)) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                while stream.read(&mut request).is_ok_and(|read| read > 0) {
                    answer(&mut stream);
                }
            });
        }
    });
    port
}

fn say(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes());
}

fn reset(stream: &mut TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

/// The tests above are worth nothing if the load can't see a loss.
#[test]
fn the_load_counts_whatever_a_user_would_notice() {
    type Answer = fn(&mut TcpStream);
    type Count = fn(&harness::LoadReport) -> u64;
    let cases: [(&str, Answer, Count); 5] = [
        (
            "a wrong status",
            |stream| say(stream, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"),
            |report| report.wrong_status.get(&503).copied().unwrap_or_default(),
        ),
        (
            "a wrong body",
            |stream| say(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
            |report| report.wrong_body,
        ),
        ("a reset", reset, |report| report.reset),
        (
            "half an answer",
            |stream| {
                say(stream, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
                reset(stream);
            },
            |report| report.reset,
        ),
        ("no answer", |_| (), |report| report.timed_out),
    ];
    for (what, server, count) in cases {
        let mut options = LoadOptions::new(bad_server(server), "web.example.com");
        options.timeout = Duration::from_millis(300);
        let load = Load::start(options);
        wait_until(Duration::from_secs(10), what, || count(&load.so_far()) > 10);
        let report = load.stop();
        assert!(report.lost() > 10 && !report.first_failures.is_empty(), "{what}: {report:?}");
    }
    let port = harness::free_port();
    let load = Load::start(LoadOptions::new(port, "web.example.com"));
    wait_until(Duration::from_secs(10), "refused", || load.so_far().refused > 10);
}
