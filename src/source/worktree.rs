//! Manifests as they lie in a folder, for work in progress, and the news that they changed. The
//! rules are those of commits: no link is followed, and sizes are bounded before reading. A
//! state of the files is named `worktree-` and a digest of it, where a commit has its id.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use git2::{ObjectType, Oid};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use rustix::fs::{Mode, OFlags};
use tokio::sync::Notify;

use super::rules::{self, Refusal, Size};
use super::{Files, Head, Source, SourceError};
use crate::model::{CommitId, Content, Sha256};

/// After a change, how long nothing else has to change until it counts: editors and `git
/// checkout` write in several steps.
const QUIET: Duration = Duration::from_millis(50);

/// After this long a change counts even if the files never come to rest.
const RESTLESS: Duration = Duration::from_secs(1);

/// States that are remembered, so that the files of one that was just looked up are still to be
/// had when they have changed again.
const REMEMBERED: usize = 2;

/// A [`Source`] that reads files as they lie.
pub struct WorktreeSource {
    folder: PathBuf,
    changes: Arc<Notify>,
    watcher: Mutex<RecommendedWatcher>,
    /// The last states, the newest last.
    states: Mutex<Vec<Files>>,
    files_read: AtomicU64,
}

impl WorktreeSource {
    /// Reads, and watches, the files below `path` (a relative path, or none) in `folder`.
    ///
    /// # Errors
    /// [`SourceError`] where it is no folder or can't be watched.
    pub fn open(folder: &Path, path: Option<&str>) -> Result<Self, SourceError> {
        let path = rules::checked_path(path.unwrap_or_default())?;
        let root = folder.canonicalize().map_err(|error| local(folder, &error))?;
        let below = root.join(path);
        // A link on the way out of the folder would show here.
        let folder = below.canonicalize().map_err(|error| local(&below, &error))?;
        if !folder.is_dir() || !folder.starts_with(&root) {
            return Err(SourceError::NotARepository(below.display().to_string()));
        }
        let changes = Arc::new(Notify::new());
        let watcher = watch(&folder, changes.clone())?;
        let (watcher, states) = (Mutex::new(watcher), Mutex::default());
        Ok(Self { folder, changes, watcher, states, files_read: AtomicU64::new(0) })
    }

    /// The files as they lie now.
    async fn look(&self) -> Result<Files, SourceError> {
        let folder = self.folder.clone();
        let read = tokio::task::spawn_blocking(move || read_folder(&folder)).await;
        let files = read.unwrap_or_else(|_| {
            Err(SourceError::Local {
                path: self.folder.clone(),
                cause: "the thread that reads the files ended early".into(),
            })
        })?;
        self.files_read.fetch_add(files.files.len() as u64, Ordering::Relaxed);
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.retain(|state| state.commit != files.commit);
        if states.len() >= REMEMBERED {
            states.remove(0);
        }
        states.push(files.clone());
        Ok(files)
    }

    fn remembered(&self, commit: &CommitId) -> Option<Files> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.iter().find(|state| state.commit == *commit).cloned()
    }

    /// Watches again: a folder that was replaced by another of its name is a new folder to the
    /// kernel.
    fn watch_again(&self) {
        let Ok(watcher) = watch(&self.folder, self.changes.clone()) else { return };
        *self.watcher.lock().unwrap_or_else(PoisonError::into_inner) = watcher;
    }
}

#[async_trait]
impl Source for WorktreeSource {
    async fn fetch(&self, _applied: Option<&CommitId>) -> Result<Head, SourceError> {
        Ok(Head::At(self.look().await?.commit))
    }

    /// `HEAD`, `worktree` and the id of the present state are known; there is no history.
    async fn resolve(&self, revision: &str) -> Result<CommitId, SourceError> {
        let commit = self.look().await?.commit;
        match revision {
            "" | "HEAD" | "worktree" => Ok(commit),
            other if other == commit.0 => Ok(commit),
            other => Err(SourceError::NoRevision(format!(
                "{} (files that are read as they lie have no history: leave --worktree out)",
                other.escape_debug()
            ))),
        }
    }

    async fn files(&self, commit: &CommitId) -> Result<Files, SourceError> {
        if let Some(files) = self.remembered(commit) {
            return Ok(files);
        }
        let files = self.look().await?;
        if files.commit == *commit || *commit == CommitId::worktree() {
            return Ok(files);
        }
        Err(SourceError::NoRevision(format!("{} (the files have changed since)", commit.0)))
    }

    async fn describe(&self, commit: &CommitId) -> Result<String, SourceError> {
        Ok(format!("{} files as they lie in {}", commit.0, self.folder.display()))
    }

    async fn changed(&self) {
        self.changes.notified().await;
        let restless = tokio::time::sleep(RESTLESS);
        tokio::pin!(restless);
        loop {
            tokio::select! {
                biased;
                () = &mut restless => break,
                quiet = tokio::time::timeout(QUIET, self.changes.notified()) => {
                    if quiet.is_err() {
                        break;
                    }
                }
            }
        }
        self.watch_again();
    }

    fn name(&self) -> String {
        self.folder.display().to_string()
    }

    fn blobs_read(&self) -> u64 {
        self.files_read.load(Ordering::Relaxed)
    }
}

/// Watches a folder and all below it. The folder above is watched too, though not what else is
/// in it: only there is it seen that the folder was replaced.
fn watch(folder: &Path, changes: Arc<Notify>) -> Result<RecommendedWatcher, SourceError> {
    let cause = |error: notify::Error| {
        let hint = match error.kind {
            notify::ErrorKind::MaxFilesWatch => {
                ": the system's limit of watches is reached; type `sysctl fs.inotify.max_user_watches=524288`"
            }
            _ => "",
        };
        SourceError::Local { path: folder.to_owned(), cause: format!("{error}{hint}") }
    };
    let root = folder.to_owned();
    let on_event = move |event: notify::Result<notify::Event>| {
        // An error is a reason to look, since changes may have been lost.
        if event.map_or(true, |event| matters(&event, &root)) {
            changes.notify_one();
        }
    };
    let config = notify::Config::default().with_follow_symlinks(false);
    let mut watcher = RecommendedWatcher::new(on_event, config).map_err(cause)?;
    watcher.watch(folder, RecursiveMode::Recursive).map_err(cause)?;
    if let Some(above) = folder.parent() {
        // Without the right to read it, only the replacement of the folder goes unseen.
        let _ = watcher.watch(above, RecursiveMode::NonRecursive);
    }
    Ok(watcher)
}

/// Whether an event may tell of a change to a manifest. Reads raise events too, and git's own
/// files change all the time.
fn matters(event: &notify::Event, root: &Path) -> bool {
    if event.need_rescan() {
        return true;
    }
    let is_change =
        matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_));
    let is_visible = |path: &PathBuf| {
        path.strip_prefix(root)
            .is_ok_and(|below| !below.iter().any(|part| rules::is_hidden(part.as_encoded_bytes())))
    };
    is_change && event.paths.iter().any(is_visible)
}

fn read_folder(folder: &Path) -> Result<Files, SourceError> {
    let mut walk = Walk { root: folder, files: BTreeMap::new(), size: Size::default() };
    walk.folder(&mut String::new(), 0)?;
    let commit = CommitId(format!("worktree-{}", state_of(&walk.files).short(12)));
    Ok(Files { commit, files: walk.files })
}

/// A digest over paths and contents.
fn state_of(files: &BTreeMap<String, Content>) -> Sha256 {
    let mut text = String::new();
    for (path, content) in files {
        let content = match content {
            Content::Bytes { blob, .. } => blob,
            Content::Refused { reason } => reason,
        };
        text.extend([path.as_str(), "\0", content.as_str(), "\0"]);
    }
    Sha256::of(text.as_bytes())
}

struct Walk<'a> {
    root: &'a Path,
    files: BTreeMap<String, Content>,
    size: Size,
}

impl Walk<'_> {
    /// `path`: of the folder, empty or with a `/` behind.
    fn folder(&mut self, path: &mut String, depth: usize) -> Result<(), SourceError> {
        let folder = self.root.join(path.as_str());
        if depth > rules::DEEPEST {
            return Err(SourceError::TooLarge {
                remote: folder.display().to_string(),
                cause: format!("is more than {} levels deep", rules::DEEPEST),
            });
        }
        let entries = std::fs::read_dir(&folder).map_err(|error| local(&folder, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| local(&folder, &error))?;
            let Ok(kind) = entry.file_type() else { continue };
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            // A repository in the repository is a submodule, or none of ours.
            let is_repository = || entry.path().join(".git").exists();
            if rules::is_hidden(name) || (kind.is_dir() && is_repository()) {
                continue;
            }
            let length = path.len();
            match rules::readable(name) {
                Ok(name) if kind.is_dir() => {
                    path.push_str(name);
                    path.push('/');
                    self.folder(path, depth + 1)?;
                }
                Ok(name) if rules::is_manifest(name.as_bytes()) => {
                    path.push_str(name);
                    let content = self.content(&entry.path(), path, kind);
                    self.insert(path.clone(), content)?;
                }
                Err(escaped) if kind.is_dir() || rules::is_manifest(name) => {
                    path.push_str(&escaped);
                    self.insert(path.clone(), Refusal::Name.content(path))?;
                }
                _ => {}
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn insert(&mut self, path: String, content: Content) -> Result<(), SourceError> {
        let bytes = match &content {
            Content::Bytes { bytes, .. } => bytes.len() as u64,
            Content::Refused { .. } => 0,
        };
        self.size = self.size.plus(Size { files: 1, bytes });
        self.size.check(&self.root.display().to_string())?;
        self.files.insert(path, content);
        Ok(())
    }

    fn content(&self, file: &Path, path: &str, kind: std::fs::FileType) -> Content {
        if kind.is_symlink() {
            return Refusal::Symlink.content(path);
        }
        if !kind.is_file() {
            return Refusal::NotAFile.content(path);
        }
        match read_file(file) {
            Ok(Ok(bytes)) => match Oid::hash_object(ObjectType::Blob, &bytes) {
                Ok(blob) => Content::Bytes { blob: blob.to_string(), bytes },
                Err(error) => Content::Refused { reason: format!("{path}: {}", error.message()) },
            },
            Ok(Err(refusal)) => refusal.content(path),
            Err(error) => Content::Refused { reason: format!("{path} can't be read: {error}") },
        }
    }
}

/// Reads a regular file, even if it was just replaced by a link, a pipe or an endless one.
fn read_file(path: &Path) -> io::Result<Result<Bytes, Refusal>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Err(Refusal::NotAFile));
    }
    if metadata.len() > rules::LARGEST_FILE {
        return Ok(Err(Refusal::TooLarge));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.take(rules::LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > rules::LARGEST_FILE {
        return Ok(Err(Refusal::TooLarge));
    }
    let bytes = Bytes::from(bytes);
    Ok(match rules::is_lfs_pointer(&bytes) {
        true => Err(Refusal::LargeFileStorage),
        false => Ok(bytes),
    })
}

fn local(path: &Path, error: &io::Error) -> SourceError {
    SourceError::Local { path: path.to_owned(), cause: error.to_string() }
}
