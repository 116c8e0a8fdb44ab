//! The reader as a whole: order, memory, isolation, bounds, speed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plimsoll::manifest::{Reader, Reading, render};
use plimsoll::model::{App, CommitId, Content, Desired, Files, Host, Location, Sha256};
use proptest::prelude::*;

const HEAD: &str = "apiVersion: plimsoll/v1alpha1\nkind: ";

fn fleet() -> Vec<String> {
    let mut fleet = vec![
        format!("{HEAD}Installation\nmetadata: {{name: shop, uid: 8f14e45f}}\n"),
        format!("{HEAD}Environment\nmetadata: {{name: production}}\nspec: {{env: {{A: b}}}}\n"),
        format!(
            "{HEAD}Balancer\nmetadata: {{name: edge}}\nspec: {{listen: [{{name: web, bind: ':80'}}]}}\n"
        ),
    ];
    for number in 1..=3 {
        fleet.push(format!(
            "{HEAD}Host\nmetadata: {{name: h{number}}}\nspec: {{engine: ssh://h{number}, address: 10.0.0.{number}}}\n"
        ));
    }
    fleet
}

fn app(name: &str, more: &str) -> String {
    format!(
        "{HEAD}App\nmetadata: {{name: {name}, environment: production}}\nspec:\n  image: web:1\n  hosts: [h1, h2]\n  port: 80\n  routes: [{{balancer: edge, listener: web, host: {name}.example.com}}]\n{more}"
    )
}

fn content(text: &str) -> Content {
    let blob = Sha256::of(text.as_bytes()).hex();
    Content::Bytes { blob, bytes: Bytes::from(text.to_owned()) }
}

fn files<'t>(files: impl IntoIterator<Item = (String, &'t str)>) -> Files {
    let files = files.into_iter().map(|(path, text)| (path, content(text))).collect();
    Files { commit: CommitId("0".repeat(40)), files }
}

/// The fleet in one file, and these apps in files of their own.
fn commit(apps: &BTreeMap<String, String>) -> Files {
    let fleet = fleet().join("---\n");
    let apps = apps.iter().map(|(name, text)| (format!("apps/{name}.yaml"), text.as_str()));
    files(apps.chain([("fleet.yaml".to_owned(), fleet.as_str())]))
}

fn apps(number: usize) -> BTreeMap<String, String> {
    (0..number).map(|n| format!("app-{n}")).map(|name| (name.clone(), app(&name, ""))).collect()
}

fn messages(reading: &Reading) -> Vec<&str> {
    reading.diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect()
}

/// Without the places, which the order of documents does change.
fn placeless(desired: &Desired) -> Desired {
    let mut desired = desired.clone();
    let nowhere = || Location { file: String::new(), line: 0 };
    let apps = desired.apps.into_iter();
    let apps =
        apps.map(|(id, app)| (id, Arc::new(App { location: nowhere(), ..App::clone(&app) })));
    desired.apps = apps.collect();
    let hosts = desired.hosts.into_iter();
    let hosts = hosts
        .map(|(name, host)| (name, Arc::new(Host { location: nowhere(), ..Host::clone(&host) })));
    desired.hosts = hosts.collect();
    desired.balancers.values_mut().for_each(|balancer| balancer.location = nowhere());
    desired
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Files and documents are a set: how they are sorted into files doesn't matter.
    #[test]
    fn order_means_nothing(
        order in Just((0..12usize).collect::<Vec<_>>()).prop_shuffle(),
        cuts in proptest::collection::vec(any::<bool>(), 12),
    ) {
        let mut documents = fleet();
        documents.extend(apps(6).into_values());
        let plain = documents.join("---\n");
        let mut shuffled: Vec<String> = vec![String::new()];
        for (place, cut) in order.iter().zip(cuts) {
            if cut {
                shuffled.push(String::new());
            }
            if let Some(file) = shuffled.last_mut() {
                *file += &format!("---\n{}", documents[*place]);
            }
        }
        let names = (0..).map(|number| format!("{number}.yaml"));
        let shuffled = files(names.zip(shuffled.iter().map(String::as_str)));
        let one = Reader::new().read(&files([("all.yaml".to_owned(), plain.as_str())]));
        let other = Reader::new().read(&shuffled);
        prop_assert_eq!(messages(&one), Vec::<&str>::new());
        prop_assert_eq!(one.desired.as_ref().map(placeless), other.desired.as_ref().map(placeless));
    }

    /// Whatever the bytes, there is an answer.
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut files = commit(&apps(1));
        let blob = Sha256::of(&bytes).hex();
        files.files.insert("x.yaml".into(), Content::Bytes { blob, bytes: bytes.into() });
        let reading = Reader::new().read(&files);
        prop_assert!(reading.desired.is_some());
    }

    /// Manifests that were damaged somewhere have an answer too, at a place that is there.
    #[test]
    fn damage_is_told(at in 0..400usize, with in "[\\PC\n\t]{0,6}", drop in 0..20usize) {
        let text = app("app-0", "  env: {A: 'b', C: [d]}\n  weights: {h1: 1}\n");
        let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let end = (at + drop).min(text.len());
        let damaged = format!("{}{with}{}", &text[..at], &text[end..]);
        let apps = BTreeMap::from([("app-0".to_owned(), damaged.clone())]);
        let reading = Reader::new().read(&commit(&apps));
        prop_assert!(reading.desired.is_some());
        for diagnostic in &reading.diagnostics {
            let lines = damaged.split('\n').count().max(60);
            prop_assert!(diagnostic.location.line as usize <= lines);
            prop_assert!(diagnostic.column >= 1 && diagnostic.length >= 1);
        }
    }
}

#[test]
fn only_changed_blobs_are_parsed() {
    let mut reader = Reader::new();
    let mut all = apps(20);
    let first = reader.read(&commit(&all));
    assert_eq!(first.files_parsed, 21);
    assert_eq!(reader.read(&commit(&all)).files_parsed, 0);
    all.insert("app-3".into(), app("app-3", "  replicas: 5\n"));
    all.remove("app-4");
    all.insert("app-20".into(), app("app-20", ""));
    let second = reader.read(&commit(&all));
    assert_eq!(second.files_parsed, 2);
    // What is remembered is what a reader without a memory finds.
    let anew = Reader::new().read(&commit(&all));
    assert_eq!(second.desired, anew.desired);
    assert_eq!(second.diagnostics, anew.diagnostics);
    let desired = second.desired.unwrap();
    assert_eq!(desired.apps.len(), 20);
    let replicas = |name: &str| {
        let id: plimsoll::model::AppId = format!("production/{name}").parse().unwrap();
        desired.apps[&id].placement.values().map(|placement| placement.replicas).sum::<u32>()
    };
    assert_eq!((replicas("app-3"), replicas("app-5")), (10, 2));
}

#[test]
fn a_base_that_changes_changes_its_apps() {
    let mut reader = Reader::new();
    let web = app("web", "  base: ../base.yaml\n");
    let fleet = fleet().join("---\n");
    let read = |reader: &mut Reader, base: &str| {
        let all = [("apps/web.yaml", web.as_str()), ("base.yaml", base), ("f.yml", &fleet)];
        let reading = reader.read(&files(all.map(|(path, text)| (path.to_owned(), text))));
        assert_eq!(messages(&reading), Vec::<&str>::new());
        let id: plimsoll::model::AppId = "production/web".parse().unwrap();
        (reading.files_parsed, reading.desired.unwrap().apps[&id].drain.to_string())
    };
    assert_eq!(read(&mut reader, "drain: 5s\n"), (3, "5s".to_owned()));
    assert_eq!(read(&mut reader, "drain: 6s\n"), (1, "6s".to_owned()));
    assert_eq!(read(&mut reader, "drain: 6s\n"), (0, "6s".to_owned()));
}

#[test]
fn a_bad_file_blocks_only_what_it_may_declare() {
    let bomb = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
        let alias = format!("*a{}", level - 1);
        text + &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(","))
    });
    let deep = [
        "[".repeat(10_000),
        format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)),
        "{a: ".repeat(10_000),
        "- ".repeat(10_000),
        "? ".repeat(10_000),
        (0..700).map(|level| format!("{}a:\n", " ".repeat(level))).collect(),
    ];
    let bytes: Vec<Vec<u8>> = deep
        .into_iter()
        .chain([bomb])
        .map(String::into_bytes)
        .chain([
            vec![b'a'; (1 << 20) + 1],
            vec![0xff, 0xfe, b'a', 0],
            b"kind: App\n\xff".to_vec(),
            b"kind: App\nmetadata: \0".to_vec(),
            b"kind: [App\n".to_vec(),
            b"apiVersion: plimsoll/v1alpha1\nkind: App\nmetadata: {name: x}\n".to_vec(),
        ])
        .collect();
    for bytes in bytes {
        let begun = tokio::time::Instant::now();
        let mut files = commit(&apps(3));
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(30)]).into_owned();
        let blob = Sha256::of(&bytes).hex();
        files.files.insert("bad.yaml".into(), Content::Bytes { blob, bytes: bytes.into() });
        let reading = Reader::new().read(&files);
        // Ten times what it takes in a debug build.
        assert!(begun.elapsed() < Duration::from_secs(2), "{shown}: {:?}", begun.elapsed());
        let desired = reading.desired.unwrap();
        assert_eq!(desired.apps.len(), 3, "{shown}");
        assert_eq!(desired.unreadable.len(), 1, "{shown}: {:?}", desired.unreadable);
        assert_eq!(desired.unreadable[0].location.file, "bad.yaml");
        assert_eq!(reading.diagnostics[0].location.file, "bad.yaml", "{shown}");
    }
}

#[test]
fn what_the_source_refused_is_unreadable() {
    let mut files = commit(&apps(1));
    let reason = "a symlink isn't followed".to_owned();
    files.files.insert("x.yaml".into(), Content::Refused { reason: reason.clone() });
    files.files.insert("README.md".into(), Content::Refused { reason: "too large".into() });
    let reading = Reader::new().read(&files);
    assert_eq!(messages(&reading), [reason.as_str()]);
    assert_eq!(reading.desired.unwrap().unreadable[0].reason, reason);
}

#[test]
fn a_byte_order_mark_and_crlf_change_nothing() {
    let plain = commit(&apps(2));
    let mut dressed = plain.clone();
    for content in dressed.files.values_mut() {
        if let Content::Bytes { blob, bytes } = content {
            let text = String::from_utf8(bytes.to_vec()).unwrap().replace('\n', "\r\n");
            *bytes = Bytes::from(format!("\u{feff}{text}"));
            *blob = Sha256::of(bytes).hex();
        }
    }
    let (plain, dressed) = (Reader::new().read(&plain), Reader::new().read(&dressed));
    assert_eq!(messages(&dressed), Vec::<&str>::new());
    assert_eq!(plain.desired, dressed.desired);
}

#[test]
fn mistakes_are_bounded() {
    let env: String = (0..5000).map(|number| format!("    {number}: x\n")).collect();
    let text = app("app-0", &format!("  env:\n{env}"));
    let reading = Reader::new().read(&commit(&BTreeMap::from([("app-0".into(), text)])));
    assert_eq!(reading.diagnostics.len(), 100);
    let line = format!("  labels: {{{}: [x]}}\n", "a".repeat(5000));
    let reading = Reader::new().read(&commit(&BTreeMap::from([("a".into(), app("a", &line))])));
    assert_eq!(reading.diagnostics[0].source, None);
}

/// A typing error in one of 10,000 apps is told by its line, and by nothing else, in under a
/// second: by a controller that knows the commit before, and from nothing. A debug build is given
/// more time for the latter; what a release takes is bounded by `cargo bench`.
#[test]
fn one_typo_among_ten_thousand_apps_is_told_by_its_line_in_time() {
    const SECOND: Duration = Duration::from_secs(1);
    let from_nothing = if cfg!(debug_assertions) { 10 * SECOND } else { SECOND };
    let sound = commit(&apps(10_000));
    let mut all = apps(10_000);
    all.insert("app-7321".into(), app("app-7321", "  replica: 3\n"));
    let typo = commit(&all);
    let read = |reader: &mut Reader, limit: Duration| {
        let begun = tokio::time::Instant::now();
        let reading = reader.read(&typo);
        let told = render(&reading.diagnostics, false);
        let took = begun.elapsed();
        assert_eq!(reading.diagnostics.len(), 1, "{told}");
        let mistake = &reading.diagnostics[0];
        let place = (mistake.location.file.as_str(), mistake.location.line, mistake.column);
        assert_eq!(place, ("apps/app-7321.yaml", 9, 3));
        for words in ["apps/app-7321.yaml:9:3", "  replica: 3", "did you mean `replicas`?"] {
            assert!(told.contains(words), "{words} isn't told: {told}");
        }
        assert!(told.lines().count() < 10, "{told}");
        let desired = reading.desired.unwrap();
        assert_eq!((desired.apps.len(), desired.blocked.len()), (9999, 1));
        println!("{took:?} of {limit:?}");
        took < limit
    };
    // A machine that does something else meanwhile may be slow once, but not each time.
    assert!((0..3).any(|_| read(&mut Reader::new(), from_nothing)), "from nothing");
    assert!(
        (0..3).any(|_| {
            let mut reader = Reader::new();
            assert!(reader.read(&sound).diagnostics.is_empty());
            read(&mut reader, SECOND)
        }),
        "with the commit before in memory"
    );
}

/// Twice the apps take about twice the time: nothing compares each with each.
#[test]
fn time_is_linear() {
    let time = |number: usize| {
        let files = commit(&apps(number));
        let mut reader = Reader::new();
        let begun = tokio::time::Instant::now();
        let reading = reader.read(&files);
        let first = begun.elapsed();
        assert_eq!(reading.desired.unwrap().apps.len(), number);
        let begun = tokio::time::Instant::now();
        reader.read(&files);
        (first, begun.elapsed())
    };
    // A machine that does something else meanwhile may be slow once, but not each time.
    let is_linear = (0..4).any(|_| {
        let ((small, small_again), (large, large_again)) = (time(500), time(4000));
        println!("500: {small:?}, again {small_again:?}; 4000: {large:?}, again {large_again:?}");
        large < small * 30 && large_again < small_again * 30
    });
    assert!(is_linear);
}
