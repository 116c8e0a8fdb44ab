//! The folder of secrets: a file for each, and the key under which their digests are computed.
//! No byte of a secret is in any error, digest or log.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use rand::TryRngCore;
use rand::rngs::OsRng;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::Sha256 as Hash;

use crate::model::{SecretDigest, SecretName, Sha256};

/// The largest secret, in bytes.
pub const LARGEST_SECRET: u64 = 64 << 10;

/// The name of the key's file. No secret can have it: their names begin with no dot.
const KEY_FILE: &str = ".plimsoll-key";

/// Bytes in the key.
const KEY_LENGTH: usize = 32;

/// Why a secret isn't to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error(
        "there is no folder of secrets at {path}: type `mkdir -p -m 700 {path}`, or name another with --secrets"
    )]
    NoFolder { path: String },
    #[error(
        "the secret {name} is missing: write it into {path} (`install -m 600 -D /dev/stdin {path}`)"
    )]
    Missing { name: SecretName, path: String },
    #[error(
        "the secret {name} is outside of the folder of secrets: {path} is a link that leads out of it; put the file itself there"
    )]
    Outside { name: SecretName, path: String },
    #[error("the secret {name} in {path} is over 64 KiB")]
    TooLarge { name: SecretName, path: String },
    #[error(
        "the secret {name} in {path} can't be an environment variable: it isn't UTF-8 text, or holds a zero byte"
    )]
    NotText { name: SecretName, path: String },
    #[error("{path} is no regular file")]
    NotAFile { path: String },
    #[error(
        "{path} isn't a key of {KEY_LENGTH} bytes: bring it back from a backup; with a new key, every app that has secrets is replaced once"
    )]
    BadKey { path: String },
    #[error("{path} can't be read: {cause}")]
    Read { path: String, cause: String },
    #[error(
        "the key {path} can't be made: {cause}; where the folder is read-only, make it once with `head -c 32 /dev/urandom > {path}`"
    )]
    MakeKey { path: String, cause: String },
}

/// A folder with a file for each secret.
#[derive(Debug, Clone)]
pub struct SecretFolder {
    path: PathBuf,
}

impl SecretFolder {
    /// Nothing is read yet, and the folder needn't exist while no app has secrets.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keyed digest of each secret, or why there is none.
    pub fn digests(
        &self,
        names: &BTreeSet<SecretName>,
    ) -> BTreeMap<SecretName, Result<SecretDigest, SecretError>> {
        if names.is_empty() {
            return BTreeMap::new();
        }
        let key = self.open().and_then(|folder| self.key(&folder));
        let digest = |name: &SecretName| {
            let key = key.as_ref().map_err(Clone::clone)?;
            Ok(keyed(key, self.value(name)?.expose_secret().as_bytes()))
        };
        names.iter().map(|name| (name.clone(), digest(name))).collect()
    }

    /// The secrets themselves, for the container's environment; a newline at the end is
    /// not a part of them.
    ///
    /// # Errors
    /// The first secret that isn't to be had.
    pub fn values(
        &self,
        names: &BTreeSet<SecretName>,
    ) -> Result<BTreeMap<SecretName, SecretString>, SecretError> {
        names.iter().map(|name| Ok((name.clone(), self.value(name)?))).collect()
    }

    /// What people should mend: files that other users of the machine can read.
    pub fn warnings(&self, names: &BTreeSet<SecretName>) -> Vec<String> {
        let files = names.iter().map(|name| self.path.join(name.as_str()));
        let is_open = |file: &PathBuf| {
            std::fs::metadata(file).is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
        };
        // Nobody gets at the files in a folder that is closed to others.
        let is_closed = std::fs::metadata(&self.path).is_ok_and(|m| m.mode() & 0o001 == 0);
        if is_closed {
            return Vec::new();
        }
        files
            .chain([self.path.join(KEY_FILE)])
            .filter(is_open)
            .map(|file| {
                let file = file.display();
                format!("{file} can be read by every user of this machine: type `chmod 600 {file}`")
            })
            .collect()
    }

    fn value(&self, name: &SecretName) -> Result<SecretString, SecretError> {
        let folder = self.open()?;
        let path = self.path.join(name.as_str()).display().to_string();
        let name = name.clone();
        let file = match open_beneath(&folder, &self.path, name.as_str()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(SecretError::Missing { name, path }),
            Err(Errno::XDEV | Errno::LOOP) => return Err(SecretError::Outside { name, path }),
            Err(error) => return Err(SecretError::Read { path, cause: error.to_string() }),
        };
        let read =
            |error: io::Error| SecretError::Read { path: path.clone(), cause: error.to_string() };
        if !file.metadata().map_err(read)?.is_file() {
            return Err(SecretError::NotAFile { path });
        }
        let bytes = read_bounded(file).map_err(read)?;
        let bytes = bytes
            .ok_or_else(|| SecretError::TooLarge { name: name.clone(), path: path.clone() })?;
        let text =
            std::str::from_utf8(bytes.expose_secret()).ok().filter(|text| !text.contains('\0'));
        let text = text.ok_or(SecretError::NotText { name, path })?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        Ok(SecretString::from(text.strip_suffix('\r').unwrap_or(text)))
    }

    fn open(&self) -> Result<OwnedFd, SecretError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.path, flags, Mode::empty()).map_err(|error| {
            let path = self.path.display().to_string();
            match error {
                Errno::NOENT | Errno::NOTDIR => SecretError::NoFolder { path },
                error => SecretError::Read { path, cause: error.to_string() },
            }
        })
    }

    /// The key, made where there is none.
    fn key(&self, folder: &OwnedFd) -> Result<SecretBox<[u8; KEY_LENGTH]>, SecretError> {
        let path = self.path.join(KEY_FILE);
        let shown = path.display().to_string();
        match rustix::fs::openat(
            folder,
            KEY_FILE,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(file) => read_key(File::from(file), shown),
            Err(Errno::NOENT) => {
                make_key(&path).map_err(|error| SecretError::MakeKey {
                    path: shown.clone(),
                    cause: error.to_string(),
                })?;
                // Another process may have been first: the key is what is there now.
                let file = File::open(&path);
                let read = |error: io::Error| SecretError::Read {
                    path: shown.clone(),
                    cause: error.to_string(),
                };
                read_key(file.map_err(read)?, shown.clone())
            }
            Err(error) => Err(SecretError::Read { path: shown, cause: error.to_string() }),
        }
    }
}

fn read_key(file: File, path: String) -> Result<SecretBox<[u8; KEY_LENGTH]>, SecretError> {
    let bytes = read_bounded(file)
        .map_err(|error| SecretError::Read { path: path.clone(), cause: error.to_string() })?;
    let key =
        bytes.and_then(|bytes| <[u8; KEY_LENGTH]>::try_from(bytes.expose_secret().as_slice()).ok());
    key.map(|key| SecretBox::new(Box::new(key))).ok_or(SecretError::BadKey { path })
}

/// Makes a key that is complete when it appears, and never replaces one that is there.
fn make_key(path: &Path) -> io::Result<()> {
    let (mut key, mut suffix) = ([0; KEY_LENGTH], [0; 8]);
    OsRng.try_fill_bytes(&mut key).map_err(io::Error::other)?;
    OsRng.try_fill_bytes(&mut suffix).map_err(io::Error::other)?;
    let unfinished = path.with_extension(format!("{:016x}", u64::from_le_bytes(suffix)));
    let written =
        write_key(&unfinished, &key).and_then(|()| match std::fs::hard_link(&unfinished, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        });
    let removed = std::fs::remove_file(&unfinished);
    written.and(removed)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn write_key(path: &Path, key: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(key)?;
    file.sync_all()
}

/// The bytes; none where there are more than [`LARGEST_SECRET`].
fn read_bounded(file: File) -> io::Result<Option<SecretBox<Vec<u8>>>> {
    // Of its full size at once, so that growing leaves no copies behind.
    let mut bytes = Box::new(Vec::with_capacity(LARGEST_SECRET as usize + 2));
    file.take(LARGEST_SECRET + 1).read_to_end(&mut bytes)?;
    let is_small = bytes.len() as u64 <= LARGEST_SECRET;
    let bytes = SecretBox::new(bytes);
    Ok(is_small.then_some(bytes))
}

/// Opens a file of the folder. Links are followed as long as they stay below it, as those of
/// mounted secrets do.
fn open_beneath(folder: &OwnedFd, path: &Path, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(folder, name, flags, Mode::empty(), resolve) {
        // Kernels before 5.6 don't have it, and some container engines forbid it.
        Err(Errno::NOSYS | Errno::PERM) => open_canonical(path, name),
        result => result.map(File::from),
    }
}

fn open_canonical(folder: &Path, name: &str) -> Result<File, Errno> {
    let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let root = folder.canonicalize().map_err(errno)?;
    let file = root.join(name).canonicalize().map_err(errno)?;
    if !file.starts_with(&root) {
        return Err(Errno::XDEV);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(&file, flags, Mode::empty()).map(File::from)
}

fn keyed(key: &SecretBox<[u8; KEY_LENGTH]>, secret: &[u8]) -> SecretDigest {
    // A key shorter than a block is filled up with zeros (RFC 2104, section 2).
    let mut block = [0; 64];
    block[..KEY_LENGTH].copy_from_slice(key.expose_secret());
    let mut mac = <Hmac<Hash> as KeyInit>::new(&block.into());
    mac.update(secret);
    SecretDigest(Sha256::from_bytes(mac.finalize().into_bytes().into()))
}
