//! What the planner is given. Nothing else reaches it: no clock, no engine, no store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::model::{
    App, AppId, BalancerName, Desired, Guards, Hold, Host, HostName, Observed, Pin, Pointers,
    SecretDigest, SecretName,
};

/// One question to the planner.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub desired: &'a Desired,
    pub observed: &'a Observed,
    pub known: &'a Known,
    /// What the commit applied before declared; used to show what changes, never to decide.
    pub previous: Option<&'a Desired>,
}

/// What is remembered or was found out beside manifests and observation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// What each app's image was resolved to, or why it wasn't.
    pub pins: OrdMap<AppId, Result<Pin, String>>,
    /// The keyed digest of each secret, or why there is none.
    pub secrets: OrdMap<SecretName, Result<SecretDigest, String>>,
    pub holds: BTreeMap<AppId, Hold>,
    /// What each app had when it last converged: where a held revision goes back to.
    pub fallbacks: OrdMap<AppId, Arc<Fallback>>,
    /// Ids that a person approved.
    pub approvals: BTreeSet<String>,
    /// Hosts that were taken out of git and may still have containers of ours.
    pub departed_hosts: BTreeMap<HostName, Host>,
    /// The guards of the commit applied before: no commit disarms them for itself.
    pub guards: Guards,
    /// Ports that turned out to be taken, and those that steps in progress will use.
    pub taken_ports: BTreeMap<HostName, BTreeSet<u16>>,
    /// Where balancers that can't be seen now pointed to when they were seen last. One that isn't
    /// among them may point anywhere.
    pub last_pointers: BTreeMap<BalancerName, Arc<Pointers>>,
    /// Apps whose health check changes, and whose servers don't pass the new one: why not. A
    /// reload would take them down.
    pub failing_checks: BTreeMap<AppId, String>,
    /// Apps whose steps are being executed: they are left out.
    pub busy: BTreeSet<AppId>,
}

/// A revision that worked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    pub app: Arc<App>,
    pub pin: Pin,
}
