//! What is remembered between cycles: the only place that names sled. The store is a cache and
//! a journal, never the truth: with it deleted, the next cycle rebuilds it. What can't be seen
//! anywhere else is appended to a checksummed file beside it as well.

mod disk;
mod durable;
mod files;
mod folder;
mod journal;
mod memory;
mod mirror;
mod pending;
mod quiet;
mod record;
mod stored;
mod writer;

use crate::model::{Event, Kind, Metadata, Object};

pub use durable::{Opened, SledStore};
pub use memory::MemoryStore;
pub use mirror::MOST_EVENTS;
pub use record::LARGEST_OBJECT;

/// Why the store didn't answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "the store in {path} is held by process {pid}: stop that one first, or name another folder with --state"
    )]
    Held { path: String, pid: u32 },
    #[error(
        "the store in {path} has format {found}, this Plimsoll knows up to {known}: use the Plimsoll that wrote it, or a newer one"
    )]
    Format { path: String, found: u32, known: u32 },
    #[error("{object} has {bytes} bytes, and the store takes 1 MiB at most")]
    TooLarge { object: String, bytes: usize },
    #[error("{doing}: {cause}")]
    Io { doing: String, cause: String },
}

/// The name under which the store knows an object: `ENVIRONMENT/NAME` where it has an
/// environment, else its name alone.
pub fn key_of(metadata: &Metadata) -> String {
    match &metadata.environment {
        Some(environment) if !metadata.name.contains('/') => {
            format!("{environment}/{}", metadata.name)
        }
        _ => metadata.name.clone(),
    }
}

/// One change of what the store holds. Names are those of [`key_of`].
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Sets `resourceVersion` and, where `spec` changed, `generation`. Is none where nothing
    /// differs from what is there.
    Put(Object),
    /// Is none where there is no such object.
    Delete(Kind, String),
}

/// Kube-like objects and events. What is changed is seen by all who read from then on.
///
/// What [`Store::write`] and those made of it changed is on the disk when they return without an
/// error, with everything that was changed before. What was noted or recorded gets there some
/// milliseconds later: these last milliseconds may be lost when the process is killed, always the
/// youngest first, so nothing else may depend on them. When the store is dropped, nothing is.
///
/// A call that returns [`StoreError::Io`] has had its effect in memory all the same, and is
/// written as soon as the disk takes it.
pub trait Store: Send + Sync {
    fn get(&self, kind: Kind, name: &str) -> Result<Option<Object>, StoreError>;

    /// All of a kind, in the order of their names. Decodes every one.
    fn list(&self, kind: Kind) -> Result<Vec<Object>, StoreError>;

    /// The names of all of a kind, as [`key_of`] gives them, in their order.
    fn names(&self, kind: Kind) -> Result<Vec<String>, StoreError>;

    /// Makes all of these changes or, where one is [`StoreError::TooLarge`], none; of several to
    /// one object the last. One transaction, as long as it is small. Returns how many objects
    /// differed.
    fn write(&self, changes: Vec<Change>) -> Result<usize, StoreError>;

    /// As [`Store::write`], without waiting for the disk.
    ///
    /// # Errors
    /// Also [`StoreError::Io`] of an earlier change, as long as the disk is behind.
    fn note(&self, changes: Vec<Change>) -> Result<usize, StoreError>;

    /// Appends an event, without waiting for the disk; the oldest go when there are too many.
    ///
    /// # Errors
    /// As [`Store::note`].
    fn record(&self, event: Event) -> Result<(), StoreError>;

    /// The last `limit` events, oldest first.
    fn events(&self, limit: usize) -> Result<Vec<Event>, StoreError>;

    /// Why the disk is behind what is told here, as long as it is.
    fn trouble(&self) -> Option<StoreError> {
        None
    }

    /// Writes these objects.
    fn put(&self, objects: Vec<Object>) -> Result<usize, StoreError> {
        self.write(objects.into_iter().map(Change::Put).collect())
    }

    /// Forgets an object, if it is there.
    fn delete(&self, kind: Kind, name: &str) -> Result<(), StoreError> {
        self.write(vec![Change::Delete(kind, name.to_owned())]).map(drop)
    }
}
