//! Indices over one observation that every app's planning reads: who has which containers, which
//! servers and routes are where, which ports are in use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::model::{
    AdminState, AppId, BackendName, BalancerName, CheckState, Container, Host, HostName, ProxyFile,
    ProxyProcess, ProxyStructure, RouteKey, RuntimeServer, Server, ServerName, Sha256,
};

use super::Input;

/// The indices.
#[derive(Debug)]
pub(super) struct Fleet<'a> {
    /// Declared hosts, and departed ones that aren't declared again.
    pub hosts: BTreeMap<&'a HostName, &'a Host>,
    pub containers: BTreeMap<&'a AppId, Vec<(&'a HostName, &'a Container)>>,
    /// Balancers that were seen and whose documents are sound.
    pub balancers: BTreeMap<&'a BalancerName, Proxied<'a>>,
    /// Where balancers point to now, or did when they were last seen.
    pub pointed_at: BTreeSet<SocketAddr>,
}

/// One balancer as it is: the process where it runs, else what its file would give.
#[derive(Debug)]
pub(super) struct Proxied<'a> {
    pub runs: bool,
    /// The file's own words; none where it is missing or damaged.
    pub structure: Option<&'a ProxyStructure>,
    /// Why the file can't be relied on, where it is there.
    pub damage: Option<&'a str>,
    /// The structure that the process was started with.
    pub loaded: Option<Sha256>,
    /// The routes of the process where it runs, else of the file.
    pub routes: &'a BTreeMap<RouteKey, BackendName>,
    pub file_routes: Option<&'a BTreeMap<RouteKey, BackendName>>,
    pub servers: BTreeMap<&'a BackendName, BTreeMap<&'a ServerName, Seat>>,
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
    pub fn new(input: &Input<'a>) -> Self {
        let mut hosts: BTreeMap<_, _> = input.known.departed_hosts.iter().collect();
        hosts.extend(&input.desired.hosts);
        let mut containers: BTreeMap<&AppId, Vec<_>> = BTreeMap::new();
        for (host, container) in input.observed.containers() {
            containers.entry(&container.birth.app).or_default().push((host, container));
        }
        // The engine lists in any order.
        for containers in containers.values_mut() {
            containers.sort_by_key(|(host, container)| (*host, &container.name, &container.id));
        }
        let mut pointed_at: BTreeSet<_> =
            input.known.last_addresses.values().flatten().copied().collect();
        let mut balancers = BTreeMap::new();
        for (name, view) in &input.observed.balancers {
            let Some(state) = view.seen() else { continue };
            let proxied = Proxied::new(&state.file, &state.process);
            if let ProxyProcess::Up(runtime) = &state.process {
                pointed_at.extend(&runtime.old_addresses);
            }
            let seats = proxied.servers.values().flat_map(BTreeMap::values);
            for seat in seats {
                pointed_at.extend(seat.runtime.map(|server| server.address));
                pointed_at.extend(seat.file.map(|server| server.address));
            }
            if input.desired.balancers.contains_key(name) {
                balancers.insert(name, proxied);
            }
        }
        Self { hosts, containers, balancers, pointed_at }
    }

    pub fn containers_of(&self, app: &AppId) -> &[(&'a HostName, &'a Container)] {
        self.containers.get(app).map_or(&[], Vec::as_slice)
    }

    /// Ports of `address` that some balancer may still send requests to.
    pub fn ports_pointed_at(&self, address: IpAddr) -> impl Iterator<Item = u16> {
        let all = SocketAddr::new(address, 0)..=SocketAddr::new(address, u16::MAX);
        self.pointed_at.range(all).map(SocketAddr::port)
    }
}

impl<'a> Proxied<'a> {
    fn new(file: &'a ProxyFile, process: &'a ProxyProcess) -> Self {
        static NO_ROUTES: BTreeMap<RouteKey, BackendName> = BTreeMap::new();
        let config = match file {
            ProxyFile::Ours(config) => Some(config.as_ref()),
            ProxyFile::Missing | ProxyFile::Damaged { .. } => None,
        };
        let runtime = match process {
            ProxyProcess::Up(runtime) => Some(runtime.as_ref()),
            ProxyProcess::Down { .. } => None,
        };
        let mut servers: BTreeMap<&BackendName, BTreeMap<&ServerName, Seat>> = BTreeMap::new();
        for (backend, name, server) in config.into_iter().flat_map(|c| flat(&c.servers)) {
            let seat = Seat { runtime: None, file: Some(*server) };
            servers.entry(backend).or_default().insert(name, seat);
        }
        for (backend, name, server) in runtime.into_iter().flat_map(|r| flat(&r.servers)) {
            let seats = servers.entry(backend).or_default();
            seats.entry(name).or_insert(Seat { runtime: None, file: None }).runtime = Some(*server);
        }
        let routes = match (runtime, config) {
            (Some(runtime), _) => &runtime.routes,
            (None, Some(config)) => &config.routes,
            (None, None) => &NO_ROUTES,
        };
        Self {
            runs: runtime.is_some(),
            structure: config.map(|config| &config.structure),
            damage: match file {
                ProxyFile::Damaged { reason } => Some(reason),
                ProxyFile::Ours(_) | ProxyFile::Missing => None,
            },
            loaded: runtime.and_then(|runtime| runtime.structure),
            routes,
            file_routes: config.map(|config| &config.routes),
            servers,
        }
    }

    /// The servers of an app, on either track.
    pub fn servers_of<'s>(
        &'s self,
        app: &'s AppId,
    ) -> impl Iterator<Item = (&'a BackendName, &'a ServerName, Seat)> + 's {
        self.servers
            .iter()
            .filter(move |(backend, _)| backend.app == *app)
            .flat_map(|(backend, seats)| seats.iter().map(|(name, seat)| (*backend, *name, *seat)))
    }
}

fn flat<V>(
    servers: &BTreeMap<BackendName, BTreeMap<ServerName, V>>,
) -> impl Iterator<Item = (&BackendName, &ServerName, &V)> {
    servers.iter().flat_map(|(backend, of)| of.iter().map(move |(name, v)| (backend, name, v)))
}
