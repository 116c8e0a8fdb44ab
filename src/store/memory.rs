//! A store that forgets: for commands that run once, and for tests.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::mirror::{Drafts, Mirror, bounded};
use super::stored::Stored;
use super::{Change, Store, StoreError};
use crate::model::{Event, Kind, Object};

/// A [`Store`] in memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Mirror>);

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, kind: Kind, name: &str) -> Result<Option<Object>, StoreError> {
        self.mirror().get(kind, name).map(Stored::object).transpose()
    }

    fn list(&self, kind: Kind) -> Result<Vec<Object>, StoreError> {
        self.mirror().list(kind).map(|(_, stored)| stored.object()).collect()
    }

    fn names(&self, kind: Kind) -> Result<Vec<String>, StoreError> {
        Ok(self.mirror().list(kind).map(|(name, _)| name.to_owned()).collect())
    }

    fn write(&self, changes: Vec<Change>) -> Result<usize, StoreError> {
        let drafts = Drafts::new(changes)?;
        Ok(self.mirror().apply(drafts).len())
    }

    fn note(&self, changes: Vec<Change>) -> Result<usize, StoreError> {
        self.write(changes)
    }

    fn record(&self, event: Event) -> Result<(), StoreError> {
        self.mirror().record(bounded(event));
        Ok(())
    }

    fn events(&self, limit: usize) -> Result<Vec<Event>, StoreError> {
        Ok(self.mirror().events(limit))
    }
}
