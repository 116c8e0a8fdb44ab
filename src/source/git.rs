//! Manifests from a git repository, near or far. What is new is fetched into a bare repository
//! in the state folder, and commits are read from there; the working tree and the index of a
//! local repository are never looked at.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use git2::{ErrorCode, Oid, Repository};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::cache::{self, APPLIED_REF, Cache};
use super::credentials::CredentialOptions;
use super::fetch::{FetchFault, Request};
use super::rules;
use super::tree::{ReadFault, TreeCache};
use super::url::Remote;
use super::{Files, Head, Source, SourceError};
use crate::model::CommitId;

/// Fetches that may hang at a time, after nobody waits for them any more.
const MOST_HANGING: usize = 3;

/// Longest first line of a commit's message that is shown, in characters.
const LONGEST_SUMMARY: usize = 200;

/// Which repository, and how to get at it.
#[derive(Debug, Clone)]
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

/// A [`Source`] that reads commits of a git repository.
pub struct GitSource {
    shared: Arc<Shared>,
    timeout: Duration,
    /// One fetch is waited for at a time.
    turn: tokio::sync::Mutex<()>,
    hanging: Arc<Semaphore>,
}

/// What the threads work on.
struct Shared {
    /// Its `cancelled` is replaced for each fetch.
    request: Request,
    path: String,
    cache: Cache,
    reader: Mutex<Reader>,
}

#[derive(Default)]
struct Reader {
    /// None until it is needed, and after the cache was replaced.
    repository: Option<Repository>,
    trees: TreeCache,
}

/// What a fetch is to bring.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Branch,
    Everything,
    /// The branch, into a new cache: the old one is damaged.
    Anew,
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
        let shared = Shared {
            cache: Cache::new(&options.cache, remote.display())?,
            request: Request {
                remote,
                branch: options.branch,
                credentials: options.credentials,
                known_hosts,
                cancelled: Arc::default(),
            },
            path,
            reader: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            timeout: options.timeout,
            turn: tokio::sync::Mutex::new(()),
            hanging: Arc::new(Semaphore::new(MOST_HANGING)),
        })
    }

    /// How many blobs were read from the object database since the start.
    pub fn blobs_read(&self) -> u64 {
        self.shared.reader().trees.blobs_read()
    }

    /// Fetches in a thread of its own: one that hangs doesn't keep the program from ending,
    /// nor the next fetch from being tried.
    async fn bring(&self, wanted: Wanted, applied: Option<Oid>) -> Result<Oid, SourceError> {
        let _turn = self.turn.lock().await;
        let permit = self.hanging.clone().try_acquire_owned().map_err(|_| {
            self.shared.failed(format!("{MOST_HANGING} earlier fetches still hang"))
        })?;
        let cancel = CancelOnDrop(Arc::default());
        let answer = self.shared.clone().start(wanted, applied, cancel.0.clone(), permit)?;
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.shared.failed(
                "the remote's answer couldn't be understood: its list of branches isn't UTF-8",
            )),
            Err(_) => {
                let seconds = self.timeout.as_secs_f64();
                Err(self.shared.failed(format!("the remote didn't finish within {seconds} s")))
            }
        }
    }

    /// Works on the fetched objects in a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, ReadFault> + Send + 'static,
    ) -> Result<T, ReadFault> {
        let shared = self.shared.clone();
        let failed = self.shared.failed("the thread that reads objects ended early");
        let result = tokio::task::spawn_blocking(move || work(&shared)).await;
        result.unwrap_or(Err(ReadFault::Refused(failed)))
    }

    fn damaged(&self, fault: ReadFault) -> SourceError {
        match fault {
            ReadFault::Refused(error) => error,
            ReadFault::NoCommit => self.shared.failed("the commit isn't here"),
            ReadFault::Damaged(error) => SourceError::Local {
                path: self.shared.cache.folder().to_owned(),
                cause: error.message().to_owned(),
            },
        }
    }
}

#[async_trait]
impl Source for GitSource {
    async fn fetch(&self, applied: Option<&CommitId>) -> Result<Head, SourceError> {
        let applied = applied.and_then(|commit| Some((object_id(commit)?, commit.clone())));
        let tip = self.bring(Wanted::Branch, applied.as_ref().map(|(id, _)| *id)).await?;
        let Some((applied_id, applied)) = applied else {
            return Ok(Head::At(commit_id(tip)));
        };
        let head = move |shared: &Shared| {
            let tip_commit = commit_id(tip);
            Ok(match shared.compare(applied_id, tip)? {
                Ancestry::Forward => Head::At(tip_commit),
                Ancestry::Behind => Head::Behind { applied, tip: tip_commit },
                Ancestry::Rewritten => Head::Rewritten { applied, tip: tip_commit },
            })
        };
        self.read(head).await.map_err(|fault| self.damaged(fault))
    }

    async fn resolve(&self, revision: &str) -> Result<CommitId, SourceError> {
        let wanted = self.shared.wanted_for(revision);
        let find = |revision: String| move |shared: &Shared| Ok(shared.find(&revision));
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
        let how = match self.read(move |shared| shared.files(id, &wanted)).await {
            Err(ReadFault::Damaged(_)) => Wanted::Anew,
            Err(ReadFault::NoCommit) => Wanted::Branch,
            result => return result.map_err(|fault| self.damaged(fault)),
        };
        self.bring(how, Some(id)).await?;
        let wanted = commit.clone();
        let again = self.read(move |shared| shared.files(id, &wanted)).await;
        again.map_err(|fault| match fault {
            ReadFault::NoCommit => SourceError::NoRevision(id.to_string()),
            fault => self.damaged(fault),
        })
    }

    async fn describe(&self, commit: &CommitId) -> Result<String, SourceError> {
        let no_revision = || SourceError::NoRevision(commit.0.escape_debug().to_string());
        let id = object_id(commit).ok_or_else(no_revision)?;
        self.read(move |shared| shared.describe(id)).await.map_err(|fault| match fault {
            ReadFault::NoCommit => no_revision(),
            fault => self.damaged(fault),
        })
    }

    async fn changed(&self) {
        std::future::pending().await
    }

    fn name(&self) -> String {
        self.shared.request.remote.display().to_owned()
    }
}

enum Ancestry {
    Forward,
    Behind,
    Rewritten,
}

impl Shared {
    fn start(
        self: Arc<Self>,
        wanted: Wanted,
        applied: Option<Oid>,
        cancelled: Arc<AtomicBool>,
        permit: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Result<Oid, SourceError>>, SourceError> {
        let (answer, receiver) = oneshot::channel();
        let failed = self.failed("no thread could be started");
        let work = move || {
            let result = self.bring(wanted, applied, cancelled);
            drop(permit);
            // Where nobody waits any more, nobody is told.
            let _ = answer.send(result);
        };
        let thread = std::thread::Builder::new().name("git-fetch".into()).spawn(work);
        thread.map(|_| receiver).map_err(|_| failed)
    }

    fn bring(
        &self,
        wanted: Wanted,
        applied: Option<Oid>,
        cancelled: Arc<AtomicBool>,
    ) -> Result<Oid, SourceError> {
        let request = Request { cancelled, ..self.request.clone() };
        let _lock = self.cache.lock()?;
        let bring = |repository: &Repository| bring_into(repository, &request, wanted, applied);
        let first = match (wanted, self.cache.open()) {
            (Wanted::Anew, _) => self.replaced(self.cache.replace(bring)),
            (_, Ok(repository)) => bring(&repository),
            (_, Err(error)) => Err(error.into()),
        };
        let result = match first {
            Err(FetchFault::Local(cause)) if !request.is_cancelled() && !self.is_sound(applied) => {
                tracing::warn!(folder = %self.cache.folder().display(), cause, "the git cache is damaged; it is fetched anew");
                self.replaced(self.cache.replace(bring))
            }
            other => other,
        };
        if result.is_ok() && self.cache.wants_compaction() {
            // Next time then: the cache works as it is.
            let _ = self.replaced(self.cache.compact());
        }
        result.map_err(|fault| self.explain(fault))
    }

    /// Makes the reader open the cache again, after it was replaced.
    fn replaced<T>(&self, result: T) -> T {
        self.reader().repository = None;
        result
    }

    /// True where the cache can be opened and the trees of its branch and of `commit` be read.
    fn is_sound(&self, commit: Option<Oid>) -> bool {
        let Ok(repository) = self.cache.open() else { return false };
        let known = commit.filter(|id| repository.odb().is_ok_and(|odb| odb.exists(*id)));
        let mut is_sound = known.is_none_or(|id| cache::is_sound(&repository, id));
        for name in [self.branch_ref().as_str(), APPLIED_REF] {
            is_sound &= match repository.refname_to_id(name) {
                Ok(id) => cache::is_sound(&repository, id),
                Err(error) => error.code() == ErrorCode::NotFound,
            };
        }
        is_sound
    }

    fn branch_ref(&self) -> String {
        format!("refs/heads/{}", self.request.branch)
    }

    fn explain(&self, fault: FetchFault) -> SourceError {
        match fault {
            FetchFault::NoBranch => SourceError::NoBranch {
                remote: self.request.remote.display().to_owned(),
                branch: self.request.branch.clone(),
            },
            FetchFault::Cancelled => self.failed("it was cancelled"),
            FetchFault::Remote(cause) | FetchFault::Local(cause) => self.failed(cause),
        }
    }

    fn failed(&self, cause: impl Into<String>) -> SourceError {
        SourceError::Fetch { remote: self.request.remote.display().to_owned(), cause: cause.into() }
    }

    fn reader(&self) -> std::sync::MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_repository<T>(
        &self,
        work: impl FnOnce(&Repository, &mut TreeCache) -> Result<T, ReadFault>,
    ) -> Result<T, ReadFault> {
        let mut reader = self.reader();
        let Reader { repository, trees } = &mut *reader;
        let repository = match repository {
            Some(repository) => repository,
            None => repository.insert(Repository::open_bare(self.cache.folder())?),
        };
        work(repository, trees)
    }

    fn compare(&self, applied: Oid, tip: Oid) -> Result<Ancestry, ReadFault> {
        self.with_repository(|repository, _| {
            if applied == tip {
                return Ok(Ancestry::Forward);
            }
            if repository.find_commit(applied).is_err() {
                return Ok(Ancestry::Rewritten);
            }
            Ok(if repository.graph_descendant_of(tip, applied)? {
                Ancestry::Forward
            } else if repository.graph_descendant_of(applied, tip)? {
                Ancestry::Behind
            } else {
                Ancestry::Rewritten
            })
        })
    }

    /// What has to be fetched before a revision can be looked up. Ids never move, and `HEAD`
    /// and our branch are where the last fetch found them; any other name may have moved.
    fn wanted_for(&self, revision: &str) -> Option<Wanted> {
        let base = revision.split(['~', '^', '@', ':']).next().unwrap_or_default();
        let is_id = base.len() >= 7 && base.chars().all(|c| c.is_ascii_hexdigit());
        let is_ours = base == "HEAD" || base == self.request.branch;
        let is_fetched = || {
            let branch = self.branch_ref();
            let found =
                self.with_repository(|repository, _| Ok(repository.refname_to_id(&branch)?));
            found.is_ok()
        };
        match (is_ours, is_id) {
            (true, _) if is_fetched() => None,
            (true, _) => Some(Wanted::Branch),
            (false, true) => None,
            (false, false) => Some(Wanted::Everything),
        }
    }

    fn find(&self, revision: &str) -> Option<CommitId> {
        let found = self.with_repository(|repository, _| {
            Ok(repository.revparse_single(revision)?.peel_to_commit()?.id())
        });
        found.ok().map(commit_id)
    }

    fn files(&self, id: Oid, commit: &CommitId) -> Result<Files, ReadFault> {
        let name = self.request.remote.display();
        self.with_repository(|repository, trees| {
            let mut tree = commit_of(repository, id)?.tree()?;
            if !self.path.is_empty() {
                let entry = tree.get_path(std::path::Path::new(&self.path)).ok();
                let folder = entry.filter(|entry| entry.kind() == Some(git2::ObjectType::Tree));
                let folder = folder.ok_or_else(|| {
                    ReadFault::Refused(SourceError::NoFolder {
                        remote: name.to_owned(),
                        path: self.path.clone(),
                        commit: commit.clone(),
                    })
                })?;
                tree = repository.find_tree(folder.id())?;
            }
            let files = trees.files(repository, tree.id(), name)?;
            Ok(Files { commit: commit.clone(), files })
        })
    }

    fn describe(&self, id: Oid) -> Result<String, ReadFault> {
        self.with_repository(|repository, _| {
            let commit = commit_of(repository, id)?;
            let summary = printable(commit.summary_bytes().unwrap_or_default());
            let author = printable(commit.author().name_bytes());
            let short: String = id.to_string().chars().take(7).collect();
            Ok(format!("{short} {summary} ({author})"))
        })
    }
}

/// Fetches, then moves our references; nothing is moved for a fetch that nobody waits for.
fn bring_into(
    repository: &Repository,
    request: &Request,
    wanted: Wanted,
    applied: Option<Oid>,
) -> Result<Oid, FetchFault> {
    let branch = format!("refs/heads/{}", request.branch);
    let found = match wanted {
        Wanted::Branch | Wanted::Anew => vec![(branch.clone(), request.branch_tip(repository)?)],
        Wanted::Everything => request.everything(repository)?,
    };
    if request.is_cancelled() {
        return Err(FetchFault::Cancelled);
    }
    for (name, id) in &found {
        if cache::point(repository, name, *id).is_err() {
            make_room(repository, name)?;
            cache::point(repository, name, *id)?;
        }
    }
    repository.set_head(&branch)?;
    if let Some(applied) = applied.filter(|id| repository.find_commit(*id).is_ok()) {
        cache::point(repository, APPLIED_REF, applied)?;
    }
    let tip = found.into_iter().find(|(name, _)| *name == branch);
    tip.map(|(_, id)| id).ok_or(FetchFault::NoBranch)
}

/// Removes references of branches that are gone from the remote and in the way: `a` has to go
/// before `a/b` can be.
fn make_room(repository: &Repository, name: &str) -> Result<(), git2::Error> {
    for reference in repository.references()? {
        let mut reference = reference?;
        let is_in_the_way = reference.name().is_ok_and(|other| {
            name.starts_with(&format!("{other}/")) || other.starts_with(&format!("{name}/"))
        });
        if is_in_the_way {
            reference.delete()?;
        }
    }
    Ok(())
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

fn object_id(commit: &CommitId) -> Option<Oid> {
    Some(&commit.0).filter(|id| id.len() == 40).and_then(|id| Oid::from_str(id).ok())
}

fn commit_id(id: Oid) -> CommitId {
    CommitId(id.to_string())
}

fn commit_of(repository: &Repository, id: Oid) -> Result<git2::Commit<'_>, ReadFault> {
    repository.find_commit(id).map_err(|error| match error.code() {
        ErrorCode::NotFound => ReadFault::NoCommit,
        _ => ReadFault::Damaged(error),
    })
}

/// As text of bounded length without control characters, which could steer a terminal.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().take(LONGEST_SUMMARY).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
