//! The simulator's HAProxy, in a world that has one host for the web servers behind it.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use plimsoll::model::{
    AdminState, BackendName, BalancerName, CheckState, ContainerId, HostName, ProxyConfig,
    ServerName,
};
use plimsoll::proxy::Proxy;
use tokio::task::JoinHandle;

use crate::proxy_lab::{Damage, Hand, ProxyLab, Victim};
use crate::sim::balancer::{File, Haproxy, Seat};
use crate::sim::machine::Machine;
use crate::sim::proxy::SimProxy;
use crate::sim::world::{Sim, World};

/// Longer than any case.
const LONG: Duration = Duration::from_secs(86_400);

pub struct SimulatedProxy {
    sim: Sim,
    host: HostName,
    name: BalancerName,
    proxy: SimProxy,
    next_port: AtomicU16,
    time: JoinHandle<()>,
}

/// Listens on an address until it is dropped.
struct Holder {
    sim: Sim,
    name: BalancerName,
    address: SocketAddr,
}

impl Drop for Holder {
    fn drop(&mut self) {
        let Self { sim, name, address } = self;
        sim.with(|world| world.balancer(name).others.remove(address));
    }
}

impl Drop for SimulatedProxy {
    fn drop(&mut self) {
        self.time.abort();
    }
}

impl SimulatedProxy {
    /// Has to be called where time is paused.
    pub fn new() -> Self {
        let (sim, host) = (Sim::new(7), HostName::new("alpha").unwrap());
        let name: BalancerName = "edge".parse().unwrap();
        sim.with(|world| {
            let machine = Machine::new(host.clone(), [127, 0, 0, 1].into());
            world.machines.insert(host.clone(), machine);
            world.balancers.insert(name.clone(), Haproxy::new(name.clone()));
        });
        let proxy = SimProxy::new(&sim, name.clone());
        let time = tokio::spawn(sim.clone().keep_time());
        Self { sim, host, name, proxy, next_port: AtomicU16::new(20_000), time }
    }

    fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        self.sim.with(act)
    }

    fn with_haproxy<T>(&self, act: impl FnOnce(&mut Haproxy) -> T) -> T {
        self.with(|world| act(world.balancer(&self.name)))
    }

    /// The container that has that port.
    fn web_at(&self, address: SocketAddr) -> ContainerId {
        self.with(|world| {
            let mut units = world.machine(&self.host).units.values();
            units.find(|unit| unit.port == Some(address.port())).unwrap().id.clone()
        })
    }

    fn newest(&self) -> u64 {
        self.with_haproxy(|haproxy| haproxy.worker.as_ref().map_or(0, |worker| worker.number))
    }
}

#[async_trait]
impl ProxyLab for SimulatedProxy {
    fn proxy(&self) -> &dyn Proxy {
        &self.proxy
    }

    fn another(&self) -> Box<dyn Proxy> {
        Box::new(SimProxy::new(&self.sim, self.name.clone()))
    }

    fn listens_at(&self) -> (SocketAddr, SocketAddr) {
        (([127, 0, 0, 1], 8080).into(), ([127, 0, 0, 1], 8404).into())
    }

    fn free_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.next_port.fetch_add(1, Ordering::Relaxed)).into()
    }

    async fn hold(&self, address: SocketAddr) -> Box<dyn Any + Send> {
        self.with_haproxy(|haproxy| haproxy.others.insert(address));
        Box::new(Holder { sim: self.sim.clone(), name: self.name.clone(), address })
    }

    async fn begin_web(&self) -> SocketAddr {
        let address = self.free_address();
        self.with(|world| {
            let name = format!("web-{}", address.port());
            let port = Some(address.port());
            let id = world.place(&self.host, name, BTreeMap::new(), "web:1", port);
            world.launch(&self.host, &id).unwrap();
        });
        address
    }

    async fn end_web(&self, address: SocketAddr) {
        let id = self.web_at(address);
        self.with(|world| world.halt(&self.host, &id, 0));
    }

    async fn begin_web_again(&self, address: SocketAddr) {
        let id = self.web_at(address);
        self.with(|world| world.launch(&self.host, &id).unwrap());
    }

    async fn by_hand(&self, backend: &BackendName, server: &ServerName, hand: Hand) {
        self.with(|world| {
            let now = world.now();
            match hand {
                Hand::Weigh(weight) => {
                    let admin = world.balancer(&self.name).seat(backend, server).unwrap().admin;
                    assert!(world.weigh(&self.name, backend, server, weight));
                    world.balancer(&self.name).seat(backend, server).unwrap().admin = admin;
                }
                Hand::Drain => {
                    let seat = world.balancer(&self.name).seat(backend, server).unwrap();
                    seat.admin = AdminState::Drain;
                }
                Hand::Maintain => {
                    let seat = world.balancer(&self.name).seat(backend, server).unwrap();
                    seat.admin = AdminState::Maintenance;
                }
                Hand::Delete => {
                    let worker = world.balancer(&self.name).worker.as_mut().unwrap();
                    worker.seats.get_mut(backend).unwrap().remove(server).unwrap();
                }
                Hand::Add(address, weight) => {
                    let (admin, check) = (AdminState::Ready, CheckState::Unknown);
                    let seat =
                        Seat { address, weight, admin, check, busy_until: now, raised: None };
                    let worker = world.balancer(&self.name).worker.as_mut().unwrap();
                    worker.seats.get_mut(backend).unwrap().insert(server.clone(), seat);
                    world.check(&self.name, backend, server);
                }
            }
            world.touch();
        });
    }

    async fn damage(&self, damage: Damage) {
        self.with_haproxy(|haproxy| {
            let config = haproxy.file.config().unwrap().clone();
            haproxy.file = match damage {
                Damage::Edited | Damage::Foreign => File::Edited(config),
                Damage::Cut => {
                    let mut cut = ProxyConfig::clone(&config);
                    cut.servers.values_mut().for_each(BTreeMap::clear);
                    File::Edited(Arc::new(cut))
                }
                Damage::Gone => File::Missing,
            };
        });
    }

    async fn reload_by_hand(&self) {
        let before = self.newest();
        self.with(|world| world.reload(&self.name, |_, taken| taken.unwrap()));
        while self.newest() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn kill(&self, _: Victim) {
        self.with(|world| world.kill_balancer(&self.name));
    }

    async fn freeze(&self) {
        self.with(|world| {
            let until = world.now() + LONG;
            world.balancer(&self.name).frozen_until = Some(until);
        });
    }

    async fn thaw(&self) {
        self.with_haproxy(|haproxy| haproxy.frozen_until = None);
    }

    async fn generation(&self) -> u64 {
        self.newest()
    }

    async fn open_tunnel(&self, backend: &BackendName, server: &ServerName) {
        self.with(|world| {
            let until = world.now() + LONG;
            world.balancer(&self.name).seat(backend, server).unwrap().busy_until = until;
        });
    }
}
