//! The store that lasts: everything in memory for reading, on the disk for the next start. Who
//! changes something changes memory first; then the first to come writes for all who wait, in
//! one transaction with one sync. For notes and events nobody waits: a thread writes them some
//! milliseconds later, with whatever else there is by then. When the disk fails, reading goes
//! on; when it works again, it is brought up to date.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::files::Files;
use super::folder::Folder;
use super::mirror::{Drafts, Mirror, bounded};
use super::pending::Pending;
use super::{Change, Store, StoreError, writer};
use crate::model::{Event, Kind, Object};

/// A [`Store`] in a folder.
pub struct SledStore {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// A store that was opened, and what people should know of its opening.
pub struct Opened {
    pub store: SledStore,
    /// Sentences about what was damaged, set aside or brought back.
    pub notes: Vec<String>,
}

/// What the store shares with the thread that writes notes and events.
pub(super) struct Shared {
    /// Held for a moment only, never while something is written.
    pub state: Mutex<State>,
    /// Held while something is written. Locked before the state, never after it.
    files: Mutex<Files>,
    /// Somebody asked the writer for something.
    pub asked: Condvar,
}

pub(super) struct State {
    mirror: Mirror,
    pending: Pending,
    /// Counts what was done to the mirror.
    pub done: u64,
    /// Up to which of these the disk has it.
    written: u64,
    /// Why the disk is behind, while it is.
    trouble: Option<Trouble>,
    /// The writer is to write.
    pub wanted: bool,
    /// The store is being closed.
    pub closing: bool,
}

/// The parts of a [`StoreError::Io`].
type Trouble = (String, String);

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
        let (files, loaded) = Files::open(folder, &mut notes)?;
        let mirror = loaded.mirror;
        let kept = mirror.event_numbers();
        let state = State {
            pending: Pending::new(loaded.first_event.unwrap_or(kept.start)..kept.end),
            mirror,
            done: 0,
            written: 0,
            trouble: None,
            wanted: false,
            closing: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            files: Mutex::new(files),
            asked: Condvar::new(),
        });
        let writer = writer::start(shared.clone())?;
        Ok(Opened { store: Self { shared, writer: Some(writer) }, notes })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for SledStore {
    /// What waits is written, and all is closed.
    fn drop(&mut self) {
        self.state().closing = true;
        self.shared.asked.notify_one();
        if let Some(writer) = self.writer.take() {
            // It doesn't panic, and there is nothing left to do if it did.
            let _ = writer.join();
        }
    }
}

impl Store for SledStore {
    fn get(&self, kind: Kind, name: &str) -> Result<Option<Object>, StoreError> {
        let stored = self.state().mirror.get(kind, name).cloned();
        stored.map(|stored| stored.object()).transpose()
    }

    fn list(&self, kind: Kind) -> Result<Vec<Object>, StoreError> {
        let stored: Vec<_> =
            self.state().mirror.list(kind).map(|(_, stored)| stored.clone()).collect();
        stored.iter().map(|stored| stored.object()).collect()
    }

    fn names(&self, kind: Kind) -> Result<Vec<String>, StoreError> {
        Ok(self.state().mirror.list(kind).map(|(name, _)| name.to_owned()).collect())
    }

    fn write(&self, changes: Vec<Change>) -> Result<usize, StoreError> {
        let drafts = Drafts::new(changes)?;
        let (count, done) = {
            let mut state = self.state();
            (state.apply(drafts), state.done)
        };
        // Also where nothing differs: somebody else's may still be on its way to the disk.
        self.shared.write_up_to(done)?;
        Ok(count)
    }

    fn note(&self, changes: Vec<Change>) -> Result<usize, StoreError> {
        let drafts = Drafts::new(changes)?;
        let mut state = self.state();
        let count = state.apply(drafts);
        if state.pending.is_full() {
            let done = state.done;
            drop(state);
            self.shared.write_up_to(done)?;
            return Ok(count);
        }
        self.shared.ask_writer(&mut state);
        state.is_sound().map(|()| count)
    }

    fn record(&self, event: Event) -> Result<(), StoreError> {
        let mut state = self.state();
        state.mirror.record(bounded(event));
        state.done += 1;
        self.shared.ask_writer(&mut state);
        state.is_sound()
    }

    fn events(&self, limit: usize) -> Result<Vec<Event>, StoreError> {
        Ok(self.state().mirror.events(limit))
    }

    fn trouble(&self) -> Option<StoreError> {
        self.state().is_sound().err()
    }
}

impl Shared {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask_writer(&self, state: &mut State) {
        if !state.wanted {
            state.wanted = true;
            self.asked.notify_one();
        }
    }

    /// Returns when the disk has the first `done` changes. While one writes, the others wait;
    /// the next of them writes for all.
    ///
    /// # Errors
    /// [`StoreError::Io`]. What wasn't written stays in memory, and is written by the next.
    pub fn write_up_to(&self, done: u64) -> Result<(), StoreError> {
        if self.state().written >= done {
            return Ok(());
        }
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let (changes, done) = {
            let mut state = self.state();
            if state.written >= done {
                return Ok(());
            }
            let State { mirror, pending, .. } = &mut *state;
            (pending.take(mirror), state.done)
        };
        let saved = files.save(&changes, &|| self.state().mirror.clone());
        let mut state = self.state();
        match &saved {
            Ok(()) => {
                state.written = done;
                state.trouble = None;
            }
            Err(error) => {
                state.trouble = Some(trouble(error));
                // It tries again.
                self.ask_writer(&mut state);
            }
        }
        saved
    }
}

impl State {
    /// Changes memory, and says how many objects differed.
    fn apply(&mut self, drafts: Drafts) -> usize {
        let changed = self.mirror.apply(drafts);
        let count = changed.len();
        if count > 0 {
            self.pending.add(changed);
            self.done += 1;
        }
        count
    }

    /// # Errors
    /// Why the disk is behind.
    fn is_sound(&self) -> Result<(), StoreError> {
        match self.trouble.clone() {
            None => Ok(()),
            Some((doing, cause)) => Err(StoreError::Io { doing, cause }),
        }
    }
}

fn trouble(error: &StoreError) -> Trouble {
    match error {
        StoreError::Io { doing, cause } => (doing.clone(), cause.clone()),
        other => ("write the store".into(), other.to_string()),
    }
}
