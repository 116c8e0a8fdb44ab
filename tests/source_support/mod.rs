//! A repository made with the git command, and the servers that remotes are reached by.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::free_port;

/// A repository with a working tree and the branch `main`.
pub struct Repository(TempDir);

impl Repository {
    pub fn new() -> Self {
        let repository = Self(TempDir::new().unwrap());
        repository.git(&["init", "-q", "-b", "main"]);
        repository
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        self.run(arguments, &[])
    }

    pub fn git_without_hooks(&self, arguments: &[&str]) -> String {
        self.run(arguments, &["-c", "core.hooksPath=/dev/null"])
    }

    fn run(&self, arguments: &[&str], settings: &[&str]) -> String {
        let output = Command::new("git")
            .args(settings)
            .args(["-c", "user.name=Ann Example", "-c", "user.email=ann@example.com"])
            .args(arguments)
            .current_dir(self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Writes the files and commits everything; the commit's id.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            self.write(path, text);
        }
        self.git(&["add", "-A"]);
        self.commit_index()
    }

    /// A tree of these lines, as `git ls-tree` prints them; its id.
    pub fn make_tree(&self, lines: &str) -> String {
        let mut child = Command::new("git")
            .arg("mktree")
            .current_dir(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Makes `main` a commit of that tree; its id.
    pub fn commit_tree(&self, tree: &str) -> String {
        let commit = self.git(&["commit-tree", tree, "-m", "a commit"]).trim().to_owned();
        self.git(&["update-ref", "refs/heads/main", &commit]);
        commit
    }

    pub fn commit_index(&self) -> String {
        self.git(&["commit", "-q", "--allow-empty", "-m", "a commit"]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }
}

/// A server process; it ends with the test.
pub struct Server {
    pub port: u16,
    process: Child,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// `git daemon` for one repository.
    pub fn git_daemon(repository: &Path) -> Self {
        let folder = TempDir::new().unwrap();
        let port = free_port();
        // Run directly, since `git daemon` would be a child of `git` that outlives it.
        let exec_path = Command::new("git").arg("--exec-path").output().unwrap().stdout;
        let exec_path = PathBuf::from(String::from_utf8(exec_path).unwrap().trim());
        let process = Command::new(exec_path.join("git-daemon"))
            .args(["--listen=127.0.0.1", "--export-all", "--reuseaddr"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", repository.display()))
            .arg(repository)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { port, process, folder }.reached()
    }

    /// A web server over TLS with a certificate that it signed itself.
    pub fn tls() -> Self {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let (key, certificate) = (at("key.pem"), at("certificate.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-keyout", &key, "-out", &certificate])
            .stderr(Stdio::null())
            .status();
        assert!(made.unwrap().success());
        let port = free_port();
        let process = Command::new("openssl")
            .args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}")])
            .args(["-key", &key, "-cert", &certificate])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { port, process, folder }.reached()
    }

    /// An sshd with keys of its own, for the user who runs the test.
    pub fn ssh() -> Self {
        // sshd wants it, as root.
        let _ = std::fs::create_dir_all("/run/sshd");
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        for key in ["host", "client", "other"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(at(key))
                .status();
            assert!(made.unwrap().success());
        }
        let port = free_port();
        std::fs::copy(at("client.pub"), at("authorized_keys")).unwrap();
        let host_key = std::fs::read_to_string(at("host.pub")).unwrap();
        std::fs::write(at("known_hosts"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
        let settings = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile {}\n\
             UsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n",
            at("host").display(),
            at("authorized_keys").display(),
            at("pid").display()
        );
        std::fs::write(at("sshd_config"), settings).unwrap();
        let process = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(at("sshd_config"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { port, process, folder }.reached()
    }

    pub fn key(&self) -> PathBuf {
        self.folder.path().join("client")
    }

    pub fn other_key(&self) -> PathBuf {
        self.folder.path().join("other")
    }

    pub fn known_hosts(&self) -> PathBuf {
        self.folder.path().join("known_hosts")
    }

    /// The user who runs the test.
    pub fn user(&self) -> String {
        let output = Command::new("id").arg("-un").output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn reached(self) -> Self {
        for _ in 0..2000 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return self;
            }
            pause();
        }
        panic!("the server doesn't listen on port {}", self.port);
    }
}

#[allow(clippy::disallowed_methods, reason = "between two looks at a real server")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// A listener in this process whose answers a test decides.
pub struct Listener {
    pub port: u16,
    requests: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // So that it sees that.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Listener {
    /// Accepts, and says nothing.
    pub fn silent() -> Self {
        let mut held = Vec::new();
        Self::serving(move |stream, _| held.push(stream))
    }

    /// Accepts, and says a byte every 20 ms, of a git packet that never gets complete.
    pub fn dripping() -> Self {
        Self::serving(|mut stream, ended| {
            std::thread::spawn(move || {
                let mut bytes = b"0fff".iter().chain(std::iter::repeat(&b'0'));
                while !ended.load(Ordering::Relaxed)
                    && bytes.next().is_some_and(|byte| stream.write_all(&[*byte]).is_ok())
                {
                    (0..4).for_each(|_| pause());
                }
            });
        })
    }

    /// Answers each HTTP request by the text of its head.
    pub fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::serving(move |mut stream, _| {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                    head.push(byte[0]);
                }
                let _ = stream.write_all(answer(&String::from_utf8_lossy(&head)).as_bytes());
            });
        })
    }

    /// Connections so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    fn serving(mut serve: impl FnMut(TcpStream, Arc<AtomicBool>) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, end) = (requests.clone(), ended.clone());
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                counted.fetch_add(1, Ordering::Relaxed);
                serve(stream, end.clone());
            }
        });
        Self { port, requests, ended }
    }
}

/// An HTTP answer that closes the connection.
pub fn reply(status: u16, body: &str) -> String {
    let ask = if status == 401 { "WWW-Authenticate: Basic realm=\"a\"\r\n" } else { "" };
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Status\r\n{ask}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
