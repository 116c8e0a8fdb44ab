//! Where manifests come from: a git repository, or a folder as it lies. Blobs are read from the
//! object database; nothing is ever checked out, and no symlink, submodule, filter or hook is
//! followed.

mod cache;
mod credentials;
mod fetch;
mod fetched;
mod git;
mod hostkeys;
mod poll;
mod rules;
mod secrets;
mod tree;
mod url;
mod worktree;

use std::path::PathBuf;

use async_trait::async_trait;

use crate::model::CommitId;
pub use crate::model::{Content, Files};
pub use credentials::CredentialOptions;
pub use git::{GitSource, SourceOptions};
pub use poll::{LONGEST, Poll};
pub use rules::{LARGEST_FILE, MOST_BYTES, MOST_FILES};
pub use secrets::{SecretError, SecretFolder};
pub use url::{Remote, Transport, shown};
pub use worktree::WorktreeSource;

/// Makes libgit2 ready: it reads all certificates of the machine when it is first used, also for
/// a remote that needs none, which takes some tens of milliseconds. Whoever has other things to
/// do at the start calls this in a thread of its own; nobody has to.
pub fn warm_up() {
    // Any call would do.
    let _is_valid = git2::Reference::is_valid_name("refs/heads/main");
}

/// What a look at the remote gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// The tip of the branch, which is `applied` or descends from it.
    At(CommitId),
    /// The branch doesn't descend from the applied commit any more.
    Rewritten { applied: CommitId, tip: CommitId },
    /// The remote shows an ancestor of the applied commit: an old mirror. Nothing is to be done.
    Behind { applied: CommitId, tip: CommitId },
}

/// Why the source didn't answer. No variant holds a credential: URLs are shown without them.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("fetch failed: {remote}: {cause}")]
    Fetch { remote: String, cause: String },
    #[error(
        "{remote} has no branch {branch}: name the right one with --branch, or commit and push to it"
    )]
    NoBranch { remote: String, branch: String },
    #[error("{remote} has no folder {path} at {commit}")]
    NoFolder { remote: String, path: String, commit: CommitId },
    #[error(
        "{0:?} is neither a folder in a git repository nor a git URL (https, ssh, git, file, user@host:path)"
    )]
    NotARepository(String),
    #[error("{0}:: would run a program: only https, ssh, git and file URLs are taken")]
    Helper(String),
    #[error("{0:?} is no folder below the repository's root: give --path as a relative path")]
    Path(String),
    #[error("{remote} {cause}")]
    TooLarge { remote: String, cause: String },
    #[error("{0} names no commit")]
    NoRevision(String),
    #[error("{path}: {cause}")]
    Local { path: PathBuf, cause: String },
}

/// One manifest repository.
#[async_trait]
pub trait Source: Send + Sync {
    /// Looks at the remote, fetches what is new, and compares the branch with the commit that
    /// was applied last.
    async fn fetch(&self, applied: Option<&CommitId>) -> Result<Head, SourceError>;

    /// The commit that a revision such as `HEAD~1`, a tag, a branch or an id stands for.
    async fn resolve(&self, revision: &str) -> Result<CommitId, SourceError>;

    /// The files of a commit that is here.
    async fn files(&self, commit: &CommitId) -> Result<Files, SourceError>;

    /// First line of the commit's message and its author, for people.
    async fn describe(&self, commit: &CommitId) -> Result<String, SourceError>;

    /// Returns when the files may have changed. For a remote repository it never returns.
    async fn changed(&self);

    /// How people know it, without credentials.
    fn name(&self) -> String;

    /// How many blobs, or files as they lie, were read since the start.
    fn blobs_read(&self) -> u64;
}
