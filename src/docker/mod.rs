//! Docker Engines: the only place that names bollard. It does what it is told and says what it
//! sees; it decides nothing, and touches no container but by an id that it inspected right
//! before and found to be ours.

mod connect;
mod containers;
mod create;
mod engine;
mod error;
mod events;
mod images;
mod lifecycle;
mod logs;
mod registry;
mod scrub;
mod ssh;
mod tls;
mod transport;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use secrecy::SecretString;

use crate::model::{
    Container, ContainerId, Host, HostState, ImageRef, NewContainer, Owner, Pin, SecretName,
    Sha256, Span,
};

pub use connect::{Deadlines, DockerEngine, DockerEngines, EngineOptions};

/// Why an engine didn't do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// Nothing was heard, or nothing that makes sense. It isn't known whether it was done.
    #[error("{doing}: the engine at {engine} didn't answer: {cause}")]
    Unreachable { doing: String, engine: String, cause: String },
    /// The engine refused for a reason that may pass.
    #[error("{doing}: {cause}")]
    Transient { doing: String, cause: String },
    /// The engine refused, and will refuse again.
    #[error("{doing}: {cause}")]
    Refused { doing: String, cause: String },
    #[error("the name {name} is in use by container {id}, which isn't ours")]
    NameTaken { name: String, id: ContainerId },
    #[error("port {port} is taken on the host: {cause}")]
    PortTaken { port: u16, cause: String },
    #[error("container {id} isn't ours any more: {cause}")]
    NotOurs { id: ContainerId, cause: String },
    #[error("image {image} isn't to be had: {cause}")]
    ImageMissing { image: String, cause: String },
    #[error("the secret {0} isn't in the folder of secrets")]
    SecretMissing(SecretName),
}

impl EngineError {
    /// True where the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Transient { .. })
    }
}

/// What an engine knows of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    pub id: Sha256,
    /// `REPOSITORY@DIGEST`, as the registries that it was pulled from or pushed to call it.
    pub repository_digests: Vec<String>,
}

/// Something happened on an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stir {
    /// To this container.
    Container(ContainerId),
    /// More than was told.
    More,
}

/// A line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub is_error: bool,
    pub text: String,
}

/// One Docker Engine. Every call ends: each has a deadline of its own, within which the engine
/// answers or the call fails with [`EngineError::Unreachable`].
#[async_trait]
pub trait Engine: Send + Sync {
    /// A complete list of the containers; never a partial one.
    async fn observe(&self, owner: &Owner) -> Result<HostState, EngineError>;

    /// One container by id or name; none where there is none. Containers of others are none.
    async fn inspect(
        &self,
        owner: &Owner,
        id_or_name: &str,
    ) -> Result<Option<Container>, EngineError>;

    /// What the engine has under that name, without asking a registry.
    async fn image(&self, name: &str) -> Result<Option<ImageInfo>, EngineError>;

    /// Asks the image's registry, through the engine, for the digest of its tag.
    async fn resolve(&self, image: &ImageRef) -> Result<Sha256, EngineError>;

    /// Brings a pinned image onto the host. Done at once where it is there.
    async fn pull(&self, pin: &Pin) -> Result<(), EngineError>;

    /// Makes the container. Done at once where it is there already, ours and of that birth.
    async fn create(
        &self,
        container: &NewContainer,
        secrets: &BTreeMap<SecretName, SecretString>,
    ) -> Result<ContainerId, EngineError>;

    /// Starts it. Done at once where it runs.
    async fn start(&self, owner: &Owner, id_or_name: &str) -> Result<(), EngineError>;

    /// Stops it: signal, `grace`, kill. Done at once where it is gone or doesn't run.
    async fn stop(&self, owner: &Owner, id: &ContainerId, grace: Span) -> Result<(), EngineError>;

    /// Removes it with its anonymous volumes; named volumes stay. Done at once where it is gone.
    async fn remove(&self, owner: &Owner, id: &ContainerId) -> Result<(), EngineError>;

    /// One item for each event that may concern us: the container that it is of, which is all
    /// that is used of it. Ends when the engine goes away.
    async fn events(&self, owner: &Owner) -> Result<BoxStream<'static, Stir>, EngineError>;

    /// Its output, from the last `tail` lines on; goes on where `follow` says so.
    async fn logs(
        &self,
        owner: &Owner,
        id: &ContainerId,
        tail: Option<u32>,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError>;

    /// Version and API version, for `doctor`.
    async fn version(&self) -> Result<String, EngineError>;
}

/// Gives the engine of each host, so that what works on hosts needn't know how one is reached.
pub trait Engines: Send + Sync {
    /// The engine at the host's address. Never waits, and never fails: a host that can't be
    /// reached says so in each call.
    fn engine(&self, host: &Host) -> Arc<dyn Engine>;

    /// How many requests were sent to engines since the start.
    fn calls(&self) -> u64;
}
