//! What the cases of the balancer's seam need of a world: a HAProxy, web servers behind it, and
//! a hand that does to file, process and network what no call of the seam can.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plimsoll::model::{
    Backend, BackendName, BalancerState, Check, CheckState, Listener, ProxyConfig, ProxyFile,
    ProxyProcess, ProxyRuntime, ProxyStructure, RouteKey, RuntimeServer, Server, ServerName, Span,
};
use plimsoll::proxy::{Proxy, ProxyError};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(60);

pub const WEB: &str = "production.web";
pub const OTHER: &str = "production.other";
pub const ROUTE: &str = "web www.example.com/";
pub const A: &str = "alpha:f753afc24d79:3f2a91bc-0";
pub const B: &str = "beta:f753afc24d79:3f2a91bc-0";

/// What a person does to a server of the process.
#[derive(Debug, Clone, Copy)]
pub enum Hand {
    Weigh(u16),
    Drain,
    Maintain,
    Delete,
    /// Checked, and with that weight.
    Add(SocketAddr, u16),
}

/// What happens to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// A line is added at its end.
    Edited,
    /// It ends before the line of its first server.
    Cut,
    /// Another file lies in its place, which HAProxy wouldn't read.
    Foreign,
    Gone,
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Worker,
    Master,
    Both,
}

/// A world with one balancer, which isn't started yet.
#[async_trait]
pub trait ProxyLab: Send + Sync {
    fn proxy(&self) -> &dyn Proxy;

    /// One more way to it, which knows nothing of what went the first way.
    fn another(&self) -> Box<dyn Proxy>;

    /// Where the listener `web` and the page of statistics are.
    fn listens_at(&self) -> (SocketAddr, SocketAddr);

    /// An address where nobody listens.
    fn free_address(&self) -> SocketAddr;

    /// Another program listens there until what is given is dropped.
    async fn hold(&self, address: SocketAddr) -> Box<dyn Any + Send>;

    /// Begins to answer requests and checks at an address of its own.
    async fn begin_web(&self) -> SocketAddr;
    async fn end_web(&self, address: SocketAddr);
    async fn begin_web_again(&self, address: SocketAddr);

    async fn by_hand(&self, backend: &BackendName, server: &ServerName, hand: Hand);

    async fn damage(&self, damage: Damage);

    /// A person reloads HAProxy. Returns when the new worker serves.
    async fn reload_by_hand(&self);

    /// Returns when HAProxy is gone: master and worker end with each other.
    async fn kill(&self, victim: Victim);

    /// The worker doesn't answer any more, and answers again.
    async fn freeze(&self);
    async fn thaw(&self);

    /// Which worker is the newest: another number with each.
    async fn generation(&self) -> u64;

    /// A client begins what doesn't end by itself, by [`ROUTE`], whose one server with a weight
    /// this has to be.
    async fn open_tunnel(&self, backend: &BackendName, server: &ServerName);
}

pub fn backend(name: &str) -> BackendName {
    name.parse().unwrap()
}

pub fn server(name: &str) -> ServerName {
    name.parse().unwrap()
}

/// The lab, with what the cases ask again and again.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    pub lab: &'a dyn ProxyLab,
}

impl<'a> Case<'a> {
    pub fn new(lab: &'a dyn ProxyLab) -> Self {
        Self { lab }
    }

    /// A backend [`WEB`] with the route [`ROUTE`], and server [`A`] that is up, with a weight.
    pub async fn serving(lab: &'a dyn ProxyLab) -> (Self, SocketAddr) {
        let case = Self::new(lab);
        lab.proxy().restructure(&case.structure(&[WEB])).await.unwrap();
        case.route(ROUTE, Some(WEB)).await.unwrap();
        let address = lab.begin_web().await;
        case.join(A, address, 100).await;
        (case, address)
    }

    pub fn proxy(&self) -> &'a dyn Proxy {
        self.lab.proxy()
    }

    /// A listener, a page of statistics, and backends with a check every 100 ms.
    pub fn structure(&self, backends: &[&str]) -> ProxyStructure {
        let check = Check {
            path: Some("/_status".parse().unwrap()),
            interval: Span::from_millis(100),
            timeout: Span::from_secs(1),
        };
        let (web, stats) = self.lab.listens_at();
        let listener = Listener { bind: web, certificates: None };
        let backend = |name: &&str| (name.parse().unwrap(), Backend { check: check.clone() });
        ProxyStructure {
            stats: Some(stats),
            x_host: true,
            listeners: BTreeMap::from([("web".parse().unwrap(), listener)]),
            backends: backends.iter().map(backend).collect(),
        }
    }

    pub async fn route(&self, key: &str, to: Option<&str>) -> Result<(), ProxyError> {
        let key: RouteKey = key.parse().unwrap();
        self.proxy().set_routes(&BTreeMap::from([(key, to.map(backend))])).await
    }

    pub async fn add(&self, name: &str, address: SocketAddr) -> Result<(), ProxyError> {
        // Its weight isn't looked at.
        let new = Server { address, weight: 50 };
        self.proxy().add_server(&backend(WEB), &server(name), &new).await
    }

    pub async fn weigh(&self, name: &str, weight: u16) -> Result<(), ProxyError> {
        self.proxy().set_weight(&backend(WEB), &server(name), weight).await
    }

    pub async fn remove(&self, name: &str) -> Result<(), ProxyError> {
        self.proxy().remove_server(&backend(WEB), &server(name)).await
    }

    pub async fn sessions(&self, name: &str) -> u64 {
        self.proxy().sessions(&backend(WEB), &server(name)).await.unwrap()
    }

    pub async fn by_hand(&self, name: &str, hand: Hand) {
        self.lab.by_hand(&backend(WEB), &server(name), hand).await;
    }

    /// Adds a server, waits until it is up, and gives it a weight.
    pub async fn join(&self, name: &str, address: SocketAddr, weight: u16) {
        self.add(name, address).await.unwrap();
        self.until_check(name, CheckState::Up).await;
        self.weigh(name, weight).await.unwrap();
    }

    pub async fn state(&self) -> BalancerState {
        self.proxy().observe().await.unwrap()
    }

    /// The file, which has to be whole.
    pub async fn file(&self) -> Arc<ProxyConfig> {
        match self.state().await.file {
            ProxyFile::Ours(config) => config,
            other => panic!("the file is {other:?}"),
        }
    }

    /// What the process says, which has to run.
    pub async fn runtime(&self) -> Arc<ProxyRuntime> {
        match self.state().await.process {
            ProxyProcess::Up(runtime) => runtime,
            ProxyProcess::Down { reason } => panic!("HAProxy is down: {reason}"),
        }
    }

    /// A server in the process.
    pub async fn there(&self, name: &str) -> Option<RuntimeServer> {
        self.proxy().server(&backend(WEB), &server(name)).await.unwrap()
    }

    /// A server as a whole look sees it, in the file and in the process.
    pub async fn seen(&self, name: &str) -> (Option<Server>, Option<RuntimeServer>) {
        let (file, runtime) = (self.file().await, self.runtime().await);
        let (backend, name) = (backend(WEB), server(name));
        let of_file = file.servers.get(&backend).and_then(|all| all.get(&name));
        let of_process = runtime.servers.get(&backend).and_then(|all| all.get(&name));
        (of_file.cloned(), of_process.copied())
    }

    /// The weights of a server in the file and in the process.
    pub async fn weights(&self, name: &str) -> (Option<u16>, Option<u16>) {
        let (file, process) = self.seen(name).await;
        (file.map(|server| server.weight), process.map(|server| server.weight))
    }

    /// Waits until the checks say so. What they said before, each once in a row.
    pub async fn until_check(&self, name: &str, wanted: CheckState) -> Vec<CheckState> {
        let mut said = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.there(name).await.expect("no such server").check;
            if now == wanted {
                return said;
            }
            if said.last() != Some(&now) {
                said.push(now);
            }
            assert!(Instant::now() < deadline, "{name} is never {wanted:?}: {said:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until it is so.
    pub async fn until(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so().await {
            assert!(Instant::now() < deadline, "never: {what}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}
