//! HAProxy: its file and its process, kept in step. The file is rendered from typed values by a
//! handlebars template, linted, verified by `haproxy -c` where it will run, its new listeners
//! trial-bound, then swapped and reloaded; what the process then answers is read back. If any
//! of it fails, the old file and the old process keep serving.
//!
//! No string reaches the template that isn't one of the checked types of [`crate::model`].

mod answer;
mod bind;
mod command;
mod file;
#[doc(hidden)]
pub mod fuzzing;
mod haproxy;
mod lint;
mod local;
mod look;
mod machine;
mod parse;
mod place;
mod probe;
mod process;
mod proxies;
mod render;
mod restructure;
mod routes;
mod runtime;
mod ssh;

pub use haproxy::{HaproxyOptions, HaproxyProxy};
pub use lint::lint;
pub use local::LocalMachine;
pub use machine::{ConnectError, Connection, Machine, MachineError, Outcome};
pub use parse::parse;
pub use probe::probe;
pub use proxies::{HaproxyProxies, Proxies};
pub use render::{Places, Rendered, render};
pub use restructure::next_config;
pub use ssh::SshMachine;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use async_trait::async_trait;

use crate::model::{
    BackendName, BalancerState, ProxyStructure, RouteKey, RuntimeServer, Server, ServerName,
};

/// Why a balancer didn't do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProxyError {
    #[error("{doing}: {balancer} didn't answer: {cause}")]
    Unreachable { doing: String, balancer: String, cause: String },
    /// HAProxy answered with one of its texts.
    #[error("{doing}: HAProxy says: {answer}")]
    Refused { doing: String, answer: String },
    /// Found by our linter; nothing was written.
    #[error("the new configuration isn't sound: {0}")]
    Lint(String),
    /// `haproxy -c` refused; nothing was swapped. Its standard error.
    #[error("haproxy -c refused the new configuration:\n{0}")]
    Verify(String),
    #[error("{address} can't be bound: {cause}")]
    Bind { address: SocketAddr, cause: String },
    #[error("the reload didn't take: {0}")]
    Reload(String),
    #[error("{doing}: {cause}")]
    File { doing: String, cause: String },
    #[error("haproxy could not be started: {0}")]
    Start(String),
}

impl ProxyError {
    /// True where the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Reload(_) | Self::Start(_))
    }
}

/// One HAProxy. Calls that change something are serialized by the adapter, and every call ends
/// within a deadline. A change that is there already is done at once.
#[async_trait]
pub trait Proxy: Send + Sync {
    /// File and process, complete or an error.
    async fn observe(&self) -> Result<BalancerState, ProxyError>;

    /// Makes `structure` the structure of file and process: render, lint, verify, trial-bind,
    /// swap, reload (or start, where Plimsoll runs it and it is down), read back. Routes and
    /// servers of the backends that remain are kept, from the file, or, where the file is
    /// missing or damaged, from the process; servers of such a file that aren't known to be up
    /// get weight 0. New backends are empty.
    async fn restructure(&self, structure: &ProxyStructure) -> Result<(), ProxyError>;

    /// Sets (`Some`) and removes (`None`) routes, in the process in one transaction and in the
    /// file. No reload.
    async fn set_routes(
        &self,
        changes: &BTreeMap<RouteKey, Option<BackendName>>,
    ) -> Result<(), ProxyError>;

    /// Adds a server with weight 0, checked. `server.weight` isn't looked at.
    async fn add_server(
        &self,
        backend: &BackendName,
        name: &ServerName,
        server: &Server,
    ) -> Result<(), ProxyError>;

    /// Absolute weight, 0 to 256, and ready for traffic where it was drained by a person. A
    /// lower weight goes into the file first, a higher one last. Where the file or the process
    /// doesn't have the server, as after a removal that was cut short, 0 is done there.
    async fn set_weight(
        &self,
        backend: &BackendName,
        name: &ServerName,
        weight: u16,
    ) -> Result<(), ProxyError>;

    /// Maintenance, then removal, from process and file. Refused while it has sessions.
    async fn remove_server(
        &self,
        backend: &BackendName,
        name: &ServerName,
    ) -> Result<(), ProxyError>;

    /// One server in the process; none where there is none.
    async fn server(
        &self,
        backend: &BackendName,
        name: &ServerName,
    ) -> Result<Option<RuntimeServer>, ProxyError>;

    /// Requests and tunnels that are on the server now, in this worker and in older ones. Idle
    /// connections don't count.
    async fn sessions(&self, backend: &BackendName, name: &ServerName) -> Result<u64, ProxyError>;

    /// Ends what is still on a server when its drain has come to its end, in this worker and in
    /// older ones. Done at once where nothing is on it, or no such server is there.
    async fn cut_sessions(
        &self,
        backend: &BackendName,
        name: &ServerName,
    ) -> Result<(), ProxyError>;

    /// Version, for `doctor`.
    async fn version(&self) -> Result<String, ProxyError>;
}
