//! A machine that ssh reaches. One ssh process holds the connection, and commands and sockets
//! share it. The host's key has to be known: nothing is ever accepted at first sight.
//!
//! A connection that broke is made anew by the next call.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use openssh::{ForwardType, KnownHosts, Session, SessionBuilder, Socket, Stdio};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::machine::{
    CALL_TIMEOUT, ConnectError, Connection, Machine, MachineError, Outcome, folder_of,
};
use crate::model::{FilePath, SshAddress};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A machine that ssh reaches.
pub struct SshMachine {
    address: SshAddress,
    link: Mutex<Option<Arc<Link>>>,
}

/// One connection, and the sockets that are forwarded over it. The order of the fields is the
/// order in which they go: ssh is told to end over a socket in the folder.
struct Link {
    session: Session,
    folder: Folder,
    /// Socket there, to socket here.
    forwards: Mutex<BTreeMap<FilePath, PathBuf>>,
}

/// A folder that only we may enter, removed when it isn't needed any more.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl SshMachine {
    /// Nothing is connected before the first call.
    pub fn new(address: SshAddress) -> Self {
        Self { address, link: Mutex::new(None) }
    }

    async fn link(&self) -> Result<Arc<Link>, MachineError> {
        let mut link = self.link.lock().await;
        if let Some(link) = &*link {
            return Ok(link.clone());
        }
        let made = match timeout(CONNECT_TIMEOUT * 2, self.make_link()).await {
            Ok(made) => made.map_err(|cause| self.unreachable(cause))?,
            Err(_) => {
                return Err(self.unreachable(format!("no connection in {:?}", CONNECT_TIMEOUT * 2)));
            }
        };
        Ok(link.insert(Arc::new(made)).clone())
    }

    async fn make_link(&self) -> Result<Link, String> {
        let folder = private_folder().map_err(|cause| format!("make a folder: {cause}"))?;
        let SshAddress { user, host, port, key, known_hosts } = &self.address;
        let mut builder = SessionBuilder::default();
        builder
            .known_hosts_check(KnownHosts::Strict)
            .connect_timeout(CONNECT_TIMEOUT)
            .server_alive_interval(CALL_TIMEOUT)
            .control_directory(&folder.0);
        if let Some(user) = user {
            builder.user(user.clone());
        }
        if let Some(port) = port {
            builder.port(*port);
        }
        if let Some(key) = key {
            builder.keyfile(key);
        }
        if let Some(known_hosts) = known_hosts {
            builder.user_known_hosts_file(known_hosts);
        }
        match builder.connect(host).await {
            Ok(session) => Ok(Link { session, folder, forwards: Mutex::default() }),
            Err(cause) => Err(chain(&cause)),
        }
    }

    /// The next call makes a new connection.
    async fn forget(&self, broken: &Arc<Link>) {
        let mut link = self.link.lock().await;
        if link.as_ref().is_some_and(|link| Arc::ptr_eq(link, broken)) {
            *link = None;
        }
    }

    fn unreachable(&self, cause: String) -> MachineError {
        MachineError::Unreachable { machine: self.name(), cause }
    }

    /// Runs `work` on the connection; what breaks it, or takes too long, ends the connection.
    async fn on_link<T, F>(
        &self,
        deadline: Duration,
        work: impl FnOnce(Arc<Link>) -> F,
    ) -> Result<T, MachineError>
    where
        F: Future<Output = Result<T, openssh::Error>>,
    {
        let link = self.link().await?;
        let cause = match timeout(deadline, work(link.clone())).await {
            Ok(Ok(value)) => return Ok(value),
            // Exit code 127: the connection is fine.
            Ok(Err(openssh::Error::Remote(cause))) => {
                return Err(MachineError::Failed {
                    doing: format!("run a program on {}", self.name()),
                    cause: cause.to_string(),
                });
            }
            Ok(Err(cause)) => chain(&cause),
            Err(_) => format!("no answer within {deadline:?}"),
        };
        self.forget(&link).await;
        Err(self.unreachable(cause))
    }

    /// Runs a script there; its words come as `$1`, `$2`, never as a part of it.
    async fn script(
        &self,
        script: &'static str,
        words: &[&str],
        input: &[u8],
        deadline: Duration,
    ) -> Result<Output, MachineError> {
        self.on_link(deadline, |link| async move {
            let mut command = link.session.command("sh");
            command.args(["-c", script, "sh"]).args(words);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().await?;
            if let Some(mut stdin) = child.stdin().take() {
                // Where the program ends early, its exit code says why.
                let _ = stdin.write_all(input).await;
                let _ = stdin.shutdown().await;
            }
            child.wait_with_output().await
        })
        .await
    }

    /// As [`Self::script`], where any exit code but 0 is a failure.
    async fn effect(
        &self,
        doing: String,
        script: &'static str,
        words: &[&str],
        input: &[u8],
    ) -> Result<Vec<u8>, MachineError> {
        let output = self.script(script, words, input, CALL_TIMEOUT).await?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let cause = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(MachineError::Failed { doing: format!("{doing} on {}", self.name()), cause })
    }

    async fn forwarded(&self, socket: &FilePath) -> Result<(Arc<Link>, PathBuf), MachineError> {
        let link = self.link().await?;
        let mut forwards = link.forwards.lock().await;
        if let Some(here) = forwards.get(socket) {
            let here = here.clone();
            drop(forwards);
            return Ok((link, here));
        }
        let here = link.folder.0.join(format!("f{}", forwards.len()));
        let forward = link.session.request_port_forward(
            ForwardType::Local,
            Socket::UnixSocket { path: here.clone().into() },
            Socket::UnixSocket { path: std::path::Path::new(socket.as_str()).into() },
        );
        let cause = match timeout(CALL_TIMEOUT, forward).await {
            Ok(Ok(())) => {
                forwards.insert(socket.clone(), here.clone());
                drop(forwards);
                return Ok((link, here));
            }
            Ok(Err(cause)) => chain(&cause),
            Err(_) => format!("{socket} wasn't forwarded within {CALL_TIMEOUT:?}"),
        };
        drop(forwards);
        self.forget(&link).await;
        Err(self.unreachable(cause))
    }
}

#[async_trait]
impl Machine for SshMachine {
    fn name(&self) -> String {
        let SshAddress { user, host, port, key: _, known_hosts: _ } = &self.address;
        let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("ssh://{user}{host}{port}")
    }

    async fn run(
        &self,
        program: &str,
        arguments: &[&str],
        deadline: Duration,
    ) -> Result<Outcome, MachineError> {
        let words: Vec<&str> = [program].into_iter().chain(arguments.iter().copied()).collect();
        let output = match self.script("exec \"$@\"", &words, b"", deadline).await {
            Err(MachineError::Failed { doing: _, cause: _ }) => {
                return Err(MachineError::Failed {
                    doing: format!("run {program} on {}", self.name()),
                    cause: format!("{program} isn't installed there: apt install haproxy"),
                });
            }
            output => output?,
        };
        Ok(Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    async fn read(&self, path: &FilePath) -> Result<Option<Vec<u8>>, MachineError> {
        // A first byte tells an empty file from none.
        let script = "if [ -e \"$1\" ]; then printf y && cat -- \"$1\"; else printf n; fi";
        let answer = self.effect(format!("read {path}"), script, &[path.as_str()], b"").await?;
        match answer.split_first() {
            Some((b'y', content)) => Ok(Some(content.to_vec())),
            Some((b'n', [])) => Ok(None),
            _ => Err(self.unreachable(format!("an answer that makes no sense for {path}"))),
        }
    }

    async fn write(&self, path: &FilePath, content: &[u8]) -> Result<(), MachineError> {
        // A connection that breaks ends the input early: the count tells.
        let script =
            "umask 077 && cat > \"$1\" && [ \"$(wc -c < \"$1\")\" -eq \"$2\" ] && sync -- \"$1\"";
        let size = content.len().to_string();
        let words = [path.as_str(), &size];
        self.effect(format!("write {path}"), script, &words, content).await.map(drop)
    }

    async fn rename(&self, from: &FilePath, to: &FilePath) -> Result<(), MachineError> {
        // SFTP's own rename doesn't replace.
        let script = "mv -f -- \"$1\" \"$2\" && sync -- \"$3\"";
        let words = [from.as_str(), to.as_str(), folder_of(to)];
        self.effect(format!("rename {from} to {to}"), script, &words, b"").await.map(drop)
    }

    async fn remove(&self, path: &FilePath) -> Result<(), MachineError> {
        let words = [path.as_str()];
        self.effect(format!("remove {path}"), "rm -f -- \"$1\"", &words, b"").await.map(drop)
    }

    /// A socket that nobody listens on is opened too, and closed at the first byte: ssh accepts
    /// on this side before it knows the other one.
    async fn connect(&self, socket: &FilePath) -> Result<Box<dyn Connection>, ConnectError> {
        let (link, here) = self.forwarded(socket).await?;
        match timeout(CALL_TIMEOUT, UnixStream::connect(&here)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(cause)) => {
                self.forget(&link).await;
                Err(self.unreachable(cause.to_string()).into())
            }
            Err(_) => {
                self.forget(&link).await;
                Err(self.unreachable(format!("no connection within {CALL_TIMEOUT:?}")).into())
            }
        }
    }
}

/// A folder of a new name that only we may enter.
fn private_folder() -> std::io::Result<Folder> {
    use std::os::unix::fs::DirBuilderExt;
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    loop {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("plimsoll-ssh-{}-{number}", std::process::id()));
        match builder.create(&folder) {
            Ok(()) => return Ok(Folder(folder)),
            Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(cause),
        }
    }
}

/// An error with everything that led to it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.trim().replace(['\r', '\n'], " ")
}
