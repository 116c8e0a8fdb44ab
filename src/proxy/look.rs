//! The looks at one HAProxy: its two files, its processes, what the newest worker and the older
//! ones answer. Nothing in here changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use super::ProxyError;
use super::answer::{self, Processes, RuntimeServers, Unchecked};
use super::command::Command;
use super::haproxy::HaproxyProxy;
use super::parse::parse;
use super::routes::Routes;
use super::runtime::{AskError, Target};
use crate::model::{
    BackendName, CheckState, ProxyConfig, ProxyFile, ProxyProcess, ProxyRuntime, ServerName,
};

/// Two files that were parsed, and what they are.
pub(super) struct Parsed {
    pub config: Vec<u8>,
    pub routes: Vec<u8>,
    pub is: Arc<ProxyConfig>,
}

/// What the checks of a worker found. A new worker begins without: until it has checked a server,
/// what the one before it found is what is known, and HAProxy sends requests there meanwhile.
/// Else each reload would show the whole fleet as not ready for as long as a round of checks takes.
#[derive(Debug, Default)]
pub(super) struct Checks {
    worker: Option<u32>,
    /// The servers that are up, each with its address.
    up: BTreeMap<(BackendName, ServerName), SocketAddr>,
    /// Those that were up in the worker before, and that this one hasn't checked since it began.
    inherited: BTreeMap<(BackendName, ServerName), SocketAddr>,
}

impl Checks {
    /// Takes what a worker says of its servers, and completes it.
    fn complete(&mut self, worker: u32, servers: &mut RuntimeServers, unchecked: &Unchecked) {
        if self.worker != Some(worker) {
            self.worker = Some(worker);
            self.inherited = std::mem::take(&mut self.up);
        }
        self.inherited.retain(|key, _| unchecked.contains(key));
        for ((backend, name), address) in &self.inherited {
            let server = servers.get_mut(backend).and_then(|of_backend| of_backend.get_mut(name));
            if let Some(server) = server.filter(|server| server.address == *address) {
                server.check = CheckState::Up;
            }
        }
        self.up.clear();
        for (backend, of_backend) in servers {
            let up = of_backend.iter().filter(|(_, server)| server.check == CheckState::Up);
            self.up.extend(up.map(|(name, s)| ((backend.clone(), name.clone()), s.address)));
        }
    }
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
            Err(reason) => {
                self.forget_checks();
                return Ok(ProxyProcess::Down { reason });
            }
        };
        let Some(worker) = processes.worker else {
            self.forget_checks();
            let reason = "HAProxy's master has no worker".into();
            return Ok(ProxyProcess::Down { reason });
        };
        let mut runtime = match self.observe_worker(worker).await {
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

    /// Nobody checked while no worker was there: what the last one found is old.
    fn forget_checks(&self) {
        *self.checks.lock().unwrap_or_else(PoisonError::into_inner) = Checks::default();
    }

    async fn observe_worker(&self, worker: u32) -> Result<ProxyRuntime, AskError> {
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
        let servers = match answer::servers_and_unchecked(servers) {
            Ok((mut servers, unchecked)) => {
                let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
                checks.complete(worker, &mut servers, &unchecked);
                servers
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AdminState, RuntimeServer};

    /// What a worker says of one server, whether it has checked it, and what is known then.
    #[track_caller]
    fn check(looks: &[(u32, u16, CheckState, bool, CheckState)]) {
        let mut checks = Checks::default();
        let backend: BackendName = "production.web".parse().unwrap();
        let name: ServerName = "alpha:f753afc24d79:3f2a91bc-0".parse().unwrap();
        for (nth, (worker, port, check, is_checked, expected)) in looks.iter().enumerate() {
            let address = SocketAddr::from(([127, 0, 0, 1], *port));
            let (admin, check) = (AdminState::Ready, *check);
            let server = RuntimeServer { address, weight: 100, admin, check };
            let mut servers = RuntimeServers::new();
            servers.entry(backend.clone()).or_default().insert(name.clone(), server);
            let key = (backend.clone(), name.clone());
            let unchecked = if *is_checked { Unchecked::new() } else { [key].into() };
            checks.complete(*worker, &mut servers, &unchecked);
            assert_eq!(servers[&backend][&name].check, *expected, "look {nth}");
        }
    }

    #[test]
    fn a_new_worker_is_told_by_the_one_before_until_it_has_checked() {
        use CheckState::{Down, Unknown, Up};
        check(&[(1, 1, Unknown, false, Unknown), (1, 1, Up, true, Up)]);
        check(&[
            (1, 1, Up, true, Up),
            (2, 1, Unknown, false, Up),
            // One more reload before the first check.
            (3, 1, Unknown, false, Up),
            (3, 1, Unknown, true, Unknown),
            (3, 1, Unknown, false, Unknown),
        ]);
        check(&[(1, 1, Up, true, Up), (2, 1, Unknown, false, Up), (2, 1, Down, true, Down)]);
        // Another server under the same name, one that wasn't up, and one that is added anew.
        check(&[(1, 1, Up, true, Up), (2, 2, Unknown, false, Unknown)]);
        check(&[(1, 1, Down, true, Down), (2, 1, Unknown, false, Unknown)]);
        check(&[(1, 1, Up, true, Up), (1, 1, Unknown, false, Unknown)]);
    }
}
