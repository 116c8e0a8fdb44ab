//! One input as the planning of an app reads it: hosts, the app's containers, its servers and
//! routes at each balancer. Everything is looked up by name; nothing walks the fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::model::{
    AdminState, AppId, BackendName, BalancerName, CheckState, Host, HostName, Placed, ProxyConfig,
    ProxyFile, ProxyProcess, ProxyRuntime, ProxyStructure, RouteKey, RuntimeServer, Server,
    ServerName, Sha256,
};

use super::Input;
use super::index::Index;

/// The view.
#[derive(Debug)]
pub(super) struct Fleet<'a> {
    input: Input<'a>,
    pub index: &'a Index,
    /// Declared balancers that were seen.
    pub balancers: BTreeMap<&'a BalancerName, Proxied<'a>>,
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
    pub fn new(input: &Input<'a>, index: &'a Index) -> Self {
        let mut balancers = BTreeMap::new();
        for (name, view) in &input.observed.balancers {
            if let Some(state) = view.seen()
                && input.desired.balancers.contains_key(name)
            {
                let written = index.structure(name);
                balancers.insert(name, Proxied::new(&state.file, &state.process, written));
            }
        }
        Self { input: *input, index, balancers }
    }

    /// A declared host, or a departed one that isn't declared again.
    pub fn host(&self, name: &HostName) -> Option<&'a Host> {
        let Input { desired, known, .. } = self.input;
        desired.hosts.get(name).map(AsRef::as_ref).or_else(|| known.departed_hosts.get(name))
    }

    /// The servers of an app at all balancers.
    pub fn seats_of(&self, app: &AppId) -> Seats<'a> {
        let tracks = [BackendName::stable(app.clone()), BackendName::candidate(app.clone())];
        let at = self.balancers.iter().map(|(balancer, proxied)| {
            let of = |backend: &BackendName| OfBackend {
                file: proxied.config.and_then(|config| config.servers.get(backend)),
                runtime: proxied.runtime.and_then(|runtime| runtime.servers.get(backend)),
            };
            (*balancer, tracks.each_ref().map(of))
        });
        Seats { at: at.collect(), tracks }
    }

    pub fn containers_of(&self, app: &AppId) -> &'a [Placed] {
        self.index.containers_of(app)
    }

    /// Ports of `address` that some balancer may still send requests to, or did when it was seen
    /// last.
    pub fn ports_pointed_at(&self, address: IpAddr) -> impl Iterator<Item = u16> {
        let all = SocketAddr::new(address, 0)..=SocketAddr::new(address, u16::MAX);
        let last = self.input.known.last_addresses.values().map(AsRef::as_ref);
        let pointed_at = self.index.addresses().chain(last);
        pointed_at.flat_map(move |set: &BTreeSet<SocketAddr>| set.range(all.clone())).map(port)
    }
}

/// The servers of one app, at each balancer and on both tracks: looked up once.
#[derive(Debug)]
pub(super) struct Seats<'a> {
    at: Vec<(&'a BalancerName, [OfBackend<'a>; 2])>,
    tracks: [BackendName; 2],
}

#[derive(Debug, Clone, Copy)]
struct OfBackend<'a> {
    file: Option<&'a BTreeMap<ServerName, Server>>,
    runtime: Option<&'a BTreeMap<ServerName, RuntimeServer>>,
}

impl<'a> OfBackend<'a> {
    fn get(&self, name: &ServerName) -> Option<Seat> {
        let file = self.file.and_then(|all| all.get(name));
        let runtime = self.runtime.and_then(|all| all.get(name));
        let there = file.is_some() || runtime.is_some();
        there.then(|| Seat { runtime: runtime.copied(), file: file.copied() })
    }

    /// All of them, by name.
    fn all(self) -> impl Iterator<Item = (&'a ServerName, Seat)> {
        let mut seats: Vec<(&ServerName, Seat)> = Vec::new();
        let in_file = self.file.into_iter().flatten();
        seats.extend(in_file.map(|(name, server)| {
            let runtime = self.runtime.and_then(|all| all.get(name)).copied();
            (name, Seat { runtime, file: Some(*server) })
        }));
        let known = seats.len();
        for (name, server) in self.runtime.into_iter().flatten() {
            if !self.file.is_some_and(|all| all.contains_key(name)) {
                seats.push((name, Seat { runtime: Some(*server), file: None }));
            }
        }
        if seats.len() > known {
            seats.sort_by_key(|(name, _)| *name);
        }
        seats.into_iter()
    }
}

impl<'a> Seats<'a> {
    /// The server of that name on the stable track of a balancer.
    pub fn stable(&self, balancer: &BalancerName, name: &ServerName) -> Option<Seat> {
        let (_, [stable, _]) = self.at.iter().find(|(at, _)| *at == balancer)?;
        stable.get(name)
    }

    /// The servers of that name, with their balancers and backends.
    pub fn named(
        &self,
        name: &ServerName,
    ) -> impl Iterator<Item = (&'a BalancerName, &BackendName, Seat)> {
        self.at.iter().flat_map(move |(balancer, of)| {
            let of = of.iter().zip(&self.tracks);
            of.filter_map(move |(of, backend)| Some((*balancer, backend, of.get(name)?)))
        })
    }

    /// All of them, by balancer, backend and name.
    pub fn all(
        &self,
    ) -> impl Iterator<Item = (&'a BalancerName, &BackendName, &'a ServerName, Seat)> {
        self.at.iter().flat_map(move |(balancer, of)| {
            let of = of.iter().zip(&self.tracks);
            of.flat_map(move |(of, backend)| {
                of.all().map(move |(name, seat)| (*balancer, backend, name, seat))
            })
        })
    }

    /// Those on the stable track of one balancer.
    pub fn stable_at(
        &self,
        balancer: &BalancerName,
    ) -> impl Iterator<Item = (&'a ServerName, Seat)> {
        let at = self.at.iter().find(|(at, _)| *at == balancer);
        at.into_iter().flat_map(|(_, [stable, _])| stable.all())
    }
}

fn port(address: &SocketAddr) -> u16 {
    address.port()
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
