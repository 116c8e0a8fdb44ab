//! Apps against what they refer to: their Environment, their Hosts and what those allow, their
//! Balancers' listeners. An App that needs something broken is blocked with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::base::Bases;
use super::super::decode::{AppDraft, HostDraft, Need, Replicas, folder_fault};
use super::super::document::Identity;
use super::super::mistake::{Mistakes, known_names, nearest};
use super::super::text::Extent;
use super::routes::conflicts;
use super::{Apps, DecodeApp, DecodedApp, Environment, Linker, Object, because};
use crate::model::{App, AppId, Blocked, EngineAddress, Placement};

/// The Apps of a commit.
#[derive(Default)]
pub(super) struct LinkedApps {
    pub apps: Apps<Arc<App>>,
    pub blocked: Apps<Blocked>,
}

/// What an App refers to and can't have.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Judgement {
    found: Mistakes,
    /// Something that it needs is there, but broken.
    needs: Option<String>,
}

impl<'f> Linker<'f> {
    pub(super) fn link_apps(
        &mut self,
        decoder: &mut dyn DecodeApp,
        bases: &mut Bases<'_>,
    ) -> LinkedApps {
        let mut objects = self.take_apps();
        let decoded: Vec<_> =
            objects.iter().map(|(_, o)| decoder.decode(o.file, o.index, bases)).collect();
        for ((id, object), decoded) in objects.iter_mut().zip(&decoded) {
            self.judge(id, object, decoded, decoder);
        }
        let drafts = objects.iter().zip(&decoded).filter(|((_, object), _)| !object.is_double);
        let drafts: Vec<(&AppId, &AppDraft)> =
            drafts.filter_map(|((id, _), decoded)| Some((*id, decoded.draft.as_ref()?))).collect();
        let mut refused: Apps<Vec<_>> = BTreeMap::new();
        for conflict in conflicts(&drafts, self.texts) {
            refused.entry(conflict.app.clone()).or_default().push(conflict);
        }
        let mut linked = LinkedApps::default();
        for ((id, mut object), decoded) in objects.into_iter().zip(&decoded) {
            for conflict in refused.remove(id).into_iter().flatten() {
                object
                    .found
                    .error(conflict.at, conflict.message)
                    .hint("a request can go to one app only: change host, path or listener of one of them");
            }
            self.settle(id, object, decoded, decoder, &mut linked);
        }
        linked
    }

    /// The documents of Apps, in the order of their names and places.
    fn take_apps(&mut self) -> Vec<(&'f AppId, Object<'f>)> {
        let all = std::mem::take(&mut self.objects);
        let mut apps = Vec::new();
        for (identity, objects) in all {
            match identity {
                Identity::App(id) => apps.extend(objects.into_iter().map(|object| (id, object))),
                _ => {
                    self.objects.insert(identity, objects);
                }
            }
        }
        apps
    }

    fn judge(
        &self,
        id: &AppId,
        object: &mut Object<'_>,
        decoded: &Arc<DecodedApp>,
        decoder: &mut dyn DecodeApp,
    ) {
        let is_cut = object.document.spec().is_none() && !object.found.errors.is_empty();
        if !is_cut {
            object.found.add(&decoded.found);
        }
        let document = (object.file, object.index);
        let mut judge = || self.judgement(id, object, decoded);
        let Judgement { found, needs } = decoder.judgement(document, decoded, &mut judge);
        object.found.add(&found);
        object.needs = needs;
    }

    fn judgement(&self, id: &AppId, object: &Object<'_>, decoded: &DecodedApp) -> Judgement {
        let mut judgement = Judgement::default();
        if let Some(reason) = &decoded.broken_base {
            judgement.needs = Some(reason.clone());
        }
        let environment_at = object.head.environment_at.unwrap_or(object.head.name_at);
        self.judge_environment(id, environment_at, &mut judgement);
        if let Some(draft) = &decoded.draft {
            self.judge_hosts(draft, &mut judgement);
            self.judge_routes(draft, &mut judgement);
            warn_of_silence(draft, &mut judgement.found);
        }
        judgement
    }

    fn judge_environment(&self, id: &AppId, at: Extent, judgement: &mut Judgement) {
        let name = &id.environment;
        match self.environments.get(name) {
            Some(Ok(_)) => {}
            Some(Err(blocked)) => {
                judgement.need(format!("needs Environment {name}, {}", because(blocked)));
            }
            None => {
                let known = self.environments.keys().map(|name| name.as_str());
                self.judge_missing("Environment", name.as_str(), at, known, judgement);
            }
        }
    }

    fn judge_hosts(&self, draft: &AppDraft, judgement: &mut Judgement) {
        let mut drafts = Vec::new();
        for (name, at) in &draft.hosts {
            match self.hosts.get(name) {
                Some(Ok(host)) => drafts.push(host),
                Some(Err(blocked)) => {
                    judgement.need(format!("needs Host {name}, {}", because(blocked)));
                }
                None => {
                    let known = self.hosts.keys().map(|name| name.as_str());
                    self.judge_missing("Host", name.as_str(), *at, known, judgement);
                }
            }
        }
        for (need, at) in &draft.needs {
            judge_need(need, *at, &drafts, &mut judgement.found);
        }
        let replicas = match &draft.replicas {
            Replicas::OnEach(_) => None,
            Replicas::ByHost(numbers) => Some(numbers.iter().map(|(host, (_, at))| (host, *at))),
        };
        let weights = draft.weights.iter().map(|(host, (_, at))| (host, *at));
        let mut all: Vec<_> = replicas.into_iter().flatten().map(|key| ("replicas", key)).collect();
        all.extend(weights.map(|key| ("weights", key)));
        let hosts: std::collections::BTreeSet<_> =
            draft.hosts.iter().map(|(host, _)| host.as_str()).collect();
        for (field, (host, at)) in
            all.into_iter().filter(|(_, (host, _))| !hosts.contains(host.as_str()))
        {
            let hint = nearest(host, hosts.iter().copied()).map_or_else(
                || format!("add {host} to `hosts`, or remove it here"),
                |near| format!("did you mean `{near}`?"),
            );
            judgement
                .found
                .error(at, format!("`{field}` names {host}, which isn't among the app's `hosts`"))
                .hint(hint);
        }
    }

    fn judge_routes(&self, draft: &AppDraft, judgement: &mut Judgement) {
        for route in &draft.routes {
            let (balancer, listener) = (&route.route.balancer, &route.route.listener);
            match self.balancers.get(balancer) {
                Some(Ok(there)) if there.balancer.listeners.contains_key(listener) => {}
                Some(Ok(there)) => {
                    let known = there.balancer.listeners.keys().map(|name| name.as_str());
                    let hint = known_names(listener.as_str(), "listener", known);
                    let message = format!("Balancer {balancer} has no listener {listener}");
                    judgement.found.error(route.listener_at, message).hint = hint;
                }
                Some(Err(blocked)) => {
                    judgement.need(format!("needs Balancer {balancer}, {}", because(blocked)));
                }
                None => {
                    let known = self.balancers.keys().map(|name| name.as_str());
                    self.judge_missing(
                        "Balancer",
                        balancer.as_str(),
                        route.balancer_at,
                        known,
                        judgement,
                    );
                }
            }
        }
    }

    /// Something isn't declared. While a file can't be read that may declare it, that is a
    /// mistake only where a declared name is very near.
    fn judge_missing<'n>(
        &self,
        kind: &str,
        name: &str,
        at: Extent,
        known: impl Iterator<Item = &'n str> + Clone,
        judgement: &mut Judgement,
    ) {
        if let Some(unreadable) = self.unreadable.first()
            && nearest(name, known.clone()).is_none()
        {
            let (file, line) = (&unreadable.location.file, unreadable.location.line);
            judgement.need(format!(
                "needs {kind} {name}, which is in no file that can be read: see {file}:{line}"
            ));
            return;
        }
        let hint = known_names(name, kind, known)
            .unwrap_or_else(|| format!("declare it: `kind: {kind}`, `metadata: {{name: {name}}}`"));
        judgement.found.error(at, format!("there is no {kind} {name}")).hint(hint);
    }

    fn settle(
        &mut self,
        id: &AppId,
        object: Object<'_>,
        decoded: &Arc<DecodedApp>,
        decoder: &mut dyn DecodeApp,
        linked: &mut LinkedApps,
    ) {
        let blocked = object.blocked(self.texts);
        let location = object.document.location.clone();
        self.errors.extend(object.found.errors);
        self.warnings.extend(object.found.warnings);
        let environment = self.environments.get(&id.environment);
        let environment = environment.and_then(|environment| environment.as_ref().ok());
        let mut make = || {
            let draft = decoded.draft.as_ref()?;
            app(id, draft, environment.map(AsRef::as_ref), location.clone())
        };
        let app = decoder.app((object.file, object.index), decoded, environment, &mut make);
        match (blocked, app) {
            (None, Some(app)) => {
                linked.apps.insert(id.clone(), app);
            }
            (Some(blocked), _) => {
                linked.blocked.entry(id.clone()).or_insert(blocked);
            }
            (None, None) => {
                let reason = "it could not be read".to_owned();
                linked.blocked.entry(id.clone()).or_insert(Blocked { location, reason });
            }
        }
    }
}

/// The App that a draft and its environment make.
fn app(
    id: &AppId,
    draft: &AppDraft,
    environment: Option<&Environment>,
    location: crate::model::Location,
) -> Option<App> {
    let mut template = draft.template.clone()?;
    for (key, value) in environment.into_iter().flatten() {
        template.env.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let placement =
        |host: &str| Placement { replicas: draft.replicas.on(host), weight: draft.weight_on(host) };
    Some(App {
        id: id.clone(),
        template,
        placement: draft
            .hosts
            .iter()
            .map(|(host, _)| (host.clone(), placement(host.as_str())))
            .collect(),
        routes: draft.routes.iter().map(|route| route.route.clone()).collect(),
        health: draft.health.clone(),
        drain: draft.drain,
        rollout: draft.rollout,
        location,
    })
}

impl Judgement {
    /// The first need counts.
    fn need(&mut self, reason: String) {
        self.needs.get_or_insert(reason);
    }
}

/// Every Host of an app has to allow what it asks for.
fn judge_need(need: &Need, at: Extent, hosts: &[&HostDraft], found: &mut Mistakes) {
    for draft in hosts {
        let (allow, name) = (&draft.host.allow, &draft.host.name);
        let fault = match need {
            Need::Privileged if !allow.privileged => Some((
                "doesn't allow privileged containers",
                "allow: {privileged: true}".to_owned(),
            )),
            Need::Capability(_) if !allow.privileged => Some((
                "doesn't allow this capability, with which a container can leave its bounds",
                "allow: {privileged: true}".to_owned(),
            )),
            Need::HostNetwork if !allow.host_network => Some((
                "doesn't allow its own network to containers",
                "allow: {hostNetwork: true}".to_owned(),
            )),
            Need::Folder(folder) => {
                let socket = match &draft.host.engine {
                    EngineAddress::Unix { path } => Some(path.as_str()),
                    EngineAddress::Ssh { socket, .. } => Some(socket.as_str()),
                    EngineAddress::Tcp { .. } => None,
                };
                folder_fault(folder, allow, socket)
            }
            _ => None,
        };
        if let Some((fault, hint)) = fault {
            found
                .error(at, format!("Host {name} {fault}"))
                .hint(format!("whoever answers for that host may add `{hint}` to its spec"));
        }
    }
}

/// A route whose servers have all weight 0 answers nothing.
fn warn_of_silence(draft: &AppDraft, found: &mut Mistakes) {
    let is_there = |host: &str| draft.replicas.on(host) > 0;
    let mut there =
        draft.hosts.iter().map(|(host, _)| host.as_str()).filter(|h| is_there(h)).peekable();
    if draft.routes.is_empty() || there.peek().is_none() {
        return;
    }
    let place = draft.weights.values().map(|(_, at)| *at).min();
    if there.all(|host| draft.weight_on(host) == 0)
        && let Some(at) = place
    {
        found
            .warn(at, "all servers of this app have weight 0: its routes answer nothing")
            .hint("give one host a weight above 0");
    }
}
