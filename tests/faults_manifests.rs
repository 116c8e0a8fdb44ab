//! The lines M1 to M14 of the fault catalogue: what can be wrong in manifests. What people are
//! told is looked at from the command line; what must not happen to a fleet, on real engines.
//!
//! The wording of each single mistake is in `tests/golden/manifest`; here it is about each fault
//! as a whole: it ends, quickly, in a sentence, and nothing of it reaches a host or a balancer.

#[path = "faults/b_engine.rs"]
mod engine;
#[path = "harness/engine_proxy.rs"]
mod engine_proxy;
#[path = "faults/a_folder.rs"]
mod folder;
mod harness;

use std::time::Duration;

use engine::BrokenEngine;
use folder::{Folder, app as app_text, route};
use harness::{Fleet, Installation, Load, app, set, wait_until};
use plimsoll::manifest::Reader;
use plimsoll::model::{CommitId, Content, Files};
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long the reader takes for one file, in this process: the best of three, since other tests
/// run beside.
fn reading_takes(text: &str) -> Duration {
    let content = Content::Bytes { blob: "1".into(), bytes: text.as_bytes().to_vec().into() };
    let files = Files {
        commit: CommitId("0".repeat(40)),
        files: [("app.yaml".to_owned(), content)].into(),
    };
    let read = || {
        let begin = Instant::now();
        assert!(!Reader::new().read(&files).diagnostics.is_empty());
        begin.elapsed()
    };
    (0..3).map(|_| read()).min().unwrap()
}

fn alias_bomb() -> String {
    let mut text = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for pair in "abcdefghi".as_bytes().windows(2) {
        let (old, new) = (char::from(pair[0]), char::from(pair[1]));
        text.push_str(&format!("{new}: &{new} [{}]\n", vec![format!("*{old}"); 9].join(",")));
    }
    text
}

#[test]
fn m1_alias_bomb_is_refused_at_once() {
    let folder = Folder::new();
    folder.write("bomb.yaml", alias_bomb());
    let bomb = folder.findings();
    assert!(bomb.of("bomb.yaml").message.contains("its aliases written out"), "{bomb:?}");
    assert_eq!(bomb.files(), ["bomb.yaml"]);
    let took = reading_takes(&alias_bomb());
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[test]
fn m2_ten_thousand_levels_of_nesting_are_an_error_and_no_abort() {
    let deep = 10_000;
    for (what, text) in [
        ("lists", format!("a: {}{}", "[".repeat(deep), "]".repeat(deep))),
        ("lists that stay open", format!("a: {}", "[".repeat(deep))),
        ("mappings", format!("a: {}1{}", "{a: ".repeat(deep), "}".repeat(deep))),
        ("lists in block style", format!("{}a", "- ".repeat(deep))),
        ("keys that are mappings", format!("{}a", "? ".repeat(deep))),
        (
            "mappings in block style",
            (0..1200).map(|level| format!("{}a:\n", " ".repeat(level))).collect(),
        ),
    ] {
        let folder = Folder::new();
        folder.write("deep.yaml", text);
        let told = folder.told().expect(1);
        assert!(told.stdout.contains("nested deeper than 64 levels"), "{what}: {told}");
        assert!(told.stdout.lines().all(|line| line.len() < 500), "{what}: a line is endless");
    }
}

#[test]
fn m3_duplicate_unknown_and_mistyped_fields_are_told_with_place_line_and_hint() {
    for (more, column, line, hint) in [
        ("  port: 80\n", 3, "port: 80", "keep one of them"),
        ("  replica: 2\n", 3, "replica: 2", "did you mean `replicas`?"),
        ("  env: [A=1]\n", 3, "env: [A=1]", "write `env: {NAME: value}`"),
    ] {
        let folder = Folder::new();
        folder.write_app("web", more);
        let told = folder.told().expect(1);
        for expected in [&format!("web.yaml:8:{column}"), line, hint] {
            assert!(told.stdout.contains(expected), "no {expected}: {told}");
        }
        let findings = folder.findings();
        let mistake = findings.of("web.yaml");
        assert_eq!((mistake.line, mistake.column), (8, column));
        assert_eq!(mistake.hint.as_deref(), Some(hint));
    }
}

#[test]
fn m4_impossible_weights_are_refused_and_all_zero_is_said() {
    let folder = Folder::new();
    let weights = ["257", "-1", ".NaN", "\"10%\"", "1e2", "4294967297", "0x10", "~"];
    for (number, weight) in weights.iter().enumerate() {
        folder.write_app(&format!("w{number}"), &format!("  weights: {{alpha: {weight}}}\n"));
    }
    let found = folder.findings();
    for (number, weight) in weights.iter().enumerate() {
        let mistake = found.of(&format!("w{number}.yaml"));
        assert_eq!((mistake.line, mistake.column > 10), (8, true), "{weight}: {mistake:?}");
        assert!(mistake.message.contains("weights"), "{weight}: {mistake:?}");
    }

    let folder = Folder::new();
    let zero = format!("  weights: {{alpha: 0}}\n{}", route("a.example.com", "/"));
    folder.write_app("zero", &zero);
    let found = folder.findings();
    assert!(found.errors.is_empty(), "{found:?}");
    assert!(found.warnings[0].message.contains("all servers of this app have weight 0"));
}

/// What could end a line, a word or a quote in HAProxy's file, or be replaced there.
const POISON: [&str; 12] =
    ["\n", "\r", "\0", ";", "\"", "'", "${HOME}", "}", "#", "\\", " ", "%[env(HOME)]"];

#[test]
fn m5_what_haproxy_would_understand_is_refused_in_every_text() {
    let folder = Folder::new();
    let mut files = Vec::new();
    for (number, poison) in POISON.iter().enumerate() {
        let quoted = |text: String| json!(text);
        for (what, text) in [
            ("host", app_text("a", &route(&format!("a{poison}b.example.com"), "/"))),
            ("path", app_text("a", &route("a.example.com", &format!("/a{poison}b")))),
            (
                "health",
                app_text("a", &format!("  health: {{path: {}}}\n", quoted(format!("/a{poison}b")))),
            ),
            (
                "listener",
                app_text("a", &route("a", "/")).replace(
                    "listener: web",
                    &format!("listener: {}", quoted(format!("web{poison}"))),
                ),
            ),
            ("name", app_text("XX", "").replace("XX", &quoted(format!("a{poison}b")).to_string())),
        ] {
            let file = format!("{what}-{number:02}.yaml");
            folder.write(&file, text);
            files.push(file);
        }
        let balancer = format!(
            "apiVersion: plimsoll/v1alpha1\nkind: Balancer\nmetadata: {{name: b{number}}}\nspec:\n  \
             listen: [{{name: web, bind: {}}}]\n  stats: 127.0.0.1:{}\n",
            quoted(format!("127.0.0.1:80{poison}")),
            9000 + number,
        );
        folder.write(&format!("bind-{number:02}.yaml"), balancer);
        files.push(format!("bind-{number:02}.yaml"));
    }
    let found = folder.findings();
    for file in files {
        let mistake = found.of(&file);
        let is_plain = mistake.message.chars().all(|c| !c.is_control());
        assert!(is_plain, "a control character is echoed: {mistake:?}");
    }
}

#[test]
fn m6_routes_that_meet_name_both_files() {
    for (one, other, meet) in [
        ("www.example.com", "www.example.com", true),
        ("www.example.com", "WWW.Example.COM", true),
        ("www.example.com", "www.example.com.", true),
        ("*.example.com", "*.EXAMPLE.com", true),
        ("xn--mnchen-3ya.example", "XN--MNCHEN-3YA.example", true),
        // The exact name wins, so that both have a meaning.
        ("www.example.com", "*.example.com", false),
        ("www.example.com", "example.com", false),
    ] {
        let folder = Folder::new();
        folder.write_app("one", &route(one, "/shop"));
        folder.write_app("two", &route(other, "/shop/"));
        let found = folder.findings();
        if !meet {
            assert!(found.errors.is_empty(), "{one} and {other}: {found:?}");
            continue;
        }
        for (file, other_file) in [("one.yaml", "two.yaml:8"), ("two.yaml", "one.yaml:8")] {
            let mistake = found.of(file);
            assert!(mistake.message.contains(other_file), "{one}, {other}: {mistake:?}");
            assert_eq!(mistake.line, 8);
        }
    }
    // Other spellings of one name aren't guessed at, but refused.
    for (host, hint) in
        [("www.example.com:8080", "leave the port out"), ("münchen.example", "punycode")]
    {
        let folder = Folder::new();
        folder.write_app("one", &route(host, "/"));
        let found = folder.findings();
        let told = found.of("one.yaml").hint.clone().unwrap_or_default();
        assert!(told.contains(hint), "{host}: {found:?}");
    }
}

#[test]
fn m7_a_hundred_hosts_are_lines_of_a_map_and_no_line_of_haproxy_is_long() {
    let shop = Installation::new("m7");
    let routes: Vec<_> = (0..100)
        .map(|number| json!({"balancer": "edge", "listener": "web", "host": format!("h{number}.example.com")}))
        .collect();
    let web = set(set(app("web"), "/replicas", 1), "/routes", routes);
    shop.deploy(&web);
    for number in [0, 57, 99] {
        let host = format!("h{number}.example.com");
        let answer = harness::get(shop.http_port(), &host, "/").unwrap();
        assert_eq!(answer.status, 200, "{host}");
    }
    let mut files = 0;
    for entry in std::fs::read_dir(shop.state().join("haproxy/edge")).unwrap().flatten() {
        if !entry.file_type().unwrap().is_file() {
            continue;
        }
        files += 1;
        for line in std::fs::read_to_string(entry.path()).unwrap_or_default().lines() {
            assert!(line.split(' ').count() < 64, "{}: {line}", entry.path().display());
        }
    }
    assert!(files >= 2, "the configuration and the map");
}

#[test]
fn m8_a_tag_is_resolved_once_and_stays_where_it_was_when_it_moves() {
    let folder = Folder::new();
    for (number, image) in
        ["Web:1", "web:", "web@sha256:12", "https://r/web", "a b"].iter().enumerate()
    {
        let text = app_text(&format!("a{number}"), "")
            .replace("image: web:1", &format!("image: {:?}", image));
        folder.write(&format!("a{number}.yaml"), text);
    }
    let found = folder.findings();
    assert_eq!(found.files().len(), 5, "{found:?}");

    let shop = Installation::new("m8");
    let fleet = harness::Fleet::shared();
    let moving = format!("{}:latest", shop.name);
    let point = |image: &str| {
        for engine in [&fleet.alpha, &fleet.beta] {
            engine.docker(["tag", image, moving.as_str()]).expect(0);
        }
    };
    point("web:1");
    let web = set(set(app("web"), "/replicas", 1), "/image", moving.as_str());
    shop.deploy(&web);
    let before = shop.containers();
    point("web:2");
    shop.expect_nothing_to_do();
    shop.write_app(&set(web.clone(), "/replicas", 2));
    shop.repository.push("Two of them");
    shop.converge();
    for _ in 0..8 {
        assert!(
            shop.get("web").unwrap().text().contains("version=1"),
            "the tag's move is no change"
        );
    }
    let after = shop.containers();
    assert!(before.iter().all(|(name, id)| after.get(name) == Some(id)), "{before:?} {after:?}");
    for engine in [&fleet.alpha, &fleet.beta] {
        engine.docker(["rmi", moving.as_str()]);
    }
}

#[test]
fn m9_what_gives_the_machine_away_is_refused_unless_the_host_allows_it() {
    for (more, allowed_by) in [
        ("  privileged: true\n", "allow: {privileged: true}"),
        ("  network: host\n", "allow: {hostNetwork: true}"),
        (
            "  volumes: [{host: /var/run/docker.sock, at: /s, readOnly: true}]\n",
            "allow: {engineSocket: true}",
        ),
        ("  volumes: [{host: /run/docker.sock, at: /s, readOnly: true}]\n", "engineSocket"),
        ("  volumes: [{host: /, at: /s, readOnly: true}]\n", ""),
        ("  volumes: [{host: /var/run, at: /s, readOnly: true}]\n", ""),
        ("  volumes: [{host: /etc, at: /s, readOnly: true}]\n", "allow: {folders: [/etc]}"),
        ("  volumes: [{host: /srv/../etc, at: /s, readOnly: true}]\n", ""),
        ("  capabilities: {add: [SYS_ADMIN]}\n", "allow: {privileged: true}"),
    ] {
        let folder = Folder::new();
        folder.write("web.yaml", app_text("web", more).replace("  port: 8080\n", ""));
        let found = folder.findings();
        let mistake = found.of("web.yaml");
        assert_eq!(mistake.line, 7, "{more}: {mistake:?}");
        let hint = mistake.hint.clone().unwrap_or_default();
        assert!(hint.contains(allowed_by), "{more}: {mistake:?}");
    }
}

#[test]
fn m10_an_impossible_interval_blocks_its_own_app_only() {
    let intervals = ["0s", "-1s", "1e99d", "NaN", "999999999999999999999d", "1", "\"\""];
    let folder = Folder::new();
    folder.write_app("good", "  health: {path: /, interval: 1s}\n");
    for (number, interval) in intervals.iter().enumerate() {
        let more = format!("  health: {{path: /, interval: {interval}}}\n");
        folder.write_app(&format!("b{number}"), &more);
    }
    let found = folder.findings();
    assert_eq!(found.files().len(), intervals.len(), "{found:#?}");
    assert!(!found.files().contains(&"good.yaml"));
    for mistake in &found.errors {
        assert!(mistake.message.contains("interval"), "{mistake:?}");
    }

    let shop = Installation::new("m10");
    shop.write_app(&set(app("good"), "/replicas", 1));
    shop.write_app(&set(app("bad"), "/health/interval", "0s"));
    shop.repository.push("One of two apps has an impossible interval");
    let (code, plan) = shop.apply();
    assert_eq!(code, 1);
    assert_eq!(plan.blocked.len(), 1, "{plan:?}");
    assert_eq!(plan.blocked[0].file, "apps/bad.yaml");
    assert!(plan.blocked[0].reason.contains("interval"), "{plan:?}");
    assert_eq!(shop.get("good").unwrap().status, 200);
    assert_eq!(shop.containers_of("bad").len(), 0);
}

/// Two apps, of which `old` is called `new` in the last commit and keeps its route.
fn renamed(name: &str) -> Installation {
    let shop = Installation::new(name);
    // A third app, so that the renamed one isn't the last.
    shop.write_app(&set(app("other"), "/replicas", 1));
    shop.deploy(&set(app("old"), "/replicas", 1));
    shop.remove_app("old");
    shop.write_app(&with_the_old_route());
    shop.repository.push("old is called new now");
    shop
}

fn with_the_old_route() -> Value {
    let mut new = set(app("new"), "/replicas", 1);
    new["spec"]["routes"] = app("old")["spec"]["routes"].clone();
    new
}

#[test]
fn m11_a_renamed_app_is_shown_as_a_replacement_and_two_of_one_name_conflict() {
    let shop = renamed("m11");
    let plan = shop.diff();
    let kinds = |app: &str, kind: &str| plan.steps_of(app).filter(|step| step.kind == kind).count();
    let told = shop.plimsoll(["diff"]).expect(1).stdout;
    assert!(told.contains("production/new") && told.contains("production/old"), "{told}");
    assert_eq!(kinds("production/new", "create"), 2, "{plan:#?}");
    assert_eq!(kinds("production/old", "remove"), 2, "{plan:#?}");
    shop.converge();
    assert_eq!(shop.containers_of("old").len(), 0);
    assert_eq!(shop.get("old").unwrap().status, 200);

    let folder = Folder::new();
    folder.write("a/web.yaml", app_text("web", ""));
    folder.write("b/web.yaml", app_text("web", ""));
    let found = folder.findings();
    assert!(found.of("a/web.yaml").message.contains("declared twice: also in b/web.yaml:3"));
    assert!(found.of("b/web.yaml").message.contains("declared twice: also in a/web.yaml:3"));
}

#[test]
fn m11_a_renamed_app_loses_no_request() {
    let shop = renamed("m11-load");
    let load = Load::start(shop.load_on("old").through_reloads());
    shop.converge();
    load.stop().expect_none_lost(20);
}

#[test]
fn m11_a_rename_with_a_mistake_takes_nothing_down() {
    let shop = renamed("m11-mistake");
    shop.write_app(&set(with_the_old_route(), "/imagine", "web:1"));
    shop.repository.push("A slip of the keyboard");
    let load = Load::start(shop.load_on("old").through_reloads());
    let before = shop.containers();
    let told = shop.plimsoll(["apply"]).expect(1).to_string();
    assert!(told.contains("no manifest declares it, but apps/new.yaml:"), "{told}");
    assert!(told.contains("did you mean `image`?"), "{told}");
    assert_eq!(shop.containers(), before);

    shop.write_app(&with_the_old_route());
    shop.repository.push("Mended");
    shop.converge();
    assert_eq!(shop.containers_of("old").len(), 0);
    load.stop().expect_none_lost(20);
}

#[test]
fn m12_all_manifests_deleted_in_one_commit_delete_nothing() {
    let shop = Installation::new("m12");
    shop.write_app(&set(app("other"), "/replicas", 1));
    let applied = shop.deploy(&set(app("web"), "/replicas", 1));
    let before = shop.containers();
    let load = Load::start(shop.load_on("web"));

    // Without an Installation nobody is asked to delete: there is nothing that could say so.
    shop.repository.git(["rm", "-q", "-r", "."]);
    shop.repository.push("Remove everything");
    for words in [&["apply"][..], &["diff"]] {
        let told = shop.plimsoll(words.iter().copied()).expect_failure();
        assert!(told.stderr.contains("Installation"), "{told}");
    }
    assert_eq!(shop.containers(), before);

    // With the fleet still declared, and no app any more, a person is asked.
    shop.repository.git(["checkout", "-q", &applied, "--", "."]);
    shop.repository.git(["rm", "-q", "-f", "-r", "apps"]);
    shop.repository.push("Remove all apps");
    let (code, plan) = shop.apply();
    assert_eq!(code, 1, "{plan:?}");
    assert_eq!(shop.containers(), before);
    let told = shop.plimsoll(["apply"]).expect(1);
    let id = plan.approvals().into_keys().next().expect("an approval is asked for");
    assert!(told.to_string().contains(&id), "what to type is told: {told}");
    assert_eq!(shop.status().commit.applied, Some(applied));
    load.stop().expect_none_lost(50);
}

#[test]
fn m13_bytes_that_editors_leave_behind_have_a_defined_result_each() {
    let text = app_text("web", "");
    let with = |file: &str, bytes: &[u8]| {
        let folder = Folder::new();
        folder.write(file, bytes);
        folder.findings()
    };
    for (what, bytes) in [
        ("a byte order mark", format!("\u{feff}{text}").into_bytes()),
        ("lines that end as on Windows", text.replace('\n', "\r\n").into_bytes()),
        ("no newline at the end", text.trim_end().as_bytes().to_vec()),
        ("an empty file", Vec::new()),
        ("comments only", b"# nothing\n".to_vec()),
    ] {
        let found = with("web.yaml", &bytes);
        assert!(found.errors.is_empty(), "{what}: {found:?}");
    }
    let mut bad = text.clone().into_bytes();
    bad.extend(b"  workdir: /\xff\xfe\n");
    let found = with("web.yaml", &bad);
    assert!(found.of("web.yaml").message.contains("UTF-8"), "{found:?}");
    assert_eq!(found.of("web.yaml").line, 8);
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(!with("web.yaml", &[b"\xff\xfe", wide.as_slice()].concat()).errors.is_empty());
    // The name's case is no matter: what looks like a manifest is one.
    assert!(!with("WEB.YAML", b"nonsense: 1\n").errors.is_empty(), "WEB.YAML is read");
}

/// A thousand apps can't be started here. All that comes before is done: read, checked, held
/// against real engines and planned, within bounds of time and memory.
#[test]
fn m14_a_thousand_apps_in_one_push_are_read_and_planned_within_bounds() {
    let shop = Installation::new("m14");
    let engine = &harness::Fleet::shared().alpha;
    shop.write("hosts/alpha.yaml", &harness::host("alpha", engine, "127.0.0.1", "30000-32499"));
    let one = |name: &str| set(set(app(name), "/hosts", json!(["alpha"])), "/replicas", 1);
    for number in 0..1000 {
        shop.write_app(&one(&format!("a{number}")));
    }
    shop.repository.push("A thousand apps");
    let begin = Instant::now();
    let validated = shop.validate([]).expect(0);
    let validating = begin.elapsed();
    assert!(validating < Duration::from_secs(20), "{validating:?}: {validated}");
    let begin = Instant::now();
    let plan = shop.diff();
    let planning = begin.elapsed();
    eprintln!("1,000 apps: validate {validating:?}, diff {planning:?}");
    let created = plan.steps.iter().filter(|step| step.kind == "create").count();
    assert_eq!(created, 1000);
    assert!(planning < Duration::from_secs(60), "{planning:?}");
    // One restructuring for all of them, not a thousand reloads.
    let reloads = plan.steps.iter().filter(|step| step.kind == "restructure").count();
    assert_eq!(reloads, 1, "one reload");
    // People get to see it all, and are told the sum.
    let told = shop.plimsoll(["diff"]).expect(1);
    assert!(told.stdout.contains("a999"), "{}", told.stdout.len());
}

/// As many of them as fit here are started, and what reaches the engine is counted.
#[test]
fn m14_many_apps_in_one_push_are_started_a_few_at_a_time_and_progress_is_told() {
    const APPS: usize = 24;
    let shop = Installation::new("m14-many");
    let counting = BrokenEngine::before(&Fleet::shared().alpha);
    shop.write("hosts/alpha.yaml", &counting.host(&shop, "alpha", "127.0.0.1"));
    for number in 0..APPS {
        let mut worker = set(app(&format!("w{number}")), "/replicas", 1);
        for field in ["port", "routes", "health"] {
            worker["spec"].as_object_mut().unwrap().remove(field);
        }
        shop.write_app(&set(worker, "/hosts", json!(["alpha"])));
    }
    shop.repository.push("Many apps");
    let told = shop.folder().join("told");
    let file = std::fs::File::create(&told).unwrap();
    let errors = file.try_clone().unwrap();
    let mut apply = shop.command(["apply"]).stdout(file).stderr(errors).spawn().unwrap();
    let read = || std::fs::read_to_string(&told).unwrap();
    let lines = |text: &str| text.lines().filter(|line| line.contains("alpha: start ")).count();
    // What is done is told while the rest goes on.
    let mut early = 0;
    let mut ended = None;
    wait_until(Duration::from_secs(110), "the apply ends", || {
        ended = apply.try_wait().unwrap();
        if ended.is_none() && early == 0 {
            early = lines(&read());
        }
        ended.is_some()
    });
    let text = read();
    assert!(ended.is_some_and(|status| status.success()), "{text}");
    assert!((1..APPS).contains(&early), "{early} of {APPS} at first: {text}");
    assert_eq!(lines(&text), APPS, "{text}");
    assert_eq!(shop.running().len(), APPS);
    // `ENGINE_CALLS_PER_HOST` in src/execute: more than one, and no more than four.
    let most = counting.most_changes_at_once();
    assert!((2..=4).contains(&most), "{most} changing calls at one time");
    shop.expect_nothing_to_do();
}
