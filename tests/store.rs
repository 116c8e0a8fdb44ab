//! The store on a real disk: what was acknowledged is there after `kill -9`, damage is set
//! aside, and what can't be seen elsewhere comes back from the journal.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use plimsoll::model::{API_VERSION, Event, EventType, Kind, Metadata, Object};
use plimsoll::store::{Change, MOST_EVENTS, MemoryStore, Opened, SledStore, Store, StoreError};
use serde_json::json;
use tempfile::TempDir;

/// Names the state folder to the child process of [`k1_what_was_acknowledged_survives_kill`].
const CHILD: &str = "PLIMSOLL_TEST_STORE_CHILD";

fn object(kind: Kind, name: &str, value: u64) -> Object {
    Object {
        api_version: API_VERSION.into(),
        kind,
        metadata: Metadata {
            name: name.into(),
            environment: None,
            resource_version: 0,
            generation: 0,
        },
        spec: json!({ "value": value }),
        status: json!(null),
    }
}

fn event(number: u64) -> Event {
    Event {
        time: jiff::Timestamp::UNIX_EPOCH,
        kind: EventType::Normal,
        reason: "Tested".into(),
        object: "App/a".into(),
        message: number.to_string(),
    }
}

/// A child that another test is just starting holds every lock of this process for a moment, until
/// it runs its own program.
fn open(state: &Path) -> Opened {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        match SledStore::open(state) {
            Err(StoreError::Held { .. }) if tokio::time::Instant::now() < deadline => {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

fn value(store: &dyn Store, kind: Kind, name: &str) -> Option<u64> {
    store.get(kind, name).unwrap().and_then(|object| object.spec["value"].as_u64())
}

fn names(store: &dyn Store, kind: Kind) -> Vec<String> {
    store.list(kind).unwrap().into_iter().map(|object| object.metadata.name).collect()
}

/// One contract for every implementation.
fn contract(store: &dyn Store) {
    assert_eq!(store.put(vec![object(Kind::App, "a", 1), object(Kind::Hold, "h", 1)]).unwrap(), 2);
    let a = store.get(Kind::App, "a").unwrap().unwrap();
    assert_eq!((a.metadata.resource_version, a.metadata.generation), (1, 1));

    // The same again, whatever versions the caller has: nothing is written.
    assert_eq!(store.put(vec![object(Kind::App, "a", 1)]).unwrap(), 0);
    assert_eq!(store.get(Kind::App, "a").unwrap().unwrap(), a);

    // A change of the status is no new generation; one of the spec is.
    let mut status = object(Kind::App, "a", 1);
    status.status = json!({"ready": true});
    assert_eq!(store.put(vec![status]).unwrap(), 1);
    let a = store.get(Kind::App, "a").unwrap().unwrap();
    assert_eq!((a.metadata.resource_version, a.metadata.generation), (3, 1));
    assert_eq!(store.put(vec![object(Kind::App, "a", 2)]).unwrap(), 1);
    let a = store.get(Kind::App, "a").unwrap().unwrap();
    assert_eq!((a.metadata.resource_version, a.metadata.generation), (4, 2));

    // By kind, in the order of the names; an environment is a part of the name.
    let mut other = object(Kind::App, "web", 1);
    other.metadata.environment = Some("production".into());
    store.put(vec![object(Kind::App, "c", 1), object(Kind::App, "b", 1), other]).unwrap();
    assert_eq!(names(store, Kind::App), ["a", "b", "c", "web"]);
    assert_eq!(store.names(Kind::App).unwrap(), ["a", "b", "c", "production/web"]);
    assert!(store.names(Kind::Pin).unwrap().is_empty());
    assert!(store.get(Kind::App, "production/web").unwrap().is_some());
    assert!(store.get(Kind::App, "web").unwrap().is_none());

    store.delete(Kind::App, "b").unwrap();
    store.delete(Kind::App, "never").unwrap();
    store.delete(Kind::App, "production/web").unwrap();
    assert_eq!(names(store, Kind::App), ["a", "c"]);

    // One that is too large: none is written.
    let mut huge = object(Kind::App, "huge", 1);
    huge.spec = json!("x".repeat(2 << 20));
    let error = store.put(vec![object(Kind::App, "d", 1), huge]).unwrap_err();
    assert!(matches!(&error, StoreError::TooLarge { object, .. } if object == "App/huge"));
    assert!(store.get(Kind::App, "d").unwrap().is_none());

    // Both at once, and of several to one object the last; nothing where nothing differs.
    let put = |name, value| Change::Put(object(Kind::Execution, name, value));
    let gone = |name: &str| Change::Delete(Kind::Execution, name.into());
    let changes = vec![put("s", 1), put("t", 1), put("t", 2), put("u", 1), gone("u"), gone("v")];
    for write in [Store::write, Store::note] {
        assert_eq!(write(store, changes.clone()).unwrap(), 2);
        assert_eq!(write(store, changes.clone()).unwrap(), 0);
        assert_eq!(value(store, Kind::Execution, "t"), Some(2));
        assert_eq!(names(store, Kind::Execution), ["s", "t"]);
        assert_eq!(write(store, vec![gone("s"), gone("t")]).unwrap(), 2);
        assert!(names(store, Kind::Execution).is_empty());
    }
    store.note(vec![put("noted", 1)]).unwrap();

    (0..5).for_each(|number| store.record(event(number)).unwrap());
    let last: Vec<_> = store.events(2).unwrap().into_iter().map(|event| event.message).collect();
    assert_eq!(last, ["3", "4"]);
}

#[test]
fn both_stores_keep_the_contract() {
    contract(&MemoryStore::new());
    let state = TempDir::new().unwrap();
    contract(&open(state.path()).store);
    // All of it is there after a restart, and versions go on from where they were.
    let Opened { store, notes } = open(state.path());
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(names(&store, Kind::App), ["a", "c"]);
    assert_eq!(value(&store, Kind::Hold, "h"), Some(1));
    assert_eq!(names(&store, Kind::Execution), ["noted"]);
    assert_eq!(store.events(100).unwrap().len(), 5);
    let before = store.get(Kind::App, "a").unwrap().unwrap().metadata.resource_version;
    store.put(vec![object(Kind::App, "a", 9)]).unwrap();
    assert!(store.get(Kind::App, "a").unwrap().unwrap().metadata.resource_version > before);
}

#[test]
fn what_waits_is_written_when_the_store_is_closed() {
    let state = TempDir::new().unwrap();
    let store = open(state.path()).store;
    // More than may wait, each changed several times; every third is gone in the end.
    let (steps, events) = (10_000, 100);
    for value in 1..=3 {
        for number in 0..steps {
            let name = format!("{number:05}");
            let change = match value == 3 && number % 3 == 0 {
                true => Change::Delete(Kind::Execution, name),
                false => Change::Put(object(Kind::Execution, &name, value)),
            };
            store.note(vec![change]).unwrap();
        }
        (0..events).for_each(|number| store.record(event(value * events + number)).unwrap());
    }
    let before = (store.list(Kind::Execution).unwrap(), store.events(usize::MAX).unwrap());
    assert_eq!(before.0.len(), 6_666);
    assert!(before.0.iter().all(|step| step.spec == json!({ "value": 3 })));
    drop(store);
    let Opened { store, notes } = open(state.path());
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!((store.list(Kind::Execution).unwrap(), store.events(usize::MAX).unwrap()), before);
}

#[test]
fn what_is_equal_is_not_written() {
    let state = TempDir::new().unwrap();
    let store = open(state.path()).store;
    let objects = || {
        let objects = (0..100).map(|number| {
            let mut object = object(Kind::Hold, &format!("h{number}"), number);
            object.status = json!({ "z": [1, 2.5], "a": { "text": "\u{1}ü\"" } });
            object
        });
        objects.collect::<Vec<_>>()
    };
    assert_eq!(store.put(objects()).unwrap(), 100);
    let files = [state.path().join("store/db"), state.path().join("journal.log")];
    let looks = || {
        let looks = files.iter().map(|path| path.metadata().unwrap());
        looks.map(|file| (file.modified().unwrap(), file.len())).collect::<Vec<_>>()
    };
    let before = looks();
    for _ in 0..10 {
        assert_eq!(store.put(objects()).unwrap(), 0);
        assert_eq!(store.note(objects().into_iter().map(Change::Put).collect()).unwrap(), 0);
    }
    // One that has another version than it should is that of an older look, and no change.
    let mut old = objects().remove(7);
    old.metadata.resource_version = 1234;
    assert_eq!(store.put(vec![old]).unwrap(), 0);
    assert_eq!(looks(), before);
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let state = TempDir::new().unwrap();
    let store = open(state.path()).store;
    let (writers, each) = (8_u64, 40);
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let store = &store;
            scope.spawn(move || {
                for number in 0..each {
                    let kind = if writer % 2 == 0 { Kind::Hold } else { Kind::App };
                    store.put(vec![object(kind, &format!("{writer}-{number}"), number)]).unwrap();
                    store.record(event(writer * each + number)).unwrap();
                }
            });
        }
    });
    let all = |store: &dyn Store| {
        [store.list(Kind::Hold).unwrap(), store.list(Kind::App).unwrap()].concat()
    };
    let before = all(&store);
    let versions = before.iter().map(|object| object.metadata.resource_version);
    let versions: std::collections::BTreeSet<_> = versions.collect();
    assert_eq!(versions, (1..=writers * each).collect());
    let events = store.events(usize::MAX).unwrap();
    drop(store);
    let Opened { store, notes } = open(state.path());
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(all(&store), before);
    assert_eq!(store.events(usize::MAX).unwrap(), events);
}

#[test]
fn a_second_opener_is_told_who_holds_it() {
    let state = TempDir::new().unwrap();
    let opened = open(state.path());
    let error = SledStore::open(state.path()).err().unwrap();
    assert!(matches!(error, StoreError::Held { pid, .. } if pid == std::process::id()), "{error}");
    drop(opened);
    open(state.path());
}

#[test]
fn a_newer_format_is_refused() {
    let state = TempDir::new().unwrap();
    drop(open(state.path()));
    std::fs::write(state.path().join("format"), "7\n").unwrap();
    let error = SledStore::open(state.path()).err().unwrap();
    assert!(matches!(error, StoreError::Format { found: 7, known: 1, .. }), "{error}");
    // Nothing was touched.
    std::fs::write(state.path().join("format"), "1\n").unwrap();
    assert!(open(state.path()).notes.is_empty());
}

#[test]
fn the_journal_gives_back_what_cannot_be_seen_elsewhere() {
    let state = TempDir::new().unwrap();
    let store = open(state.path()).store;
    let journalled = [Kind::Pin, Kind::Hold, Kind::Approval, Kind::Source, Kind::Host];
    for kind in Kind::ALL {
        store.put(vec![object(kind, "kept", 1), object(kind, "gone", 1)]).unwrap();
        store.delete(kind, "gone").unwrap();
        store.put(vec![object(kind, "kept", 2)]).unwrap();
    }
    let version = store.get(Kind::Execution, "kept").unwrap().unwrap().metadata.resource_version;
    let hold = store.get(Kind::Hold, "kept").unwrap();
    drop(store);

    std::fs::remove_dir_all(state.path().join("store")).unwrap();
    let Opened { store, notes } = open(state.path());
    assert_eq!(notes.len(), 1, "{notes:?}");
    for kind in Kind::ALL {
        let expected: &[&str] = if journalled.contains(&kind) { &["kept"] } else { &[] };
        assert_eq!(names(&store, kind), expected, "{kind}");
    }
    assert_eq!(store.get(Kind::Hold, "kept").unwrap(), hold);
    store.put(vec![object(Kind::App, "new", 1)]).unwrap();
    let new = store.get(Kind::App, "new").unwrap().unwrap().metadata.resource_version;
    assert!(new > version - 4, "{new} {version}");
    drop(store);

    // With the journal alone deleted, the store writes it again.
    for name in ["journal.log", "journal.log.1", "journal.log.2"] {
        let _ = std::fs::remove_file(state.path().join(name));
    }
    drop(open(state.path()));
    std::fs::remove_dir_all(state.path().join("store")).unwrap();
    assert_eq!(names(&open(state.path()).store, Kind::Pin), ["kept"]);

    // With both deleted, it is empty.
    std::fs::remove_dir_all(state.path()).unwrap();
    let Opened { store, notes } = open(state.path());
    assert!(notes.is_empty() && Kind::ALL.iter().all(|kind| names(&store, *kind).is_empty()));
}

#[test]
fn a_torn_or_damaged_line_of_the_journal_is_skipped_and_said() {
    let state = TempDir::new().unwrap();
    let store = open(state.path()).store;
    for name in ["a", "b", "c"] {
        store.put(vec![object(Kind::Hold, name, 1)]).unwrap();
    }
    drop(store);
    let journal = state.path().join("journal.log");
    let bytes = std::fs::read(&journal).unwrap();
    let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let flipped = |index: usize| {
        let mut lines: Vec<_> = lines.iter().map(|line| line.to_vec()).collect();
        lines[index][20] ^= 1;
        lines.concat()
    };
    let cases: [(Vec<u8>, &[&str], usize); 4] = [
        (bytes[..bytes.len() - 5].to_vec(), &["a", "b"], 1),
        (flipped(1), &["a", "c"], 1),
        (b"garbage\n\xff\xfe\n".to_vec(), &[], 2),
        (Vec::new(), &[], 0),
    ];
    for (damaged, expected, bad) in cases {
        let _ = std::fs::remove_dir_all(state.path().join("store"));
        for name in ["journal.log.1", "journal.log.2"] {
            let _ = std::fs::remove_file(state.path().join(name));
        }
        std::fs::write(&journal, &damaged).unwrap();
        let Opened { store, notes } = open(state.path());
        assert_eq!(names(&store, Kind::Hold), expected);
        assert_eq!(notes.iter().filter(|note| note.contains("skipped")).count(), bad, "{notes:?}");
        drop(store);
        // It is mended: nothing more to say.
        let Opened { store, notes } = open(state.path());
        assert_eq!(names(&store, Kind::Hold), expected);
        assert!(notes.is_empty(), "{notes:?}");
    }
}

/// Files of sled, largest first.
fn database_files(state: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(state.join("store")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().len()));
    files
}

#[test]
fn k3_a_damaged_database_is_set_aside_and_built_anew() {
    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, Damage); 7] = [
        ("half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("a quarter", |bytes| bytes.truncate(bytes.len() / 4)),
        ("an odd length", |bytes| bytes.truncate(bytes.len() / 2 + 13)),
        ("empty", Vec::clear),
        ("a byte in front", |bytes| bytes[40] ^= 0xff),
        ("a byte inside", |bytes| {
            let at = bytes.len() / 64;
            bytes[at] ^= 0xff;
        }),
        ("every thousandth byte", |bytes| bytes.iter_mut().step_by(997).for_each(|b| *b ^= 0x55)),
    ];
    for (name, damage) in cases {
        let state = TempDir::new().unwrap();
        let store = open(state.path()).store;
        for number in 0..200 {
            let hold = object(Kind::Hold, &format!("h{number}"), number);
            store.put(vec![hold, object(Kind::App, &format!("a{number}"), number)]).unwrap();
        }
        drop(store);
        for file in database_files(state.path()).into_iter().filter(|file| !file.ends_with("conf"))
        {
            let mut bytes = std::fs::read(&file).unwrap();
            if bytes.len() > 64 {
                damage(&mut bytes);
                std::fs::write(&file, bytes).unwrap();
            }
        }
        let Opened { store, notes } = open(state.path());
        assert_eq!(names(&store, Kind::Hold).len(), 200, "{name}: {notes:?}");
        assert_eq!(value(&store, Kind::Hold, "h77"), Some(77));
        for app in store.list(Kind::App).unwrap() {
            assert_eq!(
                Some(app.metadata.name),
                app.spec["value"].as_u64().map(|v| format!("a{v}"))
            );
        }
        store.put(vec![object(Kind::App, "new", 1)]).unwrap();
        drop(store);
        let Opened { store, notes } = open(state.path());
        assert_eq!(names(&store, Kind::Hold).len(), 200, "{name}");
        assert_eq!(value(&store, Kind::App, "new"), Some(1));
        assert!(notes.is_empty(), "{name}: {notes:?}");
    }
}

#[test]
fn k2_a_snapshot_that_was_being_written_is_no_hindrance() {
    let state = TempDir::new().unwrap();
    let store = open(state.path()).store;
    store.put(vec![object(Kind::App, "a", 1)]).unwrap();
    drop(store);
    let torn = state.path().join("store/snap.0000000000000400.generating");
    std::fs::write(torn, b"half of a snapshot").unwrap();
    std::fs::write(state.path().join("store/snap.00000000000FFFFF"), b"\0\x01\x02").unwrap();
    let Opened { store, .. } = open(state.path());
    store.put(vec![object(Kind::App, "b", 1)]).unwrap();
    drop(store);
    assert_eq!(value(&open(state.path()).store, Kind::App, "b"), Some(1));
}

#[test]
fn k8_endless_churn_is_bounded_on_disk() {
    let state = TempDir::new().unwrap();
    let store = open(state.path()).store;
    let filler = "x".repeat(300);
    for number in 0..20_000_u64 {
        let name = format!("o{}", number % 50);
        let mut churned =
            object(if number % 2 == 0 { Kind::App } else { Kind::Hold }, &name, number);
        churned.status = json!(filler);
        store.put(vec![churned]).unwrap();
        if number % 2 == 0 {
            store.record(event(number)).unwrap();
        }
    }
    let events = store.events(usize::MAX).unwrap();
    assert_eq!(events.len(), MOST_EVENTS);
    assert_eq!(events.last().unwrap().message, "19998");
    // Those that nobody waits for are written together.
    for number in 0..1_000_000_u64 {
        let mut churned = object(Kind::Execution, &format!("e{}", number % 50), number);
        churned.status = json!(filler);
        store.note(vec![Change::Put(churned)]).unwrap();
    }
    drop(store);
    let size = size_of(state.path());
    assert!(size < 48 << 20, "{size} bytes");
    let Opened { store, notes } = open(state.path());
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(value(&store, Kind::App, "o48"), Some(19_998));
    assert_eq!(store.events(usize::MAX).unwrap(), events);
}

fn size_of(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() { size_of(&entry.path()) } else { metadata.len() }
        })
        .sum()
}

/// Ends the process when a test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The child: writes ever higher values, and says each when it was acknowledged.
fn write_until_killed(state: &Path) {
    let store = open(state).store;
    let mut value = value(&store, Kind::Hold, "counter").unwrap_or(0);
    loop {
        value += 1;
        store.put(vec![object(Kind::Hold, "counter", value)]).unwrap();
        store.put(vec![object(Kind::App, "counter", value)]).unwrap();
        println!("acknowledged {value}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn k1_what_was_acknowledged_survives_kill() {
    if let Some(state) = std::env::var_os(CHILD) {
        write_until_killed(Path::new(&state));
    }
    let state = TempDir::new().unwrap();
    // Each takes a quarter of a second: a thousand of them are for who has the patience.
    let rounds = std::env::var("PLIMSOLL_TEST_KILLS").map_or(100, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "k1_what_was_acknowledged_survives_kill", "--nocapture"])
            .env(CHILD, state.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let mut acknowledged = 0;
        // Most are killed soon, where the store has just been opened.
        let mut left = 1 + if round % 50 == 0 { 4 * round / 10 } else { round % 5 };
        let mut numbers = lines.map_while(Result::ok).filter_map(|line| {
            line.rsplit_once("acknowledged ").and_then(|(_, number)| number.parse().ok())
        });
        while left > 0 {
            acknowledged = numbers.next().expect("the child writes until it is killed");
            left -= 1;
        }
        // SIGKILL, in the middle of a write; what is still in the pipe was acknowledged too.
        child.0.kill().unwrap();
        acknowledged = numbers.last().unwrap_or(acknowledged);
        drop(child);
        let Opened { store, notes } = open(state.path());
        for kind in [Kind::Hold, Kind::App] {
            let found = value(&store, kind, "counter").unwrap();
            assert!(
                found == acknowledged || found == acknowledged + 1,
                "round {round}: {kind} is {found}, acknowledged was {acknowledged}: {notes:?}"
            );
        }
    }
}

/// The child: notes and records ever higher numbers, and now and then waits for the disk and says
/// up to which.
fn note_until_killed(state: &Path) {
    let store = open(state).store;
    for number in 0.. {
        let step = object(Kind::Execution, &format!("{number:09}"), number);
        store.note(vec![Change::Put(step)]).unwrap();
        store.record(event(number)).unwrap();
        if number % 50 == 0 {
            store.put(vec![object(Kind::Hold, "counter", number)]).unwrap();
            println!("acknowledged {number}");
            std::io::stdout().flush().unwrap();
        }
    }
}

#[test]
fn a_kill_takes_the_youngest_notes_at_most() {
    if let Some(state) = std::env::var_os(CHILD) {
        note_until_killed(Path::new(&state));
    }
    for round in 0..6 {
        let state = TempDir::new().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_kill_takes_the_youngest_notes_at_most", "--nocapture"])
            .env(CHILD, state.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let mut numbers = lines.map_while(Result::ok).filter_map(|line| {
            line.rsplit_once("acknowledged ").and_then(|(_, number)| number.parse::<u64>().ok())
        });
        let acknowledged = numbers.nth(1 + round * 11).expect("it notes until it is killed");
        child.0.kill().unwrap();
        let acknowledged = numbers.last().unwrap_or(acknowledged);
        drop(child);
        let Opened { store, notes } = open(state.path());
        assert!(value(&store, Kind::Hold, "counter") >= Some(acknowledged), "{notes:?}");
        let steps = store.list(Kind::Execution).unwrap();
        let steps: Vec<_> = steps.iter().filter_map(|step| step.spec["value"].as_u64()).collect();
        let events = store.events(usize::MAX).unwrap();
        let events: Vec<u64> = events.iter().map(|event| event.message.parse().unwrap()).collect();
        // What was changed before the acknowledged one is there, and of the rest none is there
        // without those before it.
        for (numbers, oldest) in [(&steps, 0), (&events, events[0])] {
            let last = numbers.last().copied().unwrap_or(0);
            assert!(last >= acknowledged, "{last} is before {acknowledged}: {notes:?}");
            assert!(numbers.iter().copied().eq(oldest..=last), "round {round}: {numbers:?}");
        }
        let (last_step, last_event) = (steps.len() as u64, events[events.len() - 1] + 1);
        assert!(last_step == last_event || last_step == last_event + 1);
    }
}

/// Names the folder of a small file system to the child of a test on a full disk.
const FULL: &str = "PLIMSOLL_TEST_STORE_FULL";

/// On a file system of 4 MiB: fill it, write, free it, write again, open again.
fn fill_and_free(disk: &Path) {
    let state = disk.join("state");
    let store = open(&state).store;
    store.put(vec![object(Kind::Hold, "before", 1), object(Kind::App, "before", 1)]).unwrap();
    let ballast = disk.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);

    // Sooner or later it is out of space: an error each time, and memory remembers.
    let mut last = 0;
    let mut failed = 0;
    while failed < 20 {
        last += 1;
        let mut large = object(Kind::Hold, "during", last);
        large.status = json!("x".repeat(10_000));
        let result = store.put(vec![large, object(Kind::App, "during", last)]);
        match result {
            Err(StoreError::Io { .. }) => failed += 1,
            Err(other) => panic!("{other}"),
            Ok(_) => assert!(last < 10_000, "the disk never gets full"),
        }
        assert_eq!(value(&store, Kind::Hold, "during"), Some(last));
    }
    assert!(store.record(event(1)).is_err());
    assert_eq!(value(&store, Kind::App, "before"), Some(1));

    std::fs::remove_file(&ballast).unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut attempt = 0;
    // Attempts are a second apart; the same object again counts as one.
    while store.put(vec![object(Kind::App, "after", 1)]).is_err() {
        attempt += 1;
        assert!(tokio::time::Instant::now() < deadline, "{attempt} attempts");
        std::thread::yield_now();
    }
    drop(store);
    let Opened { store, notes } = open(&state);
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(value(&store, Kind::Hold, "during"), Some(last));
    assert_eq!(value(&store, Kind::App, "during"), Some(last));
    assert_eq!(value(&store, Kind::App, "after"), Some(1));
    assert_eq!(store.events(10).unwrap().len(), 1);
}

/// On a file system of 4 MiB: fill it, note something, free it, and wait.
fn fill_and_wait(disk: &Path) {
    let state = disk.join("state");
    let store = open(&state).store;
    let ballast = disk.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    let mut large = object(Kind::App, "large", 0);
    large.status = json!("x".repeat(10_000));
    while store.put(vec![large.clone()]).is_ok() {
        large.spec = json!(large.spec.as_u64().unwrap_or(0) + 1);
    }
    // Memory has what the disk refuses, and whoever notes something is told.
    let step = Change::Put(object(Kind::Execution, "step", 1));
    assert!(matches!(store.note(vec![step]), Err(StoreError::Io { .. })));
    assert!(matches!(store.record(event(1)), Err(StoreError::Io { .. })));
    assert_eq!(value(&store, Kind::Execution, "step"), Some(1));
    assert_eq!(store.events(10).unwrap().len(), 1);

    std::fs::remove_file(&ballast).unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(40);
    while let Err(error) = store.note(vec![]) {
        assert!(tokio::time::Instant::now() < deadline, "it doesn't heal by itself: {error}");
        std::thread::yield_now();
    }
    drop(store);
    let Opened { store, notes } = open(&state);
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(value(&store, Kind::Execution, "step"), Some(1));
    assert_eq!(store.events(10).unwrap(), [event(1)]);
}

#[test]
fn a_full_disk_degrades_and_heals() {
    on_a_small_disk("a_full_disk_degrades_and_heals", fill_and_free);
}

#[test]
fn a_disk_that_has_room_again_is_written_by_itself() {
    on_a_small_disk("a_disk_that_has_room_again_is_written_by_itself", fill_and_wait);
}

/// The child has a mount namespace of its own, so that the small file system goes with it.
fn on_a_small_disk(test: &str, work: fn(&Path)) {
    if let Some(disk) = std::env::var_os(FULL) {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(&disk)
            .status();
        assert!(mounted.unwrap().success());
        return work(Path::new(&disk));
    }
    let can_mount = Command::new("unshare").args(["-rm", "true"]).status();
    if !can_mount.is_ok_and(|status| status.success()) {
        eprintln!("skipped: unshare -rm isn't allowed here");
        return;
    }
    let disk = TempDir::new().unwrap();
    let status = Command::new("unshare")
        .arg("-rm")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(FULL, disk.path())
        .status();
    assert!(status.unwrap().success());
}
