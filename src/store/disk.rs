//! The one place that names sled. It writes what it is told in one batch, and returns when the
//! bytes are on the disk. Any error or panic of sled ends this handle: it isn't used again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sled::{Batch, Db};
use tokio::time::Instant;

use super::StoreError;
use super::mirror::{Key, Mirror};
use super::quiet::caught;
use super::record;
use crate::model::{Event, Kind, Object};

/// Memory that sled may use for its cache, in bytes; its default is 1 GiB.
const CACHE_BYTES: u64 = 64 << 20;

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
pub struct Changes<'a> {
    pub put: Vec<(&'a Key, &'a Object)>,
    pub deleted: Vec<&'a Key>,
    /// An event with its number, and the number below which events go.
    pub event: Option<(u64, &'a Event, u64)>,
    pub version: u64,
}

impl Changes<'_> {
    /// True where there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.deleted.is_empty() && self.event.is_none()
    }
}

/// What was read, and what couldn't be.
#[derive(Debug, Default)]
pub struct Loaded {
    pub mirror: Mirror,
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
            if let Some(object) = loaded.take::<Object>(&key, &value) {
                match object_key(&key) {
                    Some(key) => loaded.mirror.set(key, object),
                    None => loaded.bad.push(format!("{}: no such kind", key.escape_ascii())),
                }
            }
        }
        for entry in self.db.scan_prefix(EVENTS) {
            let (key, value) = entry?;
            let number = key.get(EVENTS.len()..).and_then(|number| number.try_into().ok());
            if let (Some(event), Some(number)) = (loaded.take::<Event>(&key, &value), number) {
                loaded.mirror.restore_event(u64::from_be_bytes(number), event);
            }
        }
        if let Some(value) = self.db.get(VERSION)?
            && let Some(version) = loaded.take::<u64>(VERSION.as_bytes(), &value)
        {
            loaded.mirror.at_least(version);
        }
        Ok(loaded)
    }

    /// Writes in one transaction. When it returns, the disk has it.
    ///
    /// # Errors
    /// [`StoreError::Io`], after which this handle is of no more use.
    pub fn write(&self, changes: &Changes<'_>) -> Result<(), StoreError> {
        let batch = batch(changes).map_err(|error| self.failed(error.to_string()))?;
        let write = || {
            self.db.apply_batch(batch)?;
            self.db.flush()
        };
        match caught(write) {
            Ok(Ok(_)) => self.log.sync_data().map_err(|error| self.failed(error.to_string())),
            Ok(Err(error)) => Err(self.failed(error.to_string())),
            Err(panic) => Err(self.failed(panic)),
        }
    }

    /// Writes a whole mirror into this empty database.
    ///
    /// # Errors
    /// As [`Disk::write`].
    pub fn fill(&self, mirror: &Mirror) -> Result<(), StoreError> {
        for (number, event) in mirror.numbered_events() {
            let record = record::encode(&event_key(number), event)
                .map_err(|error| self.failed(error.to_string()))?;
            match caught(|| self.db.insert(event_key(number), record)) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(self.failed(error.to_string())),
                Err(panic) => return Err(self.failed(panic)),
            }
        }
        let version = mirror.version();
        let put = mirror.objects().collect();
        self.write(&Changes { put, version, ..Changes::default() })
    }

    /// Bytes that the database takes on the disk.
    pub fn size(&self) -> u64 {
        caught(|| self.db.size_on_disk().unwrap_or(0)).unwrap_or(0)
    }

    fn failed(&self, cause: String) -> StoreError {
        StoreError::Io { doing: format!("write {}", self.folder.display()), cause }
    }
}

impl Loaded {
    fn take<T: serde::de::DeserializeOwned>(&mut self, key: &[u8], value: &[u8]) -> Option<T> {
        match record::decode(key, value) {
            Ok(value) => Some(value),
            Err(bad) => {
                if let record::BadRecord::Version(version) = bad {
                    self.newer = Some(u32::from(version));
                }
                self.bad.push(format!("{}: {bad}", key.escape_ascii()));
                None
            }
        }
    }
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

fn batch(changes: &Changes<'_>) -> serde_json::Result<Batch> {
    let Changes { put, deleted, event, version } = changes;
    let mut batch = Batch::default();
    for (key, object) in put {
        let key = sled_key(key);
        batch.insert(key.as_bytes(), record::encode(key.as_bytes(), object)?);
    }
    for key in deleted {
        batch.remove(sled_key(key).as_bytes());
    }
    if let Some((number, event, first_kept)) = event {
        batch.insert(event_key(*number), record::encode(&event_key(*number), event)?);
        // One comes, one goes.
        if let Some(last_gone) = first_kept.checked_sub(1) {
            batch.remove(event_key(last_gone));
        }
    }
    if !put.is_empty() || !deleted.is_empty() {
        batch.insert(VERSION, record::encode(VERSION.as_bytes(), version)?);
    }
    Ok(batch)
}

fn sled_key((kind, name): &Key) -> String {
    format!("{OBJECTS}{kind}/{name}")
}

fn object_key(key: &[u8]) -> Option<Key> {
    let text = std::str::from_utf8(key).ok()?.strip_prefix(OBJECTS)?;
    let (kind, name) = text.split_once('/')?;
    Some((kind.parse::<Kind>().ok()?, name.to_owned()))
}

fn event_key(number: u64) -> Vec<u8> {
    [EVENTS.as_bytes(), &number.to_be_bytes()].concat()
}
