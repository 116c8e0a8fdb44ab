//! The simulated way to HAProxy: what [`plimsoll::proxy::HaproxyProxy`] makes of a real one, in
//! the same order. The file is written and the process told in calls of their own, so that
//! whatever happens between them can.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use plimsoll::model::{
    AdminState, BackendName, Balancer, BalancerName, BalancerState, CheckState, LARGEST_WEIGHT,
    ProxyConfig, ProxyFile, ProxyProcess, ProxyRuntime, ProxyStructure, RouteKey, RuntimeServer,
    Server, ServerName,
};
use plimsoll::proxy::{Places, Proxies, Proxy, ProxyError, lint, next_config, render};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::balancer::{File, Haproxy, Seat, addresses};
use super::call::{Caller, Fate};
use super::fault::Call;
use super::world::{Sim, World};

/// How long a frozen socket is waited for.
const SILENCE: Duration = Duration::from_secs(5);
const REMOVAL: Duration = Duration::from_secs(5);

/// The way to one HAProxy.
pub struct SimProxy {
    caller: Caller,
    name: BalancerName,
    /// Held by every change.
    change: tokio::sync::Mutex<()>,
    checks: Mutex<Checks>,
}

/// What the last worker's checks found: see the adapter's own of the same name.
#[derive(Default)]
struct Checks {
    worker: Option<u64>,
    up: BTreeMap<(BackendName, ServerName), SocketAddr>,
    inherited: BTreeMap<(BackendName, ServerName), SocketAddr>,
}

/// The ways to all HAProxies, for one controller.
pub struct SimProxies {
    caller: Caller,
    known: Mutex<BTreeMap<BalancerName, Arc<SimProxy>>>,
    calls: AtomicU64,
}

impl SimProxies {
    pub fn new(caller: Caller) -> Self {
        Self { caller, known: Mutex::default(), calls: AtomicU64::new(0) }
    }
}

impl Proxies for SimProxies {
    fn proxy(&self, balancer: &Balancer) -> Arc<dyn Proxy> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(SimProxy::of(self.caller.clone(), balancer.name.clone()));
        known.entry(balancer.name.clone()).or_insert_with(make).clone()
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl SimProxy {
    /// The way to a HAProxy of this world, for whoever wants to call it.
    pub fn new(sim: &Sim, name: BalancerName) -> Self {
        Self::of(Caller::new(sim), name)
    }

    fn of(caller: Caller, name: BalancerName) -> Self {
        Self { caller, name, change: tokio::sync::Mutex::default(), checks: Mutex::default() }
    }

    fn unreachable(&self, doing: &str, cause: &str) -> ProxyError {
        ProxyError::Unreachable {
            doing: format!("{doing} on balancer {}", self.name),
            balancer: self.name.to_string(),
            cause: cause.to_owned(),
        }
    }

    fn refused(&self, doing: &str, answer: impl Into<String>) -> ProxyError {
        let doing = format!("{doing} on balancer {}", self.name);
        ProxyError::Refused { doing, answer: answer.into() }
    }

    /// One exchange with HAProxy's sockets or its machine.
    async fn ask<T>(
        &self,
        call: Call,
        doing: &str,
        act: impl Fn(&mut World) -> Result<T, ProxyError>,
    ) -> Result<T, ProxyError> {
        let fate = self.caller.enter(call, || format!("{} {doing}", self.name)).await;
        let answer = self.send(fate, call, doing, act).await;
        sleep(fate.stale).await;
        self.caller.leave(fate).await;
        if fate.reply_lost {
            return Err(self.unreachable(doing, "the connection was reset"));
        }
        answer
    }

    async fn send<T>(
        &self,
        fate: Fate,
        call: Call,
        doing: &str,
        act: impl Fn(&mut World) -> Result<T, ProxyError>,
    ) -> Result<T, ProxyError> {
        sleep(fate.delay + Duration::from_millis(1)).await;
        if fate.fails {
            return Err(self.unreachable(doing, "the connection was reset"));
        }
        let on_sockets = call != Call::File;
        let frozen = self.caller.sim.with(|world| {
            let now = world.now();
            world.balancer(&self.name).is_frozen(now)
        });
        if frozen && on_sockets {
            sleep(SILENCE).await;
            return Err(self.unreachable(doing, "no answer within 5s"));
        }
        let done = self.caller.sim.with(|world| {
            // A process is told by its own connection, which ends with its caller.
            (!self.caller.is_dead(world)).then(|| act(world))
        });
        match done {
            Some(done) if fate.twice => {
                drop(done);
                self.caller.sim.with(|world| act(world))
            }
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    /// A command to the newest worker.
    async fn tell<T>(
        &self,
        call: Call,
        doing: &str,
        act: impl Fn(&mut World) -> Result<T, ProxyError>,
    ) -> Result<T, ProxyError> {
        self.ask(call, doing, |world| {
            if world.balancer(&self.name).worker.is_none() {
                return Err(self.unreachable(doing, "nobody listens"));
            }
            act(world)
        })
        .await
    }

    fn our_file(&self, balancer: &Haproxy, doing: &str) -> Result<ProxyConfig, ProxyError> {
        let cause = match &balancer.file {
            File::Whole(config) => return Ok(ProxyConfig::clone(config)),
            File::Missing => "the file isn't there",
            File::Edited(_) => "its content doesn't fit the hash in its trailer",
        };
        Err(ProxyError::File { doing: doing.to_owned(), cause: cause.to_owned() })
    }

    fn file(&self, doing: &str) -> Result<ProxyConfig, ProxyError> {
        self.caller.sim.with(|world| {
            let balancer = world.balancer(&self.name);
            self.our_file(balancer, doing)
        })
    }

    /// Replaces the file, unless nothing differs.
    async fn save(&self, old: &ProxyConfig, new: &ProxyConfig) -> Result<(), ProxyError> {
        if old == new {
            return Ok(());
        }
        if old.routes != new.routes {
            lint(new, &render(new, &places())?, &places())?;
        }
        self.ask(Call::File, "write the file", |world| {
            world.balancer(&self.name).file = File::Whole(Arc::new(new.clone()));
            world.audit.file_written(&self.name);
            world.touch();
            Ok(())
        })
        .await
    }

    /// Servers as they are shown; what a new worker hasn't checked is as the one before found it.
    fn complete(&self, worker: u64, seats: &super::balancer::Seats) -> ProxyRuntimeServers {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        if checks.worker != Some(worker) {
            checks.worker = Some(worker);
            checks.inherited = std::mem::take(&mut checks.up);
        }
        // HAProxy tells of servers, and so of no backend that has none.
        let seats = seats.iter().filter(|(_, all)| !all.is_empty());
        let mut servers: ProxyRuntimeServers = seats
            .map(|(b, all)| (b.clone(), all.iter().map(|(s, x)| (s.clone(), shown(x))).collect()))
            .collect();
        checks.inherited.retain(|(backend, name), address| {
            let server = servers.get_mut(backend).and_then(|all| all.get_mut(name));
            let Some(server) = server.filter(|s| s.check == CheckState::Unknown) else {
                return false;
            };
            if server.address == *address {
                server.check = CheckState::Up;
            }
            true
        });
        checks.up = servers
            .iter()
            .flat_map(|(b, all)| all.iter().map(move |(s, server)| (b, s, server)))
            .filter(|(_, _, server)| server.check == CheckState::Up)
            .map(|(b, s, server)| ((b.clone(), s.clone()), server.address))
            .collect();
        servers
    }

    fn state(&self, world: &mut World) -> BalancerState {
        let now = world.now();
        let balancer = world.balancer(&self.name);
        let file = match &balancer.file {
            File::Missing => ProxyFile::Missing,
            File::Whole(config) => ProxyFile::Ours(config.clone()),
            File::Edited(_) => {
                let reason = "it was edited: its content doesn't fit the hash in its trailer";
                ProxyFile::Damaged { reason: reason.into() }
            }
        };
        let process = match &balancer.worker {
            None => {
                *self.checks.lock().unwrap_or_else(PoisonError::into_inner) = Checks::default();
                ProxyProcess::Down { reason: "no HAProxy listens".into() }
            }
            Some(worker) => ProxyProcess::Up(Arc::new(ProxyRuntime {
                structure: Some(worker.structure),
                routes: worker.routes.clone(),
                servers: self.complete(worker.number, &worker.seats),
                old_addresses: balancer.old_addresses(now),
            })),
        };
        BalancerState { file, process }
    }

    async fn restructure_alone(&self, structure: &ProxyStructure) -> Result<(), ProxyError> {
        let state = self
            .ask(Call::ObserveBalancer, "look before the reload", |world| Ok(self.state(world)))
            .await?;
        let config = next_config(structure, &state.file, &state.process);
        let digest = structure.digest();
        let runs = match &state.process {
            ProxyProcess::Up(runtime) => runtime.structure == Some(digest),
            ProxyProcess::Down { .. } => false,
        };
        if runs && matches!(&state.file, ProxyFile::Ours(ours) if **ours == config) {
            return Ok(());
        }
        let rendered = render(&config, &places())?;
        lint(&config, &rendered, &places())?;
        let listeners = addresses(structure);
        let old = self.caller.sim.with(|world| {
            let balancer = world.balancer(&self.name);
            match listeners.intersection(&balancer.others).next() {
                Some(address) => {
                    let cause = "Address already in use".to_owned();
                    Err(ProxyError::Bind { address: *address, cause })
                }
                None => Ok(balancer.file.clone()),
            }
        })?;
        self.ask(Call::File, "swap the file", |world| {
            world.balancer(&self.name).file = File::Whole(Arc::new(config.clone()));
            world.audit.file_written(&self.name);
            world.touch();
            Ok(())
        })
        .await?;
        match self.begin_anew().await {
            Ok(()) => Ok(()),
            Err(error) => {
                // The old files are put back.
                let back = self.ask(Call::File, "put the old file back", |world| {
                    world.balancer(&self.name).file = old.clone();
                    world.touch();
                    Ok(())
                });
                let _ = back.await;
                Err(error)
            }
        }
    }

    /// Signals a reload, or starts the process, and reads back what came of it.
    async fn begin_anew(&self) -> Result<(), ProxyError> {
        let (sender, taken) = oneshot::channel();
        let sender = Mutex::new(Some(sender));
        self.ask(Call::Reload, "reload", |world| {
            let sender = sender.lock().unwrap_or_else(PoisonError::into_inner).take();
            world.reload(&self.name, move |_, taken| {
                if let Some(sender) = sender {
                    let _ = sender.send(taken);
                }
            });
            Ok(())
        })
        .await?;
        match taken.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(cause)) => Err(ProxyError::Reload(cause)),
            Err(_) => Err(ProxyError::Reload("no new generation".into())),
        }
    }

    /// Gives a server of the process a weight. One that isn't there has none.
    async fn weigh(
        &self,
        backend: &BackendName,
        name: &ServerName,
        weight: u16,
        doing: &str,
    ) -> Result<(), ProxyError> {
        self.tell(Call::Runtime, doing, |world| {
            world.with_audit(|audit, world| {
                audit.before_weight(world, &self.name, backend, name, weight)
            });
            match world.weigh(&self.name, backend, name, weight) || weight == 0 {
                true => Ok(()),
                false => Err(self.refused(doing, "No such server.")),
            }
        })
        .await
    }

    async fn try_remove(
        &self,
        backend: &BackendName,
        name: &ServerName,
        doing: &str,
    ) -> Result<(), ProxyError> {
        let _change = self.change.lock().await;
        let old = self.file(doing)?;
        self.tell(Call::Runtime, doing, |world| {
            let sessions = world.sessions(&self.name, backend, name);
            let takes = world.balancer(&self.name).seat(backend, name).is_some();
            if takes && sessions > 0 {
                let answer = format!("it still has {sessions} sessions: drain it first");
                return Err(self.refused(doing, answer));
            }
            let worker = world.balancer(&self.name).worker.as_mut();
            if let Some(all) = worker.and_then(|worker| worker.seats.get_mut(backend)) {
                all.remove(name);
            }
            world.touch();
            Ok(())
        })
        .await?;
        let mut new = old.clone();
        if let Some(servers) = new.servers.get_mut(backend) {
            servers.remove(name);
        }
        self.save(&old, &new).await
    }
}

type ProxyRuntimeServers = BTreeMap<BackendName, BTreeMap<ServerName, RuntimeServer>>;

fn shown(seat: &Seat) -> RuntimeServer {
    let Seat { address, weight, admin, check, .. } = seat.clone();
    let rests = admin == AdminState::Maintenance;
    let check = if rests { CheckState::Down } else { check };
    RuntimeServer { address, weight, admin, check }
}

/// Where things would lie.
pub fn places() -> Places {
    let path = |text: &str| text.parse().expect("a path");
    Places { runtime_socket: path("/sim/runtime.sock"), routes: path("/sim/routes.map") }
}

#[async_trait]
impl Proxy for SimProxy {
    async fn observe(&self) -> Result<BalancerState, ProxyError> {
        let _change = self.change.lock().await;
        self.ask(Call::ObserveBalancer, "look", |world| Ok(self.state(world))).await
    }

    async fn restructure(&self, structure: &ProxyStructure) -> Result<(), ProxyError> {
        let _change = self.change.lock().await;
        self.restructure_alone(structure).await
    }

    async fn set_routes(
        &self,
        changes: &BTreeMap<RouteKey, Option<BackendName>>,
    ) -> Result<(), ProxyError> {
        let _change = self.change.lock().await;
        let old = self.file("set the routes")?;
        let mut new = old.clone();
        for (key, backend) in changes {
            match backend {
                Some(backend) => new.routes.insert(key.clone(), backend.clone()),
                None => new.routes.remove(key),
            };
        }
        self.save(&old, &new).await?;
        self.tell(Call::Runtime, "set the routes", |world| {
            let worker = world.balancer(&self.name).worker.as_mut();
            if let Some(worker) = worker {
                worker.routes.clone_from(&new.routes);
            }
            world.touch();
            Ok(())
        })
        .await
    }

    async fn add_server(
        &self,
        backend: &BackendName,
        name: &ServerName,
        server: &Server,
    ) -> Result<(), ProxyError> {
        let _change = self.change.lock().await;
        let doing = &format!("add server {backend}/{name}");
        let old = self.file(doing)?;
        let address = server.address;
        let no_backend = || self.refused(doing, format!("there is no backend {backend}"));
        if !old.structure.backends.contains_key(backend) {
            return Err(no_backend());
        }
        let was_there = self
            .tell(Call::Runtime, doing, |world| {
                let now = world.now();
                let worker = world.balancer(&self.name).worker.as_mut();
                let seats = worker.and_then(|worker| worker.seats.get_mut(backend));
                let seats = seats.ok_or_else(no_backend)?;
                match seats.get_mut(name) {
                    Some(there) if there.address != address => {
                        let answer = format!("it is there with the address {}", there.address);
                        Err(self.refused(doing, answer))
                    }
                    Some(there) => {
                        if there.admin == AdminState::Maintenance {
                            (there.weight, there.admin) = (0, AdminState::Ready);
                        }
                        Ok(true)
                    }
                    None => {
                        let seat = Seat {
                            address,
                            weight: 0,
                            admin: AdminState::Ready,
                            check: CheckState::Unknown,
                            busy_until: now,
                            raised: None,
                        };
                        seats.insert(name.clone(), seat);
                        world.check(&self.name, backend, name);
                        world.touch();
                        Ok(false)
                    }
                }
            })
            .await?;
        let mut new = old.clone();
        let servers = new.servers.entry(backend.clone()).or_default();
        let weight = match servers.get(name) {
            Some(there) if was_there && there.address == address => there.weight,
            _ => 0,
        };
        servers.insert(name.clone(), Server { address, weight });
        self.save(&old, &new).await
    }

    async fn set_weight(
        &self,
        backend: &BackendName,
        name: &ServerName,
        weight: u16,
    ) -> Result<(), ProxyError> {
        let _change = self.change.lock().await;
        let doing = &format!("set the weight of server {backend}/{name} to {weight}");
        if weight > LARGEST_WEIGHT {
            return Err(self.refused(doing, "a weight is 0 to 256"));
        }
        let old = self.file(doing)?;
        let mut new = old.clone();
        let entry = new.servers.get_mut(backend).and_then(|servers| servers.get_mut(name));
        let Some(server) = entry else {
            return match weight {
                0 => self.weigh(backend, name, weight, doing).await,
                _ => Err(self.refused(doing, "the file has no such server")),
            };
        };
        let goes_up = weight > server.weight;
        server.weight = weight;
        if !goes_up {
            self.save(&old, &new).await?;
        }
        self.weigh(backend, name, weight, doing).await?;
        if goes_up { self.save(&old, &new).await } else { Ok(()) }
    }

    async fn remove_server(
        &self,
        backend: &BackendName,
        name: &ServerName,
    ) -> Result<(), ProxyError> {
        let doing = &format!("remove server {backend}/{name}");
        // Idle connections keep it from going for a moment.
        let idle = self.caller.sim.with(|world| world.chance(0, 300));
        sleep(idle.min(REMOVAL)).await;
        self.try_remove(backend, name, doing).await
    }

    async fn server(
        &self,
        backend: &BackendName,
        name: &ServerName,
    ) -> Result<Option<RuntimeServer>, ProxyError> {
        let doing = format!("look at server {backend}/{name}");
        self.tell(Call::Server, &doing, |world| {
            Ok(world.balancer(&self.name).seat(backend, name).map(|seat| shown(seat)))
        })
        .await
    }

    async fn sessions(&self, backend: &BackendName, name: &ServerName) -> Result<u64, ProxyError> {
        let doing = format!("count the sessions of server {backend}/{name}");
        self.tell(Call::Sessions, &doing, |world| Ok(world.sessions(&self.name, backend, name)))
            .await
    }

    async fn cut_sessions(
        &self,
        backend: &BackendName,
        name: &ServerName,
    ) -> Result<(), ProxyError> {
        let _change = self.change.lock().await;
        let doing = format!("end the sessions of server {backend}/{name}");
        self.tell(Call::Runtime, &doing, |world| {
            world.cut(&self.name, backend, name);
            Ok(())
        })
        .await
    }

    async fn version(&self) -> Result<String, ProxyError> {
        Ok("simulated".into())
    }
}
