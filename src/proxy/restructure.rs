//! A change that needs a new generation of HAProxy: render, lint, verify, trial-bind, swap,
//! reload or start, read back. Until the new generation answers as it should, the old files can
//! be put back, and the old process serves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ProxyError;
use super::answer::{self, Processes};
use super::bind::{trial, trial_beside_ours};
use super::command::Command;
use super::haproxy::HaproxyProxy;
use super::lint::{lint, overlap};
use super::look::Files;
use super::machine::{MachineError, beside};
use super::process::Launch;
use super::render::{Rendered, render};
use super::runtime::Target;
use crate::model::{
    AdminState, BackendName, CheckState, FilePath, ProxyConfig, ProxyFile, ProxyProcess,
    ProxyRuntime, ProxyStructure, RuntimeServer, Server, ServerName, Sha256,
};
use crate::mutant::{self, Mutant};

/// How long a new generation may take until it answers.
const READ_BACK: Duration = Duration::from_secs(10);
/// How long `haproxy -c` may take.
const VERIFY: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

impl HaproxyProxy {
    /// As [`super::Proxy::restructure`]; the caller holds the lock of changes.
    pub(super) async fn restructure_alone(
        &self,
        structure: &ProxyStructure,
    ) -> Result<(), ProxyError> {
        if self.layout.launch.is_some() {
            self.layout.make_folders().map_err(|cause| ProxyError::File {
                doing: format!("make the folders of balancer {}", self.name),
                cause,
            })?;
        }
        let files = self.read_files().await?;
        let file = self.understand(&files);
        let process = self.observe_process().await?;
        let config = next_config(structure, &file, &process);
        if is_there(&config, &file, &process) {
            return Ok(());
        }
        let rendered = render(&config, &self.layout.places)?;
        lint(&config, &rendered, &self.layout.places)?;
        let swap = Swap { proxy: self, old: files };
        swap.prepare(&rendered).await?;
        if let Err(cause) = self.trial_bind(structure, &file, &process).await {
            swap.drop_prepared().await;
            return Err(cause);
        }
        swap.make(&rendered).await?;
        match self.take_over(&structure.digest(), &process).await {
            Ok(()) => Ok(()),
            Err(cause @ ProxyError::Start(_)) if self.layout.launch.is_none() => Err(cause),
            Err(cause) => {
                swap.undo().await;
                Err(cause)
            }
        }
    }

    /// Addresses that the running HAProxy doesn't listen on yet, tried one by one.
    async fn trial_bind(
        &self,
        structure: &ProxyStructure,
        file: &ProxyFile,
        process: &ProxyProcess,
    ) -> Result<(), ProxyError> {
        let wanted: Vec<SocketAddr> = addresses(structure).into_iter().collect();
        let (alone, with_ours) = match (running_structure(file, process), process) {
            (_, ProxyProcess::Down { .. }) if self.leftovers().is_empty() => (wanted, Vec::new()),
            (Some(running), _) => {
                let ours = addresses(running);
                let new = wanted.into_iter().filter(|address| !ours.contains(address));
                new.partition(|address| !ours.iter().any(|our| overlap(*our, *address)))
            }
            // What runs isn't known, so any of them may be its own.
            (None, _) => (Vec::new(), wanted),
        };
        let config = &self.layout.config;
        trial(&*self.machine, &self.haproxy, config, &alone).await?;
        trial_beside_ours(&*self.machine, &with_ours).await
    }

    /// Processes of ours that no master answers for.
    fn leftovers(&self) -> Vec<u32> {
        self.layout.launch.as_ref().map(Launch::processes).unwrap_or_default()
    }

    /// Makes a process run the file that is in place now.
    async fn take_over(&self, digest: &Sha256, process: &ProxyProcess) -> Result<(), ProxyError> {
        match (process, &self.layout.launch) {
            (ProxyProcess::Up(_), _) => self.reload(digest).await,
            (ProxyProcess::Down { .. }, Some(launch)) => self.start(launch, digest).await,
            (ProxyProcess::Down { reason }, None) => Err(ProxyError::Start(reason.clone())),
        }
    }

    async fn start(&self, launch: &Launch, digest: &Sha256) -> Result<(), ProxyError> {
        let leftovers = self.leftovers();
        let is_served = !leftovers.is_empty() && self.running_digest().await.is_ok();
        let inherit_from = is_served.then_some(&self.layout.places.runtime_socket);
        launch.start(&*self.machine, inherit_from).await?;
        let started = self.read_back(digest, |_| Ok(true)).await;
        if let Err(cause) = started {
            let fresh = launch.processes().into_iter().filter(|pid| !leftovers.contains(pid));
            launch.end(&fresh.collect::<Vec<_>>()).await;
            return Err(cause);
        }
        if !leftovers.is_empty() {
            tracing::warn!(balancer = %self.name, ?leftovers, "ending what an earlier HAProxy left");
            launch.end(&leftovers).await;
        }
        Ok(())
    }

    async fn reload(&self, digest: &Sha256) -> Result<(), ProxyError> {
        let before = self.processes().await?.map_err(ProxyError::Reload)?;
        // The master starts anew and drops the connection, so there is no answer, and an error
        // says nothing. What counts is what can be read back.
        if let Err(cause) = self.master().send(Command::Reload).await {
            tracing::debug!(balancer = %self.name, %cause, "the master dropped the connection");
        }
        self.read_back(digest, |now: &Processes| {
            if now.failed_reloads > before.failed_reloads {
                return Err(ProxyError::Reload(
                    "HAProxy's master refused the new file, the old worker serves on; its log \
                     says why"
                        .into(),
                ));
            }
            Ok(now.failed_reloads == 0 && now.worker != before.worker)
        })
        .await
    }

    /// Waits until a worker that `is_new` runs the structure of that digest.
    async fn read_back(
        &self,
        digest: &Sha256,
        is_new: impl Fn(&Processes) -> Result<bool, ProxyError>,
    ) -> Result<(), ProxyError> {
        let end = Instant::now() + READ_BACK;
        let mut seen = String::from("nothing answered");
        while Instant::now() < end {
            let processes = tokio::time::timeout_at(end, self.processes()).await;
            match processes {
                Ok(Ok(Ok(processes))) => {
                    if is_new(&processes)? && processes.worker.is_some() {
                        match self.running_digest().await {
                            Ok(Some(running)) if running == *digest => return Ok(()),
                            Ok(Some(running)) => seen = format!("the worker runs {running}"),
                            Ok(None) => seen = "the worker runs a file that isn't ours".into(),
                            Err(cause) => seen = cause.to_string(),
                        }
                    } else {
                        seen = "there is no new worker".into();
                    }
                }
                Ok(Ok(Err(reason))) => seen = reason,
                Ok(Err(cause)) => seen = cause.to_string(),
                Err(_) => break,
            }
            sleep(PAUSE).await;
        }
        Err(ProxyError::Reload(format!("no new generation within {READ_BACK:?}: {seen}")))
    }

    async fn running_digest(&self) -> Result<Option<Sha256>, ProxyError> {
        let answers = self.runtime().ask(Target::Listener, &[Command::Info]).await;
        let answers = answers.map_err(|cause| self.asked("read the description", cause))?;
        Ok(answers.first().and_then(|info| answer::structure(info)))
    }
}

/// The exchange of the two files.
struct Swap<'a> {
    proxy: &'a HaproxyProxy,
    old: Files,
}

impl Swap<'_> {
    fn map(&self) -> &FilePath {
        &self.proxy.layout.places.routes
    }

    /// Writes the configuration beside the live one and has HAProxy verify it there.
    async fn prepare(&self, rendered: &Rendered) -> Result<(), ProxyError> {
        let Self { proxy, old } = self;
        let failed = |cause: MachineError| proxy.machine_failed(cause);
        let new = beside(&proxy.layout.config).map_err(failed)?;
        let machine = &*proxy.machine;
        if old.routes.is_none() {
            // HAProxy wants the map to be there, also for a look at the configuration.
            machine.replace(self.map(), rendered.routes.as_bytes()).await.map_err(failed)?;
        }
        machine.write(&new, rendered.config.as_bytes()).await.map_err(failed)?;
        let words = ["-c", "-f", new.as_str()];
        let outcome = machine.run(&proxy.haproxy, &words, VERIFY).await.map_err(failed)?;
        let verified = match outcome.succeeded() {
            true => self.read_back(&new, rendered).await,
            false => Err(ProxyError::Verify(outcome.text().to_owned())),
        };
        if verified.is_err() {
            self.drop_prepared().await;
        }
        verified
    }

    /// `haproxy -c` takes a file that was cut between two lines: what counts is that the file
    /// which was verified is the very one that was rendered.
    async fn read_back(&self, new: &FilePath, rendered: &Rendered) -> Result<(), ProxyError> {
        let proxy = self.proxy;
        let found = proxy.machine.read(new).await.map_err(|cause| proxy.machine_failed(cause))?;
        let found = found.unwrap_or_default();
        if found == rendered.config.as_bytes() {
            return Ok(());
        }
        let (found, written) = (found.len(), rendered.config.len());
        Err(ProxyError::File {
            doing: format!("read {new} back"),
            cause: format!(
                "it isn't what was written: {found} bytes instead of {written}; is the disk full, or does something else write there?"
            ),
        })
    }

    /// What was written beside is of no use any more. Where it stays, the next one replaces it.
    async fn drop_prepared(&self) {
        let proxy = self.proxy;
        if let Ok(new) = beside(&proxy.layout.config)
            && let Err(cause) = proxy.machine.remove(&new).await
        {
            tracing::debug!(balancer = %proxy.name, %new, %cause, "a refused file is left");
        }
    }

    /// The map first: it only loses routes here, so that at no moment a route leads to a backend
    /// that the configuration beside it doesn't have.
    async fn make(&self, rendered: &Rendered) -> Result<(), ProxyError> {
        let Self { proxy, old } = self;
        let failed = |cause: MachineError| proxy.machine_failed(cause);
        let machine = &*proxy.machine;
        if old.routes.as_deref() != Some(rendered.routes.as_bytes()) {
            machine.replace(self.map(), rendered.routes.as_bytes()).await.map_err(failed)?;
        }
        let new = beside(&proxy.layout.config).map_err(failed)?;
        machine.rename(&new, &proxy.layout.config).await.map_err(failed)
    }

    /// Puts the old files back. Where that fails too, the next look sees it.
    async fn undo(&self) {
        let Self { proxy, old: Files { config, routes } } = self;
        let machine = &*proxy.machine;
        for (path, content) in [(&proxy.layout.config, config), (self.map(), routes)] {
            let done = match content {
                Some(content) => machine.replace(path, content).await,
                None => machine.remove(path).await,
            };
            if let Err(cause) = done {
                tracing::warn!(balancer = %proxy.name, %path, %cause, "an old file isn't back");
            }
        }
    }
}

/// `structure` with the routes and servers that stay: those of the file, and what the process
/// sends requests to although the file doesn't say so. A change that was cut short leaves the file
/// behind the process, and a reload must not take down what serves: only a plan does, in its order.
pub fn next_config(
    structure: &ProxyStructure,
    file: &ProxyFile,
    process: &ProxyProcess,
) -> ProxyConfig {
    let (mut routes, mut servers) = match process {
        ProxyProcess::Up(runtime) => (runtime.routes.clone(), servers_of(runtime)),
        ProxyProcess::Down { .. } => (BTreeMap::new(), BTreeMap::new()),
    };
    if let ProxyFile::Ours(config) = file {
        routes.extend(config.routes.clone());
        servers = with_serving(config.servers.clone(), servers);
    }
    let ProxyStructure { stats: _, x_host: _, listeners, backends } = structure;
    let stays = |(key, backend): &(crate::model::RouteKey, BackendName)| {
        listeners.contains_key(&key.listener) && backends.contains_key(backend)
    };
    if mutant::is(Mutant::WeightsLost) {
        servers.values_mut().flat_map(BTreeMap::values_mut).for_each(|server| server.weight = 0);
    }
    let of = |name: &BackendName| (name.clone(), servers.remove(name).unwrap_or_default());
    let servers = backends.keys().map(of).collect();
    let routes = routes.into_iter().filter(stays).collect();
    ProxyConfig { structure: structure.clone(), routes, servers }
}

type Servers = BTreeMap<BackendName, BTreeMap<ServerName, Server>>;

/// The servers of the file, and of those that serve the ones that it lacks or has at weight 0.
fn with_serving(mut in_file: Servers, in_process: Servers) -> Servers {
    for (backend, servers) in in_process {
        let known = in_file.entry(backend).or_default();
        for (name, server) in servers.into_iter().filter(|(_, server)| server.weight > 0) {
            if known.get(&name).is_none_or(|known| known.weight == 0) {
                known.insert(name, server);
            }
        }
    }
    in_file
}

/// The servers as a file would hold them: with a weight where they serve.
fn servers_of(runtime: &ProxyRuntime) -> Servers {
    let server = |(name, server): (&ServerName, &RuntimeServer)| {
        let RuntimeServer { address, weight, admin, check } = *server;
        let serves = check == CheckState::Up && admin == AdminState::Ready;
        (name.clone(), Server { address, weight: if serves { weight } else { 0 } })
    };
    let backend = |(name, servers): (&BackendName, &BTreeMap<ServerName, RuntimeServer>)| {
        (name.clone(), servers.iter().map(server).collect())
    };
    runtime.servers.iter().map(backend).collect()
}

fn is_there(config: &ProxyConfig, file: &ProxyFile, process: &ProxyProcess) -> bool {
    let in_file = matches!(file, ProxyFile::Ours(ours) if **ours == *config);
    let digest = Some(config.structure.digest());
    let in_process = matches!(process, ProxyProcess::Up(up) if up.structure == digest);
    in_file && in_process
}

/// What the process was started with, where the file still tells.
fn running_structure<'a>(
    file: &'a ProxyFile,
    process: &ProxyProcess,
) -> Option<&'a ProxyStructure> {
    let (ProxyFile::Ours(config), ProxyProcess::Up(runtime)) = (file, process) else {
        return None;
    };
    (runtime.structure == Some(config.structure.digest())).then_some(&config.structure)
}

fn addresses(structure: &ProxyStructure) -> BTreeSet<SocketAddr> {
    let listeners = structure.listeners.values().map(|listener| listener.bind);
    structure.stats.into_iter().chain(listeners).collect()
}
