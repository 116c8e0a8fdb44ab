//! The bare repository on disk into which is fetched. It can be lost at any time: a damaged one
//! is replaced by one that was filled beside it. Only one process fetches into it at a time,
//! and one that was killed leaves nothing that stops the next.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use git2::{Oid, Repository, RepositoryInitOptions};

use super::SourceError;
use super::rules::DEEPEST;
use crate::model::Sha256;

/// Where the commit that was applied last is kept, so that compacting doesn't lose it.
pub const APPLIED_REF: &str = "refs/plimsoll/applied";

/// Packs after which the cache is compacted into one: each fetch adds one, and each costs a
/// descriptor.
const MOST_PACKS: usize = 100;

/// The folder of one remote, and the right to write into it.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    /// Held while this process fetches; shared by its fetches, of which one may hang.
    lock: Mutex<Weak<File>>,
    /// Counts replacements, so that one that hangs and is given up isn't in the way of another.
    replacements: AtomicU64,
}

impl Cache {
    /// The cache of the remote of that name (without credentials) below `parent`.
    ///
    /// # Errors
    /// [`SourceError::Local`] where `parent` can't be made.
    pub fn new(parent: &Path, remote: &str) -> Result<Self, SourceError> {
        std::fs::create_dir_all(parent).map_err(|error| local(parent, &error))?;
        let key = Sha256::of(remote.as_bytes()).short(16);
        let folder = parent.join(format!("{key}.git"));
        Ok(Self { folder, lock: Mutex::new(Weak::new()), replacements: AtomicU64::new(0) })
    }

    /// Where the bare repository is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until no other process fetches, then sweeps away what a killed one left.
    ///
    /// # Errors
    /// [`SourceError::Local`] where the lock's file can't be made.
    pub fn lock(&self) -> Result<Arc<File>, SourceError> {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = held.upgrade() {
            return Ok(file);
        }
        let path = self.folder.with_extension("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| local(&path, &error))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|error| local(&path, &error.into()))?;
        let file = Arc::new(file);
        *held = Arc::downgrade(&file);
        self.sweep();
        Ok(file)
    }

    /// Opens the repository, made where there is none. Whether its tip can be read is checked,
    /// not every object.
    ///
    /// # Errors
    /// libgit2's, where it is damaged.
    pub fn open(&self) -> Result<Repository, git2::Error> {
        if !self.folder.exists() {
            return init(&self.folder);
        }
        let repository = Repository::open_bare(&self.folder)?;
        for name in repository.references()?.names() {
            repository.refname_to_id(name?)?;
        }
        Ok(repository)
    }

    /// Replaces the repository by one that `fill` fills. The old one stays until the new one is
    /// complete.
    ///
    /// # Errors
    /// Those of `fill`, and of the file system.
    pub fn replace<T, E: From<git2::Error> + From<io::Error>>(
        &self,
        fill: impl FnOnce(&Repository) -> Result<T, E>,
    ) -> Result<T, E> {
        let number = self.replacements.fetch_add(1, Ordering::Relaxed);
        let new = self.beside(&format!("new-{number}"));
        remove(&new)?;
        let filled = init(&new).map_err(E::from).and_then(|repository| fill(&repository));
        if filled.is_err() {
            remove(&new)?;
            return filled;
        }
        let broken = self.beside(&format!("broken-{number}"));
        remove(&broken)?;
        if self.folder.exists() {
            std::fs::rename(&self.folder, &broken)?;
        }
        std::fs::rename(&new, &self.folder)?;
        remove(&broken)?;
        filled
    }

    /// True where so many fetches have added packs that they are better made one.
    pub fn wants_compaction(&self) -> bool {
        let packs = std::fs::read_dir(self.folder.join("objects/pack"));
        packs.is_ok_and(|packs| {
            packs.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "pack")).count()
                > MOST_PACKS
        })
    }

    /// Copies what is reachable into a new repository with one pack.
    ///
    /// # Errors
    /// libgit2's, and those of the file system.
    pub fn compact(&self) -> Result<(), CacheFault> {
        let old = self.folder.to_string_lossy().into_owned();
        self.replace(|new| {
            let mut remote = new.remote_anonymous(&old)?;
            remote.fetch(&["+refs/*:refs/*"], None, None)?;
            Ok(())
        })
    }

    fn beside(&self, what: &str) -> PathBuf {
        self.folder.with_extension(what)
    }

    /// Removes locks and half-written packs. Only under the lock: nobody is using them.
    fn sweep(&self) {
        let siblings = self.folder.parent().and_then(|parent| std::fs::read_dir(parent).ok());
        for sibling in siblings.into_iter().flatten().flatten().map(|entry| entry.path()) {
            let what = sibling.extension().map(|what| what.to_string_lossy().into_owned());
            let is_left = what.is_some_and(|w| w.starts_with("new-") || w.starts_with("broken-"));
            if is_left && sibling.file_stem() == self.folder.file_stem() {
                // If it can't be removed, replacing says so.
                let _ = remove(&sibling);
            }
        }
        sweep_folder(&self.folder, 0);
    }
}

/// Why the cache couldn't be changed.
#[derive(Debug)]
pub enum CacheFault {
    Git(git2::Error),
    Io(io::Error),
}

impl From<git2::Error> for CacheFault {
    fn from(error: git2::Error) -> Self {
        Self::Git(error)
    }
}

impl From<io::Error> for CacheFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for CacheFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Git(error) => f.write_str(error.message()),
            Self::Io(error) => error.fmt(f),
        }
    }
}

/// True where the commit and the whole of its tree can be read.
pub fn is_sound(repository: &Repository, commit: Oid) -> bool {
    let walk = || {
        let tree = repository.find_commit(commit)?.tree()?;
        // libgit2 descends by recursion: what is too deep to be read isn't looked at.
        tree.walk(git2::TreeWalkMode::PreOrder, |path, _| match path.matches('/').count() {
            depth if depth > DEEPEST => git2::TreeWalkResult::Skip,
            _ => git2::TreeWalkResult::Ok,
        })
    };
    walk().is_ok()
}

/// Points a reference at a commit, whatever it pointed at before.
///
/// # Errors
/// libgit2's.
pub fn point(repository: &Repository, name: &str, commit: Oid) -> Result<(), git2::Error> {
    if repository.refname_to_id(name).ok() == Some(commit) {
        return Ok(());
    }
    repository.reference(name, commit, true, "fetched").map(drop)
}

fn init(folder: &Path) -> Result<Repository, git2::Error> {
    let mut options = RepositoryInitOptions::new();
    // No template of the user's: it could bring hooks.
    options.bare(true).mkpath(true).external_template(false).initial_head("main");
    Repository::init_opts(folder, &options)
}

fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sweep_folder(folder: &Path, depth: usize) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // Loose objects lie in 256 folders, in which nothing of ours is left behind.
            if depth < 16 && !(folder.ends_with("objects") && name.len() == 2) {
                sweep_folder(&path, depth + 1);
            }
        } else if name.ends_with(".lock")
            || name.starts_with("pack_git2_")
            || name.starts_with("tmp_")
        {
            let _ = std::fs::remove_file(&path);
        }
    }
}

fn local(path: &Path, error: &io::Error) -> SourceError {
    SourceError::Local { path: path.to_owned(), cause: error.to_string() }
}
