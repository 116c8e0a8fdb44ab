//! What a situation means for each object: sync and health of apps, reach of hosts and
//! balancers, as kube-like objects in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{AppStatus, CommitStatus, Health, ReachStatus, Status, Sync};
use crate::model::{
    AppId, BalancerName, BalancerState, Condition, Container, Desired, EventType, Host, HostName,
    Kind, Object, Observed, ProxyFile, View, differing,
};
use crate::plan::{BlockedApp, Fallback, Plan, WaitCause, Waiting};
use crate::store::{Change, StoreError};

use super::Controller;
use super::controller::Recollection;
use super::memory::{Memory, json, object, of_app};
use super::pointed::SEEN;
use super::situation::Situation;

/// What was written last: what is the same isn't written again.
pub(super) struct Written {
    desired: Arc<Desired>,
    observed: Observed,
    departed: BTreeMap<HostName, Host>,
    troubles: BTreeMap<BalancerName, String>,
}

/// So many changes are written at once. The objects of a large fleet, all in memory beside what
/// they are made of, would take several times what the fleet itself does.
const WRITTEN_AT_ONCE: usize = 2048;

/// Changes on their way to the store.
struct Changes<'m> {
    memory: &'m Memory,
    waiting: Vec<Change>,
    /// How many objects differed, or why some weren't written.
    written: Result<usize, StoreError>,
}

impl<'m> Changes<'m> {
    fn new(memory: &'m Memory) -> Self {
        Self { memory, waiting: Vec::new(), written: Ok(0) }
    }

    fn push(&mut self, change: Change) {
        self.waiting.push(change);
        if self.waiting.len() >= WRITTEN_AT_ONCE {
            self.write();
        }
    }

    fn write(&mut self) {
        let written = self.memory.write(std::mem::take(&mut self.waiting));
        // That something is too large weighs more than a disk that fails: it has to be tried again.
        self.written = match (std::mem::replace(&mut self.written, Ok(0)), written) {
            (Ok(before), Ok(now)) => Ok(before + now),
            (Err(error @ StoreError::TooLarge { .. }), _) | (Err(error), Ok(_)) => Err(error),
            (_, Err(error)) => Err(error),
        };
    }

    /// Writes what waits, and says how many objects differed altogether.
    fn end(mut self) -> Result<usize, StoreError> {
        self.write();
        self.written
    }
}

/// A plan by app.
struct Outline<'s> {
    stepping: BTreeSet<&'s AppId>,
    waiting: BTreeMap<&'s AppId, Vec<&'s Waiting>>,
    blocked: BTreeMap<&'s AppId, Vec<&'s BlockedApp>>,
    /// What went wrong last.
    troubles: BTreeMap<AppId, String>,
}

impl<'s> Outline<'s> {
    fn new(plan: &'s Plan, recollection: &Recollection) -> Self {
        let mut waiting: BTreeMap<&AppId, Vec<&Waiting>> = BTreeMap::new();
        for waits in &plan.waiting {
            waiting.entry(&waits.app).or_default().push(waits);
        }
        let mut blocked: BTreeMap<&AppId, Vec<&BlockedApp>> = BTreeMap::new();
        for block in &plan.blocked {
            if let Some(app) = &block.app {
                blocked.entry(app).or_default().push(block);
            }
        }
        let stepping = plan.steps.iter().filter_map(|step| step.app.as_ref()).collect();
        let troubles = recollection.app_troubles.clone();
        Self { stepping, waiting, blocked, troubles }
    }
}

impl Controller {
    /// The status of everything, as of that look.
    pub(super) fn status_of(&self, situation: &Situation) -> Result<Status, StoreError> {
        let commits = self.memory.commits()?;
        let outline = Outline::new(&situation.plan, &self.recollect());
        let mut apps = Vec::new();
        for id in app_ids(situation) {
            let stored = self.parts.store.get(Kind::App, &id.to_string())?;
            let known = stored.as_ref().filter(|_| situation.aside.contains(id));
            let known = known.and_then(|app| serde_json::from_value(app.status.clone()).ok());
            let status =
                known.unwrap_or_else(|| app_status(situation, &outline, id, stored.as_ref()));
            apps.push(status);
        }
        let recollection = self.recollect();
        Ok(Status {
            installation: situation.desired.installation.name.to_string(),
            source: self.parts.source.name(),
            commit: CommitStatus { applied: commits.applied, attempted: commits.attempted },
            approvals: situation.approvals(),
            apps,
            hosts: reach(&situation.observed.hosts),
            balancers: self.balancers_of(situation, &recollection),
            source_error: recollection.source_error.clone(),
            store_error: self.parts.store.trouble().map(|error| error.to_string()),
            diagnostics: situation.diagnostics.clone(),
            counters: self.counters(&recollection),
        })
    }

    /// How balancers are reached, and what the last failed step there said.
    fn balancers_of(&self, situation: &Situation, recollection: &Recollection) -> Vec<ReachStatus> {
        let mut balancers = reach_of_balancers(&situation.observed.balancers);
        for balancer in &mut balancers {
            let Ok(name) = balancer.name.parse() else { continue };
            let here = recollection.balancer_troubles.get(&name).cloned();
            let stored = || {
                let object = self.parts.store.get(Kind::Balancer, &balancer.name).ok()??;
                Some(object.status.get("trouble")?.as_str()?.to_owned())
            };
            let waits = situation.plan.steps.iter().any(|step| {
                step.app.is_none() && step.place == crate::plan::Place::Balancer(name.clone())
            });
            if let Some(trouble) = here.or_else(stored).filter(|_| waits && balancer.reachable) {
                balancer.message = trouble;
            }
        }
        balancers
    }

    /// Writes every object that differs from what is stored, and forgets those that are gone.
    /// After the first time only what changed since the time before is looked at.
    pub(super) fn write_objects(&self, situation: &Situation) -> Result<(), StoreError> {
        let (before, mut apps) = {
            let mut recollection = self.recollect();
            (recollection.written.take(), std::mem::take(&mut recollection.unwritten))
        };
        apps.extend(situation.planned.iter().cloned());
        if before.is_none() {
            apps.extend(self.known_apps()?);
            apps.extend(app_ids(situation).into_iter().cloned());
        }
        let (later, apps) = apps.into_iter().partition(|app| situation.aside.contains(app));
        self.recollect().unwritten.extend::<BTreeSet<AppId>>(later);
        let troubles = self.recollect().balancer_troubles.clone();
        let mut changes = Changes::new(&self.memory);
        self.changes(situation, before.as_ref(), &apps, &mut changes)?;
        let written = changes.end();
        self.memory.share(&situation.desired.apps, &apps)?;
        // What a failing disk doesn't take is remembered by the store itself. Where something is too
        // large, nothing of what was written with it was taken: all is tried again.
        if !matches!(written, Err(StoreError::TooLarge { .. })) {
            self.recollect().written = Some(Written {
                desired: situation.desired.clone(),
                observed: situation.observed.clone(),
                departed: situation.known.departed_hosts.clone(),
                troubles,
            });
        }
        self.count("objectsWritten", written? as u64);
        Ok(())
    }

    /// Apps of which the store has an object.
    fn known_apps(&self) -> Result<Vec<AppId>, StoreError> {
        let names = self.parts.store.names(Kind::App)?.into_iter();
        let names = names.chain(self.parts.store.names(Kind::Revision)?);
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }

    fn changes(
        &self,
        situation: &Situation,
        before: Option<&Written>,
        apps: &BTreeSet<AppId>,
        changes: &mut Changes<'_>,
    ) -> Result<(), StoreError> {
        if before.is_none_or(|before| !Arc::ptr_eq(&before.desired, &situation.desired)) {
            self.changed_declared(situation, changes)?;
        }
        self.changed_hosts(situation, before, changes)?;
        self.changed_balancers(situation, before, changes)?;
        let outline = Outline::new(&situation.plan, &self.recollect());
        for id in apps {
            self.changed_app(situation, &outline, id, changes)?;
        }
        self.changed_containers(situation, before, changes)
    }

    /// Installation and Environments.
    fn changed_declared(
        &self,
        situation: &Situation,
        changes: &mut Changes<'_>,
    ) -> Result<(), StoreError> {
        let desired = &situation.desired;
        let mut installation = object(Kind::Installation, desired.installation.name.as_str(), None);
        installation.spec = json(&desired.installation);
        changes.push(Change::Put(installation));
        for (name, env) in &desired.environments {
            let mut environment = object(Kind::Environment, name.as_str(), None);
            environment.spec = json(env);
            changes.push(Change::Put(environment));
        }
        for name in self.parts.store.names(Kind::Environment)? {
            if !desired.environments.keys().any(|declared| declared.as_str() == name) {
                changes.push(Change::Delete(Kind::Environment, name));
            }
        }
        Ok(())
    }

    fn changed_hosts(
        &self,
        situation: &Situation,
        before: Option<&Written>,
        changes: &mut Changes<'_>,
    ) -> Result<(), StoreError> {
        let (desired, departed) = (&situation.desired, &situation.known.departed_hosts);
        let views = &situation.observed.hosts;
        let names: BTreeSet<&HostName> = match before {
            None => views.keys().collect(),
            Some(before) => {
                let views = differing(&before.observed.hosts, views);
                let declared = differing(&before.desired.hosts, &desired.hosts);
                let moved = before.departed.keys().filter(|name| !departed.contains_key(*name));
                views.chain(declared).chain(moved).chain(departed.keys()).collect()
            }
        };
        for name in names {
            let Some(view) = views.get(name) else { continue };
            let is_empty = view.seen().is_some_and(|state| state.containers.is_empty());
            if departed.contains_key(name) && is_empty {
                changes.push(Change::Delete(Kind::Host, name.to_string()));
                continue;
            }
            let declared = desired.hosts.get(name).map(AsRef::as_ref).or(departed.get(name));
            let mut host = object(Kind::Host, name.as_str(), None);
            host.spec = json(&declared);
            host.status = self.reach_status(Kind::Host, name.as_str(), view)?;
            changes.push(Change::Put(host));
        }
        Ok(())
    }

    fn changed_balancers(
        &self,
        situation: &Situation,
        before: Option<&Written>,
        changes: &mut Changes<'_>,
    ) -> Result<(), StoreError> {
        let (desired, views) = (&situation.desired, &situation.observed.balancers);
        let troubles = self.recollect().balancer_troubles.clone();
        for (name, view) in views {
            let same = before.is_some_and(|before| {
                let sees = |view: &View<Arc<BalancerState>>| view.clone().map(drop);
                before.observed.balancers.get(name).map(sees) == Some(sees(view))
                    && before.desired.balancers.get(name) == desired.balancers.get(name)
                    && before.troubles.get(name) == troubles.get(name)
            });
            if same {
                continue;
            }
            let mut balancer = object(Kind::Balancer, name.as_str(), None);
            balancer.spec = json(&desired.balancers.get(name));
            balancer.status = self.reach_status(Kind::Balancer, name.as_str(), view)?;
            balancer.status[SEEN] = json(&self.recollect().pointed.was_seen(name));
            if let Some(trouble) = troubles.get(name) {
                balancer.status["trouble"] = json(trouble);
            }
            changes.push(Change::Put(balancer));
        }
        if before.is_none_or(|before| !before.observed.balancers.keys().eq(views.keys())) {
            for name in self.parts.store.names(Kind::Balancer)? {
                if !views.keys().any(|seen| seen.as_str() == name) {
                    changes.push(Change::Delete(Kind::Balancer, name));
                }
            }
        }
        Ok(())
    }

    /// One App, and what it has that works.
    fn changed_app(
        &self,
        situation: &Situation,
        outline: &Outline<'_>,
        id: &AppId,
        changes: &mut Changes<'_>,
    ) -> Result<(), StoreError> {
        let desired = &situation.desired;
        let is_there = desired.apps.contains_key(id)
            || desired.blocked.contains_key(id)
            || !situation.containers_of(id).is_empty();
        if !is_there {
            for kind in [Kind::App, Kind::Revision] {
                changes.push(Change::Delete(kind, id.to_string()));
            }
            return Ok(());
        }
        let app = self.app_object(situation, outline, id)?;
        if let Some(revision) = revision_object(situation, id, &app) {
            changes.push(Change::Put(revision));
        }
        changes.push(Change::Put(app));
        Ok(())
    }

    /// Containers of the hosts that look otherwise than before. Those of hosts that couldn't be
    /// seen are kept.
    fn changed_containers(
        &self,
        situation: &Situation,
        before: Option<&Written>,
        changes: &mut Changes<'_>,
    ) -> Result<(), StoreError> {
        let views = &situation.observed.hosts;
        let mut stale: BTreeSet<&HostName> = BTreeSet::new();
        let hosts: Vec<&HostName> = match before {
            None => views.keys().collect(),
            Some(before) => differing(&before.observed.hosts, views).collect(),
        };
        for host in hosts {
            let Some(state) = situation.observed.host(host) else {
                // A host that isn't looked at any more has nothing of ours.
                if !views.contains_key(host) {
                    stale.insert(host);
                }
                continue;
            };
            let old = before.and_then(|before| before.observed.host(host));
            if old.is_none() {
                stale.insert(host);
            }
            let old = old.into_iter().flat_map(|old| &old.containers);
            let old: BTreeMap<&str, &Arc<Container>> = old.map(|c| (c.name.as_str(), c)).collect();
            let new: BTreeSet<&str> = state.containers.iter().map(|c| c.name.as_str()).collect();
            for container in &state.containers {
                if old.get(container.name.as_str()).is_none_or(|known| *known != container) {
                    changes.push(Change::Put(container_object(host, container)));
                }
            }
            for name in old.keys().filter(|name| !new.contains(*name)) {
                changes.push(Change::Delete(Kind::Container, format!("{host}/{name}")));
            }
        }
        if !stale.is_empty() || before.is_none() {
            self.forget_containers(situation, &stale, before.is_none(), changes)?;
        }
        Ok(())
    }

    /// Containers that the store knows, of hosts of which it isn't known what was written.
    fn forget_containers(
        &self,
        situation: &Situation,
        hosts: &BTreeSet<&HostName>,
        of_all: bool,
        changes: &mut Changes<'_>,
    ) -> Result<(), StoreError> {
        let views = &situation.observed.hosts;
        let asked = views.iter().filter(|(host, _)| of_all || hosts.contains(*host));
        let standing: BTreeMap<&str, BTreeSet<&str>> = asked
            .filter_map(|(host, view)| {
                let names = view.seen()?.containers.iter().map(|c| c.name.as_str());
                Some((host.as_str(), names.collect()))
            })
            .collect();
        for key in self.parts.store.names(Kind::Container)? {
            let Some((host, name)) = key.split_once('/') else { continue };
            let Ok(which) = host.parse::<HostName>() else { continue };
            let is_gone = match standing.get(host) {
                Some(names) => !names.contains(name),
                None => !views.contains_key(&which) && (of_all || hosts.contains(&which)),
            };
            if is_gone {
                changes.push(Change::Delete(Kind::Container, key));
            }
        }
        Ok(())
    }

    fn reach_status<T>(
        &self,
        kind: Kind,
        name: &str,
        view: &View<T>,
    ) -> Result<serde_json::Value, StoreError> {
        let stored = self.parts.store.get(kind, name)?;
        let (status, reason, message) = match view {
            View::Seen(_) => ("True", "Answers", String::new()),
            View::Unseen { reason } => ("Unknown", "NoAnswer", reason.clone()),
        };
        let mut conditions = vec![condition("Reachable", status, reason, message.clone())];
        let before = stored.as_ref().and_then(|object| object.status.get("conditions"));
        let before = before.and_then(|conditions| conditions.get(0)?.get("status")?.as_str());
        match (before, status) {
            (Some("True") | None, "Unknown") => {
                let object = format!("{kind}/{name}");
                self.event(EventType::Warning, "Unreachable", &object, &message);
            }
            (Some("Unknown"), "True") => {
                let object = format!("{kind}/{name}");
                self.event(EventType::Normal, "Reachable", &object, "it answers again");
            }
            _ => {}
        }
        self.date(&mut conditions, stored.as_ref());
        Ok(serde_json::json!({ "conditions": conditions }))
    }

    fn app_object(
        &self,
        situation: &Situation,
        outline: &Outline<'_>,
        id: &AppId,
    ) -> Result<Object, StoreError> {
        let name = id.to_string();
        let stored = self.parts.store.get(Kind::App, &name)?;
        let mut status = app_status(situation, outline, id, stored.as_ref());
        self.date(&mut status.conditions, stored.as_ref());
        let mut app = object(Kind::App, &name, Some(id.environment.to_string()));
        app.spec = json(&situation.desired.apps.get(id));
        app.status = json(&status);
        Ok(app)
    }

    /// Gives conditions the time at which they last changed.
    fn date(&self, conditions: &mut [Condition], stored: Option<&Object>) {
        let before: Vec<Condition> = stored
            .and_then(|object| object.status.get("conditions"))
            .and_then(|value| serde_json::from_value(value.clone()).ok())
            .unwrap_or_default();
        for condition in conditions {
            let same = before
                .iter()
                .find(|old| old.kind == condition.kind && old.status == condition.status);
            condition.last_transition_time =
                same.and_then(|old| old.last_transition_time).or(Some(self.parts.clock.now()));
        }
    }
}

fn container_object(host: &HostName, container: &Container) -> Object {
    let app = &container.birth.app;
    let name = format!("{host}/{}", container.name);
    let mut seen = object(Kind::Container, &name, Some(app.environment.to_string()));
    seen.spec = json(&container.birth);
    seen.status = serde_json::json!({
        "host": host, "id": container.id, "state": container.state, "health": container.health,
    });
    if let (Some(ended), Some(status)) = (container.state.ended(), seen.status.as_object_mut()) {
        status.insert("message".into(), ended.to_string().into());
    }
    seen
}

/// What is gone back to when a later revision fails: the app as it is, where it is as declared.
fn revision_object(situation: &Situation, id: &AppId, app: &Object) -> Option<Object> {
    let declared = situation.desired.apps.get(id)?;
    let pin = situation.known.pins.get(id)?.as_ref().ok()?.clone();
    let is = |field: &str, word: &str| app.status.get(field).is_some_and(|value| value == word);
    if !is("sync", "InSync") || !is("health", "Healthy") {
        return None;
    }
    Some(of_app(Kind::Revision, id, &Fallback { app: declared.clone(), pin }))
}

/// Every app that is declared, or of which something stands.
fn app_ids(situation: &Situation) -> std::collections::BTreeSet<&AppId> {
    let desired = &situation.desired;
    let standing = situation.observed.containers().map(|(_, container)| &container.birth.app);
    desired.apps.keys().chain(desired.blocked.keys()).chain(standing).collect()
}

fn reach<'a, N: ToString + 'a, T: 'a>(
    views: impl IntoIterator<Item = (&'a N, &'a View<T>)>,
) -> Vec<ReachStatus> {
    let of = |(name, view): (&N, &View<T>)| ReachStatus {
        name: name.to_string(),
        reachable: view.seen().is_some(),
        message: match view {
            View::Seen(_) => String::new(),
            View::Unseen { reason } => reason.clone(),
        },
    };
    views.into_iter().map(of).collect()
}

/// As [`reach`]. One that answers may still have a file that somebody cut or edited.
fn reach_of_balancers(
    views: &BTreeMap<BalancerName, View<Arc<BalancerState>>>,
) -> Vec<ReachStatus> {
    let mut reached = reach(views);
    for (status, view) in reached.iter_mut().zip(views.values()) {
        if let Some(ProxyFile::Damaged { reason }) = view.seen().map(|state| &state.file) {
            status.message.clone_from(reason);
        }
    }
    reached
}

pub(super) fn condition(kind: &str, status: &str, reason: &str, message: String) -> Condition {
    Condition {
        kind: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        last_transition_time: None,
    }
}

/// One app, on both axes.
fn app_status(
    situation: &Situation,
    outline: &Outline<'_>,
    id: &AppId,
    stored: Option<&Object>,
) -> AppStatus {
    let declared = situation.desired.apps.get(id);
    let steps = outline.stepping.contains(id);
    let busy = situation.known.busy.contains(id);
    let waiting = outline.waiting.get(id).map_or(&[][..], Vec::as_slice);
    let blocked = outline.blocked.get(id).map_or(&[][..], Vec::as_slice);
    let unseen = waiting.iter().any(|waiting| {
        matches!(waiting.cause, WaitCause::HostUnseen { .. } | WaitCause::BalancerUnseen { .. })
    });
    let held = waiting.iter().any(|waiting| matches!(waiting.cause, WaitCause::Held { .. }));
    // An image that isn't to be had is trouble, however well the version before it serves.
    let no_image = waiting.iter().any(|waiting| waiting.cause == WaitCause::Image);
    let (revision, ready, standing) = count(situation, id);
    // Of an app whose document has mistakes, what it had when it last converged is what counts.
    let counts = declared.or(situation.known.fallbacks.get(id).map(|then| &then.app));
    let replicas = counts.map_or(0, |app| app.placement.values().map(|p| p.replicas).sum());
    let sync = match () {
        () if unseen => Sync::Unknown,
        () if steps || busy || !waiting.is_empty() || !blocked.is_empty() => Sync::OutOfSync,
        () => Sync::InSync,
    };
    let health = match () {
        () if held && !steps && !busy && standing => Health::RolledBack,
        () if held && !steps && !busy => Health::Degraded,
        () if steps || busy => Health::Progressing,
        () if unseen => Health::Unknown,
        () if waiting.iter().any(|waiting| waiting.approval.is_some()) => Health::Paused,
        () if no_image || ready < replicas => Health::Degraded,
        () if declared.is_none() && !standing => Health::Unknown,
        () => Health::Healthy,
    };
    let why = waiting.iter().map(|w| w.reason.clone());
    let why = why.chain(
        blocked.iter().map(|b| format!("{}:{}: {}", b.location.file, b.location.line, b.reason)),
    );
    let trouble = outline.troubles.get(id).filter(|_| steps || busy).cloned();
    let why = why.chain(trouble).collect::<Vec<_>>().join("; ");
    let truth = |yes: bool| if yes { "True" } else { "False" };
    let synced = match sync {
        Sync::Unknown => "Unknown",
        Sync::InSync | Sync::OutOfSync => truth(sync == Sync::InSync),
    };
    let conditions = vec![
        condition("Synced", synced, &format!("{sync:?}"), why),
        condition(
            "Ready",
            truth(health == Health::Healthy),
            &format!("{health:?}"),
            format!("{ready} of {replicas} ready{}", ends(situation, id)),
        ),
    ];
    AppStatus {
        environment: id.environment.to_string(),
        name: id.name.to_string(),
        sync,
        health,
        revision,
        image: counts.map(|app| app.template.image.to_string()),
        ready,
        replicas,
        observed_generation: stored.map_or(1, |object| object.metadata.generation),
        conditions,
    }
}

/// Which of its containers don't run, and why, as far as the engine tells.
fn ends(situation: &Situation, id: &AppId) -> String {
    let of_app = situation.containers_of(id).iter();
    let ended = of_app.filter_map(|(host, container)| {
        Some(format!("; {} on {host}: {}", container.name, container.state.ended()?))
    });
    ended.collect()
}

/// The desired revision, how many containers are ready, and whether anything of the app runs.
fn count(situation: &Situation, id: &AppId) -> (Option<String>, u32, bool) {
    let revision = situation.desired.apps.get(id).and_then(|app| {
        let pin = situation.known.pins.get(id)?.as_ref().ok()?;
        situation.revision_of(app, pin)
    });
    // As kubectl counts: whatever serves is ready; whether it is what is declared is the other
    // axis.
    let containers = situation.containers_of(id);
    let ready = containers
        .iter()
        .filter(|(host, container)| container.is_ready() && serves(situation, id, host, container))
        .count() as u32;
    let standing = containers.iter().any(|(_, container)| container.runs());
    (revision.map(|revision| revision.short12()), ready, standing)
}

/// Up in every balancer of the app's routes that can be seen.
fn serves(situation: &Situation, id: &AppId, host: &HostName, container: &Container) -> bool {
    use crate::model::{BackendName, CheckState, ProxyProcess};
    let fallback = situation.known.fallbacks.get(id).map(|then| &then.app);
    let Some(app) = situation.desired.apps.get(id).or(fallback) else { return true };
    let name = container.birth.server_name(host);
    let backend = BackendName::stable(id.clone());
    app.routes.iter().all(|route| match situation.observed.balancer(&route.balancer) {
        None => true,
        Some(state) => match &state.process {
            ProxyProcess::Down { .. } => false,
            ProxyProcess::Up(runtime) => runtime
                .servers
                .get(&backend)
                .and_then(|servers| servers.get(&name))
                .is_some_and(|server| server.check == CheckState::Up),
        },
    })
}
