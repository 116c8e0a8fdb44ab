//! What a situation means for each object: sync and health of apps, reach of hosts and
//! balancers, as kube-like objects in the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{AppStatus, CommitStatus, Health, ReachStatus, Status, Sync};
use crate::model::{
    AppId, BalancerName, BalancerState, Condition, Container, EventType, Kind, Object, ProxyFile,
    View,
};
use crate::plan::{Fallback, WaitCause};
use crate::store::StoreError;

use super::Controller;
use super::controller::Recollection;
use super::memory::{json, object};
use super::situation::Situation;

impl Controller {
    /// The status of everything, as of that look.
    pub(super) fn status_of(&self, situation: &Situation) -> Result<Status, StoreError> {
        let commits = self.memory.commits()?;
        let mut apps = Vec::new();
        for id in app_ids(situation) {
            let stored = self.parts.store.get(Kind::App, &id.to_string())?;
            apps.push(app_status(situation, id, stored.as_ref()));
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
            diagnostics: situation.diagnostics.clone(),
            counters: recollection.counters.clone(),
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

    /// Writes every object that differs from what is stored; forgets those that are gone.
    pub(super) fn write_objects(&self, situation: &Situation) -> Result<(), StoreError> {
        let mut objects = Vec::new();
        let desired = &situation.desired;
        let mut installation = object(Kind::Installation, desired.installation.name.as_str(), None);
        installation.spec = json(&desired.installation);
        objects.push(installation);
        for (name, env) in &desired.environments {
            let mut environment = object(Kind::Environment, name.as_str(), None);
            environment.spec = json(env);
            objects.push(environment);
        }
        for (name, view) in &situation.observed.hosts {
            let departed = situation.known.departed_hosts.get(name);
            let declared = desired.hosts.get(name).map(AsRef::as_ref).or(departed);
            let mut host = object(Kind::Host, name.as_str(), None);
            host.spec = json(&declared);
            host.status = self.reach_status(Kind::Host, name.as_str(), view)?;
            objects.push(host);
        }
        for (name, view) in &situation.observed.balancers {
            let mut balancer = object(Kind::Balancer, name.as_str(), None);
            balancer.spec = json(&desired.balancers.get(name));
            balancer.status = self.reach_status(Kind::Balancer, name.as_str(), view)?;
            if let Some(trouble) = self.recollect().balancer_troubles.get(name) {
                balancer.status["trouble"] = json(trouble);
            }
            objects.push(balancer);
        }
        for id in app_ids(situation) {
            let app = self.app_object(situation, id)?;
            objects.extend(revision_object(situation, id, &app));
            objects.push(app);
        }
        for (host, container) in situation.observed.containers() {
            let app = &container.birth.app;
            let name = format!("{host}/{}", container.name);
            let mut seen = object(Kind::Container, &name, Some(app.environment.to_string()));
            seen.spec = json(&container.birth);
            seen.status = serde_json::json!({
                "host": host, "id": container.id, "state": container.state, "health": container.health,
            });
            if let (Some(ended), Some(status)) =
                (container.state.ended(), seen.status.as_object_mut())
            {
                status.insert("message".into(), ended.to_string().into());
            }
            objects.push(seen);
        }
        let written = self.parts.store.put(objects.clone())?;
        self.count("objectsWritten", written as u64);
        self.forget(situation, &objects)
    }

    /// Deletes the objects of what isn't declared and isn't there any more. What couldn't be
    /// seen is kept.
    fn forget(&self, situation: &Situation, written: &[Object]) -> Result<(), StoreError> {
        let apps = app_ids(situation);
        for object in self.parts.store.list(Kind::Revision)? {
            let app = object.metadata.name.parse::<AppId>();
            if app.is_ok_and(|app| !apps.contains(&app)) {
                self.parts.store.delete(Kind::Revision, &object.metadata.name)?;
            }
        }
        for kind in [Kind::Environment, Kind::Balancer, Kind::App, Kind::Container] {
            let names: std::collections::BTreeSet<&str> = written
                .iter()
                .filter(|object| object.kind == kind)
                .map(|object| object.metadata.name.as_str())
                .collect();
            for object in self.parts.store.list(kind)? {
                let name = &object.metadata.name;
                let on_unseen = kind == Kind::Container
                    && name.split('/').next().is_some_and(|host| {
                        let host = host.parse().ok();
                        host.is_some_and(|host| situation.observed.host(&host).is_none())
                    });
                if !names.contains(name.as_str()) && !on_unseen {
                    self.parts.store.delete(kind, name)?;
                }
            }
        }
        let departed = &situation.known.departed_hosts;
        for name in departed.keys() {
            let empty = situation.observed.host(name).is_some_and(|s| s.containers.is_empty());
            if empty {
                self.parts.store.delete(Kind::Host, name.as_str())?;
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

    fn app_object(&self, situation: &Situation, id: &AppId) -> Result<Object, StoreError> {
        let name = id.to_string();
        let stored = self.parts.store.get(Kind::App, &name)?;
        let mut status = app_status(situation, id, stored.as_ref());
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

/// What is gone back to when a later revision fails: the app as it is, where it is as declared.
fn revision_object(situation: &Situation, id: &AppId, app: &Object) -> Option<Object> {
    let declared = situation.desired.apps.get(id)?;
    let pin = situation.known.pins.get(id)?.as_ref().ok()?.clone();
    let is = |field: &str, word: &str| app.status.get(field).is_some_and(|value| value == word);
    if !is("sync", "InSync") || !is("health", "Healthy") {
        return None;
    }
    let mut revision = object(Kind::Revision, &id.to_string(), Some(id.environment.to_string()));
    revision.spec = json(&Fallback { app: declared.clone(), pin });
    Some(revision)
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
fn app_status(situation: &Situation, id: &AppId, stored: Option<&Object>) -> AppStatus {
    let plan = &situation.plan;
    let declared = situation.desired.apps.get(id);
    let steps = plan.steps.iter().any(|step| step.app.as_ref() == Some(id));
    let busy = situation.known.busy.contains(id);
    let waiting: Vec<_> = plan.waiting.iter().filter(|waiting| waiting.app == *id).collect();
    let blocked: Vec<_> = plan.blocked.iter().filter(|b| b.app.as_ref() == Some(id)).collect();
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
    let why = why.collect::<Vec<_>>().join("; ");
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
    let of_app = situation.observed.containers_of(id);
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
    let ready =
        |container: &&Arc<Container>| container.is_ready() && serves(situation, id, container);
    let containers = situation.observed.containers_of(id).map(|(_, container)| container);
    let ready = containers.filter(ready).count() as u32;
    let standing = situation.observed.containers_of(id).any(|(_, container)| container.runs());
    (revision.map(|revision| revision.short12()), ready, standing)
}

/// Up in every balancer of the app's routes that can be seen.
fn serves(situation: &Situation, id: &AppId, container: &Container) -> bool {
    use crate::model::{BackendName, CheckState, ProxyProcess};
    let fallback = situation.known.fallbacks.get(id).map(|then| &then.app);
    let Some(app) = situation.desired.apps.get(id).or(fallback) else { return true };
    let hosts = situation.observed.containers_of(id);
    let Some((host, _)) = hosts.into_iter().find(|(_, c)| c.id == container.id) else {
        return false;
    };
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
