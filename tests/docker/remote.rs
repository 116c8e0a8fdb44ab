//! Engines that aren't on this machine: behind a private sshd, and behind TLS, both on the
//! loopback.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use plimsoll::docker::{Engine, EngineError, EngineOptions};
use plimsoll::model::EngineAddress;
use tokio::net::{TcpListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::claim::free_port;
use crate::dockerd::wait_for;
use crate::fixture::{Fixture, PATIENCE, connect, options};

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

struct Sshd {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Sshd {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for key in ["host_key", "user_key"] {
            run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &path(key)]);
        }
        fs::copy(path("user_key.pub"), path("authorized_keys")).unwrap();
        let port = free_port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\n\
             PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n",
            path("host_key"),
            path("authorized_keys")
        );
        fs::write(path("config"), config).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let child = Self::spawn(folder.path(), port);
        let host_key = fs::read_to_string(path("host_key.pub")).unwrap();
        let known = format!("[127.0.0.1]:{port} {host_key}");
        fs::write(path("known_hosts"), known).unwrap();
        Self { child, port, folder }
    }

    fn spawn(folder: &Path, port: u16) -> Child {
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(folder.join("config"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .expect("sshd can't be started: is openssh-server installed?");
        let answers = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        assert!(wait_for(PATIENCE, answers), "sshd didn't come up");
        child
    }

    fn end(&mut self) {
        // What it forked for a connection is a child of its own.
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        for pid in children.split_whitespace() {
            let _ = Command::new("kill").args(["-KILL", pid]).stderr(Stdio::null()).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.end();
    }
}

pub async fn an_engine_behind_ssh(fixture: Arc<Fixture>) {
    let mut sshd = Sshd::start();
    let path = |name: &str| sshd.folder.path().join(name);
    let address = |socket: &Path| EngineAddress::Ssh {
        user: Some("root".into()),
        host: "127.0.0.1".into(),
        port: Some(sshd.port),
        key: Some(path("user_key").display().to_string()),
        socket: socket.display().to_string(),
    };
    let known = |file: &str| EngineOptions { known_hosts: Some(path(file)), ..options() };
    let socket = fixture.dockerd.socket();

    // A host whose key isn't known is never spoken to.
    fs::write(path("known_nobody"), "").unwrap();
    let error = connect(address(&socket), known("known_nobody")).version().await.unwrap_err();
    assert!(matches!(error, EngineError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("ssh-keyscan"), "{error}");

    let wrong = connect(address(Path::new("/nowhere/docker.sock")), known("known_hosts"));
    let error = wrong.version().await.unwrap_err();
    assert!(error.to_string().contains("does Docker run there"), "{error}");

    let engine = connect(address(&socket), known("known_hosts"));
    assert!(engine.version().await.unwrap().contains("API"));
    let id = engine.create(&fixture.script("ssh", "exec sleep 1000"), &Default::default()).await;
    let id = id.unwrap();
    engine.start(&fixture.owner, &id.0).await.unwrap();
    assert!(fixture.seen(&id).await.unwrap().runs());
    fixture.destroy(&id).await;

    let (folder, port) = (sshd.folder.path().to_owned(), sshd.port);
    sshd.end();
    engine.version().await.unwrap_err();
    sshd.child = Sshd::spawn(&folder, port);
    assert!(engine.version().await.unwrap().contains("API"), "it didn't come back");
}

/// A certificate authority with a server and a client, in the files that Docker takes.
fn make_certificates(folder: &Path) {
    let path = |name: &str| folder.join(name).display().to_string();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let ca = ["req", "-x509", "-subj", "/CN=ca", "-days", "2"];
    let files = ["-keyout", &path("ca-key.pem"), "-out", &path("ca.pem")];
    run("openssl", &[&ca[..], &key, &files].concat());
    for (name, key_name) in [("server", "server-key"), ("cert", "key")] {
        let subject = ["req", "-subj", &format!("/CN={name}")];
        let request = path("request.pem");
        let key_file = path(&format!("{key_name}.pem"));
        run("openssl", &[&subject[..], &key, &["-keyout", &key_file, "-out", &request]].concat());
        fs::write(path("extensions"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
        let sign = ["x509", "-req", "-in", &request, "-CA", &path("ca.pem")];
        let ca_key = ["-CAkey", &path("ca-key.pem"), "-CAcreateserial", "-days", "2"];
        let out = path(&format!("{name}.pem"));
        let rest = ["-extfile", &path("extensions"), "-out", &out];
        run("openssl", &[&sign[..], &ca_key, &rest].concat());
    }
}

fn server_config(folder: &Path) -> ServerConfig {
    let certificates =
        |name: &str| CertificateDer::pem_file_iter(folder.join(name)).unwrap().map(Result::unwrap);
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates("ca.pem"));
    let provider = Arc::new(ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let key = PrivateKeyDer::from_pem_file(folder.join("server-key.pem")).unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(certificates("server.pem").collect(), key)
        .unwrap()
}

pub async fn an_engine_behind_tls(fixture: Arc<Fixture>) {
    let (folder, strangers) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_certificates(folder.path());
    make_certificates(strangers.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(server_config(folder.path())));
    let socket = fixture.dockerd.socket();
    let server = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, socket) = (acceptor.clone(), socket.clone());
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut engine = UnixStream::connect(socket).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut engine).await;
            });
        }
    });
    let address = |tls: &Path| EngineAddress::Tcp {
        host: "127.0.0.1".into(),
        port,
        tls: Some(tls.display().to_string()),
    };
    let engine = connect(address(folder.path()), options());
    for _ in 0..2 {
        assert!(engine.version().await.unwrap().contains("API"));
    }
    let nowhere = Path::new("/nowhere");
    for (tls, says) in [(strangers.path(), "certificate"), (nowhere, "/nowhere/ca.pem")] {
        let error = connect(address(tls), options()).version().await.unwrap_err();
        assert!(matches!(error, EngineError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    server.abort();
}
