//! The adapter with a real HAProxy. FAULTS.md numbers are in the names' comments.

#[path = "harness/haproxy.rs"]
mod harness;

use std::collections::BTreeMap;

use harness::{Bed, Load, WEB, WebServer, ask, free_address, get, get_with, signal, wait_for};
use plimsoll::model::{
    AdminState, BackendName, CheckState, Listener, ProxyFile, ProxyProcess, Server, ServerName,
};
use plimsoll::proxy::{Proxy, ProxyError};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const A: &str = "alpha:f753afc24d79:3f2a91bc-0";
const B: &str = "beta:f753afc24d79:3f2a91bc-0";
const C: &str = "alpha:000000000000:00000000-0";

fn backend(name: &str) -> BackendName {
    name.parse().unwrap()
}

fn server(name: &str) -> ServerName {
    name.parse().unwrap()
}

/// A bed with one server behind `www.example.com`.
async fn serving() -> (Bed, WebServer) {
    let bed = Bed::managed();
    bed.proxy.restructure(&bed.structure(&[WEB])).await.unwrap();
    bed.route("web www.example.com/", WEB).await;
    let a = WebServer::start("a").await;
    bed.join(WEB, A, a.address, 100).await;
    (bed, a)
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_serving_and_back() {
    let bed = Bed::managed();
    let state = bed.proxy.observe().await.unwrap();
    assert_eq!(state.file, ProxyFile::Missing);
    assert!(matches!(state.process, ProxyProcess::Down { .. }));

    let structure = bed.structure(&[WEB, "production.web.candidate"]);
    bed.proxy.restructure(&structure).await.unwrap();
    let runtime = bed.runtime().await;
    assert_eq!(runtime.structure, Some(structure.digest()));
    assert!(bed.file_is_ours().await);

    // Done a second time it is done at once: no new worker.
    let workers = bed.worker_pids().await;
    bed.proxy.restructure(&structure).await.unwrap();
    assert_eq!(bed.worker_pids().await, workers);

    let a = WebServer::start("a").await;
    assert_eq!(get(bed.web, "www.example.com", "/").await.status, 404);
    bed.route("web www.example.com/", WEB).await;
    assert_eq!(get(bed.web, "www.example.com", "/").await.status, 503);
    bed.join(WEB, A, a.address, 100).await;
    let answer = get(bed.web, "www.example.com", "/").await;
    assert_eq!((answer.status, answer.server()), (200, "a"));
    assert!(answer.head.to_lowercase().contains(&format!("x-host: {A}")), "{}", answer.head);

    let state = bed.proxy.observe().await.unwrap();
    let ProxyFile::Ours(config) = state.file else { panic!("{:?}", state.file) };
    let ProxyProcess::Up(runtime) = state.process else { panic!("down") };
    let expected = Server { address: a.address, weight: 100 };
    assert_eq!(config.servers[&backend(WEB)][&server(A)], expected);
    let seen = runtime.servers[&backend(WEB)][&server(A)];
    assert_eq!((seen.address, seen.weight), (a.address, 100));
    assert_eq!((seen.admin, seen.check), (AdminState::Ready, CheckState::Up));
    assert_eq!(config.routes, runtime.routes);
    assert!(runtime.old_addresses.is_empty());

    bed.leave(WEB, A).await;
    assert_eq!(bed.proxy.server(&backend(WEB), &server(A)).await.unwrap(), None);
    let state = bed.proxy.observe().await.unwrap();
    let ProxyFile::Ours(config) = state.file else { panic!("{:?}", state.file) };
    assert!(config.servers[&backend(WEB)].is_empty());
    // All of it without a reload.
    assert_eq!(bed.worker_pids().await, workers);
    // And again: what is done is done at once.
    bed.proxy.remove_server(&backend(WEB), &server(A)).await.unwrap();
    assert!(bed.proxy.version().await.unwrap().starts_with(|c: char| c.is_ascii_digit()));
}

/// A removal that was cut short leaves a server in one place only. Its way out begins with
/// weight 0, which once was refused for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_only_the_file_or_only_the_process_has_can_be_taken_out() {
    let (bed, _a) = serving().await;
    let b = WebServer::start("b").await;
    let (backend, name) = (backend(WEB), server(B));
    let socket = bed.path("runtime.sock");

    bed.join(WEB, B, b.address, 100).await;
    ask(&socket, &format!("set server {WEB}/{B} state maint")).await;
    wait_for("it is deleted", || async {
        ask(&socket, &format!("del server {WEB}/{B}")).await.contains("deleted")
    })
    .await;
    let refused = bed.proxy.set_weight(&backend, &name, 50).await.unwrap_err();
    assert!(refused.to_string().contains("No such server."), "{refused}");
    bed.proxy.set_weight(&backend, &name, 0).await.unwrap();
    assert_eq!(bed.proxy.sessions(&backend, &name).await.unwrap(), 0);
    bed.proxy.remove_server(&backend, &name).await.unwrap();

    let add = format!("add server {WEB}/{B} {} weight 100 check", b.address);
    ask(&socket, &add).await;
    ask(&socket, &format!("enable server {WEB}/{B}")).await;
    let refused = bed.proxy.set_weight(&backend, &name, 50).await.unwrap_err();
    assert!(refused.to_string().contains("the file has no such server"), "{refused}");
    bed.proxy.set_weight(&backend, &name, 0).await.unwrap();
    let now = bed.proxy.server(&backend, &name).await.unwrap().unwrap();
    assert_eq!(now.weight, 0);
    bed.proxy.remove_server(&backend, &name).await.unwrap();
    assert_eq!(bed.proxy.server(&backend, &name).await.unwrap(), None);
    let ProxyFile::Ours(config) = bed.proxy.observe().await.unwrap().file else { panic!("ours") };
    assert!(!config.servers[&backend].contains_key(&name));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_routed_by_host_and_path() {
    let bed = Bed::managed();
    let names = ["root", "a", "ab", "wild", "wilda", "any", "late"];
    let backends: Vec<String> = names.iter().map(|name| format!("production.{name}")).collect();
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    bed.proxy.restructure(&bed.structure(&backends)).await.unwrap();
    let mut servers = Vec::new();
    for (name, backend) in names.iter().zip(&backends) {
        let web = WebServer::start(name).await;
        bed.join(backend, A, web.address, 1).await;
        servers.push(web);
    }
    // The shorter first and the longer first.
    for (route, backend) in [
        ("web www.example.com/", "production.root"),
        ("web www.example.com/a/b", "production.ab"),
        ("web www.example.com/a", "production.a"),
        ("web *.example.com/", "production.wild"),
        ("web *.example.com/a", "production.wilda"),
        ("web */any", "production.any"),
    ] {
        bed.route(route, backend).await;
    }
    let cases = [
        ("www.example.com", "/", "root"),
        ("WWW.Example.COM", "/", "root"),
        ("www.example.com:8080", "/", "root"),
        ("www.example.com.", "/", "root"),
        ("www.example.com.:80", "/", "root"),
        ("www.example.com", "/?a=/a/b", "root"),
        ("www.example.com", "/a", "a"),
        ("www.example.com", "/a/", "a"),
        ("www.example.com", "/a/x", "a"),
        ("www.example.com", "/a?b=c", "a"),
        ("www.example.com", "/ab", "root"),
        ("www.example.com", "/a/b", "ab"),
        ("www.example.com", "/a/b/c", "ab"),
        ("www.example.com", "/a/bc", "a"),
        ("www.example.com", "/A", "root"),
        ("shop.example.com", "/", "wild"),
        ("shop.example.com", "/a/x", "wilda"),
        ("a.shop.example.com", "/", "none"),
        ("example.com", "/", "none"),
        ("other", "/", "none"),
        ("other", "/any", "any"),
        ("other", "/anyone", "none"),
        ("example.com", "/any/x", "any"),
        ("[::1]:8080", "/any", "any"),
        ("", "/any", "any"),
        ("www.example.com/a", "/", "none"),
    ];
    // At runtime, and the same after a reload from the files.
    for _ in 0..2 {
        for (host, path, expected) in cases {
            // HTTP/1.1 without Host is refused by itself.
            if host.is_empty() {
                continue;
            }
            let answer = get(bed.web, host, path).await;
            assert_eq!(answer.server(), expected, "{host} {path}: {}", answer.head);
            if expected == "none" {
                assert!(matches!(answer.status, 404 | 400), "{host} {path}: {}", answer.head);
            }
        }
        let mut structure = bed.structure(&backends);
        structure.x_host = false;
        bed.proxy.restructure(&structure).await.unwrap();
    }
    // Routes go and change in one transaction.
    let changes = BTreeMap::from([
        ("web www.example.com/a/b".parse().unwrap(), None),
        ("web www.example.com/".parse().unwrap(), Some(backend("production.late"))),
    ]);
    bed.proxy.set_routes(&changes).await.unwrap();
    assert_eq!(get(bed.web, "www.example.com", "/a/b").await.server(), "a");
    assert_eq!(get(bed.web, "www.example.com", "/").await.server(), "late");
    // A route to nowhere is refused before anything is touched.
    let nowhere =
        BTreeMap::from([("web x/".parse().unwrap(), Some(backend("production.nowhere")))]);
    let refused = bed.proxy.set_routes(&nowhere).await.unwrap_err();
    assert!(matches!(refused, ProxyError::Lint(_)), "{refused}");
    // Without its backend a route goes too.
    bed.proxy.restructure(&bed.structure(&["production.a"])).await.unwrap();
    assert_eq!(bed.runtime().await.routes.len(), 1);
    assert_eq!(get(bed.web, "www.example.com", "/a").await.server(), "a");
    assert_eq!(get(bed.web, "www.example.com", "/").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_headers_and_websockets() {
    let (bed, _a) = serving().await;
    let spoofed = "X-Forwarded-Proto: https\r\n";
    let answer = get_with(bed.web, "www.example.com", "/", spoofed).await.unwrap();
    let body = answer.body.to_lowercase();
    assert!(body.contains("x-forwarded-proto: http\n"), "{body}");
    assert!(!body.contains("x-forwarded-proto: https"), "{body}");
    assert!(body.contains("x-forwarded-for: 127.0.0.1"), "{body}");

    let mut tunnel = tokio::net::TcpStream::connect(bed.web).await.unwrap();
    let request = "GET /ws HTTP/1.1\r\nHost: www.example.com\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";
    tunnel.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = [0; 1024];
    let count = tunnel.read(&mut buffer).await.unwrap();
    assert!(String::from_utf8_lossy(&buffer[..count]).starts_with("HTTP/1.1 101"));
    tunnel.write_all(b"ping").await.unwrap();
    let count = tunnel.read(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..count], b"ping");

    // A tunnel is a session, and goes on through a reload.
    let sessions = || bed.proxy.sessions(&BACKEND, &SERVER);
    static BACKEND: std::sync::LazyLock<BackendName> = std::sync::LazyLock::new(|| backend(WEB));
    static SERVER: std::sync::LazyLock<ServerName> = std::sync::LazyLock::new(|| server(A));
    assert_eq!(sessions().await.unwrap(), 1);
    let old = bed.runtime().await;
    bed.proxy.restructure(&bed.structure(&[WEB, "production.more"])).await.unwrap();
    assert_eq!(sessions().await.unwrap(), 1);
    let address = old.servers[&*BACKEND][&*SERVER].address;
    assert!(bed.runtime().await.old_addresses.contains(&address));
    let refused = bed.proxy.remove_server(&BACKEND, &SERVER).await.unwrap_err();
    assert!(refused.to_string().contains("1 sessions"), "{refused}");
    tunnel.write_all(b"ping").await.unwrap();
    let count = tunnel.read(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..count], b"ping");
    // At the end of its drain what is left on it is cut off, also in the old worker.
    bed.proxy.cut_sessions(&BACKEND, &SERVER).await.unwrap();
    let end = tokio::time::timeout(std::time::Duration::from_secs(10), tunnel.read(&mut buffer));
    assert!(!matches!(end.await.expect("the tunnel goes on"), Ok(1..)));
    wait_for("the end of the tunnel", || async { sessions().await.unwrap() == 0 }).await;
    wait_for("the end of the old worker", || async {
        bed.runtime().await.old_addresses.is_empty()
    })
    .await;
}

/// S2: servers come and go, and are weighed, with no request lost and no reload.
#[tokio::test(flavor = "multi_thread")]
async fn servers_change_under_load_without_a_lost_request() {
    let (bed, a) = serving().await;
    let workers = bed.worker_pids().await;
    let load = Load::start(bed.web, "www.example.com");
    let mut last = A.to_owned();
    let mut webs = vec![a];
    for round in 0..6 {
        let web = WebServer::start("next").await;
        let name = format!("alpha:f753afc24d79:{round:08x}-0");
        bed.join(WEB, &name, web.address, 100).await;
        wait_for("a request to the new one", || async { web.requests() > 0 }).await;
        bed.leave(WEB, &last).await;
        webs.remove(0);
        webs.push(web);
        last = name;
    }
    load.finish().await;
    assert_eq!(bed.worker_pids().await, workers);
    assert!(bed.file_is_ours().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_structure_under_load_loses_no_request() {
    let (bed, _a) = serving().await;
    let load = Load::start(bed.web, "www.example.com");
    let mut backends = vec![WEB];
    for name in ["production.b", "production.c", "production.d"] {
        backends.push(name);
        bed.proxy.restructure(&bed.structure(&backends)).await.unwrap();
    }
    load.finish().await;
    let runtime = bed.runtime().await;
    assert_eq!(runtime.servers[&backend(WEB)][&server(A)].weight, 100);
    assert_eq!(runtime.routes.len(), 1);
}

/// H11: a reload by a person gives what the runtime had. H10: drift is seen, and healed.
#[tokio::test(flavor = "multi_thread")]
async fn weights_survive_a_reload_and_drift_is_seen() {
    let (bed, a) = serving().await;
    for weight in [7, 0, 256, 33] {
        bed.proxy.set_weight(&backend(WEB), &server(A), weight).await.unwrap();
        let seen = bed.proxy.server(&backend(WEB), &server(A)).await.unwrap().unwrap();
        assert_eq!(seen.weight, weight);
        assert!(bed.read("haproxy.cfg").contains(&format!("{} weight {weight} ", a.address)));
    }
    let workers = bed.worker_pids().await;
    signal(bed.master_pid(), Signal::USR2);
    wait_for("a new worker", || async {
        matches!(bed.proxy.observe().await, Ok(state)
            if matches!(state.process, ProxyProcess::Up(_)))
            && bed.worker_pids().await.first() != workers.first()
    })
    .await;
    let seen = bed.proxy.server(&backend(WEB), &server(A)).await.unwrap().unwrap();
    assert_eq!(seen.weight, 33);

    let runtime = bed.path("runtime.sock");
    ask(&runtime, &format!("set server {WEB}/{A} weight 1;set server {WEB}/{A} state drain")).await;
    let seen = bed.runtime().await.servers[&backend(WEB)][&server(A)];
    assert_eq!((seen.weight, seen.admin), (1, AdminState::Drain));
    bed.proxy.set_weight(&backend(WEB), &server(A), 33).await.unwrap();
    let seen = bed.runtime().await.servers[&backend(WEB)][&server(A)];
    assert_eq!((seen.weight, seen.admin), (33, AdminState::Ready));

    let refused = bed.proxy.set_weight(&backend(WEB), &server(A), 257).await.unwrap_err();
    assert!(matches!(refused, ProxyError::Refused { .. }), "{refused}");
}

/// A change that was cut short left the file behind the process. A reload takes nothing down that
/// serves: not its weight, not its route, and not a server that the file has lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_what_serves() {
    let (bed, a) = serving().await;
    let runtime = bed.path("runtime.sock");
    let b = WebServer::start("b").await;
    bed.join(WEB, B, b.address, 50).await;
    bed.proxy.set_weight(&backend(WEB), &server(A), 0).await.unwrap();
    bed.proxy.set_weight(&backend(WEB), &server(B), 0).await.unwrap();
    ask(&runtime, &format!("set server {WEB}/{A} weight 100")).await;

    bed.proxy.restructure(&bed.structure(&[WEB, "production.other"])).await.unwrap();
    let (web, first) = (backend(WEB), server(A));
    wait_for("the checks of the new worker", || bed.is_up(&web, &first)).await;
    let weights = |name: &str| {
        let (bed, name) = (&bed, server(name));
        async move { bed.proxy.server(&backend(WEB), &name).await.unwrap().unwrap().weight }
    };
    assert_eq!((weights(A).await, weights(B).await), (100, 0));
    assert_eq!(get(bed.web, "www.example.com", "/").await.server(), "a");
    assert!(bed.read("haproxy.cfg").contains(&format!("{} weight 100 ", a.address)));
}

/// H9: what HAProxy lost at runtime is an error, and can be added again.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_from_the_process() {
    let (bed, a) = serving().await;
    let path = format!("{WEB}/{A}");
    let runtime = bed.path("runtime.sock");
    ask(&runtime, &format!("set server {path} state maint")).await;
    wait_for("the removal", || async {
        ask(&runtime, &format!("del server {path}")).await.contains("deleted")
    })
    .await;
    let refused = bed.proxy.set_weight(&backend(WEB), &server(A), 50).await.unwrap_err();
    assert!(matches!(&refused, ProxyError::Refused { answer, .. } if answer == "No such server."));
    let there = Server { address: a.address, weight: 0 };
    bed.proxy.add_server(&backend(WEB), &server(A), &there).await.unwrap();
    let seen = bed.proxy.server(&backend(WEB), &server(A)).await.unwrap().unwrap();
    assert_eq!(seen.weight, 0);
    assert!(bed.read("haproxy.cfg").contains(&format!("{} weight 0 ", a.address)));
    // Another address under the same name is no repetition.
    let elsewhere = Server { address: free_address(), weight: 0 };
    let refused = bed.proxy.add_server(&backend(WEB), &server(A), &elsewhere).await.unwrap_err();
    assert!(matches!(refused, ProxyError::Refused { .. }), "{refused}");
    let nowhere = bed.proxy.add_server(&backend("production.none"), &server(B), &there).await;
    assert!(matches!(nowhere, Err(ProxyError::Refused { .. })), "{nowhere:?}");
}

/// A server that doesn't answer its checks never becomes UP, and gets no traffic.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_is_down() {
    let (bed, _a) = serving().await;
    let dead = Server { address: free_address(), weight: 0 };
    bed.proxy.add_server(&backend(WEB), &server(C), &dead).await.unwrap();
    wait_for("DOWN", || async {
        let seen = bed.proxy.server(&backend(WEB), &server(C)).await.unwrap().unwrap();
        seen.check == CheckState::Down
    })
    .await;
}

/// H2: refused before the reload; the old one serves on.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_bound_is_refused() {
    let (bed, _a) = serving().await;
    let before = bed.read("haproxy.cfg");
    let workers = bed.worker_pids().await;
    let load = Load::start(bed.web, "www.example.com");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (address, says) in [
        (taken.local_addr().unwrap(), "another process"),
        ("203.0.113.5:8080".parse().unwrap(), "no such address"),
    ] {
        let mut structure = bed.structure(&[WEB]);
        let listener = Listener { bind: address, certificates: None };
        structure.listeners.insert("more".parse().unwrap(), listener);
        let refused = bed.proxy.restructure(&structure).await.unwrap_err();
        assert!(matches!(&refused, ProxyError::Bind { address: a, .. } if *a == address));
        assert!(refused.to_string().contains(says), "{refused}");
    }
    load.finish().await;
    assert_eq!(bed.read("haproxy.cfg"), before);
    assert_eq!(bed.worker_pids().await, workers);
    // One that overlaps with its own is no conflict.
    let mut structure = bed.structure(&[WEB]);
    let wide = format!("0.0.0.0:{}", bed.web.port()).parse().unwrap();
    structure.listeners.insert("web".parse().unwrap(), Listener { bind: wide, certificates: None });
    bed.proxy.restructure(&structure).await.unwrap();
    assert_eq!(get(bed.web, "www.example.com", "/").await.status, 200);
}

/// H1: what `haproxy -c` refuses isn't swapped in. Two listeners with one address are found by
/// our linter; a folder of certificates that isn't there only by HAProxy.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_haproxy_refuses_is_not_swapped_in() {
    let (bed, _a) = serving().await;
    let before = bed.read("haproxy.cfg");
    let mut structure = bed.structure(&[WEB]);
    let certificates = Some("/nowhere/certificates".parse().unwrap());
    let listener = Listener { bind: free_address(), certificates };
    structure.listeners.insert("secure".parse().unwrap(), listener);
    let refused = bed.proxy.restructure(&structure).await.unwrap_err();
    assert!(matches!(&refused, ProxyError::Verify(text) if text.contains("/nowhere")), "{refused}");
    assert_eq!(bed.read("haproxy.cfg"), before);
    assert!(!std::path::Path::new(&bed.path("haproxy.cfg.new")).exists());
    assert_eq!(get(bed.web, "www.example.com", "/").await.status, 200);
}

/// H3, H12: a file that was cut or edited is seen, and mended from the process.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_seen_and_mended() {
    let (bed, _a) = serving().await;
    let whole = bed.read("haproxy.cfg");
    let map = bed.read("routes.map");
    let cut = &whole[..whole.find("    server").unwrap()];
    for (file, content) in [
        ("haproxy.cfg", cut.to_owned()),
        ("haproxy.cfg", format!("{whole}# mine\n")),
        ("haproxy.cfg", String::new()),
        ("routes.map", format!("{map}web/x/ production.web\n")),
        ("routes.map", String::new()),
    ] {
        std::fs::write(bed.path(file), &content).unwrap();
        let state = bed.proxy.observe().await.unwrap();
        assert!(matches!(state.file, ProxyFile::Damaged { .. }), "{:?}", state.file);
        // Nothing is changed on top of it.
        let refused = bed.proxy.set_weight(&backend(WEB), &server(A), 5).await.unwrap_err();
        assert!(matches!(refused, ProxyError::File { .. }), "{refused}");
        bed.proxy.restructure(&bed.structure(&[WEB])).await.unwrap();
        assert_eq!(bed.read("haproxy.cfg"), whole);
        assert_eq!(bed.read("routes.map"), map);
    }
    std::fs::remove_file(bed.path("haproxy.cfg")).unwrap();
    std::fs::remove_file(bed.path("routes.map")).unwrap();
    bed.proxy.restructure(&bed.structure(&[WEB])).await.unwrap();
    assert_eq!(bed.read("haproxy.cfg"), whole);
    assert_eq!(get(bed.web, "www.example.com", "/").await.status, 200);
}

/// H8: killed, it is brought back with the weights of the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_haproxy_is_brought_back() {
    let (bed, _a) = serving().await;
    bed.proxy.set_weight(&backend(WEB), &server(A), 42).await.unwrap();
    for victim in ["worker", "master", "both"] {
        let (master, workers) = (bed.master_pid(), bed.worker_pids().await);
        if victim != "worker" {
            signal(master, Signal::KILL);
        }
        if victim != "master" {
            workers.iter().for_each(|pid| signal(*pid, Signal::KILL));
        }
        wait_for("down", || bed.is_down()).await;
        bed.proxy.restructure(&bed.structure(&[WEB])).await.unwrap();
        assert_eq!(bed.runtime().await.servers[&backend(WEB)][&server(A)].weight, 42);
        assert_eq!(get(bed.web, "www.example.com", "/").await.status, 200, "{victim}");
    }
}

/// The controller was killed and started again: HAProxy served on, and is found.
#[tokio::test(flavor = "multi_thread")]
async fn haproxy_outlives_the_controller() {
    let (bed, _a) = serving().await;
    let workers = bed.worker_pids().await;
    let next = bed.another_adapter();
    assert_eq!(next.observe().await.unwrap(), bed.proxy.observe().await.unwrap());
    next.restructure(&bed.structure(&[WEB])).await.unwrap();
    assert_eq!(bed.worker_pids().await, workers);
    next.set_weight(&backend(WEB), &server(A), 9).await.unwrap();
    assert!(bed.file_is_ours().await);
}

/// A person deleted the sockets: what still runs is replaced, with no request lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_is_replaced() {
    let (bed, _a) = serving().await;
    let load = Load::start(bed.web, "www.example.com");
    let orphan = bed.master_pid();
    std::fs::remove_file(bed.path("master.sock")).unwrap();
    assert!(bed.is_down().await);
    bed.proxy.restructure(&bed.structure(&[WEB])).await.unwrap();
    load.finish().await;
    assert_ne!(bed.master_pid(), orphan);
    wait_for("the orphan's end", || async {
        let state = std::fs::read_to_string(format!("/proc/{orphan}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z")
    })
    .await;
    assert_eq!(get(bed.web, "www.example.com", "/").await.status, 200);
}

/// H14: a frozen HAProxy is a timeout, and nothing is believed to be done.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_haproxy_is_unreachable() {
    let (bed, _a) = serving().await;
    let worker = bed.worker_pids().await[0];
    signal(worker, Signal::STOP);
    let begin = tokio::time::Instant::now();
    let refused = bed.proxy.observe().await.unwrap_err();
    signal(worker, Signal::CONT);
    assert!(matches!(refused, ProxyError::Unreachable { .. }), "{refused}");
    assert!(begin.elapsed().as_secs() < 8);
    assert_eq!(get(bed.web, "www.example.com", "/").await.status, 200);
}

/// A file that is swapped but doesn't take (H4): the old one is put back.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_leaves_the_old_file() {
    let (bed, _a) = serving().await;
    let before = bed.read("haproxy.cfg");
    let (master, workers) = (bed.master_pid(), bed.worker_pids().await);
    signal(master, Signal::KILL);
    workers.iter().for_each(|pid| signal(*pid, Signal::KILL));
    wait_for("down", || bed.is_down()).await;
    let taken = wait_to_take(bed.web).await;
    let refused = bed.proxy.restructure(&bed.structure(&[WEB, "production.b"])).await.unwrap_err();
    assert!(matches!(refused, ProxyError::Bind { .. }), "{refused}");
    assert_eq!(bed.read("haproxy.cfg"), before);
    drop(taken);
    bed.proxy.restructure(&bed.structure(&[WEB])).await.unwrap();
}

async fn wait_to_take(address: std::net::SocketAddr) -> tokio::net::TcpListener {
    let mut listener = None;
    wait_for("a free address", || {
        let taken = std::net::TcpListener::bind(address);
        let is_there = taken.is_ok();
        if let Ok(taken) = taken {
            taken.set_nonblocking(true).unwrap();
            listener = Some(taken);
        }
        async move { is_there }
    })
    .await;
    tokio::net::TcpListener::from_std(listener.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_served_with_the_certificates_of_a_folder() {
    let (bed, _a) = serving().await;
    let folder = bed.path("certificates");
    std::fs::create_dir(&folder).unwrap();
    let (key, certificate) = (bed.path("key.pem"), bed.path("certificate.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-subj", "/CN=www.example.com", "-days", "2"])
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let pem = bed.read("certificate.pem") + &bed.read("key.pem");
    std::fs::write(format!("{folder}/www.pem"), pem).unwrap();
    let secure = free_address();
    let mut structure = bed.structure(&[WEB]);
    let listener = Listener { bind: secure, certificates: Some(folder.parse().unwrap()) };
    structure.listeners.insert("secure".parse().unwrap(), listener);
    bed.proxy.restructure(&structure).await.unwrap();
    bed.route("secure www.example.com/", WEB).await;
    for version in ["--http1.1", "--http2"] {
        let resolve = format!("www.example.com:{}:127.0.0.1", secure.port());
        let url = format!("https://www.example.com:{}/", secure.port());
        let fetched = tokio::process::Command::new("curl")
            .args(["-s", "-k", version, "--resolve", &resolve, "--max-time", "5", &url])
            .output()
            .await
            .unwrap();
        let body = String::from_utf8_lossy(&fetched.stdout).to_lowercase();
        assert!(body.contains("x-forwarded-proto: https\n"), "{version}: {body}");
        assert!(body.starts_with("server: a\n"), "{version}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_statistics_and_metrics() {
    let (bed, _a) = serving().await;
    let page = get(bed.stats, "localhost", "/").await;
    assert!(page.status == 200 && page.body.contains("production.web"));
    let metrics = get(bed.stats, "localhost", "/metrics").await;
    assert!(metrics.status == 200 && metrics.body.contains("haproxy_server_status"));
}

/// An idle connection to a server is no session, and doesn't hold up its removal for long.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_count() {
    let (bed, a) = serving().await;
    let mut client = tokio::net::TcpStream::connect(bed.web).await.unwrap();
    let mut buffer = [0; 4096];
    for _ in 0..3 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n").await.unwrap();
        assert!(client.read(&mut buffer).await.unwrap() > 0);
    }
    assert!(a.requests() >= 3);
    assert_eq!(bed.proxy.sessions(&backend(WEB), &server(A)).await.unwrap(), 0);
    bed.leave(WEB, A).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n").await.unwrap();
    let count = client.read(&mut buffer).await.unwrap();
    assert!(buffer[..count].starts_with(b"HTTP/1.1 503"));
}

/// A container that is killed under load: requests without side effects are sent again to
/// another server, and its checks take it out.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_under_load_costs_no_get() {
    let (bed, _a) = serving().await;
    let b = WebServer::start("b").await;
    bed.join(WEB, B, b.address, 100).await;
    let load = Load::start(bed.web, "www.example.com");
    wait_for("requests to b", || async { b.requests() > 20 }).await;
    drop(b);
    wait_for("DOWN", || async { !bed.is_up(&backend(WEB), &server(B)).await }).await;
    load.finish().await;
}

/// A look at a small HAProxy is a matter of milliseconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_is_quick() {
    let (bed, _a) = serving().await;
    let begin = tokio::time::Instant::now();
    for _ in 0..20 {
        bed.proxy.observe().await.unwrap();
    }
    let each = begin.elapsed() / 20;
    println!("a look takes {each:?}");
    assert!(each.as_millis() < 100, "{each:?}");
}

/// A path of a unix socket has 107 bytes at most: in a deep folder the sockets lie elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_deep_state_folder_works() {
    let mut bed = Bed::managed();
    let deep = bed.folder.path().join("d".repeat(100));
    bed.proxy = Bed::adapter(&deep, plimsoll::model::BalancerRun::Managed);
    let structure = bed.structure(&[WEB]);
    bed.proxy.restructure(&structure).await.unwrap();
    assert_eq!(bed.runtime().await.structure, Some(structure.digest()));
    let file = std::fs::read_to_string(deep.join("haproxy.cfg")).unwrap();
    let words = file.lines().find_map(|line| line.trim().strip_prefix("stats socket "));
    let socket = std::path::Path::new(words.unwrap().split(' ').next().unwrap());
    std::fs::remove_dir_all(socket.parent().unwrap()).unwrap();
}
