//! Which engine is spoken to, and how long for. Connecting is lazy: nothing is opened before
//! the first call, an engine that is down gives an error for each call, and comes back by
//! itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::{BollardRequest, Docker};

use super::error::Failure;
use super::transport::Transport;
use super::{Engine, EngineError, Engines};
use crate::model::{ContainerId, EngineAddress, Host, HostName};

/// What engines are reached with, beside their addresses.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Docker's config.json, with the credentials of registries. The default is the one that
    /// `docker login` writes: in `$DOCKER_CONFIG`, or else in `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// The host keys that ssh accepts; ssh's own files where none is given.
    pub known_hosts: Option<PathBuf>,
    /// Where ssh's sockets get their private folder. Short: a socket's path has 107 bytes.
    pub folder: PathBuf,
    pub deadlines: Deadlines,
    /// Counts the requests that are sent.
    pub calls: Arc<AtomicU64>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        let config = std::env::var_os("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
        Self {
            docker_config: config.map(|folder| folder.join("config.json")),
            known_hosts: None,
            folder: std::env::temp_dir(),
            deadlines: Deadlines::default(),
            calls: Arc::default(),
        }
    }
}

/// How long a call may take before it counts as unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// One question to the engine.
    pub look: Duration,
    /// A whole look at a host, with all its questions.
    pub observe: Duration,
    /// Creating, starting or removing a container.
    pub change: Duration,
    /// What stopping may take beyond the container's own grace.
    pub stop: Duration,
    /// The answer of a registry, which the engine waits for.
    pub registry: Duration,
    /// How long a pull may show no progress.
    pub pull_stall: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(10),
            observe: Duration::from_secs(30),
            change: Duration::from_secs(30),
            stop: Duration::from_secs(15),
            registry: Duration::from_secs(30),
            pull_stall: Duration::from_secs(60),
        }
    }
}

/// Longer than any call: bollard's own timeout counts whole seconds and covers the head of a
/// reply only, so each call has a deadline of ours instead.
const NEVER_SECONDS: u64 = 7 * 24 * 60 * 60;

/// One Docker Engine, of whatever version from 20.10 on.
pub struct DockerEngine {
    transport: Arc<Transport>,
    address: String,
    pub(super) options: EngineOptions,
    /// The published ports of stopped containers of others, which a list doesn't tell and which
    /// never change.
    pub(super) foreign_ports: Mutex<BTreeMap<ContainerId, BTreeSet<u16>>>,
}

impl DockerEngine {
    /// The engine of that host. Opens nothing yet, so it neither waits nor fails.
    pub fn connect(host: &Host, options: EngineOptions) -> Self {
        let EngineOptions { known_hosts, folder, calls, .. } = &options;
        let known_hosts = known_hosts.as_deref();
        Self {
            transport: Arc::new(Transport::new(&host.engine, known_hosts, folder, calls.clone())),
            address: address_text(&host.engine),
            options,
            foreign_ports: Mutex::default(),
        }
    }

    /// A client of bollard's on our transport.
    pub(super) fn docker(&self) -> Result<Docker, Failure> {
        let transport = self.transport.clone();
        let carry = move |request: BollardRequest| transport.clone().send(request);
        let version = bollard::API_DEFAULT_VERSION;
        let engine = Some("http://docker");
        Ok(Docker::connect_with_custom_transport(carry, engine, NEVER_SECONDS, version)?)
    }

    /// What a failure means where nothing more is known about it.
    pub(super) fn error(&self, doing: &str, failure: Failure) -> EngineError {
        failure.into_error(doing, &self.address)
    }

    /// The engine's address, for errors.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn deadlines(&self) -> &Deadlines {
        &self.options.deadlines
    }
}

/// The address as people write it.
fn address_text(address: &EngineAddress) -> String {
    match address {
        EngineAddress::Unix { path } => format!("unix://{path}"),
        EngineAddress::Tcp { host, port, .. } if host.contains(':') => {
            format!("tcp://[{host}]:{port}")
        }
        EngineAddress::Tcp { host, port, .. } => format!("tcp://{host}:{port}"),
        EngineAddress::Ssh { user, host, port, .. } => {
            let user = user.as_ref().map_or(String::new(), |user| format!("{user}@"));
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            format!("ssh://{user}{host}{port}")
        }
    }
}

/// The engines of all hosts: one for each, made anew when the host's address changes.
pub struct DockerEngines {
    options: EngineOptions,
    known: Mutex<BTreeMap<HostName, (EngineAddress, Arc<DockerEngine>)>>,
}

impl DockerEngines {
    pub fn new(options: EngineOptions) -> Self {
        Self { options, known: Mutex::default() }
    }
}

impl Engines for DockerEngines {
    fn engine(&self, host: &Host) -> Arc<dyn Engine> {
        let mut known = locked(&self.known);
        match known.get(&host.name) {
            Some((address, engine)) if *address == host.engine => engine.clone(),
            _ => {
                let engine = Arc::new(DockerEngine::connect(host, self.options.clone()));
                known.insert(host.name.clone(), (host.engine.clone(), engine.clone()));
                engine
            }
        }
    }

    fn calls(&self) -> u64 {
        self.options.calls.load(Ordering::Relaxed)
    }
}

/// What the mutex holds. A panic elsewhere leaves these maps whole, so it isn't passed on.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Allow, Location, PortRange};

    pub fn host(engine: EngineAddress) -> Host {
        Host {
            name: HostName::new("alpha").unwrap(),
            engine,
            address: [127, 0, 0, 1].into(),
            publish: [127, 0, 0, 1].into(),
            ports: PortRange { first: 20000, last: 20999 },
            drain: false,
            allow: Allow::default(),
            location: Location { file: "hosts.yaml".into(), line: 1 },
        }
    }

    #[test]
    fn an_engine_is_kept_until_its_address_changes() {
        let engines = DockerEngines::new(EngineOptions::default());
        let one = host(EngineAddress::Unix { path: "/a".into() });
        let first = engines.engine(&one);
        assert!(Arc::ptr_eq(&first, &engines.engine(&Host { drain: true, ..one })));
        let two = host(EngineAddress::Unix { path: "/b".into() });
        assert!(!Arc::ptr_eq(&first, &engines.engine(&two)));
    }

    #[tokio::test]
    async fn a_host_that_is_down_says_so_in_each_call() {
        let user = Some("-oProxyCommand=touch".to_owned());
        for (engine, says) in [
            (EngineAddress::Unix { path: "/nowhere/x.sock".into() }, "is Docker running?"),
            (EngineAddress::Tcp { host: "127.0.0.1".into(), port: 1, tls: None }, "refused"),
            (
                EngineAddress::Ssh {
                    user,
                    host: "127.0.0.1".into(),
                    port: None,
                    key: None,
                    socket: "/x".into(),
                },
                "hyphen",
            ),
        ] {
            let address = address_text(&engine);
            let engine = DockerEngine::connect(&host(engine), EngineOptions::default());
            let error = engine.version().await.unwrap_err();
            assert!(matches!(error, EngineError::Unreachable { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(says) && text.contains(&address), "{text}");
        }
    }
}
