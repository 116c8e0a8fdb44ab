//! What the store has on the disk: the database, and the journal of what can't be seen elsewhere.
//! The journal is written first, so it never knows less than sled. One that fails is closed, and
//! is written anew from memory as soon as that works.

use std::time::Duration;

use tokio::time::Instant;

use super::StoreError;
use super::disk::{Changes, Disk, Loaded};
use super::folder::{Folder, failed, remove_all};
use super::journal::{Entry, Journal, Replay, is_journalled};
use super::mirror::Mirror;
use super::quiet::caught;
use super::stored::Stored;

/// Time between two attempts to bring a failed disk up to date.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Writes between two looks at the size of the database.
const WRITES_PER_LOOK: u32 = 1000;

/// The database is built anew when it is larger than this and than four times its size when it
/// was new, in bytes: sled is slow to give space back.
const SMALLEST_TO_REBUILD: u64 = 32 << 20;

/// The database and the journal of a state folder.
// The order is that in which it is dropped: the folder is held until all else is closed.
pub struct Files {
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

impl Files {
    /// Opens both, and gives what they hold. A damaged database is set aside and what the
    /// journal has is brought back. `notes`: what people should know of it.
    ///
    /// # Errors
    /// [`StoreError::Format`] of a newer Plimsoll, or [`StoreError::Io`].
    pub fn open(folder: Folder, notes: &mut Vec<String>) -> Result<(Self, Loaded), StoreError> {
        let (disk, mut loaded) = open_database(&folder, notes)?;
        let disk = Some(disk);
        let mut files = Self { disk, journal: None, tried: None, writes: 0, rebuild_at: 0, folder };
        files.note_size();
        files.read_journal(&mut loaded.mirror, notes)?;
        Ok((files, loaded))
    }

    /// Writes what the mirror has already: journal, then database. Both are tried, so that one
    /// that fails doesn't keep the other from what it can have. Where one failed before, all of
    /// the mirror is written, which is asked for then.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn save(
        &mut self,
        changes: &Changes,
        mirror: &dyn Fn() -> Mirror,
    ) -> Result<(), StoreError> {
        let journalled = self.save_journal(changes, mirror);
        let written = self.save_database(changes, mirror);
        journalled.and(written)
    }

    fn save_journal(
        &mut self,
        changes: &Changes,
        mirror: &dyn Fn() -> Mirror,
    ) -> Result<(), StoreError> {
        if let Some(journal) = &mut self.journal {
            let entries = entries(changes);
            if entries.is_empty() {
                return Ok(());
            }
            if !journal.is_long() && !journal.is_gone() && journal.append(&entries).is_ok() {
                return Ok(());
            }
        }
        self.rewrite_journal(&mirror())
    }

    fn rewrite_journal(&mut self, mirror: &Mirror) -> Result<(), StoreError> {
        let path = self.folder.journal();
        self.journal = None;
        let journal = Journal::rewrite(&path, living(mirror))
            .map_err(|error| failed("write", &path, &error))?;
        self.journal = Some(journal);
        Ok(())
    }

    fn save_database(
        &mut self,
        changes: &Changes,
        mirror: &dyn Fn() -> Mirror,
    ) -> Result<(), StoreError> {
        let Some(disk) = &self.disk else { return self.rebuild(mirror) };
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
            let _ = self.rebuild(mirror);
        }
        Ok(())
    }

    /// Builds the database anew from memory, and puts it in place of the old one when it is
    /// complete.
    fn rebuild(&mut self, mirror: &dyn Fn() -> Mirror) -> Result<(), StoreError> {
        if self.tried.is_some_and(|tried| tried.elapsed() < RETRY_AFTER) {
            let doing = format!("write {}", self.folder.database().display());
            return Err(StoreError::Io { doing, cause: "the disk failed a moment ago".into() });
        }
        self.tried = Some(Instant::now());
        let new = self.folder.new_database();
        let all = Changes::all_of(&mirror());
        let filled = remove_all(&new).and_then(|()| open_new(&new)?.write(&all));
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
    fn read_journal(
        &mut self,
        mirror: &mut Mirror,
        notes: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        let path = self.folder.journal();
        let replay = Journal::replay(&path).map_err(|error| failed("read", &path, &error))?;
        let brought_back = merge(mirror, &replay);
        let agrees = replay.notes.is_empty() && path.exists() && says_all(&replay, mirror);
        notes.extend(replay.notes);
        if brought_back > 0 {
            notes.push(format!("{brought_back} objects were brought back from {}", path.display()));
            if let Err(error) = self.rebuild(&|| mirror.clone()) {
                notes.push(format!("the store works from memory for now: {error}"));
            }
        }
        if agrees {
            self.journal = Journal::open(&path).ok();
        }
        if self.journal.is_none()
            && let Err(error) = self.rewrite_journal(mirror)
        {
            notes.push(format!("the journal can't be written for now: {error}"));
        }
        Ok(())
    }
}

/// What goes into the journal.
fn entries(changes: &Changes) -> Vec<Entry> {
    let put = changes.put.iter().map(|(key, object)| Entry::Put(key.clone(), object.clone()));
    let deleted = changes.deleted.iter().map(|(key, version)| Entry::Delete(key.clone(), *version));
    put.chain(deleted).filter(|entry| is_journalled(entry.key().0)).collect()
}

/// What the journal should hold.
fn living(mirror: &Mirror) -> impl Iterator<Item = &Stored> {
    mirror.objects().filter(|(kind, ..)| is_journalled(*kind)).map(|(.., object)| object)
}

/// How many objects the journal knew better.
fn merge(mirror: &mut Mirror, replay: &Replay) -> usize {
    let mut count = 0;
    for (key, entry) in &replay.entries {
        let known = mirror.get(key.0, &key.1).map(Stored::version);
        mirror.at_least(entry.version());
        match entry {
            Entry::Put(_, object) if known.is_none_or(|known| known < entry.version()) => {
                mirror.set(key.clone(), object.clone());
                count += 1;
            }
            Entry::Delete(_, version) if known.is_some_and(|known| known < *version) => {
                mirror.remove(key.0, &key.1);
                count += 1;
            }
            _ => {}
        }
    }
    count
}

/// True where the journal, alone, would give all that it should.
fn says_all(replay: &Replay, mirror: &Mirror) -> bool {
    let said = replay.entries.values().filter_map(|entry| match entry {
        Entry::Put(_, object) => Some(object),
        Entry::Delete(..) => None,
    });
    said.eq(living(mirror))
}

/// Opens the database; one that is damaged is set aside, and what could be read of it is kept.
fn open_database(folder: &Folder, notes: &mut Vec<String>) -> Result<(Disk, Loaded), StoreError> {
    let path = folder.database();
    let opened = Disk::open(&path).and_then(|disk| Ok((disk.load()?, disk)));
    let (loaded, cause) = match opened {
        Ok((Loaded { newer: Some(version), .. }, _)) => return Err(folder.newer(version)),
        Ok((loaded, disk)) if loaded.bad.is_empty() => return Ok((disk, loaded)),
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
    disk.write(&Changes::all_of(&loaded.mirror))?;
    Ok((disk, loaded))
}

fn open_new(path: &std::path::Path) -> Result<Disk, StoreError> {
    Disk::open(path)
        .map_err(|cause| StoreError::Io { doing: format!("open {}", path.display()), cause })
}
