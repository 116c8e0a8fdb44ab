//! Why a step failed, and what follows from it: a hold, another port, another try.

use crate::docker::EngineError;
use crate::model::{HostName, Revision};
use crate::proxy::ProxyError;

/// Why a step isn't done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The revision itself doesn't work: it never got healthy, or ended.
    #[error("{reason}")]
    Revision { revision: Revision, reason: String },
    /// What was waited for was stopped or removed, and not by the revision itself.
    #[error("{0}")]
    Stopped(String),
    #[error("port {port} of host {host} is taken: {cause}")]
    PortTaken { host: HostName, port: u16, cause: String },
    #[error("the plan names {0}, which isn't known here")]
    UnknownPlace(String),
    #[error("Plimsoll panicked in this step, which is a mistake of its own: see its log")]
    Panicked,
    #[error("something else took over")]
    Cancelled,
}

impl Failure {
    /// True where the same step may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Engine(error) => error.may_pass(),
            Self::Proxy(error) => error.may_pass(),
            Self::Revision { .. }
            | Self::Stopped(_)
            | Self::PortTaken { .. }
            | Self::UnknownPlace(_)
            | Self::Panicked
            | Self::Cancelled => false,
        }
    }

    /// The revision that isn't to be tried again.
    pub fn held_revision(&self) -> Option<Revision> {
        match self {
            Self::Revision { revision, .. } => Some(*revision),
            _ => None,
        }
    }
}
