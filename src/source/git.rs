//! Manifests from a git repository, near or far. What is new is fetched into a bare repository
//! in the state folder, and commits are read from there; the working tree and the index of a
//! local repository are never looked at.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use async_trait::async_trait;
use git2::Oid;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::cache::Cache;
use super::credentials::CredentialOptions;
use super::fetch::Request;
use super::fetched::{Ancestry, Fetched, Wanted, commit_id, object_id};
use super::rules;
use super::tree::ReadFault;
use super::url::{Remote, shown};
use super::{Files, Head, Source, SourceError};
use crate::model::CommitId;

/// Fetches that may hang at a time, after nobody waits for them any more.
const MOST_HANGING: usize = 3;

/// Which repository, and how to get at it. Shown without what its URL holds in secret.
#[derive(Clone)]
pub struct SourceOptions {
    /// A URL, `user@host:path`, or a folder in a local repository.
    pub remote: String,
    pub branch: String,
    /// Only what is below this folder of the repository.
    pub path: Option<String>,
    /// The folder for what is fetched: `source` in the state folder.
    pub cache: PathBuf,
    pub credentials: CredentialOptions,
    /// Keys of the ssh servers that are trusted; `~/.ssh/known_hosts` otherwise.
    pub known_hosts: Option<PathBuf>,
    /// After this long without success a fetch has failed.
    pub timeout: Duration,
}

impl SourceOptions {
    /// The usual settings: the branch `main`, everything in it, one minute.
    pub fn new(remote: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        Self {
            remote: remote.into(),
            branch: "main".into(),
            path: None,
            cache: cache.into(),
            credentials: CredentialOptions::default(),
            known_hosts: None,
            timeout: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for SourceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { remote, branch, path, cache, credentials, known_hosts, timeout } = self;
        f.debug_struct("SourceOptions")
            .field("remote", &shown(remote))
            .field("branch", branch)
            .field("path", path)
            .field("cache", cache)
            .field("credentials", credentials)
            .field("known_hosts", known_hosts)
            .field("timeout", timeout)
            .finish()
    }
}

/// A [`Source`] that reads commits of a git repository.
pub struct GitSource {
    fetched: Arc<Fetched>,
    timeout: Duration,
    /// One fetch is waited for at a time.
    turn: tokio::sync::Mutex<()>,
    hanging: Arc<Semaphore>,
}

impl GitSource {
    /// Prepares the cache. The remote isn't talked to yet.
    ///
    /// # Errors
    /// [`SourceError`] where the remote, the branch or the path can't be right, or where the
    /// cache's folder can't be made.
    pub fn open(options: SourceOptions) -> Result<Self, SourceError> {
        let remote = Remote::parse(&options.remote)?;
        let path = rules::checked_path(options.path.as_deref().unwrap_or_default())?;
        if !git2::Reference::is_valid_name(&format!("refs/heads/{}", options.branch)) {
            let branch = options.branch.escape_debug().to_string();
            return Err(SourceError::NoBranch { remote: remote.display().to_owned(), branch });
        }
        limit_waiting(options.timeout);
        let known_hosts = options.known_hosts.unwrap_or_else(|| {
            std::env::home_dir().unwrap_or_default().join(".ssh").join("known_hosts")
        });
        let request = Request {
            remote,
            branch: options.branch,
            credentials: options.credentials,
            known_hosts,
            cancelled: Arc::default(),
        };
        let cache = Cache::new(&options.cache, request.remote.display())?;
        Ok(Self {
            fetched: Arc::new(Fetched::new(request, path, cache)),
            timeout: options.timeout,
            turn: tokio::sync::Mutex::new(()),
            hanging: Arc::new(Semaphore::new(MOST_HANGING)),
        })
    }

    /// Fetches in a thread of its own: one that hangs doesn't keep the program from ending,
    /// nor the next fetch from being tried.
    async fn bring(&self, wanted: Wanted, applied: Option<Oid>) -> Result<Oid, SourceError> {
        let _turn = self.turn.lock().await;
        let permit = self.hanging.clone().try_acquire_owned().map_err(|_| {
            self.fetched.failed(format!("{MOST_HANGING} earlier fetches still hang"))
        })?;
        let cancel = CancelOnDrop(Arc::default());
        let answer = self.fetched.clone().start(wanted, applied, cancel.0.clone(), permit)?;
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.fetched.failed(
                "the remote's answer couldn't be understood: its list of branches isn't UTF-8",
            )),
            Err(_) => {
                let seconds = self.timeout.as_secs_f64();
                Err(self.fetched.failed(format!("the remote didn't finish within {seconds} s")))
            }
        }
    }

    /// Works on the fetched objects in a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Fetched) -> Result<T, ReadFault> + Send + 'static,
    ) -> Result<T, ReadFault> {
        let fetched = self.fetched.clone();
        let failed = self.fetched.failed("the thread that reads objects ended early");
        let result = tokio::task::spawn_blocking(move || work(&fetched)).await;
        result.unwrap_or(Err(ReadFault::Refused(failed)))
    }

    fn damaged(&self, fault: ReadFault) -> SourceError {
        match fault {
            ReadFault::Refused(error) => error,
            ReadFault::NoCommit => self.fetched.failed("the commit isn't here"),
            ReadFault::Damaged(error) => SourceError::Local {
                path: self.fetched.folder().to_owned(),
                cause: error.message().to_owned(),
            },
        }
    }
}

#[async_trait]
impl Source for GitSource {
    async fn fetch(&self, applied: Option<&CommitId>) -> Result<Head, SourceError> {
        let begun = Instant::now();
        let applied = applied.and_then(|commit| Some((object_id(commit)?, commit.clone())));
        let tip = self.bring(Wanted::Branch, applied.as_ref().map(|(id, _)| *id)).await?;
        tracing::debug!(%tip, seconds = begun.elapsed().as_secs_f64(), "the remote was looked at");
        let Some((applied_id, applied)) = applied else {
            return Ok(Head::At(commit_id(tip)));
        };
        let head = move |fetched: &Fetched| {
            let tip_commit = commit_id(tip);
            Ok(match fetched.compare(applied_id, tip)? {
                Ancestry::Forward => Head::At(tip_commit),
                Ancestry::Behind => Head::Behind { applied, tip: tip_commit },
                Ancestry::Rewritten => Head::Rewritten { applied, tip: tip_commit },
            })
        };
        self.read(head).await.map_err(|fault| self.damaged(fault))
    }

    async fn resolve(&self, revision: &str) -> Result<CommitId, SourceError> {
        let wanted = self.fetched.wanted_for(revision);
        let find = |revision: String| move |fetched: &Fetched| Ok(fetched.find(&revision));
        if wanted.is_none()
            && let Ok(Some(found)) = self.read(find(revision.to_owned())).await
        {
            return Ok(found);
        }
        self.bring(wanted.unwrap_or(Wanted::Everything), None).await?;
        let found =
            self.read(find(revision.to_owned())).await.map_err(|fault| self.damaged(fault))?;
        found.ok_or_else(|| SourceError::NoRevision(revision.escape_debug().to_string()))
    }

    async fn files(&self, commit: &CommitId) -> Result<Files, SourceError> {
        let id = object_id(commit)
            .ok_or_else(|| SourceError::NoRevision(commit.0.escape_debug().to_string()))?;
        let wanted = commit.clone();
        let how = match self.read(move |fetched| fetched.files(id, &wanted)).await {
            Err(ReadFault::Damaged(_)) => Wanted::Anew,
            Err(ReadFault::NoCommit) => Wanted::Branch,
            result => return result.map_err(|fault| self.damaged(fault)),
        };
        self.bring(how, Some(id)).await?;
        let wanted = commit.clone();
        let again = self.read(move |fetched| fetched.files(id, &wanted)).await;
        again.map_err(|fault| match fault {
            ReadFault::NoCommit => SourceError::NoRevision(id.to_string()),
            fault => self.damaged(fault),
        })
    }

    async fn describe(&self, commit: &CommitId) -> Result<String, SourceError> {
        let no_revision = || SourceError::NoRevision(commit.0.escape_debug().to_string());
        let id = object_id(commit).ok_or_else(no_revision)?;
        self.read(move |fetched| fetched.describe(id)).await.map_err(|fault| match fault {
            ReadFault::NoCommit => no_revision(),
            fault => self.damaged(fault),
        })
    }

    async fn changed(&self) {
        std::future::pending().await
    }

    fn name(&self) -> String {
        self.fetched.name().to_owned()
    }

    fn blobs_read(&self) -> u64 {
        self.fetched.blobs_read()
    }
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Ends waiting for a socket, in all of libgit2: its timeouts are global to the process.
fn limit_waiting(timeout: Duration) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let milliseconds = timeout.as_millis().clamp(1, i32::MAX as u128) as i32;
        // SAFETY: libgit2 asks that no other thread uses these two settings meanwhile. `Once`
        // sees to that, and no connection can be open before the first source is.
        let result = unsafe {
            git2::opts::set_server_connect_timeout_in_milliseconds(milliseconds.min(10_000))
                .and_then(|()| git2::opts::set_server_timeout_in_milliseconds(milliseconds))
        };
        if let Err(error) = result {
            tracing::warn!(%error, "libgit2 takes no timeouts; only our own hold");
        }
    });
}
