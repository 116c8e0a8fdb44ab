//! One input as the planning of an app reads it: hosts, the app's containers, its servers and
//! routes at each balancer. Everything is looked up by name; nothing walks the fleet.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use imbl::OrdMap;

use crate::model::{
    AdminState, App, AppId, Backend, BackendName, BalancerName, CheckState, Host, HostName,
    Location, Pin, Placed, ProxyConfig, ProxyFile, ProxyProcess, ProxyRuntime, ProxyStructure,
    Revision, RouteKey, RuntimeServer, Server, ServerName, Sha256,
};

use crate::mutant::{self, Mutant};

use super::Input;
use super::cursor::Cursor;
use super::index::Index;

/// The view.
#[derive(Debug)]
pub(super) struct Fleet<'a> {
    pub input: Input<'a>,
    pub index: &'a Index,
    /// Declared balancers that were seen.
    pub balancers: BTreeMap<&'a BalancerName, Proxied<'a>>,
    /// The first place that can't be read and may declare what nothing else does.
    pub unread: Option<&'a Location>,
    /// All hosts, where so many apps are planned that to gather them pays.
    hosts: Option<Hosts<'a>>,
}

/// Hosts by name.
#[allow(clippy::disallowed_types, reason = "nobody walks over it, so that its order shows nowhere")]
type Hosts<'a> = std::collections::HashMap<&'a HostName, HostFacts<'a>>;

/// One host.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostFacts<'a> {
    /// A declared host, or a departed one that isn't declared again.
    pub host: Option<&'a Host>,
    pub is_seen: bool,
}

/// One balancer as it is: the process where it runs, else what its file would give.
#[derive(Debug)]
pub(super) struct Proxied<'a> {
    pub runs: bool,
    /// The file's own words; none where it is missing or damaged.
    pub structure: Option<&'a ProxyStructure>,
    /// The digest of `structure`.
    pub written: Option<Sha256>,
    /// Why the file can't be relied on, where it is there.
    pub damage: Option<&'a str>,
    /// The structure that the process was started with.
    pub loaded: Option<Sha256>,
    /// The routes of the process where it runs, else of the file.
    pub routes: &'a BTreeMap<RouteKey, BackendName>,
    pub file_routes: Option<&'a BTreeMap<RouteKey, BackendName>>,
    config: Option<&'a ProxyConfig>,
    runtime: Option<&'a ProxyRuntime>,
}

/// One server, in process and file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    pub runtime: Option<RuntimeServer>,
    pub file: Option<Server>,
}

impl Seat {
    /// The weight that requests are spread by.
    pub fn weight(&self) -> u16 {
        match (&self.runtime, &self.file) {
            (Some(runtime), _) if runtime.admin == AdminState::Ready => runtime.weight,
            (Some(_), _) => 0,
            (None, Some(file)) => file.weight,
            (None, None) => 0,
        }
    }

    pub fn address(&self) -> Option<SocketAddr> {
        self.runtime.map(|server| server.address).or(self.file.map(|server| server.address))
    }

    /// True where process and file both hold that weight, and the server takes traffic.
    pub fn has_weight(&self, weight: u16, runs: bool) -> bool {
        let in_file = self.file.is_some_and(|server| server.weight == weight);
        let in_process = self.runtime.is_some() && self.weight() == weight;
        in_file && (in_process || !runs)
    }

    pub fn is_up(&self) -> bool {
        self.runtime.is_some_and(|server| server.check == CheckState::Up)
    }

    /// UP with a weight above 0.
    pub fn serves(&self) -> bool {
        self.weight() > 0 && self.is_up()
    }
}

impl<'a> Fleet<'a> {
    /// `many`: so many apps are planned that it pays to gather what they all look up.
    pub fn new(input: &Input<'a>, index: &'a Index, many: bool) -> Self {
        let mut balancers = BTreeMap::new();
        for (name, view) in &input.observed.balancers {
            if let Some(state) = view.seen()
                && input.desired.balancers.contains_key(name)
            {
                let written = index.structure(name);
                balancers.insert(name, Proxied::new(&state.file, &state.process, written));
            }
        }
        let unread = unread(input, index);
        let mut fleet = Self { input: *input, index, balancers, unread, hosts: None };
        if many {
            let (desired, known) = (input.desired, input.known);
            let names = desired.hosts.keys().chain(known.departed_hosts.keys());
            let names = names.chain(input.observed.hosts.keys());
            fleet.hosts = Some(names.map(|name| (name, fleet.look_up(name))).collect());
        }
        fleet
    }

    /// A declared host, or a departed one that isn't declared again.
    pub fn host(&self, name: &HostName) -> Option<&'a Host> {
        self.host_facts(name).host
    }

    pub fn host_facts(&self, name: &HostName) -> HostFacts<'a> {
        let nothing = HostFacts { host: None, is_seen: false };
        match &self.hosts {
            Some(hosts) => hosts.get(name).copied().unwrap_or(nothing),
            None => self.look_up(name),
        }
    }

    fn look_up(&self, name: &HostName) -> HostFacts<'a> {
        let Input { desired, observed, known, .. } = self.input;
        let declared = desired.hosts.get(name).map(AsRef::as_ref);
        HostFacts {
            host: declared.or_else(|| known.departed_hosts.get(name)),
            is_seen: observed.host(name).is_some(),
        }
    }

    /// Declared balancers that weren't seen.
    pub fn unseen_balancers(&self) -> impl Iterator<Item = &'a BalancerName> {
        let desired = self.input.desired;
        let names = desired.balancers.keys().chain(desired.broken_balancers.keys());
        names.filter(|name| !self.balancers.contains_key(name))
    }

    /// Those of them of which nobody knows where they point.
    pub fn pointing_anywhere(&self) -> impl Iterator<Item = &'a BalancerName> {
        let known = &self.input.known.last_pointers;
        self.unseen_balancers().filter(|name| !known.contains_key(*name))
    }

    /// Slots of which a balancer that can't be seen had a server when it was seen last.
    pub fn slots_pointed_at(
        &self,
        app: &AppId,
        host: &HostName,
        revision: &Revision,
    ) -> impl Iterator<Item = u32> {
        let last = self.input.known.last_pointers.values();
        let servers = last.filter_map(|last| last.servers.get(app)).flatten();
        let here = servers.filter(move |name| name.host == *host && name.is_of(revision));
        here.map(|name| name.slot.0)
    }

    /// Ports of `address` that some balancer may still send requests to, or did when it was seen
    /// last.
    pub fn ports_pointed_at(&self, address: IpAddr) -> impl Iterator<Item = u16> {
        let all = SocketAddr::new(address, 0)..=SocketAddr::new(address, u16::MAX);
        let last = self.input.known.last_pointers.values().map(|last| &last.addresses);
        let pointed_at = self.index.addresses().chain(last);
        pointed_at.flat_map(move |set: &BTreeSet<SocketAddr>| set.range(all.clone())).map(port)
    }
}

/// What is known of one app, looked up once.
pub(super) struct Found<'a> {
    pub declared: Option<&'a App>,
    pub pin: Option<&'a Result<Pin, String>>,
    /// Ordered by host, name and id.
    pub containers: &'a [Placed],
    pub seats: Seats<'a>,
}

/// Looks apps up: soonest where they come in order.
pub(super) struct Finder<'a> {
    apps: Cursor<'a, &'a OrdMap<AppId, Arc<App>>>,
    pins: Cursor<'a, &'a OrdMap<AppId, Result<Pin, String>>>,
    containers: Cursor<'a, &'a BTreeMap<AppId, Vec<Placed>>>,
    balancers: Vec<AtBalancer<'a>>,
}

/// The backends of one balancer, and their servers in file and process.
struct AtBalancer<'a> {
    name: &'a BalancerName,
    backends: Option<Cursor<'a, &'a BTreeMap<BackendName, Backend>>>,
    file: Option<Cursor<'a, &'a BTreeMap<BackendName, BTreeMap<ServerName, Server>>>>,
    runtime: Option<Cursor<'a, &'a BTreeMap<BackendName, BTreeMap<ServerName, RuntimeServer>>>>,
}

impl<'a> Finder<'a> {
    pub fn new(input: &Input<'a>, fleet: &Fleet<'a>) -> Self {
        let at = |(name, proxied): (&&'a BalancerName, &Proxied<'a>)| AtBalancer {
            name,
            backends: proxied.structure.map(|structure| Cursor::new(&structure.backends)),
            file: proxied.config.map(|config| Cursor::new(&config.servers)),
            runtime: proxied.runtime.map(|runtime| Cursor::new(&runtime.servers)),
        };
        Self {
            apps: Cursor::new(&input.desired.apps),
            pins: Cursor::new(&input.known.pins),
            containers: Cursor::new(&fleet.index.containers),
            balancers: fleet.balancers.iter().map(at).collect(),
        }
    }

    pub fn find(&mut self, app: &AppId) -> Found<'a> {
        let tracks = [BackendName::stable(app.clone()), BackendName::candidate(app.clone())];
        let at = self.balancers.iter_mut().map(|balancer| {
            let AtBalancer { name, backends, file, runtime } = balancer;
            let backends = backends.as_mut();
            SeatsAt {
                balancer: name,
                backends: backends.map(|backends| tracks.each_ref().map(|name| backends.get(name))),
                servers: tracks.each_ref().map(|backend| {
                    let file = file.as_mut().and_then(|file| file.get(backend));
                    let runtime = runtime.as_mut().and_then(|runtime| runtime.get(backend));
                    Servers::new(file, runtime)
                }),
            }
        });
        let at = at.collect();
        Found {
            declared: self.apps.get(app).map(AsRef::as_ref),
            pin: self.pins.get(app),
            containers: self.containers.get(app).map_or(&[], Vec::as_slice),
            seats: Seats { at, tracks },
        }
    }
}

/// The servers of one app, at each balancer and on both tracks.
#[derive(Debug)]
pub(super) struct Seats<'a> {
    at: Vec<SeatsAt<'a>>,
    tracks: [BackendName; 2],
}

/// The servers of one app at one balancer, by track.
#[derive(Debug)]
struct SeatsAt<'a> {
    balancer: &'a BalancerName,
    /// Its backends in the file; none where the file tells nothing.
    backends: Option<[Option<&'a Backend>; 2]>,
    servers: [Servers<'a>; 2],
}

/// The servers of a backend.
#[derive(Debug)]
struct Servers<'a> {
    /// By name.
    all: Vec<(&'a ServerName, Seat)>,
    /// The place of the one that was found last: the next that is asked for is there or right
    /// behind it, most of the time.
    last: Cell<usize>,
}

impl<'a> Servers<'a> {
    /// Those of file and process: one walk over both.
    fn new(
        file: Option<&'a BTreeMap<ServerName, Server>>,
        runtime: Option<&'a BTreeMap<ServerName, RuntimeServer>>,
    ) -> Self {
        let most = file.map_or(0, BTreeMap::len).max(runtime.map_or(0, BTreeMap::len));
        let mut seats: Vec<(&ServerName, Seat)> = Vec::with_capacity(most);
        let only_runs = |(name, server): (&'a ServerName, &RuntimeServer)| {
            (name, Seat { runtime: Some(*server), file: None })
        };
        let mut runtime = runtime.into_iter().flatten().peekable();
        for (name, server) in file.into_iter().flatten() {
            while let Some(other) = runtime.next_if(|(other, _)| *other < name) {
                seats.push(only_runs(other));
            }
            let in_process = runtime.next_if(|(other, _)| *other == name);
            let in_process = in_process.map(|(_, server)| *server);
            seats.push((name, Seat { runtime: in_process, file: Some(*server) }));
        }
        seats.extend(runtime.map(only_runs));
        Self { all: seats, last: Cell::new(0) }
    }

    fn get(&self, name: &ServerName) -> Option<Seat> {
        let last = self.last.get();
        let is_there = |place: &usize| self.all.get(*place).is_some_and(|(at, _)| *at == name);
        let place = [last, last + 1]
            .into_iter()
            .find(is_there)
            .or_else(|| self.all.binary_search_by_key(&name, |(name, _)| *name).ok())?;
        self.last.set(place);
        self.all.get(place).map(|(_, seat)| *seat)
    }
}

impl<'a> Seats<'a> {
    /// The server of that name on the stable track of a balancer.
    pub fn stable(&self, balancer: &BalancerName, name: &ServerName) -> Option<Seat> {
        let [stable, _] = &self.at(balancer)?.servers;
        stable.get(name)
    }

    /// The servers of that name, with their balancers and backends.
    pub fn named(
        &self,
        name: &ServerName,
    ) -> impl Iterator<Item = (&'a BalancerName, &BackendName, Seat)> {
        self.at.iter().flat_map(move |at| {
            let servers = at.servers.iter().zip(&self.tracks);
            servers.filter_map(move |(of, backend)| Some((at.balancer, backend, of.get(name)?)))
        })
    }

    /// All of them, by balancer, backend and name.
    pub fn all(
        &self,
    ) -> impl Iterator<Item = (&'a BalancerName, &BackendName, &'a ServerName, Seat)> {
        self.at.iter().flat_map(move |at| {
            at.servers.iter().zip(&self.tracks).flat_map(move |(of, backend)| {
                of.all.iter().map(move |(name, seat)| (at.balancer, backend, *name, *seat))
            })
        })
    }

    /// Those on the stable track of one balancer.
    pub fn stable_at(
        &self,
        balancer: &BalancerName,
    ) -> impl Iterator<Item = (&'a ServerName, Seat)> {
        self.at(balancer).into_iter().flat_map(|at| at.servers[0].all.iter().copied())
    }

    /// The app's backends in the file of each balancer, on both tracks; none where the file tells
    /// nothing.
    pub fn backends(
        &self,
    ) -> impl Iterator<Item = (&'a BalancerName, Option<[Option<&'a Backend>; 2]>)> {
        self.at.iter().map(|at| (at.balancer, at.backends))
    }

    fn at(&self, balancer: &BalancerName) -> Option<&SeatsAt<'a>> {
        self.at.iter().find(|at| at.balancer == balancer)
    }
}

fn port(address: &SocketAddr) -> u16 {
    address.port()
}

/// A document that doesn't tell its app, or an app to which no route leads yet, as one that takes
/// the routes of another. One that has its routes, or is known to need none, keeps what it has.
fn unread<'a>(input: &Input<'a>, index: &Index) -> Option<&'a Location> {
    let desired = input.desired;
    let is_led_to = |app: &AppId| {
        desired.balancers.keys().any(|name| index.routes_to(name, app).next().is_some())
    };
    let needs_none =
        |app: &AppId| input.known.fallbacks.get(app).is_some_and(|then| then.app.routes.is_empty());
    let may_claim =
        |app: &AppId| !needs_none(app) && !is_led_to(app) && !mutant::is(Mutant::UnreadableAsGone);
    let mut blocked = desired.blocked.iter().filter(|(app, _)| may_claim(app)).map(|(_, why)| why);
    let first = desired.unreadable.first().or_else(|| blocked.next());
    first.map(|why| &why.location)
}

impl<'a> Proxied<'a> {
    fn new(file: &'a ProxyFile, process: &'a ProxyProcess, written: Option<Sha256>) -> Self {
        static NO_ROUTES: BTreeMap<RouteKey, BackendName> = BTreeMap::new();
        let config = match file {
            ProxyFile::Ours(config) => Some(config.as_ref()),
            ProxyFile::Missing | ProxyFile::Damaged { .. } => None,
        };
        let runtime = match process {
            ProxyProcess::Up(runtime) => Some(runtime.as_ref()),
            ProxyProcess::Down { .. } => None,
        };
        let routes = match (runtime, config) {
            (Some(runtime), _) => &runtime.routes,
            (None, Some(config)) => &config.routes,
            (None, None) => &NO_ROUTES,
        };
        Self {
            runs: runtime.is_some(),
            structure: config.map(|config| &config.structure),
            written,
            damage: match file {
                ProxyFile::Damaged { reason } => Some(reason),
                ProxyFile::Ours(_) | ProxyFile::Missing => None,
            },
            loaded: runtime.and_then(|runtime| runtime.structure),
            routes,
            file_routes: config.map(|config| &config.routes),
            config,
            runtime,
        }
    }

    /// The names of the servers of a backend.
    pub fn names_in(&self, backend: &BackendName) -> impl Iterator<Item = &'a ServerName> {
        let in_file = self.config.and_then(|config| config.servers.get(backend));
        let in_process = self.runtime.and_then(|runtime| runtime.servers.get(backend));
        let in_file = in_file.into_iter().flat_map(BTreeMap::keys);
        in_file.chain(in_process.into_iter().flat_map(BTreeMap::keys))
    }

    /// The backends of which file or process has servers. Walks over all of them.
    pub fn occupied(&self) -> BTreeSet<&'a BackendName> {
        let in_file = self.config.into_iter().flat_map(|config| &config.servers);
        let in_file = in_file.filter(|(_, all)| !all.is_empty()).map(|(backend, _)| backend);
        let in_process = self.runtime.into_iter().flat_map(|runtime| &runtime.servers);
        let in_process = in_process.filter(|(_, all)| !all.is_empty()).map(|(backend, _)| backend);
        in_file.chain(in_process).collect()
    }
}
