//! The core at the size that the design names: 10,000 apps with 100,000 containers on 1,000
//! hosts behind one HAProxy. Prints a table with each bound and whether it held; the same table,
//! with the machine's size, is in the book. `make bench` runs it in release mode. Arguments name the
//! parts that are to be run: `cargo bench --bench core -- planning`.

#[path = "../tests/fleet_model/mod.rs"]
mod fleet_model;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fleet_model::Model;
use plimsoll::manifest::Reader;
use plimsoll::model::{CommitId, Content};
use plimsoll::plan::Planner;
use plimsoll::proxy;
use plimsoll::source::{GitSource, Source, SourceOptions};

/// That of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Figures that are measured together.
type Part = fn(&mut Table);

/// How often each figure is measured; the median counts.
const ROUNDS: usize = 11;

fn main() {
    let mut table = Table::default();
    let parts: [(&str, Part); 5] = [
        ("resident", resident),
        ("planning", planning),
        ("reading", reading),
        ("git", |table| {
            from_git(table, "flat", |number| format!("apps/app-{number}.yaml"));
            from_git(table, "nested", |number| format!("apps/{}/app-{number}.yaml", number % 100));
        }),
        ("rendering", rendering),
    ];
    // Cargo adds options of its own.
    let named: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for (name, run) in parts {
        if named.is_empty() || named.iter().any(|named| named == name) {
            run(&mut table);
        }
    }
    table.end();
}

/// What a controller has in memory of such a fleet beside the store, which `benches/store.rs`
/// weighs: the manifests as they were read, what they declare, what was seen, and the planner's
/// memory, with all that was used for a moment and isn't given back to the system.
fn resident(table: &mut Table) {
    let before = resident_bytes();
    let files = Model::files(10_000);
    let mut reader = Reader::new();
    let _ = reader.read(&files);
    let large = Model::converged(10_000, 10);
    let mut planner = Planner::default();
    assert!(planner.plan(&large.input()).is_empty());
    let megabytes = (resident_bytes() - before) / 1e6;
    let verdict = table.verdict(megabytes, Some(500.0), "MB");
    let what = "resident beside the store, 10,000 apps, 100,000 containers";
    println!("{what:<66} {megabytes:>9.0} MB                              {verdict}");
    drop((planner, reader, large));
}

/// Memory of this process that isn't swapped out.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kilobytes.expect("Linux says how much is resident") * 1024.0
}

fn planning(table: &mut Table) {
    let small = Model::converged(10, 10);
    let large = Model::converged(10_000, 10);
    let fleet = "10,000 apps, 100,000 containers";
    table.row(&format!("first plan of a converged fleet, {fleet}"), Some(50.0), || {
        assert!(Planner::default().plan(&large.input()).is_empty());
    });
    let mut planner = Planner::default();
    planner.plan(&large.input());
    table.row(&format!("the next plan of it, {fleet}"), Some(50.0), || {
        assert!(planner.plan(&large.input()).is_empty());
    });
    let of_large = one_app_changes(table, "10,000 apps", large, Some(5.0));
    let of_small = one_app_changes(table, "10 apps", small, None);
    table.ratio("plan after one app changed, 10,000 apps to 10", of_large / of_small, 2.0);
}

/// Plans two commits in turn that differ in one app. Returns the median in milliseconds.
fn one_app_changes(table: &mut Table, what: &str, model: Model, bound: Option<f64>) -> f64 {
    let mut planner = Planner::default();
    planner.plan(&model.input());
    let commits = [model.clone().with_one_app_changed(), model];
    let mut number = 0;
    table.row(&format!("plan after one app changed, {what}"), bound, || {
        let is_empty = planner.plan(&commits[number % 2].input()).is_empty();
        assert_eq!(is_empty, number % 2 == 1);
        assert_eq!(planner.planned().len(), 1);
        number += 1;
    })
}

fn reading(table: &mut Table) {
    let files = Model::files(10_000);
    table.row("reading 10,000 manifests", Some(1000.0), || {
        assert!(Reader::new().read(&files).desired.is_some());
    });
    let mut reader = Reader::new();
    reader.read(&files);
    let mut number = 0;
    table.row("reading again with one manifest changed", None, || {
        number += 1;
        let changed = Model::with_one_file_changed(&files, number);
        assert_eq!(reader.read(&changed).files_parsed, 1);
    });
}

/// 10,000 manifests in a repository: reading all of them, and one that changed.
fn from_git(table: &mut Table, what: &str, path: fn(usize) -> String) {
    let folder = tempfile::tempdir().expect("there is room for a repository");
    let repository = git2::Repository::init_bare(folder.path().join("remote")).expect("git works");
    let mut files = Model::files(10_000).files;
    let apps: Vec<String> = files.keys().filter(|path| path.contains("app-")).cloned().collect();
    for (number, old) in apps.iter().enumerate() {
        let content = files.remove(old).expect("it is there");
        files.insert(path(number), content);
    }
    let first = commit(&repository, &files, None);
    let changed = Content::Bytes { blob: String::new(), bytes: changed_app() };
    files.insert(path(7), changed);
    let second = commit(&repository, &files, Some(first));
    let remote = folder.path().join("remote").display().to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let source = |name: &str| {
        let options = SourceOptions::new(remote.clone(), folder.path().join(name));
        let source = GitSource::open(options).expect("the repository is there");
        runtime.block_on(source.fetch(None)).expect("it can be fetched");
        source
    };
    let id = |oid: git2::Oid| CommitId(oid.to_string());
    // Each knows nothing yet but that it was fetched.
    let mut sources: Vec<GitSource> =
        (0..ROUNDS).map(|number| source(&format!("cache-{number}"))).collect();
    table.row(&format!("reading 10,000 manifests from git, {what} folders"), Some(1000.0), || {
        let source = sources.pop().expect("one for each round");
        let files = runtime.block_on(source.files(&id(first))).expect("the commit is there");
        assert!(Reader::new().read(&files).desired.is_some());
    });
    let source = source("cache");
    runtime.block_on(source.files(&id(first))).expect("the commit is there");
    let mut commits = [second, first].into_iter().cycle();
    table.row(&format!("tree diff of one changed manifest, {what} folders"), None, || {
        let commit = commits.next().expect("there is one");
        runtime.block_on(source.files(&id(commit))).expect("the commit is there");
    });
}

fn changed_app() -> bytes::Bytes {
    let files = Model::with_one_file_changed(&Model::files(10_000), 1).files;
    let app = files.iter().find(|(path, _)| path.ends_with("/app-7.yaml"));
    match app {
        Some((_, Content::Bytes { bytes, .. })) => bytes.clone(),
        _ => panic!("the app is there"),
    }
}

/// Commits these files to the branch `main`.
fn commit(
    repository: &git2::Repository,
    files: &BTreeMap<String, Content>,
    parent: Option<git2::Oid>,
) -> git2::Oid {
    let mut index = git2::Index::new().expect("an index");
    for (path, content) in files {
        let Content::Bytes { bytes, .. } = content else { continue };
        let entry = git2::IndexEntry {
            ctime: git2::IndexTime::new(0, 0),
            mtime: git2::IndexTime::new(0, 0),
            dev: 0,
            ino: 0,
            mode: 0o100_644,
            uid: 0,
            gid: 0,
            file_size: bytes.len() as u32,
            id: repository.blob(bytes).expect("a blob"),
            flags: 0,
            flags_extended: 0,
            path: path.clone().into_bytes(),
        };
        index.add(&entry).expect("an entry");
    }
    let tree = index.write_tree_to(repository).expect("a tree");
    let tree = repository.find_tree(tree).expect("the tree");
    let author = git2::Signature::new("bench", "bench@example.com", &git2::Time::new(0, 0));
    let author = author.expect("a name");
    let parent = parent.map(|parent| repository.find_commit(parent).expect("the parent"));
    let parents: Vec<&git2::Commit<'_>> = parent.iter().collect();
    let branch = Some("refs/heads/main");
    repository.commit(branch, &author, &author, "bench", &tree, &parents).expect("a commit")
}

fn rendering(table: &mut Table) {
    let model = Model::converged(2_500, 4);
    let (config, places) = (model.proxy_config(), Model::places());
    table.row("rendering 10,000 servers", Some(50.0), || {
        assert!(proxy::render(&config, &places).is_ok());
    });
}

/// Figures with their bounds.
#[derive(Default)]
struct Table {
    missed: usize,
}

impl Table {
    /// Measures `work` and prints a line. `bound` in milliseconds.
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn row(&mut self, what: &str, bound: Option<f64>, mut work: impl FnMut()) -> f64 {
        let mut times: Vec<Duration> = (0..ROUNDS)
            .map(|_| {
                let begin = Instant::now();
                work();
                begin.elapsed()
            })
            .collect();
        times.sort();
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        let median = millis(times[ROUNDS / 2]);
        let verdict = self.verdict(median, bound, "ms");
        println!(
            "{what:<66} {median:>9.2} ms (min {:.2}, max {:.2})  {verdict}",
            millis(times[0]),
            millis(times[ROUNDS - 1])
        );
        median
    }

    fn verdict(&mut self, figure: f64, bound: Option<f64>, unit: &str) -> String {
        match bound {
            None => String::new(),
            Some(bound) if figure < bound => format!("< {bound:.0} {unit}: held"),
            Some(bound) => {
                self.missed += 1;
                format!("< {bound:.0} {unit}: MISSED")
            }
        }
    }

    fn ratio(&mut self, what: &str, ratio: f64, bound: f64) {
        let held = ratio <= bound;
        self.missed += usize::from(!held);
        let verdict = if held { "held" } else { "MISSED" };
        println!("{what:<66} {ratio:>9.2} times  at most {bound:.0}: {verdict}");
    }

    fn end(&self) {
        println!("{} bounds missed", self.missed);
    }
}
