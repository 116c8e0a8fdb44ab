//! The store at the size that the design names: what is known of 10,000 apps with 100,000
//! containers on 1,000 hosts. Prints a table with each bound and whether it held.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use plimsoll::model::{API_VERSION, Event, EventType, Kind, Metadata, Object};
use plimsoll::store::{Change, SledStore, Store};
use serde_json::json;

/// That of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often each figure is measured; the median counts.
const ROUNDS: usize = 11;

/// How many objects of each kind, and how many bytes of JSON each has, about.
const FLEET: [(Kind, usize, usize); 5] = [
    (Kind::App, 10_000, 1500),
    (Kind::Revision, 10_000, 1000),
    (Kind::Pin, 10_000, 300),
    (Kind::Host, 1_000, 300),
    (Kind::Container, 100_000, 700),
];

const EVENTS: usize = 10_000;

/// Steps with an effect in a rollout of 1,000 apps.
const STEPS: usize = 1_000;

/// Names the state folder to the process that fills it, so that what this one has in memory is
/// what the store needs after a start.
const FILL: &str = "PLIMSOLL_BENCH_FILL";

fn main() {
    if let Some(state) = std::env::var_os(FILL) {
        return fill(Path::new(&state));
    }
    let state = tempfile::tempdir().expect("there is room for a state folder");
    let mut table = Table::default();
    let program = std::env::current_exe().expect("this program has a path");
    let filled = Command::new(program).env(FILL, state.path()).status();
    assert!(filled.expect("this program runs").success());
    let before = resident_bytes();
    let store = open(state.path());
    let megabytes = (resident_bytes() - before) / 1e6;
    table.figure("resident for 131,000 objects, 10,000 events", "MB", &[megabytes], Some(300.0));
    drop(store);
    table.row("cold start with them", Some(1000.0), || open(state.path()));
    let store = open(state.path());
    reading(&mut table, &store);
    writing(&mut table, &store);
    table.end();
}

fn open(state: &Path) -> SledStore {
    let opened = SledStore::open(state).expect("the store opens");
    assert!(opened.notes.is_empty(), "{:?}", opened.notes);
    opened.store
}

/// Writes the fleet as a controller would: in many writes.
fn fill(state: &Path) {
    let store = open(state);
    for (kind, count, bytes) in FLEET {
        for first in (0..count).step_by(1000) {
            let some = (first..first + 1000).map(|number| object(kind, number, bytes));
            store.put(some.collect()).expect("the disk has room");
        }
    }
    (0..EVENTS).for_each(|number| store.record(event(number)).expect("the disk has room"));
}

fn object(kind: Kind, number: usize, bytes: usize) -> Object {
    let name = match kind {
        Kind::Host => format!("host-{number:04}"),
        Kind::Container => {
            let app = number / 10;
            format!("host-{:04}/plimsoll-production-app-{app:05}-{number:08x}", number % 1000)
        }
        _ => format!("production/app-{number:05}"),
    };
    // A tree of many small values, as manifests are.
    let pairs = (0..(bytes - 150) / 30).map(|at| (format!("field{at:02}"), json!([at, "value"])));
    let spec: serde_json::Map<_, _> = pairs.collect();
    Object {
        api_version: API_VERSION.into(),
        kind,
        metadata: Metadata { name, environment: None, resource_version: 0, generation: 0 },
        spec: spec.into(),
        status: json!({ "sync": "InSync", "number": number }),
    }
}

fn event(number: usize) -> Event {
    Event {
        time: jiff::Timestamp::UNIX_EPOCH,
        kind: EventType::Normal,
        reason: "ContainerStarted".into(),
        object: format!("App/production/app-{number:05}"),
        message: format!("plimsoll-production-app-{number:05} was started on host-0001"),
    }
}

fn reading(table: &mut Table, store: &SledStore) {
    table.row("names of 100,000 containers", None, || {
        black_box(store.names(Kind::Container).expect("it answers"))
    });
    table.row("10,000 apps, decoded", None, || {
        black_box(store.list(Kind::App).expect("it answers"))
    });
    let (kind, count, bytes) = FLEET[4];
    let objects: Vec<_> = (0..count).map(|number| object(kind, number, bytes)).collect();
    table.row("100,000 containers, written as they are (and a copy of them)", None, || {
        assert_eq!(store.put(objects.clone()).expect("the disk has room"), 0);
    });
}

fn writing(table: &mut Table, store: &SledStore) {
    let mut number = 0;
    table.row("writing one app that changed", Some(50.0), || {
        number += 1;
        let mut app = object(Kind::App, number * 997 % 10_000, 1500);
        app.status = json!({ "changed": number });
        assert_eq!(store.put(vec![app]).expect("the disk has room"), 1);
    });
    table.row("1,000 steps: two notes and an event each", Some(100.0), || {
        for number in 0..STEPS {
            let step = object(Kind::Execution, number, 300);
            let name = step.metadata.name.clone();
            store.note(vec![Change::Put(step)]).expect("the disk has room");
            store.record(event(number)).expect("the disk has room");
            let gone = Change::Delete(Kind::Execution, name);
            store.note(vec![gone]).expect("the disk has room");
        }
    });
    table.row("until the disk has all that was noted", None, || {
        (0..STEPS).for_each(|number| store.record(event(number)).expect("the disk has room"));
        store.write(vec![]).expect("the disk has room")
    });
}

/// Memory of this process that isn't swapped out.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kilobytes.expect("Linux says how much is resident") * 1024.0
}

/// Figures with their bounds.
#[derive(Default)]
struct Table {
    missed: usize,
}

impl Table {
    /// Measures `work` and prints a line. `bound` in milliseconds. What `work` returns is dropped
    /// after the clock was read.
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn row<T>(&mut self, what: &str, bound: Option<f64>, mut work: impl FnMut() -> T) {
        let times = (0..ROUNDS).map(|_| {
            let begin = Instant::now();
            let made = work();
            let time: Duration = begin.elapsed();
            drop(made);
            time.as_secs_f64() * 1000.0
        });
        let times: Vec<f64> = times.collect();
        self.figure(what, "ms", &times, bound);
    }

    fn figure(&mut self, what: &str, unit: &str, figures: &[f64], bound: Option<f64>) {
        let mut figures = figures.to_vec();
        figures.sort_by(f64::total_cmp);
        let (median, last) = (figures[figures.len() / 2], figures[figures.len() - 1]);
        let verdict = match bound {
            None => String::new(),
            Some(bound) if median < bound => format!("< {bound:.0} {unit}: held"),
            Some(bound) => {
                self.missed += 1;
                format!("< {bound:.0} {unit}: MISSED")
            }
        };
        println!(
            "{what:<62} {median:>9.2} {unit} (min {:.2}, max {last:.2})  {verdict}",
            figures[0]
        );
    }

    fn end(&self) {
        println!("{} bounds missed", self.missed);
    }
}
