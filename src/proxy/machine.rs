//! The machine where HAProxy's files and sockets lie: this one, or one that ssh reaches. It runs
//! commands, reads and replaces files and opens sockets, and decides nothing.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::model::FilePath;

/// How long a file or a socket may take to answer.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a machine didn't do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MachineError {
    /// Nothing was heard. It isn't known whether it was done.
    #[error("{machine} didn't answer: {cause}")]
    Unreachable { machine: String, cause: String },
    /// The machine answered that it can't.
    #[error("{doing}: {cause}")]
    Failed { doing: String, cause: String },
}

/// Why a socket wasn't opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// There is no socket, or no process behind it.
    #[error("nobody listens on {socket}")]
    Nobody { socket: FilePath },
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// What a command left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Exit code; none where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// What it wrote, for people: standard error, or else standard output.
    pub fn text(&self) -> &str {
        match (self.stderr.trim(), self.stdout.trim()) {
            ("", "") => "it wrote nothing",
            ("", stdout) => stdout,
            (stderr, _) => stderr,
        }
    }
}

/// An open connection to a socket.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// One machine. Every call ends within its deadline: a few seconds, or the one it is given.
#[async_trait]
pub trait Machine: Send + Sync {
    /// How people know it.
    fn name(&self) -> String;

    /// Runs a program to its end, without a shell in between.
    async fn run(
        &self,
        program: &str,
        arguments: &[&str],
        deadline: Duration,
    ) -> Result<Outcome, MachineError>;

    /// A whole file; none where there is none.
    async fn read(&self, path: &FilePath) -> Result<Option<Vec<u8>>, MachineError>;

    /// Writes a file that only its owner may read, and makes its content durable. A half-written
    /// file may be left where it fails: write beside, then [`Machine::rename`].
    async fn write(&self, path: &FilePath, content: &[u8]) -> Result<(), MachineError>;

    /// Puts `from` in the place of `to` at once, and makes that durable. Both are in one folder.
    async fn rename(&self, from: &FilePath, to: &FilePath) -> Result<(), MachineError>;

    /// Removes a file. Done at once where there is none.
    async fn remove(&self, path: &FilePath) -> Result<(), MachineError>;

    /// Binds an address for a moment beside sockets of our own user, and listens to nothing, so
    /// that no connection is taken from them. Where that can't be tried it counts as possible.
    ///
    /// # Errors
    /// What the system said.
    async fn bind_beside(&self, address: SocketAddr) -> Result<(), std::io::Error> {
        let _ = address;
        Ok(())
    }

    /// Writes beside, then renames: a reader sees the old content or the new one, never a part.
    ///
    /// # Errors
    /// Those of the two; the old content is then still there, or it isn't known.
    async fn replace(&self, path: &FilePath, content: &[u8]) -> Result<(), MachineError> {
        let beside = beside(path)?;
        self.write(&beside, content).await?;
        self.rename(&beside, path).await
    }

    /// Opens a connection to a unix socket.
    async fn connect(&self, socket: &FilePath) -> Result<Box<dyn Connection>, ConnectError>;
}

/// Where a file's next content is written before it takes its place.
///
/// # Errors
/// [`MachineError::Failed`] where the path grows too long.
pub fn beside(path: &FilePath) -> Result<FilePath, MachineError> {
    file_path(&format!("{path}.new"))
}

/// A text as the path of a file.
///
/// # Errors
/// [`MachineError::Failed`] where it isn't absolute, or has characters that HAProxy's
/// configuration can't hold.
pub fn file_path(text: &str) -> Result<FilePath, MachineError> {
    text.parse().map_err(|cause: crate::model::PatternError| MachineError::Failed {
        doing: "name a file of HAProxy's".into(),
        cause: cause.to_string(),
    })
}

/// The folder of a file.
pub fn folder_of(path: &FilePath) -> &str {
    match path.as_str().rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((folder, _)) => folder,
    }
}
