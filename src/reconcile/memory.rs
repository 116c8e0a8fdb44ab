//! What is remembered over restarts, as objects of the store: commits, pins, holds, approvals,
//! hosts that were taken out of git, and the revisions that worked. It is decoded once, when it
//! is first asked for; from then on what is written is known, so that asking costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use imbl::OrdMap;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api::HistoryEntry;
use crate::model::{
    API_VERSION, App, AppId, ApprovalRequest, CommitId, Desired, Hold, Host, HostName, Kind,
    Metadata, Object, Pin,
};
use crate::mutant::{self, Mutant};
use crate::plan::Fallback;
use crate::store::{Change, Store, StoreError};

/// How many commits the history holds.
const HISTORY: usize = 200;

/// The store, in the loop's own words.
pub(super) struct Memory {
    store: Arc<dyn Store>,
    held: Mutex<Option<Held>>,
}

/// What the store holds of the kinds that are remembered.
#[derive(Default)]
struct Held {
    commits: Commits,
    pins: OrdMap<AppId, Pin>,
    holds: BTreeMap<AppId, Hold>,
    approvals: BTreeSet<String>,
    hosts: OrdMap<HostName, Arc<Host>>,
    fallbacks: OrdMap<AppId, Arc<Fallback>>,
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

fn read<T: DeserializeOwned>(value: serde_json::Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

impl Held {
    fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let mut held = Self::default();
        for kind in
            [Kind::Source, Kind::Pin, Kind::Hold, Kind::Approval, Kind::Host, Kind::Revision]
        {
            store.list(kind)?.into_iter().for_each(|object| held.take(object));
        }
        Ok(held)
    }

    fn take(&mut self, object: Object) {
        let Object { kind, metadata: Metadata { name, .. }, spec, status, .. } = object;
        match kind {
            Kind::Source => self.commits = read(status).unwrap_or_default(),
            Kind::Approval => drop(self.approvals.insert(name)),
            Kind::Host => {
                if let Some(host) = read::<Host>(spec) {
                    self.hosts.insert(host.name.clone(), Arc::new(host));
                }
            }
            Kind::Pin | Kind::Hold | Kind::Revision => {
                if let Ok(app) = name.parse() {
                    self.take_of_app(kind, app, spec);
                }
            }
            _ => {}
        }
    }

    fn take_of_app(&mut self, kind: Kind, app: AppId, spec: serde_json::Value) {
        match kind {
            Kind::Pin => drop(read(spec).map(|pin| self.pins.insert(app, pin))),
            Kind::Hold => drop(read(spec).map(|hold| self.holds.insert(app, hold))),
            Kind::Revision => {
                let fallback = read(spec).map(Arc::new);
                drop(fallback.map(|fallback| self.fallbacks.insert(app, fallback)));
            }
            _ => {}
        }
    }

    fn forget(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::Source => self.commits = Commits::default(),
            Kind::Approval => drop(self.approvals.remove(name)),
            Kind::Host => {
                if let Ok(host) = name.parse::<HostName>() {
                    self.hosts.remove(&host);
                }
            }
            Kind::Pin | Kind::Hold | Kind::Revision => {
                let Ok(app) = name.parse::<AppId>() else { return };
                match kind {
                    Kind::Pin => drop(self.pins.remove(&app)),
                    Kind::Hold => drop(self.holds.remove(&app)),
                    _ => drop(self.fallbacks.remove(&app)),
                }
            }
            _ => {}
        }
    }
}

impl Memory {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, held: Mutex::new(None) }
    }

    fn held(&self) -> Result<MutexGuard<'_, Option<Held>>, StoreError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = Some(Held::load(self.store.as_ref())?);
        }
        Ok(held)
    }

    fn ask<T: Default>(&self, answer: impl FnOnce(&Held) -> T) -> Result<T, StoreError> {
        Ok(self.held()?.as_ref().map(answer).unwrap_or_default())
    }

    /// Makes changes of any kind. Returns how many objects differed.
    ///
    /// # Errors
    /// As [`Store::write`]; what a failing disk doesn't take is known from then on all the same.
    pub fn write(&self, changes: Vec<Change>) -> Result<usize, StoreError> {
        if changes.is_empty() {
            return Ok(0);
        }
        let mut held = self.held()?;
        let known: Vec<Change> = changes.iter().filter(|change| is_held(change)).cloned().collect();
        let written = self.store.write(changes);
        if let Some(held) = held.as_mut()
            && !matches!(written, Err(StoreError::TooLarge { .. }))
        {
            for change in known {
                match change {
                    Change::Put(object) => held.take(object),
                    Change::Delete(kind, name) => held.forget(kind, &name),
                }
            }
        }
        written
    }

    pub fn commits(&self) -> Result<Commits, StoreError> {
        self.ask(|held| held.commits.clone())
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
        let is_known = self.ask(|held| {
            let Commits { applied, attempted, history } = &held.commits;
            let said = history.last().is_none_or(|l| l.result == result && l.message == message);
            said && (result != "Applied" || applied == attempted)
        })?;
        if is_known {
            return Ok(false);
        }
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
        if mutant::is(Mutant::SkipJournal) {
            return Ok(());
        }
        let mut source = object(Kind::Source, "source", None);
        source.status = json(commits);
        self.write(vec![Change::Put(source)]).map(drop)
    }

    pub fn pins(&self) -> Result<OrdMap<AppId, Pin>, StoreError> {
        self.ask(|held| held.pins.clone())
    }

    pub fn pin(&self, pins: &BTreeMap<AppId, Pin>) -> Result<(), StoreError> {
        let put = |(app, pin): (&AppId, &Pin)| Change::Put(of_app(Kind::Pin, app, pin));
        self.write(pins.iter().map(put).collect()).map(drop)
    }

    pub fn holds(&self) -> Result<BTreeMap<AppId, Hold>, StoreError> {
        self.ask(|held| match mutant::is(Mutant::RetryHeld) {
            true => BTreeMap::new(),
            false => held.holds.clone(),
        })
    }

    pub fn hold(&self, hold: &Hold) -> Result<(), StoreError> {
        if mutant::is(Mutant::ForgetHold) {
            return Ok(());
        }
        self.write(vec![Change::Put(of_app(Kind::Hold, &hold.app, hold))]).map(drop)
    }

    pub fn lift(&self, app: &AppId) -> Result<(), StoreError> {
        self.write(vec![Change::Delete(Kind::Hold, app.to_string())]).map(drop)
    }

    pub fn approvals(&self) -> Result<BTreeSet<String>, StoreError> {
        self.ask(|held| held.approvals.clone())
    }

    pub fn approve(&self, request: &ApprovalRequest) -> Result<(), StoreError> {
        let mut object = object(Kind::Approval, &request.id, None);
        object.spec = json(request);
        self.write(vec![Change::Put(object)]).map(drop)
    }

    /// Every host that was declared once and may have something of ours on it.
    pub fn hosts(&self) -> Result<OrdMap<HostName, Arc<Host>>, StoreError> {
        self.ask(|held| held.hosts.clone())
    }

    /// Lets what works of these apps share the App with what is declared, where both are the same:
    /// what was decoded from the store has one of its own.
    pub fn share(
        &self,
        declared: &OrdMap<AppId, Arc<App>>,
        apps: &BTreeSet<AppId>,
    ) -> Result<(), StoreError> {
        let mut held = self.held()?;
        let Some(held) = held.as_mut() else { return Ok(()) };
        for id in apps {
            let (Some(app), Some(then)) = (declared.get(id), held.fallbacks.get(id)) else {
                continue;
            };
            if !Arc::ptr_eq(&then.app, app) && then.app == *app {
                let shared = Fallback { app: app.clone(), pin: then.pin.clone() };
                held.fallbacks.insert(id.clone(), Arc::new(shared));
            }
        }
        Ok(())
    }

    /// What each app had when it last converged.
    pub fn fallbacks(&self) -> Result<OrdMap<AppId, Arc<Fallback>>, StoreError> {
        self.ask(|held| held.fallbacks.clone())
    }
}

/// Of these hosts, those that aren't declared any more.
pub(super) fn departed(
    hosts: &OrdMap<HostName, Arc<Host>>,
    desired: &Desired,
) -> BTreeMap<HostName, Host> {
    let gone = hosts.iter().filter(|(name, _)| {
        !desired.hosts.contains_key(*name) && !desired.broken_hosts.contains_key(*name)
    });
    gone.map(|(name, host)| (name.clone(), Host::clone(host))).collect()
}

/// The object of a kind that each app has one of.
pub(super) fn of_app(kind: Kind, app: &AppId, spec: &impl Serialize) -> Object {
    let mut object = object(kind, &app.to_string(), Some(app.environment.to_string()));
    object.spec = json(spec);
    object
}

fn is_held(change: &Change) -> bool {
    let kind = match change {
        Change::Put(object) => object.kind,
        Change::Delete(kind, _) => *kind,
    };
    matches!(
        kind,
        Kind::Source | Kind::Pin | Kind::Hold | Kind::Approval | Kind::Host | Kind::Revision
    )
}
