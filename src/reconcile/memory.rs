//! What is remembered over restarts, as objects of the store: commits, pins, holds, approvals,
//! hosts that were taken out of git, and the revisions that worked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api::HistoryEntry;
use crate::model::{
    API_VERSION, AppId, ApprovalRequest, CommitId, Desired, Hold, Host, HostName, Kind, Metadata,
    Object, Pin,
};
use crate::plan::Fallback;
use crate::store::{Store, StoreError};

/// How many commits the history holds.
const HISTORY: usize = 200;

/// The store, in the loop's own words.
pub(super) struct Memory {
    store: Arc<dyn Store>,
}

/// Which commits were taken up, and which were reached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Commits {
    /// The last commit whose declared state was reached.
    pub applied: Option<CommitId>,
    /// The last commit that was taken up. Later ones descend from it.
    pub attempted: Option<CommitId>,
    /// Oldest first.
    #[serde(default)]
    pub history: Vec<HistoryEntry>,
}

/// An object of ours with nothing but a name yet.
pub(super) fn object(kind: Kind, name: &str, environment: Option<String>) -> Object {
    Object {
        api_version: API_VERSION.into(),
        kind,
        metadata: Metadata {
            name: name.to_owned(),
            environment,
            resource_version: 0,
            generation: 0,
        },
        spec: serde_json::Value::Null,
        status: serde_json::Value::Null,
    }
}

pub(super) fn json(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn read<T: DeserializeOwned>(value: &serde_json::Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

impl Memory {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    pub fn commits(&self) -> Result<Commits, StoreError> {
        let object = self.store.get(Kind::Source, "source")?;
        Ok(object.and_then(|object| read(&object.status)).unwrap_or_default())
    }

    /// Notes that a commit is taken up.
    pub fn attempt(
        &self,
        commit: &CommitId,
        description: String,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut commits = self.commits()?;
        if commits.attempted.as_ref() == Some(commit) {
            return Ok(false);
        }
        commits.attempted = Some(commit.clone());
        commits.history.push(HistoryEntry {
            time: now,
            commit: commit.clone(),
            description,
            result: "Progressing".into(),
            message: String::new(),
        });
        let surplus = commits.history.len().saturating_sub(HISTORY);
        commits.history.drain(..surplus);
        self.write_commits(&commits)?;
        Ok(true)
    }

    /// Notes what came of the commit that is worked on. Returns whether that is news.
    pub fn conclude(&self, result: &str, message: &str) -> Result<bool, StoreError> {
        let mut commits = self.commits()?;
        if result == "Applied" {
            commits.applied.clone_from(&commits.attempted);
        }
        let mut news = false;
        if let Some(last) = commits.history.last_mut() {
            news = last.result != result;
            last.result = result.to_owned();
            last.message = message.to_owned();
        }
        self.write_commits(&commits)?;
        Ok(news)
    }

    fn write_commits(&self, commits: &Commits) -> Result<(), StoreError> {
        let mut source = object(Kind::Source, "source", None);
        source.status = json(commits);
        self.store.put(vec![source]).map(drop)
    }

    pub fn pins(&self) -> Result<BTreeMap<AppId, Pin>, StoreError> {
        self.by_app(Kind::Pin)
    }

    pub fn pin(&self, pins: &BTreeMap<AppId, Pin>) -> Result<(), StoreError> {
        let objects = pins.iter().map(|(app, pin)| {
            let mut object = object(Kind::Pin, &app.to_string(), Some(app.environment.to_string()));
            object.spec = json(pin);
            object
        });
        self.store.put(objects.collect()).map(drop)
    }

    pub fn holds(&self) -> Result<BTreeMap<AppId, Hold>, StoreError> {
        self.by_app(Kind::Hold)
    }

    pub fn hold(&self, hold: &Hold) -> Result<(), StoreError> {
        let app = &hold.app;
        let mut object = object(Kind::Hold, &app.to_string(), Some(app.environment.to_string()));
        object.spec = json(hold);
        self.store.put(vec![object]).map(drop)
    }

    pub fn lift(&self, app: &AppId) -> Result<(), StoreError> {
        self.store.delete(Kind::Hold, &app.to_string())
    }

    pub fn approvals(&self) -> Result<BTreeSet<String>, StoreError> {
        let objects = self.store.list(Kind::Approval)?;
        Ok(objects.into_iter().map(|object| object.metadata.name).collect())
    }

    pub fn approve(&self, request: &ApprovalRequest) -> Result<(), StoreError> {
        let mut object = object(Kind::Approval, &request.id, None);
        object.spec = json(request);
        self.store.put(vec![object]).map(drop)
    }

    /// Hosts that were declared once and aren't any more.
    pub fn departed_hosts(
        &self,
        desired: &Desired,
    ) -> Result<BTreeMap<HostName, Host>, StoreError> {
        let objects = self.store.list(Kind::Host)?;
        let hosts = objects.into_iter().filter_map(|object| read::<Host>(&object.spec));
        let gone = hosts.filter(|host| {
            !desired.hosts.contains_key(&host.name)
                && !desired.broken_hosts.contains_key(&host.name)
        });
        Ok(gone.map(|host| (host.name.clone(), host)).collect())
    }

    /// What each app had when it last converged.
    pub fn fallbacks(&self) -> Result<BTreeMap<AppId, Fallback>, StoreError> {
        self.by_app(Kind::Revision)
    }

    fn by_app<T: DeserializeOwned>(&self, kind: Kind) -> Result<BTreeMap<AppId, T>, StoreError> {
        let objects = self.store.list(kind)?;
        let read = |object: Object| Some((object.metadata.name.parse().ok()?, read(&object.spec)?));
        Ok(objects.into_iter().filter_map(read).collect())
    }
}
