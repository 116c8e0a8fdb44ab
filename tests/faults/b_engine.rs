//! A host whose engine is reached through a proxy that breaks chosen calls.

#![allow(dead_code, reason = "each test binary uses another part of it")]

use serde_json::Value;

use crate::engine_proxy::{EngineProxy, Fault};
use crate::harness::{Engine, Installation, host};

/// The proxy, with a runtime of its own, since the tests are no tasks.
pub struct BrokenEngine {
    proxy: EngineProxy,
    runtime: tokio::runtime::Runtime,
}

impl BrokenEngine {
    /// In front of that engine. Everything is carried.
    pub fn before(engine: &Engine) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let inside = runtime.enter();
        let proxy = EngineProxy::start(engine.socket());
        drop(inside);
        Self { proxy, runtime }
    }

    /// The host's manifest, by way of the proxy.
    pub fn host(&self, shop: &Installation, name: &str, address: &str) -> Value {
        let engine = Engine::new(self.proxy.socket());
        host(name, &engine, address, &shop.ports.container_ports())
    }

    /// From now on calls with `part` in their request line suffer.
    pub fn plan(&self, part: &str, fault: Fault) {
        self.proxy.take_seen();
        self.proxy.plan(part, fault);
    }

    /// From now on the first so many calls with each part in their request line suffer its fault.
    pub fn plan_each(&self, planned: &[(&str, Fault, usize)]) {
        self.proxy.take_seen();
        self.proxy.plan_each(planned);
    }

    /// The parts for which a call that has to suffer is still to come.
    pub fn left(&self) -> Vec<String> {
        self.proxy.left()
    }

    /// The request lines that came since the last plan.
    pub fn seen(&self) -> Vec<String> {
        self.proxy.take_seen()
    }

    /// The most changing calls that were on their way to the engine at one time.
    pub fn most_changes_at_once(&self) -> usize {
        self.proxy.most_changes_at_once()
    }

    pub fn heal(&self) {
        self.proxy.heal();
    }
}

impl Drop for BrokenEngine {
    fn drop(&mut self) {
        // Its task is aborted by its own drop, within the runtime that still stands here.
        let _inside = self.runtime.enter();
        self.proxy.heal();
    }
}
