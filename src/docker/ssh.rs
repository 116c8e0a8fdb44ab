//! The socket of an engine behind ssh, as a local socket. One ssh session for each host carries
//! all calls; host keys are checked strictly, and nothing is ever asked on a terminal.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openssh::{ControlPersist, ForwardType, KnownHosts, Session, SessionBuilder};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::error::with_sources;

/// How long ssh may take to connect. Shorter than the shortest deadline of a call, so that the
/// call can say why.
const CONNECT: Duration = Duration::from_secs(8);

/// How often ssh asks whether the other side lives; it gives up after three silent times.
const ALIVE: Duration = Duration::from_secs(5);

/// How long ssh stays when Plimsoll was killed and couldn't end it, in seconds.
const ORPHAN: NonZeroUsize = NonZeroUsize::new(600).unwrap();

/// A way to an engine's socket on another machine.
pub(super) struct Tunnel {
    builder: SessionBuilder,
    host: String,
    destination: String,
    remote: PathBuf,
    live: Mutex<Option<Live>>,
}

struct Live {
    session: Session,
    /// In the session's own folder, which only this user may enter.
    local: PathBuf,
}

impl Tunnel {
    /// `destination` is user, host and port; `remote` the engine's socket over there; `key` a
    /// private key, the agent's otherwise; `folder` where the session's private folder is made.
    pub(super) fn new(
        destination: (Option<&str>, &str, Option<u16>),
        key: Option<&Path>,
        remote: &str,
        known_hosts: Option<&Path>,
        folder: &Path,
    ) -> Self {
        let (user, host, port) = destination;
        let mut builder = SessionBuilder::default();
        builder
            .known_hosts_check(KnownHosts::Strict)
            .connect_timeout(CONNECT)
            .server_alive_interval(ALIVE)
            .control_directory(folder)
            .control_persist(ControlPersist::IdleFor(ORPHAN));
        if let Some(user) = user {
            builder.user(user.to_owned());
        }
        if let Some(port) = port {
            builder.port(port);
        }
        if let Some(key) = key {
            builder.keyfile(key);
        }
        if let Some(file) = known_hosts {
            builder.user_known_hosts_file(file);
        }
        Self {
            builder,
            host: host.to_owned(),
            destination: user.map_or(host.to_owned(), |user| format!("{user}@{host}")),
            remote: remote.into(),
            live: Mutex::new(None),
        }
    }

    /// A connection to the engine's socket. Opens the session where there is none, or where it
    /// is gone.
    pub(super) async fn stream(&self) -> io::Result<UnixStream> {
        let mut live = self.live.lock().await;
        if let Some(open) = &*live
            && let Ok(stream) = UnixStream::connect(&open.local).await
        {
            return Ok(stream);
        }
        if let Some(dead) = live.take() {
            // Ending it waits for a process; nobody needs to wait for that.
            tokio::spawn(dead.session.close());
        }
        let open = live.insert(self.open().await.map_err(|error| self.explain(&error))?);
        UnixStream::connect(&open.local).await
    }

    async fn open(&self) -> Result<Live, openssh::Error> {
        // ssh would take a name that begins with a hyphen for an option.
        if self.destination.starts_with('-') || self.host.starts_with('-') {
            let cause = "a user or a host can't begin with a hyphen";
            return Err(openssh::Error::Connect(io::Error::other(cause)));
        }
        let session = self.builder.connect(&self.host).await?;
        let folder = session.control_socket().parent().unwrap_or(Path::new("."));
        let local = folder.join("engine");
        session
            .request_port_forward(ForwardType::Local, local.as_path(), self.remote.as_path())
            .await?;
        Ok(Live { session, local })
    }

    fn explain(&self, error: &openssh::Error) -> io::Error {
        let cause = with_sources(error);
        let (port, host) = (self.builder.get_port(), &self.host);
        let option = port.map_or(String::new(), |port| format!("-p {port} "));
        let hint = if cause.contains("Host key verification failed") {
            format!(
                "; compare the host's key and add it to known_hosts: ssh-keyscan {option}{host}"
            )
        } else if cause.contains("Permission denied") {
            format!("; this must work without a password: ssh {option}{} true", self.destination)
        } else {
            String::new()
        };
        io::Error::other(format!("ssh to {}: {}{hint}", self.destination, cause.trim_end()))
    }

    /// What to look at when nobody answers at the other end.
    pub(super) fn hint_no_engine(&self) -> String {
        let (to, socket) = (&self.destination, self.remote.display());
        format!(
            "does Docker run there, and may that user use it? try: ssh {to} docker -H \
             unix://{socket} version"
        )
    }
}
