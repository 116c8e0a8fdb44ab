//! What the planner remembers of its last input: indices over it, and from the differences
//! between that input and the next one the apps that have to be planned again.
//!
//! Nobody has to say what changed. Large maps share with those of the input before whatever is
//! the same in both, so that comparing them costs what differs, and nothing can be forgotten.
//! What is rare, such as a balancer that comes or goes, touches every app.

use std::cmp::Ordering::{Equal, Less};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use imbl::OrdMap;

use crate::model::{
    App, AppId, BackendName, Balancer, BalancerName, BalancerState, Blocked, Container, Desired,
    Hold, Host, HostName, HostState, Observed, Owner, Pin, Placed, Pointers, ProxyFile,
    ProxyProcess, RouteKey, SecretDigest, SecretName, Sha256, View, differing,
};

use super::{Fallback, Input};

/// Which apps have to be planned again.
#[derive(Debug)]
pub(super) enum Touched {
    All,
    Some(BTreeSet<AppId>),
}

/// The indices over the last input.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// Ordered by host, name and id.
    pub(super) containers: BTreeMap<AppId, Vec<Placed>>,
    count: usize,
    /// Which app declares each route. Manifests in which two do are refused.
    heirs: BTreeMap<(BalancerName, RouteKey), AppId>,
    balancers: BTreeMap<BalancerName, Facts>,
    /// The digest of all hosts.
    hosts: OnceLock<Sha256>,
    seen: Option<Seen>,
}

/// What is computed once from what was seen of a balancer.
#[derive(Debug, Clone)]
struct Facts {
    state: Arc<BalancerState>,
    structure: OnceLock<Option<Sha256>>,
    /// Where file and workers point to.
    addresses: OnceLock<BTreeSet<SocketAddr>>,
    /// The routes of process and file, by the app that they lead to.
    routes: OnceLock<Arc<[(AppId, RouteKey)]>>,
}

/// The parts of an input that the planning of an app reads.
#[derive(Debug, Clone)]
struct Seen {
    owner: Owner,
    apps: OrdMap<AppId, Arc<App>>,
    blocked: BTreeMap<AppId, Blocked>,
    unreadable: Vec<Blocked>,
    hosts: OrdMap<HostName, Arc<Host>>,
    balancers: BTreeMap<BalancerName, Balancer>,
    broken_balancers: BTreeSet<BalancerName>,
    observed: Observed,
    pins: OrdMap<AppId, Result<Pin, String>>,
    secrets: OrdMap<SecretName, Result<SecretDigest, String>>,
    holds: BTreeMap<AppId, Hold>,
    fallbacks: OrdMap<AppId, Arc<Fallback>>,
    departed_hosts: BTreeMap<HostName, Host>,
    last_pointers: BTreeMap<BalancerName, Arc<Pointers>>,
    failing_checks: BTreeMap<AppId, String>,
    busy: BTreeSet<AppId>,
}

impl Seen {
    fn new(input: &Input<'_>) -> Self {
        let Input { desired, observed, known, previous: _ } = *input;
        Self {
            owner: super::owner(desired),
            apps: desired.apps.clone(),
            blocked: desired.blocked.clone(),
            unreadable: desired.unreadable.clone(),
            hosts: desired.hosts.clone(),
            balancers: desired.balancers.clone(),
            broken_balancers: desired.broken_balancers.keys().cloned().collect(),
            observed: observed.clone(),
            pins: known.pins.clone(),
            secrets: known.secrets.clone(),
            holds: known.holds.clone(),
            fallbacks: known.fallbacks.clone(),
            departed_hosts: known.departed_hosts.clone(),
            last_pointers: known.last_pointers.clone(),
            failing_checks: known.failing_checks.clone(),
            busy: known.busy.clone(),
        }
    }

    /// True where something changed that every app's planning reads.
    fn is_of_another_world(&self, input: &Input<'_>) -> bool {
        let Input { desired, observed, known, previous: _ } = *input;
        let views = &self.observed.balancers;
        self.owner != super::owner(desired)
            || self.balancers != desired.balancers
            || !self.broken_balancers.iter().eq(desired.broken_balancers.keys())
            || self.last_pointers != known.last_pointers
            || !views.keys().eq(observed.balancers.keys())
            || views.values().zip(observed.balancers.values()).any(|(old, new)| differ(old, new))
    }
}

/// True where a balancer came, went, started, ended, or its file became another's.
fn differ(old: &View<Arc<BalancerState>>, new: &View<Arc<BalancerState>>) -> bool {
    let (View::Seen(old), View::Seen(new)) = (old, new) else { return old != new };
    let both_run = match (&old.process, &new.process) {
        (ProxyProcess::Up(_), ProxyProcess::Up(_)) => true,
        (old, new) => old == new,
    };
    let both_ours = match (&old.file, &new.file) {
        (ProxyFile::Ours(_), ProxyFile::Ours(_)) => true,
        (old, new) => old == new,
    };
    !both_run || !both_ours
}

impl Index {
    pub fn containers_of(&self, app: &AppId) -> &[Placed] {
        self.containers.get(app).map_or(&[], Vec::as_slice)
    }

    /// How many of our containers were seen.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The app that declares a route.
    pub fn heir(&self, balancer: &BalancerName, key: &RouteKey) -> Option<&AppId> {
        self.heirs.get(&(balancer.clone(), key.clone()))
    }

    /// The routes that lead to an app, in the process or the file of a balancer.
    pub fn routes_to(
        &self,
        balancer: &BalancerName,
        app: &AppId,
    ) -> impl Iterator<Item = &'_ RouteKey> {
        let facts = self.balancers.get(balancer);
        let routes = facts.map_or(&[][..], |facts| facts.routes());
        let first = routes.partition_point(|(of, _)| of < app);
        routes.iter().skip(first).take_while(move |(of, _)| of == app).map(|(_, key)| key)
    }

    /// The digest of the structure in a balancer's file.
    pub fn structure(&self, balancer: &BalancerName) -> Option<Sha256> {
        self.balancers.get(balancer)?.structure()
    }

    /// Where the balancers that were seen point to.
    pub fn addresses(&self) -> impl Iterator<Item = &BTreeSet<SocketAddr>> {
        self.balancers.values().map(Facts::addresses)
    }

    /// The digest of all hosts, declared and departed.
    pub fn hosts(&self) -> Sha256 {
        *self.hosts.get_or_init(|| match &self.seen {
            Some(seen) => digest_of_hosts(&seen.hosts, &seen.departed_hosts),
            None => Sha256::of(b"null"),
        })
    }

    /// Takes the next input, and tells which apps it touches.
    pub fn update(&mut self, input: &Input<'_>) -> Touched {
        let seen = self.seen.take();
        self.update_balancers(input.observed);
        let touched = match &seen {
            Some(seen) => {
                let all = seen.is_of_another_world(input);
                let apps = self.update_from(seen, input);
                if all { Touched::All } else { Touched::Some(apps) }
            }
            None => {
                self.fill(input);
                Touched::All
            }
        };
        self.seen = Some(Seen::new(input));
        touched
    }

    /// Builds the indices anew. Those over containers and those over the rest know nothing of each
    /// other, so that two processors can do it.
    fn fill(&mut self, input: &Input<'_>) {
        let Input { desired, observed, known, previous: _ } = *input;
        let mut rest = || {
            self.heirs = desired.apps.values().flat_map(|app| keys_of(app)).collect();
            for facts in self.balancers.values() {
                facts.structure();
                facts.routes();
            }
            let _ = self.hosts.set(digest_of_hosts(&desired.hosts, &known.departed_hosts));
        };
        let (containers, count) = if desired.apps.len() < super::MANY {
            rest();
            containers_by_app(observed)
        } else {
            std::thread::scope(|scope| {
                let containers = scope.spawn(|| containers_by_app(observed));
                rest();
                containers.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        };
        (self.containers, self.count) = (containers, count);
    }

    fn update_balancers(&mut self, observed: &Observed) {
        self.balancers.retain(|name, _| observed.balancer(name).is_some());
        for (name, view) in &observed.balancers {
            let Some(state) = view.seen() else { continue };
            let known = self.balancers.get(name);
            if known.is_none_or(|facts| !Arc::ptr_eq(&facts.state, state)) {
                self.balancers.insert(name.clone(), Facts::new(state.clone(), known));
            }
        }
    }

    fn update_from(&mut self, seen: &Seen, input: &Input<'_>) -> BTreeSet<AppId> {
        let Input { desired, observed, known, previous: _ } = *input;
        let mut touched = BTreeSet::new();
        self.take_declarations(seen, desired, observed, &mut touched);
        touched.extend(differing(&seen.pins, &known.pins).cloned());
        touched.extend(differing(&seen.fallbacks, &known.fallbacks).cloned());
        touched.extend(unequal(&seen.holds, &known.holds));
        touched.extend(unequal(&seen.failing_checks, &known.failing_checks));
        touched.extend(seen.busy.symmetric_difference(&known.busy).cloned());
        let secrets: BTreeSet<SecretName> =
            differing(&seen.secrets, &known.secrets).cloned().collect();
        if !secrets.is_empty() {
            let uses = |app: &App| app.template.secrets().any(|name| secrets.contains(name));
            let declared = desired.apps.iter().filter(|(_, app)| uses(app)).map(|(id, _)| id);
            let before = known.fallbacks.iter().filter(|(_, f)| uses(&f.app)).map(|(id, _)| id);
            touched.extend(declared.chain(before).cloned());
        }
        let mut hosts: BTreeSet<HostName> =
            differing(&seen.hosts, &desired.hosts).cloned().collect();
        hosts.extend(unequal(&seen.departed_hosts, &known.departed_hosts));
        for name in differing(&seen.observed.hosts, &observed.hosts).cloned() {
            let (old, new) = (seen.observed.hosts.get(&name), observed.hosts.get(&name));
            let (old, new) = (old.and_then(View::seen), new.and_then(View::seen));
            self.take_containers(&name, old.map(Arc::as_ref), new.map(Arc::as_ref), &mut touched);
            if old.is_none() || new.is_none() {
                hosts.insert(name);
            }
        }
        if hosts.iter().any(|host| {
            seen.hosts.get(host) != desired.hosts.get(host)
                || seen.departed_hosts.get(host) != known.departed_hosts.get(host)
        }) {
            self.hosts = OnceLock::new();
        }
        if !hosts.is_empty() {
            touched.extend(apps_at(&hosts, desired, observed));
        }
        if !hosts.is_empty() {
            touched.extend(undeclared(self, desired, observed));
        }
        for (name, view) in &observed.balancers {
            let old = seen.observed.balancers.get(name).and_then(View::seen);
            if let (Some(old), View::Seen(new)) = (old, view) {
                self.take_balancer(name, old, new, &mut touched);
            }
        }
        // What nothing declares that can be read may be declared by what can't.
        let is_blocked = |app: &AppId| desired.blocked.contains_key(app);
        let unread = seen.unreadable != desired.unreadable || seen.blocked != desired.blocked;
        if unread || touched.iter().any(is_blocked) {
            touched.extend(undeclared(self, desired, observed));
            touched.extend(self.unclaimed());
        }
        touched
    }

    /// The apps with a route that no manifest declares.
    fn unclaimed(&self) -> BTreeSet<AppId> {
        let all = self.balancers.iter().flat_map(|(name, facts)| {
            facts.routes().iter().filter(|(_, key)| self.heir(name, key).is_none())
        });
        all.map(|(app, _)| app.clone()).collect()
    }

    fn take_declarations(
        &mut self,
        seen: &Seen,
        desired: &Desired,
        observed: &Observed,
        touched: &mut BTreeSet<AppId>,
    ) {
        touched.extend(unequal(&seen.blocked, &desired.blocked));
        for id in differing(&seen.apps, &desired.apps).cloned() {
            let keys = |apps: &OrdMap<AppId, Arc<App>>| -> BTreeSet<(BalancerName, RouteKey)> {
                apps.get(&id).into_iter().flat_map(|app| keys_of(app)).map(|(key, _)| key).collect()
            };
            let (old, new) = (keys(&seen.apps), keys(&desired.apps));
            for key in old.difference(&new) {
                if self.heirs.get(key) == Some(&id) {
                    self.heirs.remove(key);
                }
            }
            for key in &new {
                self.heirs.insert(key.clone(), id.clone());
            }
            // Whether another app gives up a route depends on whether it is claimed.
            for (balancer, key) in old.symmetric_difference(&new) {
                touched.extend(owners(observed, balancer, key).cloned());
            }
            touched.insert(id);
        }
    }

    fn take_containers(
        &mut self,
        host: &HostName,
        old: Option<&HostState>,
        new: Option<&HostState>,
        touched: &mut BTreeSet<AppId>,
    ) {
        let (old, new) = (by_app(old), by_app(new));
        let apps: BTreeSet<&AppId> = old.keys().chain(new.keys()).copied().collect();
        for app in apps.into_iter().filter(|app| old.get(*app) != new.get(*app)) {
            let of_app = self.containers.entry(app.clone()).or_default();
            self.count -= of_app.len();
            of_app.retain(|(on, _)| on != host);
            let here = new.get(app).into_iter().flatten();
            of_app.extend(here.map(|container| (host.clone(), (*container).clone())));
            sort(of_app);
            self.count += of_app.len();
            if of_app.is_empty() {
                self.containers.remove(app);
            }
            touched.insert(app.clone());
        }
    }

    fn take_balancer(
        &self,
        name: &BalancerName,
        old: &Arc<BalancerState>,
        new: &Arc<BalancerState>,
        touched: &mut BTreeSet<AppId>,
    ) {
        if Arc::ptr_eq(old, new) {
            return;
        }
        let mut keys: BTreeSet<RouteKey> = BTreeSet::new();
        if let (ProxyFile::Ours(old), ProxyFile::Ours(new)) = (&old.file, &new.file)
            && !Arc::ptr_eq(old, new)
        {
            let (before, now) = (&old.structure.backends, &new.structure.backends);
            touched.extend(unequal(before, now).map(|backend| backend.app));
            touched.extend(unequal(&old.servers, &new.servers).map(|backend| backend.app));
            keys.extend(unequal(&old.routes, &new.routes));
        }
        if let (ProxyProcess::Up(old), ProxyProcess::Up(new)) = (&old.process, &new.process)
            && !Arc::ptr_eq(old, new)
        {
            touched.extend(unequal(&old.servers, &new.servers).map(|backend| backend.app));
            keys.extend(unequal(&old.routes, &new.routes));
        }
        for key in keys {
            touched.extend(self.heir(name, &key).cloned());
            let owners = routes_of(old).chain(routes_of(new)).filter_map(|all| all.get(&key));
            touched.extend(owners.map(|backend| backend.app.clone()));
        }
    }
}

impl Facts {
    /// To see that something is the same takes less time than to compute it again.
    fn new(state: Arc<BalancerState>, before: Option<&Self>) -> Self {
        let (structure, routes) = (OnceLock::new(), OnceLock::new());
        let facts = Self { state, structure, addresses: OnceLock::new(), routes };
        let Some(before) = before else { return facts };
        if let (ProxyFile::Ours(old), ProxyFile::Ours(new)) =
            (&before.state.file, &facts.state.file)
            && let Some(known) = before.structure.get()
            && old.structure == new.structure
        {
            let _ = facts.structure.set(*known);
        }
        if let Some(known) = before.routes.get()
            && routes_of(&before.state).eq(routes_of(&facts.state))
        {
            let _ = facts.routes.set(known.clone());
        }
        facts
    }

    fn routes(&self) -> &[(AppId, RouteKey)] {
        self.routes.get_or_init(|| {
            let (process, file) = (routes_in_process(&self.state), routes_in_file(&self.state));
            let file = file.filter(|file| process != Some(*file));
            let all = process.into_iter().chain(file).flatten();
            let mut routes: Vec<(AppId, RouteKey)> =
                all.map(|(key, backend)| (backend.app.clone(), key.clone())).collect();
            routes.sort();
            routes.dedup();
            routes.into()
        })
    }

    fn structure(&self) -> Option<Sha256> {
        *self.structure.get_or_init(|| match &self.state.file {
            ProxyFile::Ours(config) => Some(config.structure.digest()),
            ProxyFile::Missing | ProxyFile::Damaged { .. } => None,
        })
    }

    fn addresses(&self) -> &BTreeSet<SocketAddr> {
        self.addresses.get_or_init(|| self.state.addresses())
    }
}

/// The containers of each app, and how many there are. Which app comes first is looked up by hash,
/// and put in order at the end: a tenth of the comparisons of names.
#[allow(clippy::disallowed_types, reason = "nobody walks over it, so that its order shows nowhere")]
fn containers_by_app(observed: &Observed) -> (BTreeMap<AppId, Vec<Placed>>, usize) {
    let mut numbers: std::collections::HashMap<&AppId, usize> = std::collections::HashMap::new();
    let mut apps: Vec<(&AppId, Vec<Placed>)> = Vec::new();
    let (mut count, mut last) = (0, 0);
    for (host, view) in &observed.hosts {
        for container in view.seen().into_iter().flat_map(|state| &state.containers) {
            let app = &container.birth.app;
            // A list of an engine is by name, so that those of one app follow each other.
            if apps.get(last).is_none_or(|(of, _)| *of != app) {
                last = *numbers.entry(app).or_insert_with(|| {
                    apps.push((app, Vec::new()));
                    apps.len() - 1
                });
            }
            if let Some((_, of_app)) = apps.get_mut(last) {
                of_app.push((host.clone(), container.clone()));
            }
            count += 1;
        }
    }
    apps.sort_unstable_by_key(|(app, _)| *app);
    let in_order = apps.into_iter().map(|(app, mut containers)| {
        sort(&mut containers);
        (app.clone(), containers)
    });
    (in_order.collect(), count)
}

fn digest_of_hosts(
    hosts: &OrdMap<HostName, Arc<Host>>,
    departed: &BTreeMap<HostName, Host>,
) -> Sha256 {
    Sha256::of(&serde_json::to_vec(&(hosts, departed)).unwrap_or_default())
}

/// The engine lists in any order.
fn sort(containers: &mut [Placed]) {
    containers.sort_by(|(a, x), (b, y)| (a, &x.name, &x.id).cmp(&(b, &y.name, &y.id)));
}

fn by_app(state: Option<&HostState>) -> BTreeMap<&AppId, Vec<&Arc<Container>>> {
    let mut apps: BTreeMap<&AppId, Vec<&Arc<Container>>> = BTreeMap::new();
    for container in state.into_iter().flat_map(|state| &state.containers) {
        apps.entry(&container.birth.app).or_default().push(container);
    }
    for containers in apps.values_mut() {
        containers.sort_by(|x, y| (&x.name, &x.id).cmp(&(&y.name, &y.id)));
    }
    apps
}

/// The routes that an app declares, with its name.
fn keys_of(app: &App) -> impl Iterator<Item = ((BalancerName, RouteKey), AppId)> + '_ {
    app.routes.iter().map(|route| ((route.balancer.clone(), route.key()), app.id.clone()))
}

/// The routes of process and file.
fn routes_of(state: &BalancerState) -> impl Iterator<Item = &BTreeMap<RouteKey, BackendName>> {
    routes_in_process(state).into_iter().chain(routes_in_file(state))
}

fn routes_in_process(state: &BalancerState) -> Option<&BTreeMap<RouteKey, BackendName>> {
    match &state.process {
        ProxyProcess::Up(runtime) => Some(&runtime.routes),
        ProxyProcess::Down { .. } => None,
    }
}

fn routes_in_file(state: &BalancerState) -> Option<&BTreeMap<RouteKey, BackendName>> {
    match &state.file {
        ProxyFile::Ours(config) => Some(&config.routes),
        ProxyFile::Missing | ProxyFile::Damaged { .. } => None,
    }
}

/// Whom a route leads to now.
fn owners<'a>(
    observed: &'a Observed,
    balancer: &BalancerName,
    key: &'a RouteKey,
) -> impl Iterator<Item = &'a AppId> {
    let routes = observed.balancer(balancer).into_iter().flat_map(routes_of);
    routes.filter_map(move |routes| Some(&routes.get(key)?.app))
}

/// Apps that are placed on one of these hosts, or have a server there.
fn apps_at(hosts: &BTreeSet<HostName>, desired: &Desired, observed: &Observed) -> Vec<AppId> {
    let placed = |(_, app): &(&AppId, &Arc<App>)| app.placement.keys().any(|h| hosts.contains(h));
    let placed = desired.apps.iter().filter(placed);
    let mut apps: Vec<AppId> = placed.map(|(id, _)| id.clone()).collect();
    let states = observed.balancers.values().filter_map(View::seen);
    for state in states {
        if let ProxyFile::Ours(config) = &state.file {
            let here = |(_, all): &(_, &BTreeMap<crate::model::ServerName, _>)| {
                all.keys().any(|name| hosts.contains(&name.host))
            };
            apps.extend(config.servers.iter().filter(here).map(|(b, _)| b.app.clone()));
        }
        if let ProxyProcess::Up(runtime) = &state.process {
            let here = |(_, all): &(_, &BTreeMap<crate::model::ServerName, _>)| {
                all.keys().any(|name| hosts.contains(&name.host))
            };
            apps.extend(runtime.servers.iter().filter(here).map(|(b, _)| b.app.clone()));
        }
    }
    apps
}

/// Apps of which something stands, and that no manifest declares: containers, or something at a
/// balancer, be it only an empty backend, which may be all that a removal left that was cut short.
pub(super) fn undeclared(index: &Index, desired: &Desired, observed: &Observed) -> BTreeSet<AppId> {
    let mut undeclared = BTreeSet::new();
    add_undeclared(desired, index.containers.keys(), &mut undeclared);
    for facts in index.balancers.values() {
        add_undeclared(desired, facts.routes().iter().map(|(app, _)| app), &mut undeclared);
    }
    for state in observed.balancers.values().filter_map(View::seen) {
        if let ProxyFile::Ours(config) = &state.file {
            let backends = config.structure.backends.keys();
            add_undeclared(desired, backends.map(|backend| &backend.app), &mut undeclared);
            add_undeclared(desired, occupied(&config.servers), &mut undeclared);
        }
        if let ProxyProcess::Up(runtime) = &state.process {
            add_undeclared(desired, occupied(&runtime.servers), &mut undeclared);
        }
    }
    undeclared
}

/// Adds those of `apps`, which come in order, that aren't declared: one walk over both.
fn add_undeclared<'a>(
    desired: &Desired,
    apps: impl Iterator<Item = &'a AppId>,
    undeclared: &mut BTreeSet<AppId>,
) {
    let mut declared = desired.apps.keys().peekable();
    for app in apps {
        let order = loop {
            match declared.peek().map(|other| (*other).cmp(app)) {
                Some(Less) => drop(declared.next()),
                order => break order,
            }
        };
        if order != Some(Equal) && !undeclared.contains(app) {
            undeclared.insert(app.clone());
        }
    }
}

/// The apps of which there are servers, in order.
fn occupied<S>(
    servers: &BTreeMap<BackendName, BTreeMap<crate::model::ServerName, S>>,
) -> impl Iterator<Item = &AppId> {
    servers.iter().filter(|(_, all)| !all.is_empty()).map(|(backend, _)| &backend.app)
}

/// The keys under which two maps have different values. Costs a walk over both.
fn unequal<'a, K: Ord + Clone, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = K> + 'a {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            use std::cmp::Ordering::Greater;
            let order = match (old.peek(), new.peek()) {
                (None, None) => return None,
                (Some(_), None) => Less,
                (None, Some(_)) => Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            match order {
                Less => return old.next().map(|(key, _)| key.clone()),
                Greater => return new.next().map(|(key, _)| key.clone()),
                Equal => {
                    let (Some((key, a)), Some((_, b))) = (old.next(), new.next()) else {
                        return None;
                    };
                    if a != b {
                        return Some(key.clone());
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_compared_key_by_key() {
        let map = |pairs: &[(u8, u8)]| pairs.iter().copied().collect::<BTreeMap<u8, u8>>();
        for (old, new, keys) in [
            (&[][..], &[][..], &[][..]),
            (&[(1, 1)], &[(1, 1)], &[]),
            (&[(1, 1)], &[(1, 2)], &[1]),
            (&[(1, 1), (2, 2)], &[(2, 2), (3, 3)], &[1, 3]),
            (&[], &[(4, 4)], &[4]),
        ] {
            assert_eq!(unequal(&map(old), &map(new)).collect::<Vec<_>>(), keys);
        }
    }
}
