//! What the balancers must become: which structure (a reload), which routes (none). Whether a
//! reload is needed is decided here, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    App, AppId, Backend, BackendName, Balancer, BalancerName, Check, ProxyStructure, RouteKey, Span,
};

use super::draft::{Draft, NewStep};
use super::fleet::{Fleet, Proxied};
use super::{Action, Input, Place, StepId, WaitCause, Waiting};

/// How long a reload may take. One takes 63 to 195 ms (HAProxy 2.6.12, up to 10,000 servers);
/// the rest is room for a busy machine.
const RELOAD_DEADLINE: Span = Span::from_secs(30);

/// What is to happen to each balancer.
#[derive(Debug, Default)]
pub(super) struct Balancing {
    /// Before everything else at that balancer.
    pub first: BTreeMap<BalancerName, StepId>,
    /// What the structure is to be when all is done, where that takes another reload.
    last: BTreeMap<BalancerName, ProxyStructure>,
}

/// Which apps a balancer may lose: those that are planned. What is busy, blocked or waiting
/// keeps what it has.
pub(super) struct Planned<'a> {
    pub declared: BTreeMap<&'a AppId, &'a App>,
    pub departed: BTreeSet<&'a AppId>,
}

/// Adds the reloads that must come first.
pub(super) fn begin(
    input: &Input<'_>,
    fleet: &Fleet<'_>,
    planned: &Planned<'_>,
    draft: &mut Draft,
    waiting: &mut Vec<Waiting>,
) -> Balancing {
    let mut balancing = Balancing::default();
    for (name, proxied) in &fleet.balancers {
        let Some(balancer) = input.desired.balancers.get(*name) else { continue };
        let wanted = match wanted(input, balancer, proxied, planned) {
            Ok(wanted) => wanted,
            Err(waits) => {
                waiting.push(waits);
                continue;
            }
        };
        let first = with_occupied(&wanted, proxied);
        if !is_there(&first, proxied) {
            let id = draft.add(restructure(balancer, &first, proxied, "first"), []);
            balancing.first.insert(balancer.name.clone(), id);
        }
        if first != wanted {
            balancing.last.insert(balancer.name.clone(), wanted);
        }
    }
    balancing
}

impl Balancing {
    /// Adds the reloads that drop backends once nothing uses them any more.
    pub fn end(&self, input: &Input<'_>, fleet: &Fleet<'_>, draft: &mut Draft) {
        for (name, structure) in &self.last {
            let (Some(balancer), Some(proxied)) =
                (input.desired.balancers.get(name), fleet.balancers.get(name))
            else {
                continue;
            };
            let gone = |backend: &BackendName| !structure.backends.contains_key(backend);
            let here =
                draft.steps().iter().filter(|step| step.place == Place::Balancer(name.clone()));
            let after: Vec<StepId> = here
                .filter(|step| match &step.action {
                    Action::RemoveServer { backend, .. } => gone(backend),
                    Action::SetRoutes { changes } => changes.values().any(Option::is_none),
                    Action::Restructure { .. } => true,
                    _ => false,
                })
                .map(|step| step.id.clone())
                .collect();
            draft.add(restructure(balancer, structure, proxied, "last"), after);
        }
    }
}

/// The structure that the manifests ask for, with what apps that aren't planned have now.
fn wanted(
    input: &Input<'_>,
    balancer: &Balancer,
    proxied: &Proxied<'_>,
    planned: &Planned<'_>,
) -> Result<ProxyStructure, Waiting> {
    let mut backends = BTreeMap::new();
    for (id, app) in &input.desired.apps {
        let routed = app.routes.iter().any(|route| route.balancer == balancer.name);
        if routed && (planned.declared.contains_key(id) || input.known.busy.contains(id)) {
            backends.extend(backends_of(app));
        }
    }
    let leaves = |app: &AppId| planned.declared.contains_key(app) || planned.departed.contains(app);
    match proxied.structure {
        Some(structure) => {
            let stay = structure.backends.iter().filter(|(name, _)| !leaves(&name.app));
            for (name, backend) in stay {
                backends.entry(name.clone()).or_insert_with(|| backend.clone());
            }
        }
        // The file tells nothing. A backend that only the process knows, and that no planned
        // app explains, would lose its traffic by a rewrite.
        None => {
            let unexplained = proxied.servers.iter().find(|(name, seats)| {
                !seats.is_empty() && !leaves(&name.app) && !backends.contains_key(*name)
            });
            if let Some((name, _)) = unexplained {
                return Err(Waiting {
                    app: name.app.clone(),
                    reason: format!(
                        "the file of balancer {} is damaged, and isn't written anew before {} can be planned",
                        balancer.name, name.app
                    ),
                    cause: WaitCause::ProxyFile { balancer: balancer.name.clone() },
                    approval: None,
                });
            }
        }
    }
    Ok(ProxyStructure {
        stats: balancer.stats,
        x_host: balancer.x_host,
        listeners: balancer.listeners.clone(),
        backends,
    })
}

/// Both backends of an app: a canary later on needs no reload.
fn backends_of(app: &App) -> [(BackendName, Backend); 2] {
    let check = Check {
        path: app.health.path.as_deref().and_then(|path| path.parse().ok()),
        interval: app.health.interval,
        timeout: app.health.timeout,
    };
    let backend = Backend { check };
    [
        (BackendName::stable(app.id.clone()), backend.clone()),
        (BackendName::candidate(app.id.clone()), backend),
    ]
}

/// `wanted`, with the backends that still have servers or routes.
fn with_occupied(wanted: &ProxyStructure, proxied: &Proxied<'_>) -> ProxyStructure {
    let mut first = wanted.clone();
    let routed: BTreeSet<&BackendName> = proxied.routes.values().collect();
    for (name, backend) in proxied.structure.into_iter().flat_map(|structure| &structure.backends) {
        let occupied = proxied.servers.get(name).is_some_and(|seats| !seats.is_empty())
            || routed.contains(name);
        if occupied {
            first.backends.entry(name.clone()).or_insert_with(|| backend.clone());
        }
    }
    first
}

/// True where file and process have exactly that structure.
fn is_there(structure: &ProxyStructure, proxied: &Proxied<'_>) -> bool {
    proxied.structure == Some(structure) && proxied.loaded == Some(structure.digest())
}

fn restructure(
    balancer: &Balancer,
    structure: &ProxyStructure,
    proxied: &Proxied<'_>,
    object: &str,
) -> NewStep {
    let summary = format!("reload {}: {}", balancer.name, what_changes(structure, proxied));
    NewStep {
        app: None,
        place: Place::Balancer(balancer.name.clone()),
        object: object.to_owned(),
        action: Action::Restructure { structure: Box::new(structure.clone()) },
        deadline: RELOAD_DEADLINE,
        summary,
    }
}

fn what_changes(structure: &ProxyStructure, proxied: &Proxied<'_>) -> String {
    let Some(now) = proxied.structure else {
        let why = match proxied.damage {
            Some(damage) => damage,
            None if proxied.runs => "its file is missing",
            None => "it doesn't run yet",
        };
        return format!("{why}, {}", count(structure.backends.len() / 2, "app"));
    };
    let stable = |name: &&BackendName| name.track == crate::model::Track::Stable;
    let added = structure.backends.keys().filter(stable).filter(|b| !now.backends.contains_key(*b));
    let dropped =
        now.backends.keys().filter(stable).filter(|b| !structure.backends.contains_key(*b));
    let changed = structure
        .backends
        .iter()
        .filter(|(name, backend)| now.backends.get(*name).is_some_and(|old| old != *backend));
    let mut parts: Vec<String> = Vec::new();
    parts.extend(list("add", added.map(ToString::to_string).collect()));
    parts.extend(list("drop", dropped.map(ToString::to_string).collect()));
    parts.extend(list(
        "change the check of",
        changed.map(|(b, _)| b).filter(stable).map(ToString::to_string).collect(),
    ));
    if structure.listeners != now.listeners {
        parts.push("change its listeners".into());
    }
    if (structure.stats, structure.x_host) != (now.stats, now.x_host) {
        parts.push("change its settings".into());
    }
    if !proxied.runs {
        parts.push("start it".into());
    } else if parts.is_empty() {
        parts.push("the process runs another structure than its file".into());
    }
    parts.join(", ")
}

fn list(verb: &str, names: Vec<String>) -> Option<String> {
    match names.len() {
        0 => None,
        1..=3 => Some(format!("{verb} {}", names.join(", "))),
        n => Some(format!("{verb} {}, {} and {} more", names[0], names[1], n - 2)),
    }
}

/// `1 app`, `2 apps`.
pub(super) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// The routes that an app gains and loses at one balancer. What another app claims is that
/// app's to take.
pub(super) fn route_changes(
    input: &Input<'_>,
    fleet: &Fleet<'_>,
    app: &AppId,
    declared: Option<&App>,
    balancer: &BalancerName,
) -> BTreeMap<RouteKey, Option<BackendName>> {
    let Some(proxied) = fleet.balancers.get(balancer) else { return BTreeMap::new() };
    let mut changes = BTreeMap::new();
    let wanted: BTreeSet<RouteKey> =
        declared.into_iter().flat_map(|app| keys_at(app, balancer)).collect();
    let backend = BackendName::stable(app.clone());
    for key in &wanted {
        let in_file = proxied.file_routes.is_some_and(|routes| routes.get(key) == Some(&backend));
        if proxied.routes.get(key) != Some(&backend) || !in_file {
            changes.insert(key.clone(), Some(backend.clone()));
        }
    }
    let here = proxied.routes.iter().chain(proxied.file_routes.into_iter().flatten());
    for (key, target) in here.filter(|(key, target)| target.app == *app && !wanted.contains(*key)) {
        let claimed =
            input.desired.apps.values().any(|other| {
                other.id != *app && keys_at(other, balancer).any(|other| other == *key)
            });
        let _ = target;
        if !claimed {
            changes.insert(key.clone(), None);
        }
    }
    changes
}

fn keys_at<'a>(app: &'a App, balancer: &'a BalancerName) -> impl Iterator<Item = RouteKey> + 'a {
    app.routes.iter().filter(move |route| route.balancer == *balancer).map(|route| RouteKey {
        listener: route.listener.clone(),
        host: route.host.clone(),
        path: route.path.clone(),
    })
}
