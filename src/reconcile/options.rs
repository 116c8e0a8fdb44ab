//! What a controller is started with.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of one controller, after flags, environment, configuration file and defaults were
/// laid over each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerOptions {
    /// URL or folder of the manifest repository.
    pub repo: String,
    pub branch: String,
    /// Folder in the repository; the root where none is given.
    pub path: Option<String>,
    /// Read the files as they lie.
    pub worktree: bool,
    pub state: PathBuf,
    pub secrets: PathBuf,
    /// Between looks at the remote.
    pub interval: Duration,
    pub git: GitOptions,
    /// A Docker `config.json` with the registries' credentials; the user's own where none is
    /// given.
    pub docker_config: Option<PathBuf>,
    /// The haproxy program.
    pub haproxy: PathBuf,
}

/// How to get at the remote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitOptions {
    pub ssh_key: Option<PathBuf>,
    pub known_hosts: Option<PathBuf>,
    /// A file with a token, for http and https.
    pub token_file: Option<PathBuf>,
    pub username: Option<String>,
}
