//! The state folder: who holds it, which format it has, and where things lie in it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::StoreError;
use super::journal::sync_folder_of;
use super::record::FORMAT;

/// Damaged databases that are kept for a look; the oldest go.
const MOST_BROKEN: u32 = 3;

/// A state folder that is held by this process until it is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes hold of the folder, made where there is none, and checks its format.
    ///
    /// # Errors
    /// [`StoreError::Held`], [`StoreError::Format`], [`StoreError::Io`].
    pub fn hold(path: &Path) -> Result<Self, StoreError> {
        let mut builder = std::fs::DirBuilder::new();
        // Only for those that are made: a folder that is there keeps its mode.
        builder.recursive(true).mode(0o700);
        builder.create(path).map_err(|error| failed("make the state folder", path, &error))?;
        let lock = lock(path)?;
        let folder = Self { path: path.to_owned(), _lock: lock };
        folder.check_format()?;
        Ok(folder)
    }

    /// Where sled's files are.
    pub fn database(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Where a database is built that is to replace the present one.
    pub fn new_database(&self) -> PathBuf {
        self.path.join("store.new")
    }

    pub fn journal(&self) -> PathBuf {
        self.path.join("journal.log")
    }

    /// Moves a damaged database away, to `store.broken-N`, and returns where it went.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn set_aside(&self) -> Result<PathBuf, StoreError> {
        let broken = |number| self.path.join(format!("store.broken-{number}"));
        // The newest is 1.
        remove_all(&broken(MOST_BROKEN))?;
        for number in (1..MOST_BROKEN).rev() {
            if broken(number).exists() {
                rename(&broken(number), &broken(number + 1))?;
            }
        }
        rename(&self.database(), &broken(1))?;
        Ok(broken(1))
    }

    /// Puts the new database, which nobody has open, in the place of the present one.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn swap(&self) -> Result<(), StoreError> {
        let old = self.path.join("store.old");
        remove_all(&old)?;
        if self.database().exists() {
            rename(&self.database(), &old)?;
        }
        rename(&self.new_database(), &self.database())?;
        sync_folder_of(&self.database())
            .map_err(|error| failed("write the state folder", &self.path, &error))?;
        remove_all(&old)
    }

    /// Finishes or undoes a swap in the middle of which the process ended.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn mend_swap(&self) -> Result<(), StoreError> {
        let old = self.path.join("store.old");
        if old.exists() && !self.database().exists() {
            rename(&old, &self.database())?;
        }
        remove_all(&old)?;
        remove_all(&self.new_database())
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let path = self.path.join("format");
        match std::fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse::<u32>() {
                Ok(found) if found <= FORMAT => Ok(()),
                Ok(found) => Err(self.newer(found)),
                // Torn, or edited: what the records say counts.
                Err(_) => self.write_format(&path),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.write_format(&path),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    /// The error for a format that is newer than ours.
    pub fn newer(&self, found: u32) -> StoreError {
        StoreError::Format { path: self.path.display().to_string(), found, known: FORMAT }
    }

    fn write_format(&self, path: &Path) -> Result<(), StoreError> {
        // Without it the records still say their format, so a full disk is no reason to stop.
        if let Err(error) = std::fs::write(path, format!("{FORMAT}\n")) {
            tracing::warn!(path = %path.display(), %error, "the format can't be written");
        }
        Ok(())
    }
}

/// Removes a folder, if it is there.
///
/// # Errors
/// [`StoreError::Io`].
pub fn remove_all(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", path, &error))
        }
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    std::fs::rename(from, to).map_err(|error| failed("rename", from, &error))
}

/// Locks the folder. The kernel lets go when the process ends, however it ends.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| failed("open", &path, &error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // Zero where the other hasn't written it yet.
            let _ = file.take(20).read_to_string(&mut text);
            let pid = text.trim().parse().unwrap_or(0);
            return Err(StoreError::Held { path: folder.display().to_string(), pid });
        }
        Err(error) => return Err(failed("lock", &path, &error.into())),
    }
    // Only for people: on a full disk the lock holds without it.
    let _ = file.set_len(0);
    let _ = file.rewind();
    let _ = file.write_all(format!("{}\n", std::process::id()).as_bytes());
    Ok(file)
}

/// The error of doing something to a path.
pub fn failed(doing: &str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io { doing: format!("{doing} {}", path.display()), cause: error.to_string() }
}
