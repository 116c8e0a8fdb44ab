//! The steps that wait: until a container is ready, a server is up, or drained. They look often
//! at first and less often later, and end at the deadline or when something else takes over.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::Empty;
use secrecy::ExposeSecret;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::docker::Engine;
use crate::model::{
    BackendName, CheckState, Container, ContainerState, EngineHealth, Revision, ServerName, Span,
    UrlPath,
};
use crate::plan::Probe;
use crate::proxy::Proxy;

use super::{Executor, Failure};

/// The first pause between two looks, and the longest. A server is found up after 0.15 s with
/// checks every 50 ms, so looking more often than every 20 ms wins nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

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
    /// It never will.
    Never(String),
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
                    return Ok(Look::Never(format!("{name} is gone")));
                };
                let look = {
                    let mut steady = steady.lock().unwrap_or_else(PoisonError::into_inner);
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
                let reason = format!("{name} didn't get ready: {why}{output}");
                Err(Failure::Revision { revision, reason })
            }
        }
    }

    /// Until HAProxy found the server up.
    pub async fn up(
        &self,
        proxy: &dyn Proxy,
        backend: &BackendName,
        server: &ServerName,
        revision: Revision,
    ) -> Result<(), Failure> {
        let result = self
            .look_until(|| async {
                Ok(match proxy.server(backend, server).await?.map(|server| server.check) {
                    Some(CheckState::Up) => Look::Done,
                    Some(CheckState::Unknown) => Look::NotYet("it isn't checked yet".into()),
                    Some(CheckState::Down) => Look::NotYet("its health check fails".into()),
                    None => Look::NotYet("HAProxy doesn't know it".into()),
                })
            })
            .await?;
        result.map_err(|why| Failure::Revision {
            revision,
            reason: format!("{server} didn't come up in {backend}: {why}"),
        })
    }

    /// Until no worker has a session on the server. At the deadline it passes as well: every
    /// drain ends.
    pub async fn drained(
        &self,
        proxy: &dyn Proxy,
        backend: &BackendName,
        server: &ServerName,
    ) -> Result<(), Failure> {
        let result = self
            .look_until(|| async {
                Ok(match proxy.sessions(backend, server).await? {
                    0 => Look::Done,
                    n => Look::NotYet(format!("{n} requests are still on it")),
                })
            })
            .await?;
        if let Err(why) = result {
            tracing::warn!(%server, "the drain ends at its deadline: {why}");
        }
        Ok(())
    }

    /// Looks until it is done (`Ok(Ok)`), never will be, or the deadline has passed
    /// (`Ok(Err)`, with the last look). Errors that may pass count as a look.
    async fn look_until<F, L>(&self, mut look: L) -> Result<Result<(), String>, Failure>
    where
        L: FnMut() -> F,
        F: Future<Output = Result<Look, Failure>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            let last = match self.unless_cancelled(look()).await {
                Ok(Look::Done) => return Ok(Ok(())),
                Ok(Look::Never(why)) => return Ok(Err(why)),
                Ok(Look::NotYet(why)) => why,
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
            pause = (pause.mul_f64(1.3)).min(LONGEST_PAUSE);
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
}

impl Steady {
    fn for_at_least(&self, settle: Span) -> Look {
        match self.since {
            Some(since) if since.elapsed() >= settle.duration() => Look::Done,
            _ => Look::NotYet(format!("it hasn't run for {settle} yet")),
        }
    }
}

fn look_at(container: &Container, steady: &mut Steady) -> Look {
    if container.state != ContainerState::Running || container.restarts != steady.restarts {
        steady.since = None;
        steady.restarts = container.restarts;
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
        ContainerState::Restarting => {
            Look::NotYet(format!("it ends and is restarted, {} times so far", container.restarts))
        }
        ContainerState::Created => Look::NotYet("it isn't started yet".into()),
        ContainerState::Exited { out_of_memory: true, .. } => {
            Look::Never("it was killed at its memory limit".into())
        }
        ContainerState::Exited { code, .. } => Look::Never(format!("it exited with {code}")),
        ContainerState::Paused => Look::NotYet("it is paused".into()),
        ContainerState::Removing | ContainerState::Dead => {
            Look::Never("it is being removed".into())
        }
    }
}

/// One HTTP request or TCP connection, as HAProxy's check would make it: 2xx and 3xx are up.
async fn ask(address: SocketAddr, path: Option<&UrlPath>, timeout: Span) -> Look {
    let asked = tokio::time::timeout(timeout.duration(), ask_once(address, path)).await;
    match asked {
        Ok(Ok(())) => Look::Done,
        Ok(Err(why)) => Look::NotYet(format!("{address}: {why}")),
        Err(_) => Look::NotYet(format!("{address} didn't answer within {timeout}")),
    }
}

async fn ask_once(address: SocketAddr, path: Option<&UrlPath>) -> Result<(), String> {
    let stream = tokio::net::TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let Some(path) = path else { return Ok(()) };
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<bytes::Bytes>>(io)
            .await
            .map_err(|error| error.to_string())?;
    let request = hyper::Request::get(path.as_str())
        .header("host", address.to_string())
        .header("user-agent", "plimsoll")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let response = async { sender.send_request(request).await.map_err(|error| error.to_string()) };
    let response = tokio::select! {
        biased;
        response = response => response?,
        ended = connection => return Err(match ended {
            Ok(()) => "it closed the connection".into(),
            Err(error) => error.to_string(),
        }),
    };
    match response.status() {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(format!("{path} answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::without;

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
