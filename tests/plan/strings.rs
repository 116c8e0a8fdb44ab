//! No text of a manifest can add a word or a line to HAProxy's files. Texts of every kind are
//! written into every field that reaches a balancer; what the reader lets through is planned,
//! applied to a model of the world, and rendered. The files then have the directives that the
//! manifests mean, and no others, in the eyes of a reader who knows HAProxy's way to split a file
//! into words; and HAProxy itself takes them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use plimsoll::model::{Desired, ListenerName, ProxyConfig, ProxyFile};
use plimsoll::proxy::{Places, Rendered, parse, render};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::world::{Order, World, read};

/// The fields whose texts reach a balancer, each with a plain text.
const FIELDS: [(&str, &str); 15] = [
    ("environment", "production"),
    ("app", "web"),
    ("host", "alpha"),
    ("address", "10.0.0.1"),
    ("balancer", "edge"),
    ("listener", "web"),
    ("bind", "127.0.0.1:8080"),
    ("certificates", ""),
    ("stats", "127.0.0.1:8404"),
    ("route host", "www.example.com"),
    ("route path", "/shop"),
    ("health path", "/_status"),
    ("interval", "1s"),
    ("timeout", "2s"),
    ("weight", "100"),
];

type Texts = BTreeMap<&'static str, String>;

/// What ends a word, a line or a quote in HAProxy's files, or stands for something else there.
const POISON: [&str; 30] = [
    "\n",
    "\r\n",
    "\r",
    "\0",
    "\t",
    " ",
    ";",
    "\"",
    "'",
    "\\",
    "\\\n",
    "#",
    "${HOME}",
    "$HOME",
    "\"${HOME}\"",
    "}",
    "{",
    "%[env(HOME)]",
    "%{+Q}o",
    "\u{85}",
    "\u{2028}",
    "\u{a0}",
    "\u{feff}",
    "\n    http-request deny",
    "\nbackend evil",
    " check",
    " # ",
    "\u{1b}[2J",
    "é",
    "|",
];

/// Of plain letters for the most part, so that much of it gets through.
fn plain() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?",
        "[a-zA-Z0-9.-]{1,20}",
        "/[a-zA-Z0-9._~!&()*+,=:@/?%-]{0,20}",
        "(\\*\\.)?[a-z]{1,5}\\.[a-z]{2,5}\\.?",
        "(127\\.0\\.0\\.1|\\[::1\\]|\\*|)?:[0-9]{1,6}",
        "(::1|10\\.0\\.0\\.[0-9]{1,3}|fe80::1(%[a-z0-9]{1,4})?)",
        "[0-9]{1,4}(ms|s|m)?",
        "[0-9]{1,3}",
    ]
}

fn hostile() -> impl Strategy<Value = String> {
    let mixed = |(before, poison, after): (String, &str, String)| before + poison + &after;
    prop_oneof![
        2 => plain(),
        1 => (plain(), select(POISON.to_vec()), plain()).prop_map(mixed),
        1 => any::<String>(),
    ]
}

fn plain_texts() -> Texts {
    FIELDS.map(|(field, text)| (field, text.to_owned())).into()
}

/// A text that is fine in that field.
fn fine_in(field: &str) -> &'static str {
    let (_, text) = FIELDS.into_iter().find(|(name, _)| *name == field).expect("a field");
    if text.is_empty() { "/etc/haproxy/certs" } else { text }
}

/// A text that is fine in that field but for the poison in it.
fn poisoned(field: &str, poison: &str, at: usize) -> String {
    let text = fine_in(field);
    let (before, after) = text.split_at(at % (text.len() + 1));
    format!("{before}{poison}{after}")
}

/// The plain texts, with some of them poisoned, and some in place of which anything may stand.
fn texts() -> impl Strategy<Value = Texts> {
    let poisons = (0..FIELDS.len(), select(POISON.to_vec()), any::<usize>())
        .prop_map(|(nth, poison, at)| (FIELDS[nth].0, poisoned(FIELDS[nth].0, poison, at)));
    let others = (0..FIELDS.len(), hostile()).prop_map(|(nth, text)| (FIELDS[nth].0, text));
    let drawn = prop_oneof![poisons, others];
    proptest::collection::vec(drawn, 1..3).prop_map(|drawn| {
        let mut texts = plain_texts();
        texts.extend(drawn);
        texts
    })
}

/// The manifests, with two apps and two hosts: one of each has plain texts only.
fn manifests(texts: &Texts) -> String {
    let text = |field: &str| texts[field].clone();
    let document = |kind: &str, metadata: Value, spec: Value| {
        let api = "plimsoll/v1alpha1";
        json!({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}).to_string()
    };
    let host = |name: &str, number: u8, address: &str| {
        let engine = format!("tcp://10.9.9.{number}:2376");
        let spec = json!({"engine": engine, "address": address, "ports": "20000-20015"});
        document("Host", json!({"name": name}), spec)
    };
    let mut listener = json!({"name": text("listener"), "bind": text("bind")});
    if !texts["certificates"].is_empty() {
        listener["tls"] = json!({"certificates": text("certificates")});
    }
    let other = json!({"name": "other", "bind": "127.0.0.1:8081"});
    let balancer = json!({"listen": [listener, other], "stats": text("stats"), "xHost": true});
    let weight = texts["weight"].parse::<u32>().map_or(json!(text("weight")), |n| json!(n));
    let route = json!({
        "balancer": text("balancer"), "listener": text("listener"),
        "host": text("route host"), "path": text("route path"),
    });
    let health = json!({
        "path": text("health path"), "interval": text("interval"), "timeout": text("timeout"),
    });
    let app = json!({
        "image": "web:1", "port": 8080, "hosts": [text("host"), "plain"], "replicas": 2,
        "weights": {texts["host"].as_str(): weight, "plain": 7}, "routes": [route],
        "health": health,
    });
    let plain = json!({
        "image": "web:1", "port": 8080, "hosts": ["plain"],
        "routes": [{"balancer": text("balancer"), "listener": "other", "host": "*"}],
    });
    let in_environment = |name: &str| json!({"name": name, "environment": text("environment")});
    [
        document("Installation", json!({"name": "shop", "uid": "8f14e45f"}), json!({})),
        document("Environment", json!({"name": text("environment")}), json!({})),
        host(&texts["host"], 1, &texts["address"]),
        host("plain", 2, "10.0.0.2"),
        document("Balancer", json!({"name": text("balancer")}), balancer),
        document("App", in_environment(&texts["app"]), app),
        document("App", in_environment("plain"), plain),
    ]
    .join("\n---\n")
}

fn places(folder: &str) -> Places {
    Places {
        runtime_socket: format!("{folder}/runtime.sock").parse().unwrap(),
        routes: format!("{folder}/routes.map").parse().unwrap(),
    }
}

// ---- how HAProxy reads a file ----

/// The words of a line of HAProxy's configuration, as its manual (section 2.2) splits it.
///
/// # Errors
/// What has a meaning beside words: an environment variable, a line that goes on, a byte that no
/// line of ours has.
fn words(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let (mut quote, mut characters) = (None, line.chars());
    while let Some(c) = characters.next() {
        match (quote, c) {
            (_, c) if c.is_control() || !c.is_ascii() => return Err(format!("{c:?} in {line:?}")),
            (None | Some('"'), '\\') => {
                let next = characters.next().ok_or_else(|| format!("{line:?} goes on"))?;
                word.get_or_insert_default().extend(['\\', next]);
            }
            (Some('"'), '$') => return Err(format!("a variable in {line:?}")),
            (None, ' ') => words.extend(word.take()),
            (None, '#') => break,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if open == c => quote = None,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("a quote stays open in {line:?}"));
    }
    words.extend(word);
    Ok(words)
}

/// A section: what begins it, and of each directive the words that don't come from a manifest,
/// with `*` for those that do.
type Section = Vec<String>;

/// The sections of a configuration.
fn sections(config: &str) -> Result<Vec<Section>, String> {
    let mut sections: Vec<Section> = Vec::new();
    for line in config.lines() {
        let words = words(line)?;
        let Some(first) = words.first() else { continue };
        let begins = !line.starts_with(' ');
        let decided: &[usize] = match (first.as_str(), words.get(1).map(String::as_str)) {
            ("frontend" | "backend" | "bind" | "description", _) => &[1],
            ("http-check", Some("send")) => &[5, 10],
            ("timeout", Some("check")) => &[2],
            ("stats", Some("socket")) => &[2],
            ("server", _) => &[1, 2, 4, 7, 9, 11],
            ("http-request", Some("set-var(txn.backend)")) => &[2],
            _ => &[],
        };
        let name = |(at, word): (usize, &String)| match decided.contains(&at) {
            true => "*".to_owned(),
            false => word.clone(),
        };
        // The folder of certificates stands in the middle of a `bind`.
        let mut words: Vec<String> = words.iter().enumerate().map(name).collect();
        if first == "bind" && words.len() > 4 {
            words[4] = "*".into();
        }
        let line = words.join(" ");
        match (begins, sections.last_mut()) {
            (true, _) => sections.push(vec![line]),
            (false, Some(section)) => section.push(line),
            (false, None) => return Err(format!("{line:?} is in no section")),
        }
    }
    Ok(sections)
}

// ---- what is meant ----

/// The sections of a balancer with one of each kind, all of whose texts are plain.
struct Kinds {
    frames: Vec<Section>,
    listener: Section,
    secure_listener: Section,
    checked_by_path: Section,
    checked_by_connection: Section,
    server: String,
}

impl Kinds {
    fn new() -> Self {
        let texts = plain_texts();
        let desired = read(&manifests(&texts), 1);
        assert!(desired.blocked.is_empty(), "{:?}", desired.blocked);
        let world = standing(desired);
        let mut config = files(&world).pop().expect("a balancer").1;
        let certificates = Some("/etc/certificates".parse().unwrap());
        let web: ListenerName = "web".parse().unwrap();
        config.structure.listeners.get_mut(&web).unwrap().certificates = certificates;
        let text = render(&config, &places("/x")).unwrap().config;
        let all = sections(&text).unwrap();
        let with = |start: &str, part: &str, has: bool| {
            let is = |s: &&Section| {
                s[0].starts_with(start) && s.iter().any(|line| line.contains(part)) == has
            };
            let mut section = all.iter().find(is).expect("such a section").clone();
            section.retain(|line| !line.starts_with("server "));
            section
        };
        let servers = || all.iter().flatten().filter(|line| line.starts_with("server "));
        let server = servers().next().expect("a server").clone();
        assert!(servers().all(|line| *line == server), "{all:#?}");
        let frames = [with("global", "", true), with("defaults", "", true)];
        Self {
            frames: frames.into_iter().chain([with("frontend", "stats enable", true)]).collect(),
            // That of the page of statistics binds as well, and comes first.
            listener: all
                .iter()
                .find(|s| s.iter().any(|l| l == "bind *") && s.iter().all(|l| l != "stats enable"))
                .expect("a listener")
                .clone(),
            secure_listener: with("frontend", "bind * ssl crt * ", true),
            checked_by_path: with("backend", "http-check", true),
            checked_by_connection: with("backend", "http-check", false),
            server,
        }
    }

    /// What the file of that configuration has to have, in any order.
    fn meant(&self, config: &ProxyConfig) -> Vec<Section> {
        let mut meant = self.frames.clone();
        for listener in config.structure.listeners.values() {
            let secure = listener.certificates.is_some();
            meant.push(if secure { &self.secure_listener } else { &self.listener }.clone());
        }
        for (name, backend) in &config.structure.backends {
            let by_path = backend.check.path.is_some();
            let mut section =
                if by_path { &self.checked_by_path } else { &self.checked_by_connection }.clone();
            let servers = config.servers.get(name).map_or(0, |servers| servers.len());
            section.extend(std::iter::repeat_n(self.server.clone(), servers));
            meant.push(section);
        }
        meant.sort();
        meant
    }
}

/// The world in which that is applied.
fn standing(desired: Desired) -> World {
    let mut world = World::new(desired);
    world.converge(Order::Printed, 4);
    world
}

/// The files of the balancers, by what they are called.
fn files(world: &World) -> Vec<(String, ProxyConfig)> {
    let ours = world.balancers.iter().filter_map(|(name, state)| match &state.file {
        ProxyFile::Ours(config) => Some((name.to_string(), (**config).clone())),
        _ => None,
    });
    ours.collect()
}

/// What `haproxy -c` says against a configuration; nothing where it takes it.
fn refused(rendered: &Rendered, folder: &Path) -> Option<String> {
    let config = folder.join("haproxy.cfg");
    std::fs::write(&config, &rendered.config).unwrap();
    std::fs::write(folder.join("routes.map"), &rendered.routes).unwrap();
    let said = Command::new("haproxy").arg("-c").arg("-f").arg(&config).output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    (!said.status.success() || text.contains("WARNING")).then_some(text)
}

/// Panics where the files of a balancer have anything that isn't meant.
fn check(kinds: &Kinds, config: &ProxyConfig, haproxy: bool) {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let places = places(folder.path().to_str().unwrap());
    let rendered = render(config, &places).unwrap();
    let mut found = sections(&rendered.config).unwrap_or_else(|why| panic!("{why}"));
    found.sort();
    let meant = kinds.meant(config);
    assert!(found == meant, "found {found:#?}\nmeant {meant:#?}\n{}", rendered.config);
    let lines = rendered.routes.lines().filter(|line| !line.starts_with('#'));
    let lines: Vec<_> =
        lines.map(|line| words(line).unwrap_or_else(|why| panic!("{why}"))).collect();
    assert_eq!(lines.len(), config.routes.len(), "{}", rendered.routes);
    assert!(lines.iter().all(|words| words.len() == 2), "{}", rendered.routes);
    // What is read back is what was meant.
    assert_eq!(parse(&rendered.config, &rendered.routes, &places).as_ref(), Ok(config));
    if haproxy && let Some(text) = refused(&rendered, folder.path()) {
        panic!("{text}\n{}\n{}", rendered.config, rendered.routes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn no_text_of_a_manifest_adds_a_directive(texts in texts(), ask in 0..8usize) {
        let kinds = KINDS.get_or_init(Kinds::new);
        let world = standing(read(&manifests(&texts), 1));
        for (_, config) in files(&world) {
            let secure = config.structure.listeners.values().any(|l| l.certificates.is_some());
            // Each takes a process. Certificates would have to be there.
            check(kinds, &config, ask == 0 && !secure);
        }
    }
}

static KINDS: std::sync::OnceLock<Kinds> = std::sync::OnceLock::new();

/// The property would hold for ever if nothing but plain texts got through, or if it couldn't
/// see what it looks for.
#[test]
fn what_gets_through_is_more_than_what_is_plain_and_what_is_added_is_seen() {
    let accepted = |field: &'static str, text: &str| {
        let mut texts = plain_texts();
        texts.insert(field, text.to_owned());
        let world = standing(read(&manifests(&texts), 1));
        let whole = files(&world);
        whole.iter().any(|(_, config)| config.structure.backends.len() == 4)
    };
    for (field, text) in [
        ("route path", "/a(b)!&*+,=:@c"),
        ("route host", "*.Example.COM."),
        ("health path", "/a?b=%20&c"),
        ("bind", "[::1]:80"),
        ("address", "::1"),
        ("certificates", "/etc/haproxy/certs_1.d"),
        ("app", "candidate"),
    ] {
        assert!(accepted(field, text), "{field}: {text} is refused");
    }
    for (field, _) in FIELDS {
        assert!(accepted(field, fine_in(field)), "{field}");
        for poison in POISON {
            for at in [1, fine_in(field).len()] {
                let text = poisoned(field, poison, at);
                assert!(!accepted(field, &text), "{field}: {text:?} gets through");
            }
        }
    }

    // Texts that a type would let through: each is seen.
    let kinds = KINDS.get_or_init(Kinds::new);
    let texts = plain_texts();
    let config = files(&standing(read(&manifests(&texts), 1))).pop().unwrap().1;
    let rendered = render(&config, &places("/x")).unwrap();
    for (what, by) in [
        ("uri /_status", "uri /_status hdr Cookie x"),
        ("uri /_status", "uri /_status\n    http-request deny"),
        ("uri /_status", "uri /_status\"${HOME}\""),
        ("uri /_status", "uri /_status#"),
        ("uri /_status", "uri /_status\\"),
        ("weight 100", "weight 100 disabled"),
        ("\nbackend ", "\nbackend evil\n\nbackend "),
    ] {
        let broken = rendered.config.replace(what, by);
        assert_ne!(broken, rendered.config, "{what}");
        let found = sections(&broken).map(|mut sections| {
            sections.sort();
            sections
        });
        assert_ne!(found, Ok(kinds.meant(&config)), "{by:?} isn't seen");
    }
}

/// Of a balancer that no app has a route on.
#[test]
fn without_apps_there_are_the_listeners_only() {
    let kinds = KINDS.get_or_init(Kinds::new);
    let texts = plain_texts();
    let mut config = files(&standing(read(&manifests(&texts), 1))).pop().unwrap().1;
    config.structure.backends.clear();
    config.routes.clear();
    config.servers.clear();
    check(kinds, &config, true);
}
