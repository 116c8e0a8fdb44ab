//! What is remembered between cycles: the only place that names sled. The store is a cache and
//! a journal, never the truth: with it deleted, the next cycle rebuilds it. What can't be seen
//! anywhere else is appended to a checksummed file beside it as well.

mod disk;
mod durable;
mod folder;
mod journal;
mod memory;
mod mirror;
mod quiet;
mod record;

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

/// Kube-like objects and events. Writes are durable when they return without an error. One that
/// returns an error is remembered in memory all the same, and written with the next. Names are
/// those of [`key_of`].
pub trait Store: Send + Sync {
    fn get(&self, kind: Kind, name: &str) -> Result<Option<Object>, StoreError>;

    /// All of a kind, in the order of their names.
    fn list(&self, kind: Kind) -> Result<Vec<Object>, StoreError>;

    /// Writes those that differ from what is there, in one transaction, setting
    /// `resourceVersion` and, where `spec` changed, `generation`. Returns how many differed.
    fn put(&self, objects: Vec<Object>) -> Result<usize, StoreError>;

    fn delete(&self, kind: Kind, name: &str) -> Result<(), StoreError>;

    /// Appends an event; the oldest go when there are too many.
    fn record(&self, event: Event) -> Result<(), StoreError>;

    /// The last `limit` events, oldest first.
    fn events(&self, limit: usize) -> Result<Vec<Event>, StoreError>;
}
