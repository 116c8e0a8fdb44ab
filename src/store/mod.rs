//! What is remembered between cycles: the only place that names sled. The store is a cache and
//! a journal, never the truth: with it deleted, the next cycle rebuilds it. What can't be seen
//! anywhere else is appended to a checksummed file beside it as well.

use crate::model::{Event, Kind, Object};

/// Why the store didn't answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store in {path} is held by process {pid}")]
    Held { path: String, pid: u32 },
    #[error(
        "the store in {path} has format {found}, this Plimsoll knows up to {known}: use the Plimsoll that wrote it, or a newer one"
    )]
    Format { path: String, found: u32, known: u32 },
    #[error("{doing}: {cause}")]
    Io { doing: String, cause: String },
}

/// Kube-like objects and events. Writes are durable when they return.
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
