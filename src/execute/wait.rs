//! The steps that wait: until a container is ready, a server is up, or drained. They look often
//! at first and less often later, and end at the deadline or when something else takes over.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use secrecy::ExposeSecret;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::docker::Engine;
use crate::model::{
    AppId, BackendName, Birth, CheckState, Container, ContainerState, Ended, EngineHealth,
    Revision, RuntimeServer, ServerName, Span, UrlPath, container_name,
};
use crate::plan::{Need, Probe};
use crate::proxy::{Proxy, ProxyError, probe};

use super::{Executor, Failure};

/// The first pause between two looks, and the longest. What is waited for is checked every 50 ms
/// and takes about 0.15 s, and a look costs a tenth of a millisecond at HAProxy and a few at an
/// engine. So it is looked often at first, and for a while about as often: what is found late
/// holds up the whole batch.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// A pause is no longer than this part of the time that was waited so far.
const PAUSES_IN_A_WAIT: u32 = 16;

/// How long sessions that were cut off may take to be gone.
const CUT: Duration = Duration::from_secs(2);

/// How long the next end of a container that ends again and again is waited for, so that it can
/// be told how it ended: while it runs the engine doesn't say.
const BETWEEN_ENDS: Duration = Duration::from_secs(2);
const BETWEEN_LOOKS_AT_ENDS: Duration = Duration::from_millis(20);

/// How long a container that ended once since it was made has to run without another end
/// before a server that HAProxy finds up counts. One that lives for a moment only, again and
/// again, passes a check of every 50 ms now and then.
const SETTLED: Span = Span::from_secs(3);

/// How long a server that came up is looked at before it counts, and how often at least. HAProxy
/// calls it up after one check that passed and makes the next an interval later, and what ends
/// right after its start passes one now and then. Engines tell an end some tens of milliseconds
/// late, and later on a machine that is busy or stood still for a moment: time alone shows
/// nothing there, answers of the engine do. The first of a revision shows it for the others.
const PROVEN: Duration = Duration::from_millis(100);
const PROVING_LOOKS: u32 = 6;
const PROVING_PAUSE: Duration = Duration::from_millis(16);

/// Two answers of an engine that takes long for each prove as much when they are so far apart.
const PROVEN_SLOWLY: Duration = Duration::from_secs(1);

/// How long that may go on after the deadline: two answers of an engine that is slow.
const PROVING_AT_MOST: Duration = Duration::from_secs(5);

/// How often a container is looked at behind a server that isn't up. Engines (Docker 20.10 is
/// one) don't note every kill at the memory limit: only who sees several ends learns of it.
const BETWEEN_LOOKS_BEHIND: Duration = Duration::from_millis(500);

/// What a program that was killed by SIGKILL exits with, as shells and engines count.
const KILLED: i64 = 137;

/// How long to wait, and who may end it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience<'a> {
    deadline: Instant,
    cancel: &'a CancellationToken,
}

impl<'a> Patience<'a> {
    pub fn new(deadline: Instant, cancel: &'a CancellationToken) -> Self {
        Self { deadline, cancel }
    }
}

/// Waits on behalf of one step.
pub(super) struct Waiter<'a> {
    pub executor: &'a Executor,
    pub patience: Patience<'a>,
}

/// What one look found.
enum Look {
    Done,
    /// Not yet, and what it looks like now.
    NotYet(String),
    /// It looks well, for too short a time: it is looked again soon.
    Proving(String),
    /// It never will, and that isn't the revision's fault: it was stopped or removed, by somebody
    /// or with its engine.
    Stopped(String),
}

impl Waiter<'_> {
    /// Runs `work`, unless something else takes over meanwhile.
    pub async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.patience.cancel.cancelled() => Err(Failure::Cancelled),
            result = work => result,
        }
    }

    /// Until the container runs, and its checks are content.
    pub async fn ready(
        &self,
        engine: &dyn Engine,
        name: &str,
        revision: Revision,
        probe: &Probe,
    ) -> Result<(), Failure> {
        let steady = Mutex::new(Steady::default());
        let result = self
            .look_until(|| async {
                let Some(container) = engine.inspect(&self.executor.owner, name).await? else {
                    return Ok(Look::Stopped(format!("{name} is gone")));
                };
                let look = {
                    let mut steady = lock(&steady);
                    match (look_at(&container, &mut steady), probe) {
                        (Look::Done, Probe::Settle(settle)) => steady.for_at_least(*settle),
                        (look, _) => look,
                    }
                };
                match (look, probe) {
                    (Look::Done, Probe::Ask { address, path, timeout, .. }) => {
                        Ok(ask(*address, path.as_ref(), *timeout).await)
                    }
                    (look, _) => Ok(look),
                }
            })
            .await?;
        match result {
            Ok(()) => Ok(()),
            Err(why) => {
                let output = self.last_output(engine, name).await;
                let why = lock(&steady).explain(why);
                let reason = format!("{name} didn't get ready: {why}{output}");
                Err(Failure::Revision { revision, reason })
            }
        }
    }

    /// Until HAProxy found the server up, and still does a moment later. Where its engine is known,
    /// the container behind it is looked at as well: one that ends again and again tells more of
    /// why it isn't up than HAProxy can.
    pub async fn up(
        &self,
        proxy: &dyn Proxy,
        backend: &BackendName,
        server: &ServerName,
        revision: Revision,
    ) -> Result<(), Failure> {
        let steady = Mutex::new(Steady::default());
        let behind = (&backend.app, server, revision);
        let look = || async {
            let check = proxy.server(backend, server).await?.map(|server| server.check);
            if check != Some(CheckState::Up) {
                lock(&steady).up = None;
            }
            let why = match check {
                Some(CheckState::Up) => {
                    let look = self.lasts(behind, &steady).await?;
                    let Look::Done = look else { return Ok(look) };
                    if !lock(&steady).is_proven() && !self.executor.proven.knows(revision) {
                        return Ok(Look::Proving("it came up just now".into()));
                    }
                    self.executor.proven.learn(revision);
                    return Ok(Look::Done);
                }
                Some(CheckState::Unknown) => "it isn't checked yet",
                Some(CheckState::Down) => "its health check fails",
                None => "HAProxy doesn't know it",
            };
            if lock(&steady).wants_a_look()
                && let Ok(Look::Stopped(why)) = self.lasts(behind, &steady).await
            {
                return Ok(Look::Stopped(why));
            }
            Ok(Look::NotYet(why.into()))
        };
        let mut result = self.look_until(look).await?;
        // HAProxy may have answered nobody until now: what came up in time has its moment.
        if result.is_err() && lock(&steady).up.is_some() {
            let deadline = Instant::now() + PROVING_AT_MOST;
            let patience = Patience { deadline, ..self.patience };
            result = Waiter { executor: self.executor, patience }.look_until(look).await?;
        }
        let Err(why) = result else { return Ok(()) };
        self.is_to_blame(proxy, backend, behind, &steady).await?;
        let behind = self.behind(behind, &steady, BETWEEN_ENDS).await;
        let reason = format!("{server} didn't come up in {backend}: {why}{behind}");
        Err(Failure::Revision { revision, reason })
    }

    /// A server that isn't up tells against its revision only where the server is there, and a
    /// container behind it that nobody stopped: else somebody took it away, or its host is lost.
    async fn is_to_blame(
        &self,
        proxy: &dyn Proxy,
        backend: &BackendName,
        behind: Behind<'_>,
        steady: &Mutex<Steady>,
    ) -> Result<(), Failure> {
        let (_, server, _) = behind;
        if proxy.server(backend, server).await?.is_none() {
            let (doing, answer) = (format!("wait for {server}"), "No such server.".into());
            return Err(ProxyError::Refused { doing, answer }.into());
        }
        if !self.knows_engine_of(server) {
            return Ok(());
        }
        match self.container(behind).await? {
            None => Err(Failure::Stopped(format!("the container of {server} is gone"))),
            Some(container) => match look_at(&container, &mut lock(steady)) {
                Look::Stopped(why) => Err(Failure::Stopped(why)),
                Look::Done | Look::NotYet(_) | Look::Proving(_) => Ok(()),
            },
        }
    }

    /// What a step needs that takes away what served before: a server in its place, which came up
    /// and takes requests. Where that is down by now, or its container ended, the step isn't
    /// done, and what served before serves on.
    pub async fn still_up(
        &self,
        proxy: &dyn Proxy,
        backend: &BackendName,
        need: &Need,
    ) -> Result<(), Failure> {
        let steady = Mutex::new(Steady::default());
        let result = self.look_until(|| self.look_at_need(proxy, backend, need, &steady)).await?;
        result.map_err(|why| didnt_stay_up(backend, need, &why, ""))
    }

    async fn look_at_need(
        &self,
        proxy: &dyn Proxy,
        backend: &BackendName,
        need: &Need,
        steady: &Mutex<Steady>,
    ) -> Result<Look, Failure> {
        let Need { server, revision, .. } = need;
        let behind = (&backend.app, server, *revision);
        let gone = |cause: &str| ProxyError::Refused {
            doing: format!("{server} is to serve in the place of another"),
            answer: cause.to_owned(),
        };
        let Some(RuntimeServer { check, .. }) = proxy.server(backend, server).await? else {
            return Err(gone("HAProxy doesn't know it").into());
        };
        if check == CheckState::Unknown {
            return Ok(Look::NotYet("HAProxy isn't sure of it".into()));
        }
        let container = match &need.container {
            Some(id) => match self.inspect(server, &id.0).await? {
                Some(container) if need.standing && check == CheckState::Up && container.runs() => {
                    return Ok(Look::Done);
                }
                container => container,
            },
            None => self.container(behind).await?,
        };
        // Somebody removed it: that isn't the revision's fault.
        if container.is_none() && self.knows_engine_of(server) {
            return Err(gone("its container is gone").into());
        }
        let why = match (check, container) {
            (CheckState::Up, None) => return Ok(Look::Done),
            (_, Some(container)) if lock(steady).was_restarted(&container) => {
                "it was restarted since".into()
            }
            (CheckState::Up, Some(container)) => match lasts(&container, steady) {
                Look::Stopped(why) => return Ok(Look::Stopped(why)),
                Look::NotYet(why) if !container.runs() => why,
                look => return Ok(look),
            },
            (_, None) => return Err(gone("its health check fails").into()),
            (_, Some(container)) => match look_at(&container, &mut lock(steady)) {
                Look::Done => "its health check fails".into(),
                Look::NotYet(why) | Look::Proving(why) => why,
                Look::Stopped(why) => return Ok(Look::Stopped(why)),
            },
        };
        // What served before waits for its weight: the next end isn't waited for.
        Err(didnt_stay_up(backend, need, &why, &self.behind(behind, steady, Duration::ZERO).await))
    }

    /// The container behind a server; none where it is gone, or where its engine isn't known here:
    /// then HAProxy's word has to do. Under whatever name a person gave it, its labels tell it.
    async fn container(&self, behind: Behind<'_>) -> Result<Option<Container>, Failure> {
        let (app, server, revision) = behind;
        let found = self.inspect(server, &self.name_of(behind)).await?;
        let Some(engine) = self.executor.engines.get(&server.host) else { return Ok(None) };
        if found.is_some() {
            return Ok(found);
        }
        let all = engine.observe(&self.executor.owner).await?.containers;
        let is_it = |birth: &Birth| {
            birth.app == *app && birth.revision == revision && birth.slot == server.slot
        };
        let found = all.into_iter().find(|container| is_it(&container.birth));
        Ok(found.map(Arc::unwrap_or_clone))
    }

    /// Its engine is known here: where it has no container, there is none.
    fn knows_engine_of(&self, server: &ServerName) -> bool {
        self.executor.engines.contains_key(&server.host)
    }

    /// A container on the host of a server, by id or name; none where its engine isn't known here.
    async fn inspect(
        &self,
        server: &ServerName,
        which: &str,
    ) -> Result<Option<Container>, Failure> {
        let Some(engine) = self.executor.engines.get(&server.host) else { return Ok(None) };
        Ok(engine.inspect(&self.executor.owner, which).await?)
    }

    fn name_of(&self, (app, server, revision): Behind<'_>) -> String {
        container_name(&self.executor.owner.installation, app, revision, server.slot)
    }

    /// As [`lasts`], of the container behind a server that is up.
    async fn lasts(&self, behind: Behind<'_>, steady: &Mutex<Steady>) -> Result<Look, Failure> {
        let (_, server, _) = behind;
        Ok(match self.container(behind).await? {
            Some(container) => lasts(&container, steady),
            None if self.knows_engine_of(server) => {
                Look::Stopped(format!("the container of {server} is gone"))
            }
            None => Look::Done,
        })
    }

    /// What the engine says of the container behind a server that isn't up: one that ends again
    /// and again is no more than a failed check to HAProxy. `patience`: how long its next end is
    /// waited for, where it runs between two.
    async fn behind(
        &self,
        behind: Behind<'_>,
        steady: &Mutex<Steady>,
        patience: Duration,
    ) -> String {
        let (_, server, _) = behind;
        let Some(engine) = self.executor.engines.get(&server.host) else { return String::new() };
        let name = self.name_of(behind);
        let seen = async {
            let end = Instant::now() + patience;
            loop {
                let container = self.container(behind).await.ok()?;
                let between_ends = container
                    .as_ref()
                    .is_some_and(|c| c.state == ContainerState::Running && c.restarts > 0);
                if !between_ends || Instant::now() >= end {
                    return Some(container);
                }
                tokio::time::sleep(BETWEEN_LOOKS_AT_ENDS).await;
            }
        };
        let trouble = match tokio::time::timeout(Duration::from_secs(3), seen).await {
            Ok(Some(Some(container))) => match look_at(&container, &mut lock(steady)) {
                Look::Done if container.restarts > 0 => {
                    format!("; its container was restarted {} times", container.restarts)
                }
                Look::Done => String::new(),
                Look::NotYet(why) | Look::Proving(why) | Look::Stopped(why) => {
                    format!("; its container: {why}")
                }
            },
            Ok(Some(None)) => "; its container is gone".into(),
            Ok(None) | Err(_) => String::new(),
        };
        trouble + &self.last_output(engine.as_ref(), &name).await
    }

    /// Until no worker has a session on the server. At the deadline what is left is cut off:
    /// every drain ends, also where a request hangs for ever or a tunnel stays open. It is given
    /// up when what serves in its place goes down.
    pub async fn drained(
        &self,
        proxy: &dyn Proxy,
        backend: &BackendName,
        server: &ServerName,
        needs: &[Need],
    ) -> Result<(), Failure> {
        let steady: Vec<_> = needs.iter().map(|_| Mutex::new(Steady::default())).collect();
        let result = self
            .look_until(|| async {
                let look = look_at_sessions(proxy, backend, server).await?;
                if let Look::NotYet(_) = &look {
                    for (need, steady) in needs.iter().zip(&steady) {
                        match self.look_at_need(proxy, backend, need, steady).await {
                            Err(failure) if !failure.may_pass() => return Err(failure),
                            Ok(Look::Stopped(why)) => return Ok(Look::Stopped(why)),
                            _ => {}
                        }
                    }
                }
                Ok(look)
            })
            .await?;
        if let Err(why) = result {
            tracing::warn!(%server, "the drain ends at its deadline: {why}");
            proxy.cut_sessions(backend, server).await?;
            let gone = Patience::new(Instant::now() + CUT, self.patience.cancel);
            let after = Waiter { executor: self.executor, patience: gone };
            // What is still there then is told by the removal, which is tried again.
            let _ = after.look_until(|| look_at_sessions(proxy, backend, server)).await?;
        }
        Ok(())
    }

    /// Looks until it is done (`Ok(Ok)`), or the deadline has passed (`Ok(Err)`, with the last
    /// look). Errors that may pass count as a look.
    async fn look_until<F, L>(&self, mut look: L) -> Result<Result<(), String>, Failure>
    where
        L: FnMut() -> F,
        F: Future<Output = Result<Look, Failure>>,
    {
        let begun = Instant::now();
        loop {
            let mut pause = pause_after(begun.elapsed());
            let last = match self.unless_cancelled(look()).await {
                Ok(Look::Done) => return Ok(Ok(())),
                Ok(Look::Stopped(why)) => return Err(Failure::Stopped(why)),
                Ok(Look::NotYet(why)) => why,
                Ok(Look::Proving(why)) => {
                    pause = PROVING_PAUSE;
                    why
                }
                Err(failure) if failure.may_pass() => {
                    if Instant::now() >= self.patience.deadline {
                        return Err(failure);
                    }
                    failure.to_string()
                }
                Err(failure) => return Err(failure),
            };
            if Instant::now() >= self.patience.deadline {
                return Ok(Err(last));
            }
            let next = (Instant::now() + pause).min(self.patience.deadline);
            self.unless_cancelled(async {
                tokio::time::sleep_until(next).await;
                Ok(())
            })
            .await?;
        }
    }

    /// The last lines that a container wrote, without the secrets that it was given.
    async fn last_output(&self, engine: &dyn Engine, name: &str) -> String {
        let lines = async {
            let container = engine.inspect(&self.executor.owner, name).await.ok()??;
            let logs =
                engine.logs(&self.executor.owner, &container.id, Some(5), false).await.ok()?;
            let lines: Vec<_> = logs.filter_map(|line| async { line.ok() }).take(5).collect().await;
            Some(lines)
        };
        let Ok(Some(lines)) = tokio::time::timeout(Duration::from_secs(3), lines).await else {
            return String::new();
        };
        let mut text =
            lines.iter().map(|line| line.text.trim_end()).collect::<Vec<_>>().join(" | ");
        for secret in self.executor.secrets.values() {
            text = without(text, secret.expose_secret());
        }
        let text: String = text.chars().filter(|c| !c.is_control()).take(500).collect();
        if text.is_empty() { text } else { format!("; its last words: {text}") }
    }
}

fn didnt_stay_up(backend: &BackendName, need: &Need, why: &str, more: &str) -> Failure {
    let Need { server, revision, standing, .. } = need;
    if *standing {
        return Failure::Stopped(format!(
            "{server} serves on in {backend}, and went down: {why}{more}"
        ));
    }
    let reason = format!("{server} came up in {backend}, and didn't stay up: {why}{more}");
    Failure::Revision { revision: *revision, reason }
}

/// Grows with the time that was waited: what takes long is found late by a small part of it.
fn pause_after(waited: Duration) -> Duration {
    (waited / PAUSES_IN_A_WAIT).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

async fn look_at_sessions(
    proxy: &dyn Proxy,
    backend: &BackendName,
    server: &ServerName,
) -> Result<Look, Failure> {
    Ok(match proxy.sessions(backend, server).await? {
        0 => Look::Done,
        n => Look::NotYet(format!("{n} requests are still on it")),
    })
}

/// The shortest line of a secret that is looked for by itself, in bytes: a shorter one would be
/// found in every text.
const SHORTEST_LINE: usize = 6;

/// The text without a secret, also where it was written line by line.
fn without(text: String, secret: &str) -> String {
    let lines = secret.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_LINE);
    let whole = Some(secret).filter(|secret| !secret.is_empty());
    whole.into_iter().chain(lines).fold(text, |text, part| text.replace(part, "***"))
}

/// Since when a container runs without interruption, as far as was seen.
#[derive(Debug, Default)]
struct Steady {
    since: Option<Instant>,
    restarts: u32,
    /// Why it was restarted, in words: between two ends it looks as if it were well.
    restarted: Option<String>,
    /// One of its ends was a kill at its memory limit. The others, of which the engine tells only
    /// the code of a kill, will have been the same.
    out_of_memory: bool,
    looked: Option<Instant>,
    restarts_at_first: Option<u32>,
    /// Since when HAProxy finds it up without interruption, and how often that was seen.
    up: Option<(Instant, u32)>,
}

/// The container behind a server: its app, the server, its revision.
type Behind<'a> = (&'a AppId, &'a ServerName, Revision);

fn lock(steady: &Mutex<Steady>) -> MutexGuard<'_, Steady> {
    steady.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Steady {
    /// What kept it from being ready, with what was seen of its ends.
    fn explain(&self, last: String) -> String {
        match &self.restarted {
            Some(restarted) if *restarted != last => format!("{last}; {restarted}"),
            _ => last,
        }
    }

    /// It is up, and its container runs: true where that was so for a moment by now.
    fn is_proven(&mut self) -> bool {
        let (since, looks) = self.up.get_or_insert((Instant::now(), 0));
        *looks += 1;
        let (looks, lasted) = (*looks, since.elapsed());
        (looks >= PROVING_LOOKS && lasted >= PROVEN) || (looks >= 2 && lasted >= PROVEN_SLOWLY)
    }

    /// True where it ended since it was looked at first.
    fn was_restarted(&mut self, container: &Container) -> bool {
        *self.restarts_at_first.get_or_insert(container.restarts) < container.restarts
    }

    /// True from time to time, and not at once: most containers are up before.
    fn wants_a_look(&mut self) -> bool {
        let now = Instant::now();
        let due = *self.looked.get_or_insert(now) + BETWEEN_LOOKS_BEHIND <= now;
        if due {
            self.looked = Some(now);
        }
        due
    }

    /// How it ended, with what was seen of its earlier ends.
    fn ended(&mut self, container: &Container) -> Option<Ended> {
        let Ended { code, out_of_memory } = container.state.ended()?;
        self.out_of_memory |= out_of_memory;
        Some(Ended { code, out_of_memory: out_of_memory || (code == KILLED && self.out_of_memory) })
    }

    fn for_at_least(&self, settle: Span) -> Look {
        match self.since {
            Some(since) if since.elapsed() >= settle.duration() => Look::Done,
            _ => Look::NotYet(format!("it hasn't run for {settle} yet")),
        }
    }
}

/// Done where a container hasn't ended since it was made, or not for a while.
fn lasts(container: &Container, steady: &Mutex<Steady>) -> Look {
    let mut steady = lock(steady);
    match look_at(container, &mut steady) {
        Look::Done if container.restarts == 0 => Look::Done,
        Look::Done => steady.for_at_least(SETTLED),
        look => look,
    }
}

fn look_at(container: &Container, steady: &mut Steady) -> Look {
    if container.state != ContainerState::Running || container.restarts != steady.restarts {
        steady.since = None;
        steady.restarts = container.restarts;
    }
    let ended = steady.ended(container);
    if let ContainerState::Restarting { .. } = container.state {
        steady.restarted = Some(restarted(container, ended));
    }
    match &container.state {
        ContainerState::Running => {
            steady.since.get_or_insert_with(Instant::now);
            match container.health {
                Some(EngineHealth::Starting) => Look::NotYet("its health check is starting".into()),
                Some(EngineHealth::Unhealthy) => Look::NotYet("its health check fails".into()),
                Some(EngineHealth::Healthy) | None => Look::Done,
            }
        }
        ContainerState::Restarting { .. } => Look::NotYet(restarted(container, ended)),
        ContainerState::Created => Look::NotYet("it isn't started yet".into()),
        // Engines start again what ends by itself.
        ContainerState::Exited { .. } => {
            let how = ended.map_or_else(|| "it ended".into(), |ended| ended.to_string());
            Look::Stopped(format!("{how}: somebody stopped it, or its engine ended"))
        }
        ContainerState::Paused => Look::NotYet("it is paused".into()),
        ContainerState::Removing | ContainerState::Dead => {
            Look::Stopped("it is being removed".into())
        }
    }
}

/// That its restart policy is at work, and why.
fn restarted(container: &Container, ended: Option<Ended>) -> String {
    let why = match ended {
        Some(ended) => ended.to_string(),
        None => "it ended".into(),
    };
    match container.restarts {
        0 => format!("{why}, and is restarted"),
        n => format!("{why}, and is restarted, {n} times so far"),
    }
}

async fn ask(address: SocketAddr, path: Option<&UrlPath>, timeout: Span) -> Look {
    match probe(address, path, timeout.duration()).await {
        Ok(()) => Look::Done,
        Err(why) => Look::NotYet(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Birth, ContainerId, ImageContent, Pin, Sha256, Slot};

    fn restarting(code: i64, out_of_memory: bool) -> Container {
        let birth = Birth {
            installation: "shop".parse().unwrap(),
            uid: "8f14e45f".parse().unwrap(),
            app: "test/web".parse().unwrap(),
            revision: Revision::from_sha256(Sha256::of(b"1")),
            slot: Slot(0),
            port: None,
            commit: crate::model::CommitId("1".into()),
            pin: Pin {
                reference: "web:1".parse().unwrap(),
                content: ImageContent::Id(Sha256::of(b"web")),
            },
        };
        Container {
            id: ContainerId("1".into()),
            name: birth.container_name(),
            birth,
            state: ContainerState::Restarting { ended: Some(Ended { code, out_of_memory }) },
            health: None,
            restarts: 1,
        }
    }

    #[test]
    fn one_kill_that_the_engine_noted_explains_the_others() {
        let mut steady = Steady::default();
        let mut words = |code, noted| match look_at(&restarting(code, noted), &mut steady) {
            Look::NotYet(why) => why,
            Look::Done | Look::Proving(_) | Look::Stopped(_) => panic!("it is restarted"),
        };
        assert!(words(137, false).starts_with("it exited with 137"));
        assert!(words(137, true).starts_with("it was killed at its memory limit"));
        assert!(words(137, false).starts_with("it was killed at its memory limit"));
        assert!(words(1, false).starts_with("it exited with 1,"));
    }

    /// A machine that stood still for a while shows what was so before it did.
    #[tokio::test(start_paused = true)]
    async fn time_alone_proves_nothing() {
        let mut steady = Steady::default();
        assert!(!steady.is_proven());
        tokio::time::advance(5 * PROVEN).await;
        for look in 2..PROVING_LOOKS {
            assert!(!steady.is_proven(), "at look {look}");
        }
        assert!(steady.is_proven());

        let mut steady = Steady::default();
        for _ in 0..2 * PROVING_LOOKS {
            assert!(!steady.is_proven(), "no time has passed");
        }
        tokio::time::advance(PROVEN).await;
        assert!(steady.is_proven());

        let mut steady = Steady::default();
        assert!(!steady.is_proven());
        tokio::time::advance(PROVEN_SLOWLY).await;
        assert!(steady.is_proven(), "its engine is slow");
    }

    #[test]
    fn what_takes_longer_is_looked_at_less_often() {
        for (waited, pause) in [(0, 5), (80, 5), (160, 10), (800, 50), (4_000, 250), (60_000, 250)]
        {
            let pause = Duration::from_millis(pause);
            assert_eq!(pause_after(Duration::from_millis(waited)), pause, "{waited}");
        }
    }

    #[test]
    fn a_secret_of_several_lines_is_hidden_line_by_line() {
        for (text, secret, clean) in [
            ("the token is hunter2!", "hunter2", "the token is ***!"),
            ("first-line | second-line", "first-line\nsecond-line\nab", "*** | ***"),
            ("ab is short", "first-line\nab", "ab is short"),
            ("nothing", "", "nothing"),
        ] {
            assert_eq!(without(text.to_owned(), secret), clean);
        }
    }
}
