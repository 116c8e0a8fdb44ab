//! The one place that names sled. It writes what it is told in one batch, and returns when the
//! bytes are on the disk. Any error or panic of sled ends this handle: it isn't used again.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sled::{Batch, Db};
use tokio::time::Instant;

use super::StoreError;
use super::mirror::{Key, Mirror};
use super::quiet::caught;
use super::record::{self, BadRecord};
use super::stored::Stored;
use crate::model::Event;

/// Memory that sled may use for its cache, in bytes; its default is 1 GiB. Nothing is read from
/// it after the start, so it holds only what is being changed.
const CACHE_BYTES: u64 = 16 << 20;

/// sled needs about 17 times the memory of a transaction while it writes it. One that is larger
/// than this, in bytes, is written as several.
const LARGEST_TRANSACTION: usize = 2 << 20;

/// How long a handle of our own may take to close.
const LETS_GO_WITHIN: Duration = Duration::from_secs(5);

const OBJECTS: &str = "o/";
const EVENTS: &str = "e/";
const VERSION: &str = "m/version";

/// An open database.
pub struct Disk {
    db: Db,
    /// sled's log. Its own flush doesn't reach the disk, so it is synced here.
    log: File,
    folder: PathBuf,
}

/// What is to be written at once.
#[derive(Debug, Default)]
pub struct Changes {
    pub put: Vec<(Key, Stored)>,
    /// With the version of each deletion.
    pub deleted: Vec<(Key, u64)>,
    /// With their numbers.
    pub events: Vec<(u64, Event)>,
    /// The numbers of events that go.
    pub forgotten: Range<u64>,
    pub version: u64,
}

impl Changes {
    /// All that a mirror holds, for a database that is empty.
    pub fn all_of(mirror: &Mirror) -> Self {
        let objects = mirror.objects();
        Self {
            put: objects
                .map(|(kind, name, object)| ((kind, name.into()), object.clone()))
                .collect(),
            events: mirror.events_from(0).cloned().collect(),
            version: mirror.version(),
            ..Self::default()
        }
    }

    /// True where there is nothing to write.
    pub fn is_empty(&self) -> bool {
        let Self { put, deleted, events, forgotten, version: _ } = self;
        put.is_empty() && deleted.is_empty() && events.is_empty() && forgotten.is_empty()
    }
}

/// What was read, and what couldn't be.
#[derive(Debug, Default)]
pub struct Loaded {
    pub mirror: Mirror,
    /// The number of the oldest event that was found.
    pub first_event: Option<u64>,
    /// Keys of bad records, each with the reason, for people.
    pub bad: Vec<String>,
    /// The version of a record that a newer Plimsoll wrote.
    pub newer: Option<u32>,
}

impl Disk {
    /// Opens the database in that folder, made where there is none.
    ///
    /// # Errors
    /// A text, where sled returns an error or panics.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let deadline = Instant::now() + LETS_GO_WITHIN;
        let db = loop {
            let error = match caught(|| config(folder).open())? {
                Ok(db) => break db,
                Err(error) => error,
            };
            if !is_locked(&error) || Instant::now() > deadline {
                return Err(error.to_string());
            }
            #[allow(clippy::disallowed_methods, reason = "sled offers nothing to wait for")]
            std::thread::sleep(Duration::from_millis(10));
        };
        let log = File::open(folder.join("db")).map_err(|error| error.to_string())?;
        Ok(Self { db, log, folder: folder.to_owned() })
    }

    /// Reads everything, leaving out what is damaged.
    ///
    /// # Errors
    /// A text, where sled returns an error or panics.
    pub fn load(&self) -> Result<Loaded, String> {
        caught(|| self.load_all())?.map_err(|error| error.to_string())
    }

    fn load_all(&self) -> sled::Result<Loaded> {
        let mut loaded = Loaded::default();
        for entry in self.db.scan_prefix(OBJECTS) {
            let (key, value) = entry?;
            if let Some((key, object)) = loaded.take_object(&key, &value) {
                loaded.mirror.set(key, object);
            }
        }
        for entry in self.db.scan_prefix(EVENTS) {
            let (key, value) = entry?;
            let number = key.get(EVENTS.len()..).and_then(|number| number.try_into().ok());
            if let (Some(event), Some(number)) = (loaded.take::<Event>(&key, &value), number) {
                let number = u64::from_be_bytes(number);
                loaded.first_event.get_or_insert(number);
                loaded.mirror.restore_event(number, event);
            }
        }
        if let Some(value) = self.db.get(VERSION)?
            && let Some(version) = loaded.take::<u64>(VERSION.as_bytes(), &value)
        {
            loaded.mirror.at_least(version);
        }
        Ok(loaded)
    }

    /// Writes, in one transaction up to [`LARGEST_TRANSACTION`]. When it returns, the disk has
    /// it.
    ///
    /// # Errors
    /// [`StoreError::Io`], after which this handle is of no more use.
    pub fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        let write = || -> Result<(), String> {
            let mut transaction = Transaction::default();
            let commit = |transaction: &mut Transaction| {
                let batch = std::mem::take(transaction).batch;
                self.db.apply_batch(batch).map_err(|error| error.to_string())
            };
            for operation in operations(changes) {
                transaction.add(operation.map_err(|error| error.to_string())?);
                if transaction.bytes >= LARGEST_TRANSACTION {
                    commit(&mut transaction)?;
                }
            }
            commit(&mut transaction)?;
            self.db.flush().map_err(|error| error.to_string())?;
            self.log.sync_data().map_err(|error| error.to_string())
        };
        caught(write).and_then(|written| written).map_err(|cause| StoreError::Io {
            doing: format!("write {}", self.folder.display()),
            cause,
        })
    }

    /// Bytes that the database takes on the disk.
    pub fn size(&self) -> u64 {
        caught(|| self.db.size_on_disk().unwrap_or(0)).unwrap_or(0)
    }
}

impl Loaded {
    fn take<T: serde::de::DeserializeOwned>(&mut self, key: &[u8], value: &[u8]) -> Option<T> {
        record::decode(key, value).map_err(|bad| self.note_bad(key, &bad)).ok()
    }

    fn take_object(&mut self, key: &[u8], value: &[u8]) -> Option<(Key, Stored)> {
        let read = record::open(key, value).and_then(|json| {
            Stored::read(json).map_err(|error| BadRecord::Content(error.to_string()))
        });
        read.map_err(|bad| self.note_bad(key, &bad)).ok()
    }

    fn note_bad(&mut self, key: &[u8], bad: &BadRecord) {
        if let BadRecord::Version(version) = bad {
            self.newer = Some(u32::from(*version));
        }
        self.bad.push(format!("{}: {bad}", key.escape_ascii()));
    }
}

/// What sled does at once, and how large it is.
#[derive(Default)]
struct Transaction {
    batch: Batch,
    bytes: usize,
}

impl Transaction {
    fn add(&mut self, (key, record): Operation) {
        self.bytes += key.len() + record.as_ref().map_or(0, Vec::len);
        match record {
            Some(record) => self.batch.insert(key, record),
            None => self.batch.remove(key),
        }
    }
}

/// A key, and its new record; none where it is to go.
type Operation = (Vec<u8>, Option<Vec<u8>>);

fn operations(changes: &Changes) -> impl Iterator<Item = serde_json::Result<Operation>> {
    let Changes { put, deleted, events, forgotten, version } = changes;
    // The version comes first: it is never behind that of an object.
    let version = (!put.is_empty() || !deleted.is_empty()).then(|| {
        let record = record::encode(VERSION.as_bytes(), version)?;
        Ok((VERSION.into(), Some(record)))
    });
    let put = put.iter().map(|(key, object)| {
        let key = sled_key(key);
        let record = record::seal(&key, object.json());
        Ok((key, Some(record)))
    });
    let deleted = deleted.iter().map(|(key, _)| Ok((sled_key(key), None)));
    let events = events.iter().map(|(number, event)| {
        let key = event_key(*number);
        let record = record::encode(&key, event)?;
        Ok((key, Some(record)))
    });
    let forgotten = forgotten.clone().map(|number| Ok((event_key(number), None)));
    version.into_iter().chain(put).chain(deleted).chain(events).chain(forgotten)
}

fn config(folder: &Path) -> sled::Config {
    sled::Config::new()
        .path(folder)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
        .mode(sled::Mode::LowSpace)
}

/// Whether another handle has the database open. The folder is ours, so it is one of our own
/// that is being closed.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("lock"))
}

fn sled_key((kind, name): &Key) -> Vec<u8> {
    format!("{OBJECTS}{kind}/{name}").into_bytes()
}

fn event_key(number: u64) -> Vec<u8> {
    [EVENTS.as_bytes(), &number.to_be_bytes()].concat()
}
