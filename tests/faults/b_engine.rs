//! A host whose engine is reached through a proxy that breaks chosen calls.

use std::time::Duration;

use serde_json::Value;

use crate::engine_proxy::{EngineProxy, Fault};
use crate::harness::{Engine, Installation, host, wait_until};

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

    /// Waits until `count` calls with `part` in their request line suffered, then heals.
    #[track_caller]
    pub fn heal_after(&self, part: &str, count: usize) {
        let mut suffered = 0;
        wait_until(Duration::from_secs(60), &format!("{count} broken calls of {part:?}"), || {
            suffered += self.proxy.take_seen().iter().filter(|line| line.contains(part)).count();
            suffered >= count
        });
        self.proxy.heal();
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
