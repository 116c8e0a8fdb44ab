//! A socket in front of an engine's socket that does to chosen calls what broken machines do:
//! loses the reply, answers nonsense, an error, or nothing at all.

#![allow(dead_code, reason = "each test binary uses another part of it")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The engine does it, and nobody hears of it.
    LoseReply,
    /// The connection is closed before the engine hears of it.
    Close,
    /// An error of the proxy's own, with this status.
    Status(u16),
    /// Bytes that are no HTTP.
    Garbage,
    /// A good head, and a body that is no JSON.
    BadBody,
    /// Nothing, for as long as the caller waits.
    Silence,
    /// The head of the answer and nothing of what follows, for as long as the caller waits.
    HeadOnly,
}

/// Calls whose request line has `part` in it, so many of which suffer `fault`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Planned {
    part: String,
    fault: Fault,
    left: usize,
}

/// How many changing calls are on their way to the engine.
#[derive(Debug, Default)]
struct Traffic {
    now: usize,
    most: usize,
}

/// While it lives, calls suffer as planned.
pub struct EngineProxy {
    socket: PathBuf,
    plan: Arc<Mutex<Vec<Planned>>>,
    seen: Arc<Mutex<Vec<String>>>,
    traffic: Arc<Mutex<Traffic>>,
    task: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl EngineProxy {
    pub fn start(engine: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("proxy.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let plan: Arc<Mutex<Vec<Planned>>> = Arc::default();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let traffic: Arc<Mutex<Traffic>> = Arc::default();
        let engine = engine.to_owned();
        let (plans, lines, counted) = (plan.clone(), seen.clone(), traffic.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (plans, lines, counted) = (plans.clone(), lines.clone(), counted.clone());
                tokio::spawn(carry(client, engine.clone(), plans, lines, counted));
            }
        });
        Self { socket, plan, seen, traffic, task, _folder: folder }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// From now on calls with `part` in their request line suffer `fault`; others are carried.
    pub fn plan(&self, part: &str, fault: Fault) {
        self.plan_each(&[(part, fault, usize::MAX)]);
    }

    /// From now on the first so many calls with each part in their request line suffer its fault;
    /// others are carried.
    pub fn plan_each(&self, planned: &[(&str, Fault, usize)]) {
        let planned = planned.iter().map(|(part, fault, left)| Planned {
            part: (*part).to_owned(),
            fault: *fault,
            left: *left,
        });
        *self.plan.lock().unwrap() = planned.collect();
    }

    /// The parts for which a call that has to suffer is still to come.
    pub fn left(&self) -> Vec<String> {
        let plan = self.plan.lock().unwrap();
        plan.iter().filter(|planned| planned.left > 0).map(|planned| planned.part.clone()).collect()
    }

    /// The most changing calls that were on their way to the engine at one time.
    pub fn most_changes_at_once(&self) -> usize {
        self.traffic.lock().unwrap().most
    }

    /// From now on all calls are carried.
    pub fn heal(&self) {
        self.plan.lock().unwrap().clear();
    }

    /// The request lines that came since the last time.
    pub fn take_seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Drop for EngineProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts a changing call while it is on its way.
struct OnItsWay(Option<Arc<Mutex<Traffic>>>);

impl OnItsWay {
    fn new(line: &str, traffic: Arc<Mutex<Traffic>>) -> Self {
        if line.starts_with("GET ") || line.starts_with("HEAD ") {
            return Self(None);
        }
        {
            let mut traffic = traffic.lock().unwrap();
            traffic.now += 1;
            traffic.most = traffic.most.max(traffic.now);
        }
        Self(Some(traffic))
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        if let Some(traffic) = &self.0 {
            traffic.lock().unwrap().now -= 1;
        }
    }
}

/// The fault of a call, which is counted as suffered.
fn fault_of(line: &str, plan: &Mutex<Vec<Planned>>) -> Option<Fault> {
    let mut plan = plan.lock().unwrap();
    let fits = |planned: &&mut Planned| planned.left > 0 && line.contains(&planned.part);
    let planned = plan.iter_mut().find(fits)?;
    planned.left -= 1;
    Some(planned.fault)
}

/// Carries the rest in both directions. The call is on its way until the engine answers.
async fn carry_on(mut client: UnixStream, mut engine: UnixStream, counted: OnItsWay) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_engine, mut to_engine) = engine.split();
    let asking = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_engine).await;
        let _ = to_engine.shutdown().await;
    };
    let answering = async {
        let (mut counted, mut part) = (Some(counted), vec![0; 16 << 10]);
        while let Ok(length @ 1..) = from_engine.read(&mut part).await {
            drop(counted.take());
            if to_client.write_all(&part[..length]).await.is_err() {
                break;
            }
        }
        let _ = to_client.shutdown().await;
    };
    tokio::join!(asking, answering);
}

/// Carries what the engine answers first, as its head comes by itself where the body is a stream
/// of what hasn't happened yet. The rest is read, and nobody hears of it.
async fn head_only(mut client: UnixStream, mut engine: UnixStream) {
    let mut head = vec![0; 16 << 10];
    let Ok(length @ 1..) = engine.read(&mut head).await else { return };
    if client.write_all(&head[..length]).await.is_err() {
        return;
    }
    let (mut from_client, mut from_engine) = (Vec::new(), tokio::io::sink());
    tokio::select! {
        biased;
        _ = client.read_to_end(&mut from_client) => {}
        _ = tokio::io::copy(&mut engine, &mut from_engine) => {}
    }
}

async fn carry(
    mut client: UnixStream,
    engine: PathBuf,
    plan: Arc<Mutex<Vec<Planned>>>,
    seen: Arc<Mutex<Vec<String>>>,
    traffic: Arc<Mutex<Traffic>>,
) {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match client.read_buf(&mut head).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let line = String::from_utf8_lossy(&head);
    let line = line.lines().next().unwrap_or_default().to_owned();
    let fault = fault_of(&line, &plan);
    let counted = OnItsWay::new(&line, traffic);
    seen.lock().unwrap().push(line);
    let answer = |text: &str| text.as_bytes().to_vec();
    let answer = match fault {
        Some(Fault::Close) => return,
        Some(Fault::Silence) => {
            // Until the caller gives up.
            let _ = client.read_to_end(&mut Vec::new()).await;
            return;
        }
        Some(Fault::Garbage) => answer("\u{7f}ELF\r\n\r\nwhat is this?"),
        Some(Fault::BadBody) => {
            answer("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n[{\"Id\":\"half")
        }
        Some(Fault::Status(status)) => {
            let body = format!("{{\"message\":\"status {status} on purpose\"}}");
            let length = body.len();
            answer(&format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}"))
        }
        Some(Fault::LoseReply | Fault::HeadOnly) | None => {
            let Ok(mut upstream) = UnixStream::connect(engine).await else { return };
            if upstream.write_all(&head).await.is_err() {
                return;
            }
            if fault.is_none() {
                return carry_on(client, upstream, counted).await;
            }
            if fault == Some(Fault::HeadOnly) {
                return head_only(client, upstream).await;
            }
            let (mut from_client, _) = client.split();
            let (mut from_engine, mut to_engine) = upstream.split();
            let mut first = [0; 1];
            tokio::select! {
                biased;
                _ = from_engine.read(&mut first) => {}
                _ = tokio::io::copy(&mut from_client, &mut to_engine) => {}
            }
            return;
        }
    };
    let _ = client.write_all(&answer).await;
}
