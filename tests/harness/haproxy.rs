//! A HAProxy in a temporary folder, web servers behind it, and a client in front, all on free
//! ports of the loopback. What was started is killed by its process id at the end, also where
//! the test fails.

#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "claim.rs"]
mod claim;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll::model::{
    Backend, BackendName, BalancerRun, Check, CheckState, Listener, ProxyFile, ProxyProcess,
    ProxyRuntime, ProxyStructure, RouteKey, Server, ServerName, Span,
};
use plimsoll::proxy::{HaproxyOptions, HaproxyProxy, Proxy};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

pub use claim::free_port;

pub const WEB: &str = "production.web";

/// Waits for a condition; says what it was when it doesn't come.
pub async fn wait_for<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let end = Instant::now() + Duration::from_secs(15);
    while !condition().await {
        assert!(Instant::now() < end, "{what} didn't come");
        sleep(Duration::from_millis(5)).await;
    }
}

/// An address of the loopback that nobody listens on now.
pub fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

/// A HAProxy and what belongs to it.
pub struct Bed {
    pub folder: TempDir,
    pub proxy: HaproxyProxy,
    pub web: SocketAddr,
    pub stats: SocketAddr,
}

impl Bed {
    /// Run by Plimsoll; nothing is started yet.
    pub fn managed() -> Self {
        let folder = tempfile::Builder::new().prefix("plimsoll").tempdir().unwrap();
        let proxy = Self::adapter(folder.path(), BalancerRun::Managed);
        Self { folder, proxy, web: free_address(), stats: free_address() }
    }

    pub fn adapter(folder: &Path, run: BalancerRun) -> HaproxyProxy {
        let (name, haproxy) = ("edge".parse().unwrap(), "haproxy".to_owned());
        let (folder, calls) = (folder.into(), Arc::default());
        HaproxyProxy::new(HaproxyOptions { name, run, folder, haproxy, calls }).unwrap()
    }

    /// One that knows nothing of what the first one did, as after a restart of the controller.
    pub fn another_adapter(&self) -> HaproxyProxy {
        Self::adapter(self.folder.path(), BalancerRun::Managed)
    }

    pub fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder.path().display())
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// A listener, a page of statistics, and backends with an HTTP check every 100 ms.
    pub fn structure(&self, backends: &[&str]) -> ProxyStructure {
        let check = Check {
            path: Some("/_status".parse().unwrap()),
            interval: Span::from_millis(100),
            timeout: Span::from_secs(1),
        };
        let listener = Listener { bind: self.web, certificates: None };
        let backend = |name: &&str| (name.parse().unwrap(), Backend { check: check.clone() });
        ProxyStructure {
            stats: Some(self.stats),
            x_host: true,
            listeners: BTreeMap::from([("web".parse().unwrap(), listener)]),
            backends: backends.iter().map(backend).collect(),
        }
    }

    pub async fn route(&self, key: &str, backend: &str) {
        let key: RouteKey = key.parse().unwrap();
        let changes = BTreeMap::from([(key, Some(backend.parse().unwrap()))]);
        self.proxy.set_routes(&changes).await.unwrap();
    }

    /// Adds a server, waits until it is up, and gives it a weight.
    pub async fn join(&self, backend: &str, name: &str, address: SocketAddr, weight: u16) {
        let (backend, name) = (backend.parse().unwrap(), name.parse().unwrap());
        let server = Server { address, weight: 0 };
        self.proxy.add_server(&backend, &name, &server).await.unwrap();
        wait_for("an UP server", || self.is_up(&backend, &name)).await;
        self.proxy.set_weight(&backend, &name, weight).await.unwrap();
    }

    pub async fn is_up(&self, backend: &BackendName, name: &ServerName) -> bool {
        let server = self.proxy.server(backend, name).await.unwrap();
        server.is_some_and(|server| server.check == CheckState::Up)
    }

    /// Weight 0, no session, gone.
    pub async fn leave(&self, backend: &str, name: &str) {
        let (backend, name) = (backend.parse().unwrap(), name.parse().unwrap());
        self.proxy.set_weight(&backend, &name, 0).await.unwrap();
        wait_for("the end of sessions", || async {
            self.proxy.sessions(&backend, &name).await.unwrap() == 0
        })
        .await;
        self.proxy.remove_server(&backend, &name).await.unwrap();
    }

    /// What the process says; fails where it is down.
    pub async fn runtime(&self) -> ProxyRuntime {
        match self.proxy.observe().await.unwrap().process {
            ProxyProcess::Up(runtime) => std::sync::Arc::unwrap_or_clone(runtime),
            ProxyProcess::Down { reason } => panic!("HAProxy is down: {reason}"),
        }
    }

    pub async fn is_down(&self) -> bool {
        matches!(self.proxy.observe().await.unwrap().process, ProxyProcess::Down { .. })
    }

    pub async fn file_is_ours(&self) -> bool {
        matches!(self.proxy.observe().await.unwrap().file, ProxyFile::Ours(_))
    }

    /// Process id of the master, from its own file.
    pub fn master_pid(&self) -> i32 {
        self.read("haproxy.pid").trim().parse().unwrap()
    }

    /// Process ids of the workers, as the master tells.
    pub async fn worker_pids(&self) -> Vec<i32> {
        let text = ask(&self.path("master.sock"), "show proc").await;
        let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        words
            .filter(|words| words.get(1) == Some(&"worker"))
            .map(|words| words[0].parse().unwrap())
            .collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        kill_all_of(self.folder.path());
    }
}

/// Kills the processes that have a path of this temporary folder in their command line.
pub fn kill_all_of(folder: &Path) {
    let folder = folder.to_str().unwrap().as_bytes();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.windows(folder.len()).any(|window| window == folder) {
            signal(pid, rustix::process::Signal::KILL);
        }
    }
}

pub fn signal(pid: i32, signal: rustix::process::Signal) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal);
}

/// What a socket of HAProxy answers, without any of our own code; asked again where a reload
/// resets the connection.
pub async fn ask(socket: &str, command: &str) -> String {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match try_ask(socket, command).await {
            Ok(answer) => return answer,
            Err(cause) => assert!(Instant::now() < end, "{socket}: {cause}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

async fn try_ask(socket: &str, command: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::UnixStream::connect(socket).await?;
    stream.write_all(format!("{command}\n").as_bytes()).await?;
    stream.shutdown().await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// A web server that answers with its name and what it was sent.
pub struct WebServer {
    pub address: SocketAddr,
    /// Requests that weren't checks.
    pub requests: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl WebServer {
    pub async fn start(name: &str) -> Self {
        Self::start_slow(name, Duration::ZERO).await
    }

    /// Each answer takes `delay`, those to checks none.
    pub async fn start_slow(name: &str, delay: Duration) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), name, delay)
    }

    /// At an address where one was before, which may not be gone yet.
    pub async fn start_again(name: &str, address: SocketAddr) -> Self {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => return Self::serve(listener, name, Duration::ZERO),
                Err(cause) => assert!(Instant::now() < end, "{address}: {cause}"),
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn serve(listener: TcpListener, name: &str, delay: Duration) -> Self {
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicU64::new(0));
        let (name, counter) = (name.to_owned(), requests.clone());
        let task = tokio::spawn(async move {
            // Connections end with the server.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, name.clone(), delay, counter.clone()));
            }
        });
        Self { address, requests, task }
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, name: String, delay: Duration, counter: Arc<AtomicU64>) {
    let mut buffer = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut buffer).await {
        let is_check = head.starts_with("GET /_status ");
        if !is_check {
            counter.fetch_add(1, Ordering::Relaxed);
            sleep(delay).await;
        }
        if head.to_lowercase().contains("upgrade: websocket") {
            // The accept value of the example in RFC 6455, section 1.3, whose key the test sends.
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes()).await;
            let (mut reader, mut writer) = stream.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            return;
        }
        let body = format!("server: {name}\n{head}");
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).replace('\r', "");
            buffer.drain(..end + 4);
            return Some(head);
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => buffer.extend_from_slice(&chunk[..count]),
        }
    }
}

/// An answer to [`get`].
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The name of the web server that answered.
    pub fn server(&self) -> &str {
        self.body.lines().next().and_then(|line| line.strip_prefix("server: ")).unwrap_or("none")
    }
}

/// A request on a connection of its own.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Answer {
    get_with(address, host, path, "").await.unwrap()
}

/// `headers`: more header lines, each with its end.
pub async fn get_with(
    address: SocketAddr,
    host: &str,
    path: &str,
    headers: &str,
) -> std::io::Result<Answer> {
    let host = if host.is_empty() { String::new() } else { format!("Host: {host}\r\n") };
    let request = format!("GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(Duration::from_secs(10), exchange).await??;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// Clients that send requests, each on a new connection, until they are stopped.
pub struct Load {
    stop: Arc<std::sync::atomic::AtomicBool>,
    tasks: Vec<JoinHandle<(u64, Vec<String>)>>,
}

impl Load {
    pub fn start(address: SocketAddr, host: &'static str) -> Self {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let client = |stop: Arc<std::sync::atomic::AtomicBool>| async move {
            let (mut good, mut bad) = (0, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                match get_with(address, host, "/", "").await {
                    Ok(answer) if answer.status == 200 => good += 1,
                    Ok(answer) => bad.push(answer.head),
                    Err(cause) => bad.push(cause.to_string()),
                }
                tokio::task::yield_now().await;
            }
            (good, bad)
        };
        let tasks = (0..4).map(|_| tokio::spawn(client(stop.clone()))).collect();
        Self { stop, tasks }
    }

    /// How many requests were answered; none may have been lost.
    pub async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut answered = 0;
        for task in self.tasks {
            let (good, bad) = task.await.unwrap();
            assert!(bad.is_empty(), "{} of {} lost: {:?}", bad.len(), good, bad[0]);
            answered += good;
        }
        assert!(answered > 0);
        answered
    }
}
