//! A HAProxy that somebody else runs, on this machine and behind ssh: one suite for both, and
//! one for the machines themselves.

#[path = "harness/haproxy.rs"]
mod harness;
#[path = "harness/private_sshd.rs"]
mod sshd;

use std::process::{Child, Command};
use std::time::Duration;

use harness::{Bed, WEB, WebServer, free_address, get, wait_for};
use plimsoll::model::{
    BackendName, BalancerRun, FilePath, Listener, ProxyFile, ProxyProcess, ServerName, SshAddress,
};
use plimsoll::proxy::SshMachine;
use plimsoll::proxy::{ConnectError, LocalMachine, Machine, MachineError, Proxy, ProxyError};
use rustix::process::Signal;
use sshd::Sshd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const A: &str = "alpha:f753afc24d79:3f2a91bc-0";
const LONG: Duration = Duration::from_secs(10);

/// A HAProxy with a file of a person, and the adapter to it.
struct External {
    bed: Bed,
    haproxy: Option<Child>,
}

impl External {
    async fn start(ssh: Option<SshAddress>) -> Self {
        let mut bed = Bed::managed();
        let run = BalancerRun::External {
            config: bed.path("haproxy.cfg"),
            master_socket: bed.path("master.sock"),
            runtime_socket: bed.path("runtime.sock"),
            ssh,
        };
        bed.proxy = Bed::adapter(bed.folder.path(), run);
        let theirs = format!(
            "defaults\n    mode http\n    timeout client 1s\nfrontend theirs\n    bind {}\n",
            free_address()
        );
        std::fs::write(bed.path("haproxy.cfg"), theirs).unwrap();
        let mut external = Self { bed, haproxy: None };
        external.run_haproxy().await;
        external
    }

    async fn run_haproxy(&mut self) {
        let bed = &self.bed;
        let master = format!("{},mode,600,level,admin", bed.path("master.sock"));
        let pid = bed.path("haproxy.pid");
        let child = Command::new("haproxy")
            .args(["-W", "-S", &master, "-f", &bed.path("haproxy.cfg"), "-p", &pid])
            .spawn()
            .unwrap();
        self.haproxy = Some(child);
        let socket = bed.path("master.sock");
        wait_for("HAProxy", || async {
            tokio::net::UnixStream::connect(&socket).await.is_ok()
                && !bed.worker_pids().await.is_empty()
        })
        .await;
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.haproxy.take() {
            let pid = i32::try_from(child.id()).unwrap();
            harness::signal(pid, Signal::KILL);
            let _ = child.wait();
        }
    }
}

impl Drop for External {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn an_external_haproxy(ssh: Option<SshAddress>) {
    let mut external = External::start(ssh).await;
    let bed = &external.bed;
    let (backend, name): (BackendName, ServerName) = (WEB.parse().unwrap(), A.parse().unwrap());

    let state = bed.proxy.observe().await.unwrap();
    assert!(matches!(state.file, ProxyFile::Damaged { .. }), "{:?}", state.file);
    let ProxyProcess::Up(runtime) = state.process else { panic!("{:?}", state.process) };
    assert_eq!(runtime.structure, None);

    let structure = bed.structure(&[WEB]);
    bed.proxy.restructure(&structure).await.unwrap();
    let workers = bed.worker_pids().await;
    bed.route("web www.example.com/", WEB).await;
    let a = WebServer::start("a").await;
    bed.join(WEB, A, a.address, 100).await;
    assert_eq!(get(bed.web, "www.example.com", "/").await.server(), "a");
    assert_eq!(bed.proxy.sessions(&backend, &name).await.unwrap(), 0);
    let state = bed.proxy.observe().await.unwrap();
    assert!(matches!(state.file, ProxyFile::Ours(_)), "{:?}", state.file);
    assert_eq!(bed.runtime().await.structure, Some(structure.digest()));
    assert_eq!(bed.worker_pids().await, workers);

    // What can't be bound is refused before the reload.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bad = structure.clone();
    let listener = Listener { bind: taken.local_addr().unwrap(), certificates: None };
    bad.listeners.insert("more".parse().unwrap(), listener);
    let refused = bed.proxy.restructure(&bad).await.unwrap_err();
    assert!(matches!(refused, ProxyError::Bind { .. }), "{refused}");
    assert!(bed.proxy.version().await.unwrap().starts_with(|c: char| c.is_ascii_digit()));

    // Not ours to start; what to type is said, and the file is there for it.
    external.kill();
    let bed = &external.bed;
    wait_for("down", || bed.is_down()).await;
    let next = bed.structure(&[WEB, "production.b"]);
    let refused = bed.proxy.restructure(&next).await.unwrap_err();
    assert!(matches!(&refused, ProxyError::Start(text) if text.contains("haproxy -W -S")));
    external.run_haproxy().await;
    let bed = &external.bed;
    wait_for("its structure", || async { bed.runtime().await.structure == Some(next.digest()) })
        .await;
    bed.proxy.restructure(&next).await.unwrap();
    assert_eq!(bed.runtime().await.servers[&backend][&name].weight, 100);
    bed.leave(WEB, A).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_this_machine() {
    an_external_haproxy(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_ssh() {
    let sshd = Sshd::start().await;
    an_external_haproxy(Some(sshd.client("known_hosts"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_cannot_be_reached() {
    let sshd = Sshd::start().await;
    let address = sshd.client("known_hosts");
    let external = External::start(Some(address)).await;
    external.bed.proxy.observe().await.unwrap();
    // The server is gone, with its connections.
    drop(sshd);
    let refused = external.bed.proxy.observe().await.unwrap_err();
    assert!(matches!(refused, ProxyError::Unreachable { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_key_is_refused() {
    let sshd = Sshd::start().await;
    let machine = SshMachine::new(sshd.client("unknown_hosts"));
    let refused = machine.run("true", &[], LONG).await.unwrap_err();
    assert!(matches!(refused, MachineError::Unreachable { .. }), "{refused}");
    assert!(refused.to_string().to_lowercase().contains("host key"), "{refused}");
}

async fn a_machine(machine: &dyn Machine) {
    let folder = tempfile::tempdir().unwrap();
    let path =
        |name: &str| -> FilePath { format!("{}/{name}", folder.path().display()).parse().unwrap() };
    let (one, other) = (path("one"), path("other"));
    assert_eq!(machine.read(&one).await.unwrap(), None);
    let long: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    for content in [b"".to_vec(), b"a\nb".to_vec(), long, b"short".to_vec()] {
        machine.write(&one, &content).await.unwrap();
        assert_eq!(machine.read(&one).await.unwrap(), Some(content));
    }
    machine.write(&other, b"other").await.unwrap();
    machine.rename(&one, &other).await.unwrap();
    assert_eq!(machine.read(&one).await.unwrap(), None);
    assert_eq!(machine.read(&other).await.unwrap(), Some(b"short".to_vec()));
    machine.remove(&other).await.unwrap();
    machine.remove(&other).await.unwrap();
    let nowhere = machine.write(&path("no/folder"), b"").await.unwrap_err();
    assert!(matches!(nowhere, MachineError::Failed { .. }), "{nowhere}");

    // Words arrive as they are, without a shell in between.
    let words = "a b;c $HOME '\"\\ *";
    let outcome = machine.run("printf", &["%s", words], LONG).await.unwrap();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), words));
    let script = ["-c", "echo out; echo err >&2; exit 3"];
    let outcome = machine.run("sh", &script, LONG).await.unwrap();
    assert_eq!(outcome.code, Some(3));
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    let missing = machine.run("plimsoll-is-no-program", &[], LONG).await.unwrap_err();
    assert!(matches!(missing, MachineError::Failed { .. }), "{missing}");
    let slow = machine.run("sleep", &["20"], Duration::from_millis(200)).await;
    assert!(slow.is_err());

    // A socket, twice at once; and one that nobody listens on.
    let socket = path("socket");
    let listener = tokio::net::UnixListener::bind(socket.as_str()).unwrap();
    let echo = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    let mut connections = Vec::new();
    for _ in 0..2 {
        connections.push(machine.connect(&socket).await.unwrap());
    }
    for connection in &mut connections {
        connection.write_all(b"ping").await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"ping");
    }
    echo.abort();
    let _ = echo.await;
    match machine.connect(&socket).await {
        Err(ConnectError::Nobody { .. }) => {}
        Err(other) => panic!("{other}"),
        Ok(mut connection) => {
            let mut answer = Vec::new();
            let _ = connection.read_to_end(&mut answer).await;
            assert_eq!(answer, b"");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machine_does_as_a_machine_does() {
    a_machine(&LocalMachine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_behind_ssh_does_as_a_machine_does() {
    let sshd = Sshd::start().await;
    a_machine(&SshMachine::new(sshd.client("known_hosts"))).await;
}
