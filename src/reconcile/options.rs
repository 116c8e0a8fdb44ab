//! What a controller is started with.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::source::shown;

/// Settings of one controller, after flags, environment, configuration file and defaults were
/// laid over each other. Shown without what the repository's URL holds in secret.
#[derive(Clone, PartialEq, Eq)]
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

impl fmt::Debug for ControllerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            repo,
            branch,
            path,
            worktree,
            state,
            secrets,
            interval,
            git,
            docker_config,
            haproxy,
        } = self;
        f.debug_struct("ControllerOptions")
            .field("repo", &shown(repo))
            .field("branch", branch)
            .field("path", path)
            .field("worktree", worktree)
            .field("state", state)
            .field("secrets", secrets)
            .field("interval", interval)
            .field("git", git)
            .field("docker_config", docker_config)
            .field("haproxy", haproxy)
            .finish()
    }
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
