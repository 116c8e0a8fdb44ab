//! The store that lasts: everything in memory for reading, in sled for the next start, and what
//! can't be seen elsewhere in the journal as well. The journal is written first, so it never
//! knows less than sled. When the disk fails, reading goes on; when it works again, the next
//! write brings it up to date.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::disk::{Changes, Disk, Loaded};
use super::folder::{Folder, failed, remove_all};
use super::journal::{Entry, Journal, Replay, is_journalled};
use super::mirror::{Key, Mirror, bounded};
use super::quiet::caught;
use super::{Store, StoreError};
use crate::model::{Event, Kind, Object};

/// Time between two attempts to bring a failed disk up to date.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Writes between two looks at the size of the database.
const WRITES_PER_LOOK: u32 = 1000;

/// The database is built anew when it is larger than this and than four times its size when it
/// was new, in bytes: sled is slow to give space back.
const SMALLEST_TO_REBUILD: u64 = 32 << 20;

/// A [`Store`] in a folder.
pub struct SledStore {
    state: Mutex<State>,
}

/// A store that was opened, and what people should know of its opening.
pub struct Opened {
    pub store: SledStore,
    /// Sentences about what was damaged, set aside or brought back.
    pub notes: Vec<String>,
}

// The order is that in which it is dropped: the folder is held until all else is closed.
struct State {
    mirror: Mirror,
    /// None where it failed: it isn't up to date.
    disk: Option<Disk>,
    /// None where it failed: it isn't up to date.
    journal: Option<Journal>,
    /// When the disk was tried last, while it fails.
    tried: Option<Instant>,
    writes: u32,
    /// Bytes of the database above which it is built anew.
    rebuild_at: u64,
    folder: Folder,
}

impl SledStore {
    /// Opens the store in the state folder, made where there is none. A damaged database is set
    /// aside and what the journal has is brought back.
    ///
    /// # Errors
    /// [`StoreError::Held`] by another process, [`StoreError::Format`] of a newer Plimsoll, or
    /// [`StoreError::Io`].
    pub fn open(state_dir: &Path) -> Result<Opened, StoreError> {
        let folder = Folder::hold(state_dir)?;
        folder.mend_swap()?;
        let mut notes = Vec::new();
        let (disk, mirror) = open_database(&folder, &mut notes)?;
        let mut state = State {
            mirror,
            disk: Some(disk),
            journal: None,
            tried: None,
            writes: 0,
            rebuild_at: 0,
            folder,
        };
        state.note_size();
        state.read_journal(&mut notes)?;
        Ok(Opened { store: Self { state: Mutex::new(state) }, notes })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for SledStore {
    fn get(&self, kind: Kind, name: &str) -> Result<Option<Object>, StoreError> {
        Ok(self.state().mirror.get(kind, name).cloned())
    }

    fn list(&self, kind: Kind) -> Result<Vec<Object>, StoreError> {
        Ok(self.state().mirror.list(kind).cloned().collect())
    }

    fn put(&self, objects: Vec<Object>) -> Result<usize, StoreError> {
        let mut state = self.state();
        let changed = state.mirror.changes(objects)?;
        for (key, object) in &changed {
            state.mirror.set(key.clone(), object.clone());
        }
        let entries = changed.iter().filter(|((kind, _), _)| is_journalled(*kind));
        let entries: Vec<_> = entries.map(|(_, object)| Entry::Put(object.clone())).collect();
        let put = changed.iter().map(|(key, object)| (key, object)).collect();
        let version = state.mirror.version();
        state.save(&entries, &Changes { put, version, ..Changes::default() })?;
        Ok(changed.len())
    }

    fn delete(&self, kind: Kind, name: &str) -> Result<(), StoreError> {
        let mut state = self.state();
        let key: Key = (kind, name.to_owned());
        let removed = state.mirror.remove(&key);
        let entries: Vec<_> = removed
            .filter(|_| is_journalled(kind))
            .map(|version| Entry::Delete { kind, name: name.to_owned(), version })
            .into_iter()
            .collect();
        let deleted = removed.map(|_| &key).into_iter().collect();
        let version = state.mirror.version();
        state.save(&entries, &Changes { deleted, version, ..Changes::default() })
    }

    fn record(&self, event: Event) -> Result<(), StoreError> {
        let mut state = self.state();
        let event = bounded(event);
        let (number, first_kept) = state.mirror.record(event.clone());
        let event = Some((number, &event, first_kept));
        state.save(&[], &Changes { event, ..Changes::default() })
    }

    fn events(&self, limit: usize) -> Result<Vec<Event>, StoreError> {
        Ok(self.state().mirror.events(limit))
    }
}

impl State {
    /// Writes what the mirror has already: journal, then database. Both are tried, so that one
    /// that fails doesn't keep the other from what it can have.
    fn save(&mut self, entries: &[Entry], changes: &Changes<'_>) -> Result<(), StoreError> {
        let journalled = self.save_journal(entries);
        let written = self.save_database(changes);
        journalled.and(written)
    }

    fn save_journal(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        if let Some(journal) = &mut self.journal {
            if entries.is_empty() {
                return Ok(());
            }
            if !journal.is_long() && !journal.is_gone() && journal.append(entries).is_ok() {
                return Ok(());
            }
        }
        self.rewrite_journal()
    }

    fn rewrite_journal(&mut self) -> Result<(), StoreError> {
        let path = self.folder.journal();
        let living = self.mirror.objects().filter(|((kind, _), _)| is_journalled(*kind));
        self.journal = None;
        let journal = Journal::rewrite(&path, living.map(|(_, object)| object))
            .map_err(|error| failed("write", &path, &error))?;
        self.journal = Some(journal);
        Ok(())
    }

    fn save_database(&mut self, changes: &Changes<'_>) -> Result<(), StoreError> {
        let Some(disk) = &self.disk else { return self.rebuild() };
        if changes.is_empty() {
            return Ok(());
        }
        if let Err(error) = disk.write(changes) {
            // sled doesn't get over an error by itself, and may panic when it is closed then.
            let disk = self.disk.take();
            let _ = caught(|| drop(disk));
            self.tried = Some(Instant::now());
            return Err(error);
        }
        self.writes += 1;
        if self.writes.is_multiple_of(WRITES_PER_LOOK) && disk.size() > self.rebuild_at {
            // What was written is safe in the old one if this fails.
            self.tried = None;
            let _ = self.rebuild();
        }
        Ok(())
    }

    /// Builds the database anew from memory, and puts it in place of the old one when it is
    /// complete.
    fn rebuild(&mut self) -> Result<(), StoreError> {
        if self.tried.is_some_and(|tried| tried.elapsed() < RETRY_AFTER) {
            let doing = format!("write {}", self.folder.database().display());
            return Err(StoreError::Io { doing, cause: "the disk failed a moment ago".into() });
        }
        self.tried = Some(Instant::now());
        let new = self.folder.new_database();
        let filled = remove_all(&new).and_then(|()| open_new(&new)?.fill(&self.mirror));
        if let Err(error) = filled {
            let _ = remove_all(&new);
            return Err(error);
        }
        self.disk = None;
        self.folder.swap()?;
        self.disk = Some(open_new(&self.folder.database())?);
        self.tried = None;
        self.note_size();
        Ok(())
    }

    fn note_size(&mut self) {
        let size = self.disk.as_ref().map_or(0, Disk::size);
        self.rebuild_at = SMALLEST_TO_REBUILD.max(size.saturating_mul(4));
    }

    /// Brings what the journal knows better into mirror and database, and makes the journal
    /// say what the mirror says.
    fn read_journal(&mut self, notes: &mut Vec<String>) -> Result<(), StoreError> {
        let path = self.folder.journal();
        let Replay { entries, notes: damage } =
            Journal::replay(&path).map_err(|error| failed("read", &path, &error))?;
        let brought_back = self.merge(&entries.into_values().collect::<Vec<_>>());
        let is_sound = damage.is_empty();
        notes.extend(damage);
        if brought_back > 0 {
            notes.push(format!("{brought_back} objects were brought back from {}", path.display()));
            if let Err(error) = self.rebuild() {
                notes.push(format!("the store works from memory for now: {error}"));
            }
        }
        if is_sound && self.journal_agrees(&path) {
            self.journal = Journal::open(&path).ok();
        }
        if self.journal.is_none()
            && let Err(error) = self.rewrite_journal()
        {
            notes.push(format!("the journal can't be written for now: {error}"));
        }
        Ok(())
    }

    /// How many objects the journal knew better.
    fn merge(&mut self, entries: &[Entry]) -> usize {
        let mut count = 0;
        for entry in entries {
            let key = entry.key();
            let known = self.mirror.get(key.0, &key.1).map(|o| o.metadata.resource_version);
            self.mirror.at_least(entry.version());
            match entry {
                Entry::Put(object) if known.is_none_or(|known| known < entry.version()) => {
                    self.mirror.set(key, object.clone());
                    count += 1;
                }
                Entry::Delete { version, .. } if known.is_some_and(|known| known < *version) => {
                    self.mirror.remove(&key);
                    count += 1;
                }
                _ => {}
            }
        }
        count
    }

    /// True where the journal, alone, would give all that it should.
    fn journal_agrees(&self, path: &Path) -> bool {
        let Ok(replay) = Journal::replay(path) else { return false };
        let said = replay.entries.values().filter_map(|entry| match entry {
            Entry::Put(object) => Some(object),
            Entry::Delete { .. } => None,
        });
        let meant = self.mirror.objects().filter(|((kind, _), _)| is_journalled(*kind));
        path.exists() && said.eq(meant.map(|(_, object)| object))
    }
}

/// Opens the database; one that is damaged is set aside, and what could be read of it is kept.
fn open_database(folder: &Folder, notes: &mut Vec<String>) -> Result<(Disk, Mirror), StoreError> {
    let path = folder.database();
    let opened = Disk::open(&path).and_then(|disk| Ok((disk.load()?, disk)));
    let (loaded, cause) = match opened {
        Ok((Loaded { newer: Some(version), .. }, _)) => return Err(folder.newer(version)),
        Ok((loaded, disk)) if loaded.bad.is_empty() => return Ok((disk, loaded.mirror)),
        Ok((loaded, disk)) => {
            // sled writes by path: it has to be closed before its folder is moved.
            drop(disk);
            let cause =
                format!("{} damaged records, the first: {}", loaded.bad.len(), loaded.bad[0]);
            (loaded, cause)
        }
        Err(cause) => (Loaded::default(), cause),
    };
    let aside = folder.set_aside()?;
    notes.push(format!(
        "the store was damaged ({cause}); it was set aside as {} and is built anew",
        aside.display()
    ));
    let disk = open_new(&path)?;
    disk.fill(&loaded.mirror)?;
    Ok((disk, loaded.mirror))
}

fn open_new(path: &Path) -> Result<Disk, StoreError> {
    Disk::open(path)
        .map_err(|cause| StoreError::Io { doing: format!("open {}", path.display()), cause })
}
