//! What the balancers must become: which structure (a reload), which routes (none). Whether a
//! reload is needed is decided here, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    App, AppId, Backend, BackendName, Balancer, BalancerName, Check, ProxyStructure, RouteKey,
    ServerName, Span,
};

use super::draft::{Draft, NewStep};
use super::fleet::{Fleet, Proxied};
use super::memo::Memo;
use super::survey::Work;
use super::{Action, Input, Place, StepId, WaitCause, Waiting};

/// How long a reload may take. One takes 63 to 195 ms (HAProxy 2.6.12, up to 10,000 servers);
/// the rest is room for a busy machine.
const RELOAD_DEADLINE: Span = Span::from_secs(30);

/// What is to happen to each balancer.
#[derive(Debug, Default)]
pub(super) struct Balancing {
    /// Before everything else at that balancer.
    pub first: BTreeMap<BalancerName, StepId>,
    /// What the structure is in between, and what it is to be when all is done, where that takes
    /// another reload.
    last: BTreeMap<BalancerName, (ProxyStructure, ProxyStructure)>,
}

/// Which apps a balancer may lose: those that are planned. What is busy, blocked or waiting
/// keeps what it has.
pub(super) struct Planned<'a> {
    memo: &'a Memo,
    /// Those of which something is to be done, and those that are being worked on.
    unfinished: BTreeSet<&'a AppId>,
    busy: &'a BTreeSet<AppId>,
}

impl<'a> Planned<'a> {
    pub fn new(input: &Input<'a>, memo: &'a Memo, works: &[Work<'a>]) -> Self {
        let unfinished = works.iter().map(|work| work.app).collect();
        Self { memo, unfinished, busy: &input.known.busy }
    }

    fn contains(&self, app: &AppId) -> bool {
        self.unfinished.contains(app) || self.memo.is_planned(app)
    }

    /// True where every app that is planned or worked on has the backends at a balancer that it is
    /// to have.
    fn agrees(&self, input: &Input<'_>, balancer: &BalancerName, proxied: &Proxied<'_>) -> bool {
        let has = |app: &AppId| !has_others(input, balancer, proxied, app);
        let is_declared = |app: &AppId| input.desired.apps.contains_key(app);
        self.memo.agrees(balancer)
            && self.unfinished.iter().all(|app| has(app))
            && self.busy.iter().filter(|app| is_declared(app)).all(has)
    }
}

/// The balancers whose files have other backends of an app than it is to have.
pub(super) fn differing(work: &Work<'_>) -> BTreeSet<BalancerName> {
    let differs = |balancer: &BalancerName, now: Option<[Option<&Backend>; 2]>| {
        let wanted = wanted_backend(work.declared, balancer);
        now.is_none_or(|now| now.iter().any(|now| *now != wanted.as_ref()))
    };
    let differing = work.seats.backends().filter(|(balancer, now)| differs(balancer, *now));
    differing.map(|(balancer, _)| balancer.clone()).collect()
}

/// What both backends of an app are to be at a balancer.
fn wanted_backend(declared: Option<&App>, balancer: &BalancerName) -> Option<Backend> {
    let routed = declared.filter(|app| is_routed(app, balancer));
    routed.map(|app| Backend { check: app.check() })
}

fn has_others(
    input: &Input<'_>,
    balancer: &BalancerName,
    proxied: &Proxied<'_>,
    app: &AppId,
) -> bool {
    let Some(structure) = proxied.structure else { return true };
    let wanted = wanted_backend(input.desired.apps.get(app).map(AsRef::as_ref), balancer);
    let tracks = [BackendName::stable(app.clone()), BackendName::candidate(app.clone())];
    tracks.iter().any(|name| structure.backends.get(name) != wanted.as_ref())
}

fn is_routed(app: &App, balancer: &BalancerName) -> bool {
    app.routes.iter().any(|route| route.balancer == *balancer)
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
        if has_settings(balancer, proxied) && planned.agrees(input, name, proxied) {
            continue;
        }
        let wanted = match wanted(input, balancer, proxied, planned) {
            Ok(wanted) => wanted,
            Err(waits) => {
                waiting.push(*waits);
                continue;
            }
        };
        let first = with_occupied(&wanted, proxied);
        if !is_there(&first, proxied) {
            let id = draft.add(restructure(balancer, &first, proxied, "first"), []);
            balancing.first.insert(balancer.name.clone(), id);
        }
        if first != wanted {
            balancing.last.insert(balancer.name.clone(), (first, wanted));
        }
    }
    balancing
}

impl Balancing {
    /// Adds the reloads that drop backends once nothing uses them any more. A backend that keeps
    /// a server, such as one on a host that can't be seen, stays.
    pub fn end(&self, input: &Input<'_>, fleet: &Fleet<'_>, draft: &mut Draft) {
        for (name, (first, wanted)) in &self.last {
            let (Some(balancer), Some(proxied)) =
                (input.desired.balancers.get(name), fleet.balancers.get(name))
            else {
                continue;
            };
            let here: Vec<&super::Step> = draft
                .steps()
                .iter()
                .filter(|step| step.place == Place::Balancer(name.clone()))
                .collect();
            let goes = Goes::new(&here);
            let mut structure = wanted.clone();
            let left = first.backends.iter().filter(|(b, _)| !wanted.backends.contains_key(*b));
            let routed: BTreeSet<&BackendName> = proxied
                .routes
                .iter()
                .filter(|(key, _)| !goes.routes.contains(*key))
                .map(|(_, backend)| backend)
                .collect();
            let in_use: BTreeSet<&AppId> = left
                .clone()
                .filter(|(backend, _)| {
                    routed.contains(*backend) || goes.leaves_some(backend, proxied)
                })
                .map(|(backend, _)| &backend.app)
                .collect();
            for (backend, as_now) in left.filter(|(backend, _)| in_use.contains(&backend.app)) {
                structure.backends.insert(backend.clone(), as_now.clone());
            }
            if structure == *first {
                continue;
            }
            let gone = |backend: &BackendName| !structure.backends.contains_key(backend);
            let left_for = |key: &RouteKey| proxied.routes.get(key).is_some_and(&gone);
            let after: Vec<StepId> = here
                .iter()
                .filter(|step| match &step.action {
                    Action::RemoveServer { backend, .. } => gone(backend),
                    Action::SetRoutes { changes } => changes.keys().any(left_for),
                    Action::Restructure { .. } => true,
                    _ => false,
                })
                .map(|step| step.id.clone())
                .collect();
            draft.add(restructure(balancer, &structure, proxied, "last"), after);
        }
    }
}

/// What the steps at a balancer take away.
struct Goes<'s> {
    servers: BTreeSet<(&'s BackendName, &'s ServerName)>,
    routes: BTreeSet<&'s RouteKey>,
}

impl<'s> Goes<'s> {
    fn new(here: &[&'s super::Step]) -> Self {
        let mut goes = Self { servers: BTreeSet::new(), routes: BTreeSet::new() };
        for step in here {
            match &step.action {
                Action::RemoveServer { backend, server } => {
                    goes.servers.insert((backend, server));
                }
                Action::SetRoutes { changes } => goes.routes.extend(changes.keys()),
                _ => {}
            }
        }
        goes
    }

    /// A server of the backend isn't among them.
    fn leaves_some(&self, backend: &BackendName, proxied: &Proxied<'_>) -> bool {
        proxied.names_in(backend).any(|name| !self.servers.contains(&(backend, name)))
    }
}

/// The structure that the manifests ask for, with what apps that aren't planned have now.
fn wanted(
    input: &Input<'_>,
    balancer: &Balancer,
    proxied: &Proxied<'_>,
    planned: &Planned<'_>,
) -> Result<ProxyStructure, Box<Waiting>> {
    let mut backends = BTreeMap::new();
    for (id, app) in &input.desired.apps {
        let routed = is_routed(app, &balancer.name);
        if routed && (planned.contains(id) || input.known.busy.contains(id)) {
            backends.extend(backends_of(app));
        }
    }
    let leaves = |app: &AppId| planned.contains(app);
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
            let unexplained = proxied
                .occupied()
                .into_iter()
                .find(|name| !leaves(&name.app) && !backends.contains_key(*name));
            if let Some(name) = unexplained {
                return Err(Box::new(Waiting {
                    app: name.app.clone(),
                    reason: format!(
                        "the file of balancer {} is damaged, and isn't written anew before {} can be planned",
                        balancer.name, name.app
                    ),
                    cause: WaitCause::ProxyFile { balancer: balancer.name.clone() },
                    approval: None,
                }));
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
    let backend = Backend { check: app.check() };
    [
        (BackendName::stable(app.id.clone()), backend.clone()),
        (BackendName::candidate(app.id.clone()), backend),
    ]
}

/// `wanted`, with the backends that still have servers or routes. Where the file tells nothing,
/// the process does: what leaves is silenced and drained before its backend goes. How it was
/// checked can't be read from a process, so a connection must do for the time that it has left.
fn with_occupied(wanted: &ProxyStructure, proxied: &Proxied<'_>) -> ProxyStructure {
    let mut first = wanted.clone();
    let mut occupied = proxied.occupied();
    occupied.extend(proxied.routes.values());
    match proxied.structure {
        Some(structure) => {
            // Both backends of an app go together: one reload, not two.
            let apps: BTreeSet<&AppId> = occupied.iter().map(|name| &name.app).collect();
            let stay = structure.backends.iter().filter(|(name, _)| apps.contains(&name.app));
            for (name, backend) in stay {
                first.backends.entry(name.clone()).or_insert_with(|| backend.clone());
            }
        }
        None => {
            for name in occupied {
                first.backends.entry(name.clone()).or_insert_with(connected);
            }
        }
    }
    first
}

/// A backend whose servers are checked by a connection.
fn connected() -> Backend {
    let crate::model::Health { interval, timeout, .. } = crate::model::Health::default();
    Backend { check: Check { path: None, interval, timeout } }
}

/// True where file and process have exactly that structure.
fn is_there(structure: &ProxyStructure, proxied: &Proxied<'_>) -> bool {
    proxied.structure == Some(structure) && proxied.loaded == proxied.written
}

/// True where the file has the settings that are declared, and the process runs that file.
fn has_settings(balancer: &Balancer, proxied: &Proxied<'_>) -> bool {
    let ProxyStructure { stats, x_host, listeners, backends: _ } = match proxied.structure {
        Some(structure) if proxied.loaded == proxied.written => structure,
        _ => return false,
    };
    *stats == balancer.stats && *x_host == balancer.x_host && *listeners == balancer.listeners
}

fn restructure(
    balancer: &Balancer,
    structure: &ProxyStructure,
    proxied: &Proxied<'_>,
    object: &str,
) -> NewStep {
    let does = if proxied.runs { "reload" } else { "start" };
    let summary = format!("{does} {}: {}", balancer.name, what_changes(structure, proxied));
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
    for key in fleet.index.routes_to(balancer, app) {
        if wanted.contains(key) {
            continue;
        }
        // An app that declares it takes it over, and what can't be read may be such an app.
        if fleet.index.heir(balancer, key).is_none() && fleet.unread.is_none() {
            changes.insert(key.clone(), None);
        }
    }
    changes
}

fn keys_at<'a>(app: &'a App, balancer: &'a BalancerName) -> impl Iterator<Item = RouteKey> + 'a {
    app.routes.iter().filter(move |route| route.balancer == *balancer).map(crate::model::Route::key)
}
