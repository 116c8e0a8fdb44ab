//! A socket in front of an engine's socket that does to chosen calls what broken machines do:
//! loses the reply, answers nonsense, an error, or nothing at all.

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
}

/// While it lives, the calls whose request line has `part` in it suffer `fault`.
pub struct EngineProxy {
    socket: PathBuf,
    plan: Arc<Mutex<Option<(String, Fault)>>>,
    seen: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl EngineProxy {
    pub fn start(engine: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("proxy.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let plan: Arc<Mutex<Option<(String, Fault)>>> = Arc::default();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let (engine, plans, lines) = (engine.to_owned(), plan.clone(), seen.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, engine.clone(), plans.clone(), lines.clone()));
            }
        });
        Self { socket, plan, seen, task, _folder: folder }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// From now on calls with `part` in their request line suffer `fault`; others are carried.
    pub fn plan(&self, part: &str, fault: Fault) {
        *self.plan.lock().unwrap() = Some((part.to_owned(), fault));
    }

    /// From now on all calls are carried.
    pub fn heal(&self) {
        *self.plan.lock().unwrap() = None;
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

async fn carry(
    mut client: UnixStream,
    engine: PathBuf,
    plan: Arc<Mutex<Option<(String, Fault)>>>,
    seen: Arc<Mutex<Vec<String>>>,
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
    let fault = plan.lock().unwrap().clone();
    let fault = fault.filter(|(part, _)| line.contains(part)).map(|(_, fault)| fault);
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
        Some(Fault::LoseReply) | None => {
            let Ok(mut upstream) = UnixStream::connect(engine).await else { return };
            if upstream.write_all(&head).await.is_err() {
                return;
            }
            if fault.is_none() {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
                return;
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
