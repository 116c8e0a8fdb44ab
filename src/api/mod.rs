//! What a person or a program can ask of Plimsoll, and the socket over which they ask a
//! running controller. It holds no logic of its own: [`Operations`] is implemented by the
//! controller ([`crate::reconcile`]) and, word for word the same, by the client of the socket.

mod client;
mod lines;
mod routes;
mod server;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::model::{AppId, ApprovalRequest, CommitId, Condition, Diagnostic, Event, Kind, Object};
use crate::plan::{Plan, StepId};
pub use crate::plan::{StepOutcome, StepResult};

pub use client::Client;
pub use server::{CONNECTION_LIMIT, serve};

/// Name of the socket in the folder of the state.
pub const SOCKET_NAME: &str = "plimsoll.sock";

/// The largest body of a request, in bytes: a plan that is to be applied.
pub const BODY_LIMIT: usize = 16 << 20;

/// An error as it crosses the socket: what failed with its causes, and what to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct OperationError {
    pub message: String,
    /// From the nearest to the root.
    pub causes: Vec<String>,
    /// What to type next.
    pub hint: Option<String>,
    /// Mistakes in manifests, where those are what failed.
    pub diagnostics: Vec<Diagnostic>,
}

impl OperationError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), hint: None, diagnostics: Vec::new() }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// There is no object of that name.
    pub fn no_such_object(kind: Kind, name: &str) -> Self {
        let kinds = format!("{kind}s").to_lowercase();
        Self::new(format!("there is no {kind} named {name:?}"))
            .hint(format!("plimsoll get {kinds} lists those that are there"))
    }

    /// `message`, and the error with its chain of causes below it.
    pub fn because(message: impl Into<String>, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut causes = Vec::new();
        let mut next = Some(error);
        while let Some(error) = next {
            causes.push(error.to_string());
            next = error.source();
        }
        Self { causes, ..Self::new(message) }
    }
}

/// The body of a request to apply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplyRequest {
    /// Runs exactly this, or refuses; none lets the controller plan.
    plan: Option<Box<Plan>>,
}

/// A plan together with what was found wrong in the manifests it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    #[serde(flatten)]
    pub plan: Plan,
    /// Mistakes in the manifests; what they concern is in `blocked`.
    pub diagnostics: Vec<Diagnostic>,
    /// What couldn't be seen: hosts and balancers, with the reason.
    pub unseen: Vec<String>,
    /// What waits for a person as a whole, such as a rewritten history.
    pub approvals: Vec<ApprovalRequest>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    #[serde(flatten)]
    pub diff: Diff,
    pub outcome: Vec<StepOutcome>,
    /// True where nothing is left to do: no steps, nothing waiting, nothing blocked.
    pub converged: bool,
}

/// How far an apply is, for a progress display.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event")]
pub enum Progress {
    /// A plan of so many steps is being executed.
    Planned {
        plan: Box<Plan>,
    },
    Started {
        id: StepId,
        summary: String,
    },
    Finished {
        outcome: StepOutcome,
        summary: String,
    },
    /// The end; nothing follows.
    Ended {
        applied: Box<Applied>,
    },
    Failed {
        error: OperationError,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub installation: String,
    pub source: String,
    pub commit: CommitStatus,
    pub approvals: Vec<ApprovalRequest>,
    pub apps: Vec<AppStatus>,
    pub hosts: Vec<ReachStatus>,
    pub balancers: Vec<ReachStatus>,
    /// The last attempt to read the source failed for this reason.
    pub source_error: Option<String>,
    /// The store is behind: the disk doesn't take what is to be remembered, for this reason.
    #[serde(default)]
    pub store_error: Option<String>,
    /// Mistakes in the manifests of the attempted commit.
    pub diagnostics: Vec<Diagnostic>,
    pub counters: std::collections::BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitStatus {
    pub applied: Option<CommitId>,
    pub attempted: Option<CommitId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    pub environment: String,
    pub name: String,
    pub sync: Sync,
    pub health: Health,
    /// The desired revision's 12 digits; none where it isn't known.
    pub revision: Option<String>,
    pub image: Option<String>,
    /// Ready containers of the desired revision, and how many are declared.
    pub ready: u32,
    pub replicas: u32,
    pub observed_generation: u64,
    pub conditions: Vec<Condition>,
}

/// Does what runs equal what is declared?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sync {
    InSync,
    OutOfSync,
    Unknown,
}

/// Is what runs well?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    Healthy,
    Progressing,
    Paused,
    Degraded,
    RolledBack,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachStatus {
    pub name: String,
    pub reachable: bool,
    pub message: String,
}

/// A commit that was attempted, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    pub time: jiff::Timestamp,
    pub commit: CommitId,
    /// First line of its message, and its author.
    pub description: String,
    /// `Applied`, `Progressing`, `Failed` or `Waiting`.
    pub result: String,
    pub message: String,
}

/// A line of a container's output with where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogRecord {
    pub host: String,
    pub container: String,
    pub is_error: bool,
    pub text: String,
}

/// One line of `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkup {
    pub subject: String,
    pub result: CheckupResult,
    pub message: String,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckupResult {
    Works,
    Warning,
    Broken,
}

/// Everything that the commands ask. A running controller answers over its socket, else the
/// command's own process does.
#[async_trait]
pub trait Operations: Send + std::marker::Sync {
    /// Plans a revision (the branch's tip where none is named); changes nothing.
    async fn diff(&self, revision: Option<String>) -> Result<Diff, OperationError>;

    /// Converges once, reporting progress; or runs exactly `plan`, or refuses.
    async fn apply(&self, plan: Option<Box<Plan>>) -> BoxStream<'static, Progress>;

    async fn status(&self) -> Result<Status, OperationError>;

    /// All of a kind, or the one of that name (`ENVIRONMENT/NAME` for apps).
    async fn get(&self, kind: Kind, name: Option<String>) -> Result<Vec<Object>, OperationError>;

    /// The last `limit` events, then, with `follow`, those that come.
    async fn events(
        &self,
        limit: usize,
        follow: bool,
    ) -> Result<BoxStream<'static, Event>, OperationError>;

    /// Newest first; of one app, or of the installation.
    async fn history(&self, app: Option<AppId>) -> Result<Vec<HistoryEntry>, OperationError>;

    async fn logs(
        &self,
        app: AppId,
        tail: Option<u32>,
        follow: bool,
    ) -> Result<BoxStream<'static, LogRecord>, OperationError>;

    /// Lets through what waits under that id. Returns what it was.
    async fn approve(&self, id: String) -> Result<ApprovalRequest, OperationError>;

    async fn doctor(&self) -> Result<Vec<Checkup>, OperationError>;
}
