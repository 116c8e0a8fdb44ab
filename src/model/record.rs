//! What is remembered between cycles: kube-like objects, holds, approvals, events.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AppId, CommitId, Location, Revision};

/// `apiVersion` of every manifest and object.
pub const API_VERSION: &str = "plimsoll/v1alpha1";

/// A kube-like object: what is declared under `spec`, what is seen under `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    pub api_version: String,
    pub kind: Kind,
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: serde_json::Value,
    #[serde(default)]
    pub status: serde_json::Value,
}

/// The kinds of objects that the store holds. `Container` and `Server` are observed only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    Installation,
    Environment,
    Host,
    Balancer,
    App,
    Container,
    /// Pinned image of an app.
    Pin,
    /// What an app was declared as, and pinned to, when it last converged.
    Revision,
    Hold,
    Approval,
    /// The commits that were attempted and applied.
    Source,
    /// A plan that was executed.
    Execution,
}

impl Kind {
    pub const ALL: [Self; 12] = [
        Self::Installation,
        Self::Environment,
        Self::Host,
        Self::Balancer,
        Self::App,
        Self::Container,
        Self::Pin,
        Self::Revision,
        Self::Hold,
        Self::Approval,
        Self::Source,
        Self::Execution,
    ];
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{self:?}"))
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    /// Any case, singular or plural: `app`, `apps`, `App`.
    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        Self::ALL
            .into_iter()
            .find(|kind| {
                let name = kind.to_string().to_ascii_lowercase();
                lower == name || lower == format!("{name}s")
            })
            .ok_or_else(|| {
                let names: Vec<_> =
                    Self::ALL.iter().map(|kind| kind.to_string().to_lowercase()).collect();
                format!("{text:?} is no kind; the kinds are {}", names.join(", "))
            })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Counts the writes of the whole store; set by the store.
    #[serde(default)]
    pub resource_version: u64,
    /// Counts the changes of `spec`; set by the store.
    #[serde(default)]
    pub generation: u64,
}

/// A fact about an object with the time at which it last changed, as Kubernetes has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    pub reason: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
}

/// A remembered refusal: this revision failed, and isn't tried again until git changes or a
/// person lifts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    pub app: AppId,
    pub revision: Revision,
    pub commit: CommitId,
    pub reason: String,
}

/// Something that waits for a person, and its id: a digest over what would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalRequest {
    pub id: String,
    pub reason: String,
}

/// Something that happened, as `events` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub time: Timestamp,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// One word, such as `RolloutStarted`.
    pub reason: String,
    /// `KIND/NAME`.
    pub object: String,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventType {
    Normal,
    Warning,
}

/// A mistake in a manifest, with everything that a person needs to mend it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Diagnostic {
    #[serde(flatten)]
    pub location: Location,
    /// From 1, in characters.
    pub column: u32,
    /// How many characters are meant, at least 1.
    #[serde(default)]
    pub length: u32,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The offending line, without its end; none where the file isn't text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}
