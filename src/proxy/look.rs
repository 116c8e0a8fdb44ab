//! The looks at one HAProxy: its two files, its processes, what the newest worker and the older
//! ones answer. Nothing in here changes anything.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use super::ProxyError;
use super::answer::{self, Processes, RuntimeServers};
use super::command::Command;
use super::haproxy::HaproxyProxy;
use super::parse::parse;
use super::routes::Routes;
use super::runtime::{AskError, Target};
use crate::model::{ProxyConfig, ProxyFile, ProxyProcess, ProxyRuntime};

/// Two files that were parsed, and what they are.
pub(super) struct Parsed {
    pub config: Vec<u8>,
    pub routes: Vec<u8>,
    pub is: Arc<ProxyConfig>,
}

/// The two files as they lie; none where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Files {
    pub config: Option<Vec<u8>>,
    pub routes: Option<Vec<u8>>,
}

impl HaproxyProxy {
    pub(super) async fn read_files(&self) -> Result<Files, ProxyError> {
        let (config, routes) = tokio::join!(
            biased;
            self.machine.read(&self.layout.config),
            self.machine.read(&self.layout.places.routes),
        );
        let failed = |cause| self.machine_failed(cause);
        Ok(Files { config: config.map_err(failed)?, routes: routes.map_err(failed)? })
    }

    pub(super) fn understand(&self, files: &Files) -> ProxyFile {
        let (config, routes) = match files {
            Files { config: None, routes: _ } => return ProxyFile::Missing,
            Files { config: Some(_), routes: None } => {
                let reason = format!("the map of routes {} is gone", self.layout.places.routes);
                return ProxyFile::Damaged { reason };
            }
            Files { config: Some(config), routes: Some(routes) } => (config, routes),
        };
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parsed) = &*parsed
            && parsed.config == *config
            && parsed.routes == *routes
        {
            return ProxyFile::Ours(parsed.is.clone());
        }
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap_or_default();
        match parse(&text(config), &text(routes), &self.layout.places) {
            Ok(is) => {
                let (config, routes, is) = (config.clone(), routes.clone(), Arc::new(is));
                *parsed = Some(Parsed { config, routes, is: is.clone() });
                ProxyFile::Ours(is)
            }
            Err(why) => {
                let reason = format!("{}: {why}", self.layout.config);
                ProxyFile::Damaged { reason }
            }
        }
    }

    /// The processes; an error text where there are none.
    pub(super) async fn processes(&self) -> Result<Result<Processes, String>, ProxyError> {
        let doing = "look at the processes";
        let answers = match self.master().read(Target::Listener, &[Command::Processes]).await {
            Ok(answers) => answers,
            Err(AskError::Nobody(socket)) => return Ok(Err(self.down_reason(&socket.to_string()))),
            Err(cause) => return Err(self.asked(doing, cause)),
        };
        let text = answers.first().map_or("", String::as_str);
        answer::processes(text).map(Ok).map_err(|why| self.asked(doing, AskError::Answer(why)))
    }

    fn down_reason(&self, socket: &str) -> String {
        match &self.layout.launch {
            Some(_) => format!("no HAProxy listens on {socket}"),
            None => format!(
                "no HAProxy listens on {socket}; start it on {}: haproxy -W -S {socket},mode,600,\
                 level,admin -f {}",
                self.machine.name(),
                self.layout.config
            ),
        }
    }

    pub(super) async fn observe_process(&self) -> Result<ProxyProcess, ProxyError> {
        let processes = match self.processes().await? {
            Ok(processes) => processes,
            Err(reason) => return Ok(ProxyProcess::Down { reason }),
        };
        if processes.worker.is_none() {
            let reason = "HAProxy's master has no worker".into();
            return Ok(ProxyProcess::Down { reason });
        }
        let mut runtime = match self.observe_worker().await {
            Ok(runtime) => runtime,
            // A HAProxy of somebody else that doesn't run our file yet may have its runtime
            // socket anywhere.
            Err(AskError::Nobody(_)) if self.layout.launch.is_none() => ProxyRuntime::default(),
            Err(AskError::Nobody(socket)) => {
                let reason = format!("HAProxy's worker doesn't listen on {socket}");
                return Ok(ProxyProcess::Down { reason });
            }
            Err(cause) => return Err(self.asked("look at the worker", cause)),
        };
        runtime.old_addresses = self.old_addresses(&processes.old_workers).await?;
        Ok(ProxyProcess::Up(Arc::new(runtime)))
    }

    async fn observe_worker(&self) -> Result<ProxyRuntime, AskError> {
        let map = &self.layout.places.routes;
        let commands = [Command::Info, Command::Servers(None), Command::Map(map)];
        let answers = self.runtime().read(Target::Listener, &commands).await?;
        let [info, servers, map] = &answers[..] else {
            return Err(AskError::Answer("fewer answers than commands".into()));
        };
        let structure = answer::structure(info);
        let routes = match structure {
            Some(_) => answer::routes(map).map_err(AskError::Answer)?,
            // It runs a file of somebody else, which has no such map.
            None => Routes::new(),
        };
        let servers = match answer::servers(servers) {
            Ok(servers) => servers,
            Err(_) if structure.is_none() => RuntimeServers::new(),
            Err(why) => return Err(AskError::Answer(why)),
        };
        Ok(ProxyRuntime { structure, routes, servers, old_addresses: BTreeSet::new() })
    }

    async fn old_addresses(&self, workers: &[u32]) -> Result<BTreeSet<SocketAddr>, ProxyError> {
        let mut addresses = BTreeSet::new();
        for pid in workers {
            let doing = "look at a worker of an earlier generation";
            let Some(answer) = self.ask_old(*pid, Command::Servers(None), doing).await? else {
                continue;
            };
            let servers =
                answer::servers(&answer).map_err(|why| self.asked(doing, AskError::Answer(why)))?;
            addresses.extend(servers.into_values().flatten().map(|(_, server)| server.address));
        }
        Ok(addresses)
    }

    /// The answer of a worker of an earlier generation; none where it has ended.
    pub(super) async fn ask_old(
        &self,
        pid: u32,
        command: Command<'_>,
        doing: &str,
    ) -> Result<Option<String>, ProxyError> {
        let cause = match self.master().read(Target::Worker(pid), &[command]).await {
            Ok(answers) => return Ok(answers.into_iter().next()),
            Err(cause) => cause,
        };
        // It may have ended while it was asked; then its master doesn't know it any more.
        match self.processes().await? {
            Ok(now) if now.old_workers.contains(&pid) => Err(self.asked(doing, cause)),
            _ => Ok(None),
        }
    }

    /// The workers of earlier generations; none where HAProxy is down.
    pub(super) async fn old_workers(&self) -> Result<Vec<u32>, ProxyError> {
        Ok(self.processes().await?.map(|processes| processes.old_workers).unwrap_or_default())
    }
}
