//! The configuration as text: golden files, reading back, the linter. No HAProxy is needed, but
//! for one look by `haproxy -c`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use plimsoll::model::{
    AppId, Backend, BackendName, Check, HostPattern, Listener, ListenerName, PathPrefix,
    ProxyConfig, ProxyStructure, RouteKey, Server, ServerName, Span, Track,
};
use plimsoll::proxy::{Places, lint, parse, render};
use proptest::prelude::*;

fn places() -> Places {
    Places {
        runtime_socket: "/var/lib/plimsoll/haproxy/edge/runtime.sock".parse().unwrap(),
        routes: "/var/lib/plimsoll/haproxy/edge/routes.map".parse().unwrap(),
    }
}

fn check(path: Option<&str>) -> Check {
    let second = Span::from_secs(1);
    Check { path: path.map(|path| path.parse().unwrap()), interval: second, timeout: second }
}

fn server(address: &str, weight: u16) -> Server {
    Server { address: address.parse().unwrap(), weight }
}

fn rich() -> ProxyConfig {
    let web: BackendName = "production.web".parse().unwrap();
    let candidate: BackendName = "production.web.candidate".parse().unwrap();
    let tcp: BackendName = "staging.candidate".parse().unwrap();
    let listener = |bind: &str, certificates: Option<&str>| Listener {
        bind: bind.parse().unwrap(),
        certificates: certificates.map(|folder| folder.parse().unwrap()),
    };
    let structure = ProxyStructure {
        stats: Some("127.0.0.1:8404".parse().unwrap()),
        x_host: true,
        listeners: BTreeMap::from([
            ("web".parse().unwrap(), listener("127.0.0.1:8080", None)),
            ("secure".parse().unwrap(), listener("[::1]:8443", Some("/etc/plimsoll/tls"))),
        ]),
        backends: BTreeMap::from([
            (web.clone(), Backend { check: check(Some("/_status?a=b")) }),
            (candidate.clone(), Backend { check: check(Some("/_status?a=b")) }),
            (tcp.clone(), Backend { check: check(None) }),
        ]),
    };
    let servers = BTreeMap::from([
        (
            web.clone(),
            BTreeMap::from([
                ("alpha:f753afc24d79:3f2a91bc-0".parse().unwrap(), server("127.0.0.2:20000", 100)),
                ("beta:f753afc24d79:3f2a91bc-1".parse().unwrap(), server("[::1]:20001", 0)),
            ]),
        ),
        (candidate, BTreeMap::new()),
        (
            tcp.clone(),
            BTreeMap::from([(
                "alpha:000000000000:00000000-0".parse().unwrap(),
                server("10.0.0.1:1", 256),
            )]),
        ),
    ]);
    let routes = BTreeMap::from([
        ("web www.example.com/".parse().unwrap(), web.clone()),
        ("web *.example.com/a/b".parse().unwrap(), tcp),
        ("secure */".parse().unwrap(), web),
    ]);
    ProxyConfig { structure, routes, servers }
}

/// Compares with a file of `tests/golden/proxy`; with UPDATE_GOLDEN set, writes it.
fn golden(name: &str, text: &str) {
    let path = format!("{}/tests/golden/proxy/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap_or_default(), "{path}");
}

#[test]
fn the_golden_files() {
    let rendered = render(&rich(), &places()).unwrap();
    golden("rich.cfg", &rendered.config);
    golden("rich.map", &rendered.routes);
    let empty = ProxyConfig {
        structure: ProxyStructure::default(),
        routes: BTreeMap::new(),
        servers: BTreeMap::new(),
    };
    golden("empty.cfg", &render(&empty, &places()).unwrap().config);
}

/// The digest is what workers are known by: it may change only together with what is rendered.
#[test]
fn the_digest_of_a_structure_stays() {
    assert_eq!(rich().structure.digest().short(12), "f335efb3cd5f");
    let mut other = rich();
    other.servers.clear();
    assert_eq!(other.structure.digest(), rich().structure.digest());
    other.structure.x_host = false;
    assert_ne!(other.structure.digest(), rich().structure.digest());
}

#[test]
fn haproxy_takes_what_is_rendered() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| format!("{}/{name}", folder.path().display());
    let places = Places {
        runtime_socket: path("runtime.sock").parse().unwrap(),
        routes: path("routes.map").parse().unwrap(),
    };
    let mut config = rich();
    config.structure.listeners.retain(|_, listener| listener.certificates.is_none());
    config.routes.retain(|key, _| config.structure.listeners.contains_key(&key.listener));
    // One listener with a hundred hosts and long paths (FAULTS.md, M7).
    let backend: BackendName = "production.web".parse().unwrap();
    for number in 0..100 {
        let key = format!("web host-{number}.example.com/{}", "x".repeat(200));
        config.routes.insert(key.parse().unwrap(), backend.clone());
    }
    let rendered = render(&config, &places).unwrap();
    lint(&config, &rendered, &places).unwrap();
    std::fs::write(path("haproxy.cfg"), &rendered.config).unwrap();
    std::fs::write(path("routes.map"), &rendered.routes).unwrap();
    let outcome = std::process::Command::new("haproxy")
        .args(["-c", "-f", &path("haproxy.cfg")])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success() && !stderr.contains("WARNING"), "{stderr}");
}

#[test]
fn the_linter_finds_what_haproxy_lets_pass() {
    type Break = Box<dyn Fn(&mut ProxyConfig)>;
    let broken: Vec<(&str, Break)> = vec![
        (
            "leads to staging.gone",
            Box::new(|c| {
                let key = "web a.example/".parse().unwrap();
                c.routes.insert(key, "staging.gone".parse().unwrap());
            }),
        ),
        (
            "on a listener that isn't there",
            Box::new(|c| {
                let key = "gone a.example/".parse().unwrap();
                c.routes.insert(key, "production.web".parse().unwrap());
            }),
        ),
        (
            "both listen on",
            Box::new(|c| {
                let bind = "0.0.0.0:8404".parse().unwrap();
                let listener = Listener { bind, certificates: None };
                c.structure.listeners.insert("twice".parse().unwrap(), listener);
            }),
        ),
        (
            "the weight 257",
            Box::new(|c| {
                for server in c.servers.values_mut().flat_map(BTreeMap::values_mut) {
                    server.weight = 257;
                }
            }),
        ),
        (
            "has no port",
            Box::new(|c| {
                for server in c.servers.values_mut().flat_map(BTreeMap::values_mut) {
                    server.address.set_port(0);
                }
            }),
        ),
        (
            "has no interval",
            Box::new(|c| {
                for backend in c.structure.backends.values_mut() {
                    backend.check.interval = Span::from_millis(0);
                }
            }),
        ),
        (
            "only in one of structure and servers",
            Box::new(|c| {
                c.servers.insert("staging.gone".parse().unwrap(), BTreeMap::new());
            }),
        ),
    ];
    for (finding, break_it) in broken {
        let mut config = rich();
        break_it(&mut config);
        let rendered = render(&config, &places()).unwrap();
        let text = lint(&config, &rendered, &places()).unwrap_err().to_string();
        assert!(text.contains(finding), "{finding}: {text}");
    }
    let rendered = render(&rich(), &places()).unwrap();
    lint(&rich(), &rendered, &places()).unwrap();
}

/// FAULTS.md, H3 and H12: cut at any line, a line more, a line changed, a line moved.
#[test]
fn a_file_that_was_touched_is_damaged() {
    let rendered = render(&rich(), &places()).unwrap();
    assert_eq!(parse(&rendered.config, &rendered.routes, &places()), Ok(rich()));
    for (index, _) in rendered.config.match_indices('\n') {
        let cut = &rendered.config[..=index];
        let whole = cut.len() == rendered.config.len();
        assert_eq!(parse(cut, &rendered.routes, &places()).is_ok(), whole, "cut at {index}");
    }
    for (index, _) in rendered.routes.match_indices('\n') {
        let cut = &rendered.routes[..=index];
        let whole = cut.len() == rendered.routes.len();
        assert_eq!(parse(&rendered.config, cut, &places()).is_ok(), whole, "map cut at {index}");
    }
    for edited in [
        format!("{}# mine\n", rendered.config),
        rendered.config.replace("weight 100", "weight 1"),
        rendered.config.replace("retries 3", "retries 0"),
        rendered.config.replace("retries 3\n", "retries 3\n    log global\n"),
    ] {
        assert!(parse(&edited, &rendered.routes, &places()).is_err());
    }
    let mut elsewhere = places();
    elsewhere.routes = "/tmp/routes.map".parse().unwrap();
    assert!(parse(&rendered.config, &rendered.routes, &elsewhere).is_err());
}

fn label() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?"
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = (any::<[u8; 4]>(), 1..=u16::MAX).prop_map(SocketAddr::from);
    let v6 = (any::<[u8; 16]>(), 1..=u16::MAX).prop_map(SocketAddr::from);
    prop_oneof![v4, v6]
}

fn backend_name() -> impl Strategy<Value = BackendName> {
    (label(), label(), any::<bool>()).prop_map(|(environment, name, stable)| BackendName {
        app: AppId::new(&environment, &name).unwrap(),
        track: if stable { Track::Stable } else { Track::Candidate },
    })
}

fn server_name() -> impl Strategy<Value = ServerName> {
    (label(), "[0-9a-f]{12}", "[0-9a-f]{8}", any::<u32>()).prop_map(|(host, image, revision, n)| {
        format!("{host}:{image}:{revision}-{n}").parse().unwrap()
    })
}

fn backend() -> impl Strategy<Value = (Backend, BTreeMap<ServerName, Server>)> {
    let path = proptest::option::of("/[a-zA-Z0-9._~!&()*+,=:@/?-]{0,20}(%[0-9A-F]{2})?");
    let span = 1u64..100_000_000;
    let server = (address(), 0u16..=256).prop_map(|(address, weight)| Server { address, weight });
    let servers = proptest::collection::btree_map(server_name(), server, 0..4);
    (path, span.clone(), span, servers).prop_map(|(path, interval, timeout, servers)| {
        let path = path.map(|path| path.parse().unwrap());
        let interval = Span::from_millis(interval);
        let check = Check { path, interval, timeout: Span::from_millis(timeout) };
        (Backend { check }, servers)
    })
}

fn host() -> impl Strategy<Value = HostPattern> {
    prop_oneof![
        Just("*".to_owned()),
        (label(), label()).prop_map(|(a, b)| format!("{a}.{b}")),
        (label(), label()).prop_map(|(a, b)| format!("*.{a}.{b}")),
    ]
    .prop_map(|host| host.parse().unwrap())
}

fn config() -> impl Strategy<Value = ProxyConfig> {
    let certificates = proptest::option::of("/[a-z]{1,8}(/[a-z._-]{1,8}x)?");
    let listener = (address(), certificates).prop_map(|(bind, certificates)| Listener {
        bind,
        certificates: certificates.map(|folder| folder.parse().unwrap()),
    });
    let listeners = proptest::collection::btree_map(label(), listener, 1..4);
    let backends = proptest::collection::btree_map(backend_name(), backend(), 1..4);
    let path = "/([a-zA-Z0-9._~!&()*+,=:@-]{1,8}/){0,3}";
    let route = (any::<prop::sample::Index>(), host(), path, any::<prop::sample::Index>());
    let routes = proptest::collection::vec(route, 0..6);
    let all = (proptest::option::of(address()), any::<bool>(), listeners, backends, routes);
    all.prop_map(|(stats, x_host, listeners, backends, routes)| {
        let listeners: BTreeMap<ListenerName, Listener> =
            listeners.into_iter().map(|(name, l)| (name.parse().unwrap(), l)).collect();
        let names: Vec<_> = listeners.keys().cloned().collect();
        let targets: Vec<_> = backends.keys().cloned().collect();
        let routes = routes.into_iter().map(|(listener, host, path, backend)| {
            let path: PathPrefix = path.parse().unwrap();
            let key = RouteKey { listener: listener.get(&names).clone(), host, path };
            (key, backend.get(&targets).clone())
        });
        let routes = routes.collect();
        let mut structure = ProxyStructure { stats, x_host, listeners, backends: BTreeMap::new() };
        let mut servers = BTreeMap::new();
        for (name, (backend, of_backend)) in backends {
            structure.backends.insert(name.clone(), backend);
            servers.insert(name, of_backend);
        }
        ProxyConfig { structure, routes, servers }
    })
}

proptest! {
    // A failure is printed whole; there is no file of seeds to keep.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_rendered_is_read_back(config in config()) {
        let rendered = render(&config, &places()).unwrap();
        prop_assert_eq!(&parse(&rendered.config, &rendered.routes, &places()).unwrap(), &config);
        let again = render(&config, &places()).unwrap();
        prop_assert_eq!(&again, &rendered);
    }
}
