//! What was fetched into the cache, and fetching it: the half of a git source that blocks, and
//! is called in threads that may. A damaged cache is replaced here; nothing is ever checked out.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use git2::{ErrorCode, Oid, Repository};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::cache::{self, APPLIED_REF, Cache};
use super::fetch::{FetchFault, Request};
use super::tree::{ReadFault, TreeCache};
use super::{Files, SourceError};
use crate::model::CommitId;

/// Longest first line of a commit's message that is shown, in characters.
const LONGEST_SUMMARY: usize = 200;

/// A cache, what is known of it, and where it comes from.
pub struct Fetched {
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
pub enum Wanted {
    Branch,
    Everything,
    /// The branch, into a new cache: the old one is damaged.
    Anew,
}

/// How the tip of the branch is related to the commit that was applied last.
pub enum Ancestry {
    Forward,
    Behind,
    Rewritten,
}

impl Fetched {
    /// `path`: of the folder below which files are read, empty for all.
    pub fn new(request: Request, path: String, cache: Cache) -> Self {
        Self { request, path, cache, reader: Mutex::default() }
    }

    /// How people know the remote.
    pub fn name(&self) -> &str {
        self.request.remote.display()
    }

    /// Where the cache is.
    pub fn folder(&self) -> &Path {
        self.cache.folder()
    }

    /// How many blobs were read from the object database since the start.
    pub fn blobs_read(&self) -> u64 {
        self.reader().trees.blobs_read()
    }

    /// Fetches in a thread of its own, which holds `permit` for as long as it lives.
    ///
    /// # Errors
    /// [`SourceError::Fetch`] where no thread can be started. The receiver fails where the
    /// thread panicked.
    pub fn start(
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
                remote: self.name().to_owned(),
                branch: self.request.branch.clone(),
            },
            FetchFault::Cancelled => self.failed("it was cancelled"),
            FetchFault::Remote(cause) | FetchFault::Local(cause) => self.failed(cause),
        }
    }

    /// The error of a fetch.
    pub fn failed(&self, cause: impl Into<String>) -> SourceError {
        SourceError::Fetch { remote: self.name().to_owned(), cause: cause.into() }
    }

    fn reader(&self) -> MutexGuard<'_, Reader> {
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

    /// Whether the tip descends from the applied commit, or the other way round.
    ///
    /// # Errors
    /// [`ReadFault`].
    pub fn compare(&self, applied: Oid, tip: Oid) -> Result<Ancestry, ReadFault> {
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
    pub fn wanted_for(&self, revision: &str) -> Option<Wanted> {
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

    /// The commit that a revision stands for in the cache.
    pub fn find(&self, revision: &str) -> Option<CommitId> {
        let found = self.with_repository(|repository, _| {
            Ok(repository.revparse_single(revision)?.peel_to_commit()?.id())
        });
        found.ok().map(commit_id)
    }

    /// The manifests of a commit.
    ///
    /// # Errors
    /// [`ReadFault`].
    pub fn files(&self, id: Oid, commit: &CommitId) -> Result<Files, ReadFault> {
        let name = self.name();
        self.with_repository(|repository, trees| {
            let mut tree = commit_of(repository, id)?.tree()?;
            if !self.path.is_empty() {
                let entry = tree.get_path(Path::new(&self.path)).ok();
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

    /// Short id, first line of the message, author.
    ///
    /// # Errors
    /// [`ReadFault`].
    pub fn describe(&self, id: Oid) -> Result<String, ReadFault> {
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

/// The id of a commit; none of what isn't one, such as files as they lie.
pub fn object_id(commit: &CommitId) -> Option<Oid> {
    Some(&commit.0).filter(|id| id.len() == 40).and_then(|id| Oid::from_str(id).ok())
}

/// The commit of an id.
pub fn commit_id(id: Oid) -> CommitId {
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
