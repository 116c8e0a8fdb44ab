//! The adapters of all balancers: one for each, kept as long as its way to run stays the same,
//! so that its changes stay in one queue and its ssh connection stays open.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::haproxy::{HaproxyOptions, HaproxyProxy};
use super::{Proxy, ProxyError};
use crate::model::{
    BackendName, Balancer, BalancerName, BalancerRun, BalancerState, ProxyStructure, RouteKey,
    RuntimeServer, Server, ServerName,
};

/// Where a balancer's adapter comes from.
pub trait Proxies: Send + Sync {
    /// The adapter; nothing is connected yet.
    fn proxy(&self, balancer: &Balancer) -> Arc<dyn Proxy>;

    /// How often a socket of HAProxy was asked since the start.
    fn calls(&self) -> u64;
}

/// Adapters to real HAProxies.
pub struct HaproxyProxies {
    state: PathBuf,
    haproxy: String,
    known: Mutex<BTreeMap<BalancerName, Known>>,
    calls: Arc<AtomicU64>,
}

/// An adapter, and what it was made for.
type Known = (BalancerRun, Arc<dyn Proxy>);

impl HaproxyProxies {
    /// `state`: Plimsoll's state folder; a HAProxy that it runs has `haproxy/NAME` below it.
    /// `haproxy`: the program.
    pub fn new(state: impl Into<PathBuf>, haproxy: impl Into<String>) -> Self {
        Self {
            state: state.into(),
            haproxy: haproxy.into(),
            known: Mutex::default(),
            calls: Arc::default(),
        }
    }

    fn make(&self, balancer: &Balancer) -> Arc<dyn Proxy> {
        let options = HaproxyOptions {
            name: balancer.name.clone(),
            run: balancer.run.clone(),
            folder: self.state.join("haproxy").join(balancer.name.as_str()),
            haproxy: self.haproxy.clone(),
            calls: self.calls.clone(),
        };
        match HaproxyProxy::new(options) {
            Ok(proxy) => Arc::new(proxy),
            Err(cause) => Arc::new(Unusable(cause)),
        }
    }
}

impl Proxies for HaproxyProxies {
    fn proxy(&self, balancer: &Balancer) -> Arc<dyn Proxy> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((run, proxy)) = known.get(&balancer.name)
            && *run == balancer.run
        {
            return proxy.clone();
        }
        let proxy = self.make(balancer);
        known.insert(balancer.name.clone(), (balancer.run.clone(), proxy.clone()));
        proxy
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

/// A balancer whose paths HAProxy can't have: it answers every call with the reason.
struct Unusable(ProxyError);

#[async_trait]
impl Proxy for Unusable {
    async fn observe(&self) -> Result<BalancerState, ProxyError> {
        Err(self.0.clone())
    }

    async fn restructure(&self, _: &ProxyStructure) -> Result<(), ProxyError> {
        Err(self.0.clone())
    }

    async fn set_routes(
        &self,
        _: &BTreeMap<RouteKey, Option<BackendName>>,
    ) -> Result<(), ProxyError> {
        Err(self.0.clone())
    }

    async fn add_server(
        &self,
        _: &BackendName,
        _: &ServerName,
        _: &Server,
    ) -> Result<(), ProxyError> {
        Err(self.0.clone())
    }

    async fn set_weight(&self, _: &BackendName, _: &ServerName, _: u16) -> Result<(), ProxyError> {
        Err(self.0.clone())
    }

    async fn remove_server(&self, _: &BackendName, _: &ServerName) -> Result<(), ProxyError> {
        Err(self.0.clone())
    }

    async fn server(
        &self,
        _: &BackendName,
        _: &ServerName,
    ) -> Result<Option<RuntimeServer>, ProxyError> {
        Err(self.0.clone())
    }

    async fn sessions(&self, _: &BackendName, _: &ServerName) -> Result<u64, ProxyError> {
        Err(self.0.clone())
    }

    async fn cut_sessions(&self, _: &BackendName, _: &ServerName) -> Result<(), ProxyError> {
        Err(self.0.clone())
    }

    async fn version(&self) -> Result<String, ProxyError> {
        Err(self.0.clone())
    }
}
