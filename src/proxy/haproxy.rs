//! The adapter to one HAProxy: changes servers, weights and routes in its file and its process
//! without a reload. What needs a reload is in [`super::restructure`], looks are in
//! [`super::look`].
//!
//! Changes are made one at a time. Nothing is believed to be done before it was read back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::answer;
use super::command::{Command, ServerPath};
use super::lint::lint_quick;
use super::local::LocalMachine;
use super::look::{Checks, Parsed};
use super::machine::{Machine, MachineError};
use super::place::Layout;
use super::render::render;
use super::routes::Routes;
use super::runtime::{AskError, Cli, Target};
use super::ssh::SshMachine;
use super::{Proxy, ProxyError};
use crate::model::{
    AdminState, BackendName, BalancerName, BalancerRun, BalancerState, LARGEST_WEIGHT, ProxyConfig,
    ProxyFile, ProxyStructure, RouteKey, RuntimeServer, Server, ServerName,
};

/// How long `del server` is tried while connections end, and how often.
const REMOVAL: Duration = Duration::from_secs(5);
const BETWEEN_REMOVALS: Duration = Duration::from_millis(20);

/// What an adapter is made from.
#[derive(Debug, Clone)]
pub struct HaproxyOptions {
    pub name: BalancerName,
    pub run: BalancerRun,
    /// Folder of a HAProxy that Plimsoll runs: file, map, sockets, process id.
    pub folder: PathBuf,
    /// The program, by name or path.
    pub haproxy: String,
    /// Counts how often its sockets are asked.
    pub calls: Arc<AtomicU64>,
}

/// One HAProxy.
pub struct HaproxyProxy {
    pub(super) name: BalancerName,
    pub(super) machine: Arc<dyn Machine>,
    pub(super) haproxy: String,
    pub(super) layout: Layout,
    /// Held by every change.
    pub(super) change: Mutex<()>,
    /// The files that were parsed last, so that equal bytes aren't parsed again.
    pub(super) parsed: std::sync::Mutex<Option<Parsed>>,
    /// What the checks of the last worker found.
    pub(super) checks: std::sync::Mutex<Checks>,
    calls: Arc<AtomicU64>,
}

impl HaproxyProxy {
    /// Nothing is touched or connected yet.
    ///
    /// # Errors
    /// [`ProxyError::File`] where a path can't be written into HAProxy's configuration.
    pub fn new(options: HaproxyOptions) -> Result<Self, ProxyError> {
        let HaproxyOptions { name, run, folder, haproxy, calls } = options;
        let layout = Layout::new(&run, &folder, &haproxy).map_err(|cause| ProxyError::File {
            doing: format!("lay out the files of balancer {name}"),
            cause,
        })?;
        let machine: Arc<dyn Machine> = match run {
            BalancerRun::External { ssh: Some(address), .. } => Arc::new(SshMachine::new(address)),
            BalancerRun::External { ssh: None, .. } | BalancerRun::Managed => {
                Arc::new(LocalMachine)
            }
        };
        let (change, parsed) = (Mutex::default(), std::sync::Mutex::default());
        let checks = std::sync::Mutex::default();
        Ok(Self { name, machine, haproxy, layout, change, parsed, checks, calls })
    }

    /// The worker's own socket.
    pub(super) fn runtime(&self) -> Cli<'_> {
        let socket = &self.layout.places.runtime_socket;
        Cli { machine: &*self.machine, socket, calls: &self.calls }
    }

    pub(super) fn master(&self) -> Cli<'_> {
        let socket = &self.layout.master_socket;
        Cli { machine: &*self.machine, socket, calls: &self.calls }
    }

    pub(super) fn asked(&self, doing: &str, cause: AskError) -> ProxyError {
        let doing = format!("{doing} on balancer {}", self.name);
        match cause {
            AskError::Answer(answer) => ProxyError::Refused { doing, answer },
            AskError::Nobody(_) | AskError::Silent(_) => ProxyError::Unreachable {
                doing,
                balancer: self.name.to_string(),
                cause: cause.to_string(),
            },
        }
    }

    pub(super) fn machine_failed(&self, cause: MachineError) -> ProxyError {
        match cause {
            MachineError::Unreachable { machine, cause } => ProxyError::Unreachable {
                doing: format!("reach {machine}"),
                balancer: self.name.to_string(),
                cause,
            },
            MachineError::Failed { doing, cause } => ProxyError::File { doing, cause },
        }
    }

    /// The file, which has to be whole before anything in it is changed.
    async fn our_file(&self, doing: &str) -> Result<ProxyConfig, ProxyError> {
        let reason = match self.understand(&self.read_files().await?) {
            ProxyFile::Ours(config) => return Ok(Arc::unwrap_or_clone(config)),
            ProxyFile::Missing => format!("{} isn't there", self.layout.config),
            ProxyFile::Damaged { reason } => reason,
        };
        Err(ProxyError::File { doing: doing.to_owned(), cause: reason })
    }

    /// Writes what differs from `old`.
    async fn save(&self, old: &ProxyConfig, new: &ProxyConfig) -> Result<(), ProxyError> {
        if old == new {
            return Ok(());
        }
        let rendered = render(new, &self.layout.places)?;
        lint_quick(new, &rendered)?;
        let failed = |cause| self.machine_failed(cause);
        if old.routes != new.routes {
            let map = &self.layout.places.routes;
            self.machine.replace(map, rendered.routes.as_bytes()).await.map_err(failed)?;
        }
        if old.servers != new.servers {
            let config = &self.layout.config;
            self.machine.replace(config, rendered.config.as_bytes()).await.map_err(failed)?;
        }
        let (config, routes) = (rendered.config.into_bytes(), rendered.routes.into_bytes());
        let is = Arc::new(new.clone());
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        *parsed = Some(Parsed { config, routes, is });
        Ok(())
    }

    /// The servers of one backend in the process; none where there is no such backend.
    async fn backend_in_process(
        &self,
        backend: &BackendName,
        doing: &str,
    ) -> Result<Option<BTreeMap<ServerName, RuntimeServer>>, ProxyError> {
        let commands = [Command::Servers(Some(backend))];
        let answers = self.runtime().read(Target::Listener, &commands).await;
        let answers = answers.map_err(|cause| self.asked(doing, cause))?;
        self.backend_in(answers.first().map_or("", String::as_str), doing)
    }

    /// The servers in the answer about one backend; none where there is no such backend.
    fn backend_in(
        &self,
        answer: &str,
        doing: &str,
    ) -> Result<Option<BTreeMap<ServerName, RuntimeServer>>, ProxyError> {
        if answer.trim() == "Can't find backend." {
            return Ok(None);
        }
        let servers =
            answer::servers(answer).map_err(|why| self.asked(doing, AskError::Answer(why)))?;
        Ok(Some(servers.into_values().next().unwrap_or_default()))
    }

    fn server_in(
        &self,
        answer: &str,
        path: ServerPath<'_>,
        doing: &str,
    ) -> Result<Option<RuntimeServer>, ProxyError> {
        let servers = self.backend_in(answer, doing)?;
        Ok(servers.and_then(|servers| servers.get(path.server).copied()))
    }

    async fn server_in_process(
        &self,
        path: ServerPath<'_>,
        doing: &str,
    ) -> Result<Option<RuntimeServer>, ProxyError> {
        let servers = self.backend_in_process(path.backend, doing).await?;
        Ok(servers.and_then(|servers| servers.get(path.server).copied()))
    }

    async fn change_worker(&self, commands: &[Command<'_>], doing: &str) -> Result<(), ProxyError> {
        let done = self.runtime().change(Target::Listener, commands).await;
        done.map_err(|cause| self.asked(doing, cause))
    }

    async fn weigh(
        &self,
        path: ServerPath<'_>,
        weight: u16,
        doing: &str,
    ) -> Result<(), ProxyError> {
        let backend = Command::Servers(Some(path.backend));
        let commands = [Command::Weight { server: path, weight }, Command::Ready(path), backend];
        // The old workers are asked meanwhile: they are other processes.
        let runtime = self.runtime();
        let (answers, old) = tokio::join!(
            biased;
            runtime.ask(Target::Listener, &commands),
            self.weigh_in_old_workers(path, weight),
        );
        let refused = |answer: &str| self.asked(doing, AskError::Answer(answer.to_owned()));
        let answers = answers.map_err(|cause| self.asked(doing, cause))?;
        old?;
        let [weighed, made_ready, servers] = &answers[..] else {
            return Err(refused("fewer answers than commands"));
        };
        let now = self.server_in(servers, path, doing)?;
        // A removal that was cut short leaves it in the file alone: no request goes there.
        if now.is_none() && weight == 0 {
            return Ok(());
        }
        for (command, answer) in commands.iter().zip([weighed, made_ready]) {
            if !command.is_done(answer.trim()) {
                return Err(refused(answer.trim()));
            }
        }
        match now {
            Some(now) if now.weight == weight && now.admin == AdminState::Ready => Ok(()),
            Some(now) => Err(refused(&format!(
                "the server has the weight {} and is {:?}",
                now.weight, now.admin
            ))),
            None => Err(refused("No such server.")),
        }
    }

    /// Connections that were open before a reload may still send a request through the worker
    /// that they are on, so it gets the weight too, where it knows the server. It lives for
    /// moments only, and nothing depends on it: sessions are counted there as well.
    async fn weigh_in_old_workers(
        &self,
        path: ServerPath<'_>,
        weight: u16,
    ) -> Result<(), ProxyError> {
        for pid in self.old_workers().await? {
            let command = [Command::Weight { server: path, weight }];
            if let Err(cause) = self.master().ask(Target::Worker(pid), &command).await {
                tracing::debug!(balancer = %self.name, pid, %cause, "an old worker kept a weight");
            }
        }
        Ok(())
    }

    async fn count_sessions(&self, path: ServerPath<'_>) -> Result<u64, ProxyError> {
        let doing = &format!("count the sessions of server {path}");
        let command = Command::Statistics(path.backend);
        let answers = self.runtime().read(Target::Listener, &[command]).await;
        let answers = answers.map_err(|cause| self.asked(doing, cause))?;
        let mut sessions = self.sessions_in(answers.first(), path, doing)?;
        for pid in self.old_workers().await? {
            let answer = self.ask_old(pid, command, doing).await?;
            sessions += self.sessions_in(answer.as_ref(), path, doing)?;
        }
        Ok(sessions)
    }

    fn sessions_in(
        &self,
        answer: Option<&String>,
        path: ServerPath<'_>,
        doing: &str,
    ) -> Result<u64, ProxyError> {
        match answer.map(|answer| answer.trim()) {
            None | Some("No such proxy.") => Ok(0),
            Some(text) => answer::sessions(text, path.server)
                .map_err(|why| self.asked(doing, AskError::Answer(why))),
        }
    }

    /// Removes a server, unless it still has connections: then nothing is done but maintenance,
    /// and HAProxy's words are given.
    async fn try_remove(
        &self,
        path: ServerPath<'_>,
        doing: &str,
    ) -> Result<Option<String>, ProxyError> {
        let _change = self.change.lock().await;
        let old = self.our_file(doing).await?;
        if self.server_in_process(path, doing).await?.is_some() {
            let sessions = self.count_sessions(path).await?;
            if sessions > 0 {
                let answer = format!("it still has {sessions} sessions: drain it first");
                return Err(self.asked(doing, AskError::Answer(answer)));
            }
            self.change_worker(&[Command::Maintenance(path)], doing).await?;
            let delete = [Command::DeleteServer(path)];
            match self.runtime().change(Target::Listener, &delete).await {
                Ok(()) => {}
                Err(AskError::Answer(answer)) if answer.contains("still has connections") => {
                    return Ok(Some(answer));
                }
                Err(cause) => return Err(self.asked(doing, cause)),
            }
        }
        let mut new = old.clone();
        if let Some(servers) = new.servers.get_mut(path.backend) {
            servers.remove(path.server);
        }
        self.save(&old, &new).await?;
        Ok(None)
    }

    /// Puts all of `routes` in the place of what the worker has, at once.
    async fn replace_routes_in_process(&self, routes: &Routes) -> Result<(), ProxyError> {
        let doing = "set the routes";
        let map = &self.layout.places.routes;
        let answers = self.runtime().ask(Target::Listener, &[Command::PrepareMap(map)]).await;
        let answers = answers.map_err(|cause| self.asked(doing, cause))?;
        let version = answer::map_version(answers.first().map_or("", |text| text.trim()))
            .map_err(|why| self.asked(doing, AskError::Answer(why)))?;
        let add = |(key, backend)| Command::AddRoute { map, version, key, backend };
        let commands: Vec<_> = routes.iter().map(add).collect();
        if !commands.is_empty() {
            self.change_worker(&commands, doing).await?;
        }
        self.change_worker(&[Command::CommitMap { map, version }], doing).await
    }

    async fn routes_in_process(&self) -> Result<Routes, ProxyError> {
        let doing = "read the routes";
        let commands = [Command::Map(&self.layout.places.routes)];
        let answers = self.runtime().read(Target::Listener, &commands).await;
        let answers = answers.map_err(|cause| self.asked(doing, cause))?;
        answer::routes(answers.first().map_or("", String::as_str))
            .map_err(|why| self.asked(doing, AskError::Answer(why)))
    }
}

#[async_trait]
impl Proxy for HaproxyProxy {
    async fn observe(&self) -> Result<BalancerState, ProxyError> {
        let begun = Instant::now();
        // Not in the middle of a change of ours.
        let _change = self.change.lock().await;
        let (files, process) = tokio::join!(biased; self.read_files(), self.observe_process());
        let seconds = begun.elapsed().as_secs_f64();
        tracing::debug!(balancer = %self.name, seconds, "the balancer was looked at");
        Ok(BalancerState { file: self.understand(&files?), process: process? })
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
        let old = self.our_file("set the routes").await?;
        let mut new = old.clone();
        for (key, backend) in changes {
            match backend {
                Some(backend) => new.routes.insert(key.clone(), backend.clone()),
                None => new.routes.remove(key),
            };
        }
        self.save(&old, &new).await?;
        if self.routes_in_process().await? == new.routes {
            return Ok(());
        }
        self.replace_routes_in_process(&new.routes).await?;
        if self.routes_in_process().await? == new.routes {
            return Ok(());
        }
        let answer = "the worker has other routes than it was given".to_owned();
        Err(self.asked("set the routes", AskError::Answer(answer)))
    }

    async fn add_server(
        &self,
        backend: &BackendName,
        name: &ServerName,
        server: &Server,
    ) -> Result<(), ProxyError> {
        let _change = self.change.lock().await;
        let path = ServerPath { backend, server: name };
        let doing = &format!("add server {path}");
        let (old, found) = tokio::join!(
            biased;
            self.our_file(doing),
            self.backend_in_process(backend, doing),
        );
        let old = old?;
        let refused = |answer: String| self.asked(doing, AskError::Answer(answer));
        let no_backend = || refused(format!("there is no backend {backend}"));
        let check = &old.structure.backends.get(backend).ok_or_else(no_backend)?.check;
        let address = server.address;
        let found = found?.ok_or_else(no_backend)?;
        let enable = [Command::EnableHealth(path), Command::EnableServer(path)];
        match found.get(name) {
            Some(there) if there.address != address => {
                return Err(refused(format!("it is there with the address {}", there.address)));
            }
            Some(there) if there.admin == AdminState::Maintenance => {
                let weigh = Command::Weight { server: path, weight: 0 };
                self.change_worker(&[weigh, enable[0], enable[1]], doing).await?;
            }
            Some(_) => {}
            None => {
                let add = Command::AddServer { server: path, address, check };
                self.change_worker(&[add, enable[0], enable[1]], doing).await?;
            }
        }
        let mut new = old.clone();
        let servers = new.servers.entry(backend.clone()).or_default();
        let weight = match servers.get(name) {
            Some(there) if found.contains_key(name) && there.address == address => there.weight,
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
        let path = ServerPath { backend, server: name };
        let doing = &format!("set the weight of server {path} to {weight}");
        let refused = |answer: &str| self.asked(doing, AskError::Answer(answer.to_owned()));
        if weight > LARGEST_WEIGHT {
            return Err(refused("a weight is 0 to 256"));
        }
        let old = self.our_file(doing).await?;
        let mut new = old.clone();
        let entry = new.servers.get_mut(backend).and_then(|servers| servers.get_mut(name));
        let Some(server) = entry else {
            return match weight {
                0 => self.weigh(path, weight, doing).await,
                _ => Err(refused("the file has no such server")),
            };
        };
        let goes_up = weight > server.weight;
        server.weight = weight;
        if !goes_up {
            self.save(&old, &new).await?;
            return self.weigh(path, weight, doing).await;
        }
        self.weigh(path, weight, doing).await?;
        self.save(&old, &new).await
    }

    async fn remove_server(
        &self,
        backend: &BackendName,
        name: &ServerName,
    ) -> Result<(), ProxyError> {
        let path = ServerPath { backend, server: name };
        let doing = &format!("remove server {path}");
        let end = Instant::now() + REMOVAL;
        // Idle connections to a server end within about a second; until then it can't be
        // deleted. Other changes go on meanwhile: a rollout would wait for it at each batch.
        while let Some(answer) = self.try_remove(path, doing).await? {
            if Instant::now() >= end {
                return Err(self.asked(doing, AskError::Answer(answer)));
            }
            sleep(BETWEEN_REMOVALS).await;
        }
        Ok(())
    }

    async fn server(
        &self,
        backend: &BackendName,
        name: &ServerName,
    ) -> Result<Option<RuntimeServer>, ProxyError> {
        let path = ServerPath { backend, server: name };
        self.server_in_process(path, &format!("look at server {path}")).await
    }

    async fn sessions(&self, backend: &BackendName, name: &ServerName) -> Result<u64, ProxyError> {
        self.count_sessions(ServerPath { backend, server: name }).await
    }

    async fn cut_sessions(
        &self,
        backend: &BackendName,
        name: &ServerName,
    ) -> Result<(), ProxyError> {
        let _change = self.change.lock().await;
        let path = ServerPath { backend, server: name };
        let doing = &format!("end the sessions of server {path}");
        let cut = [Command::CutSessions(path)];
        if self.server_in_process(path, doing).await?.is_some() {
            self.change_worker(&cut, doing).await?;
        }
        for pid in self.old_workers().await? {
            let Some(answer) = self.ask_old(pid, Command::Sessions, doing).await? else { continue };
            let numbers = answer::sessions_on(&answer, backend, name);
            let cuts: Vec<_> = numbers.into_iter().map(Command::CutSession).collect();
            if cuts.is_empty() {
                continue;
            }
            // One that ended meanwhile is refused as unknown: sessions are counted afterwards.
            if let Err(cause) = self.master().ask(Target::Worker(pid), &cuts).await {
                tracing::debug!(balancer = %self.name, pid, %cause, "an old worker kept sessions");
            }
        }
        Ok(())
    }

    async fn version(&self) -> Result<String, ProxyError> {
        let deadline = super::machine::CALL_TIMEOUT;
        let outcome = self.machine.run(&self.haproxy, &["-v"], deadline).await;
        let outcome = outcome.map_err(|cause| self.machine_failed(cause))?;
        let line = outcome.stdout.lines().next().unwrap_or_default();
        let version = line.split_whitespace().nth(2).filter(|_| outcome.succeeded());
        version.map(str::to_owned).ok_or_else(|| ProxyError::File {
            doing: format!("ask {} for its version", self.haproxy),
            cause: outcome.text().to_owned(),
        })
    }
}
