//! A store that forgets: for commands that run once, and for tests.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::mirror::{Mirror, bounded};
use super::{Store, StoreError};
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
        Ok(self.mirror().get(kind, name).cloned())
    }

    fn list(&self, kind: Kind) -> Result<Vec<Object>, StoreError> {
        Ok(self.mirror().list(kind).cloned().collect())
    }

    fn put(&self, objects: Vec<Object>) -> Result<usize, StoreError> {
        let mut mirror = self.mirror();
        let changes = mirror.changes(objects)?;
        let count = changes.len();
        for (key, object) in changes {
            mirror.set(key, object);
        }
        Ok(count)
    }

    fn delete(&self, kind: Kind, name: &str) -> Result<(), StoreError> {
        self.mirror().remove(&(kind, name.to_owned()));
        Ok(())
    }

    fn record(&self, event: Event) -> Result<(), StoreError> {
        self.mirror().record(bounded(event));
        Ok(())
    }

    fn events(&self, limit: usize) -> Result<Vec<Event>, StoreError> {
        Ok(self.mirror().events(limit))
    }
}
