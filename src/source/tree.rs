//! Manifests of a commit, read from git's object database. Sizes are looked at before content;
//! a folder whose tree is unchanged isn't walked again, and a blob that was read for an earlier
//! commit isn't read again. No link, submodule, filter or attribute is followed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use git2::{ObjectType, Odb, Oid, Repository};

use super::SourceError;
use super::rules::{self, Refusal, Size};
use crate::model::Content;

const FILE_MODE: i32 = 0o100_000;
const FOLDER_MODE: i32 = 0o040_000;
const LINK_MODE: i32 = 0o120_000;
const SUBMODULE_MODE: i32 = 0o160_000;
const TYPE_BITS: i32 = 0o170_000;

/// Commits after which an unused folder or blob is forgotten.
const KEPT_FOR: u64 = 4;

/// Why a tree couldn't be read.
#[derive(Debug)]
pub enum ReadFault {
    /// The commit itself isn't here.
    NoCommit,
    /// An object is missing or damaged: the cache is broken.
    Damaged(git2::Error),
    /// It is there, and isn't to be had.
    Refused(SourceError),
}

impl From<git2::Error> for ReadFault {
    fn from(error: git2::Error) -> Self {
        Self::Damaged(error)
    }
}

/// What was read before, by git's ids.
#[derive(Debug, Default)]
pub struct TreeCache {
    folders: BTreeMap<Oid, Kept<Arc<Folder>>>,
    blobs: BTreeMap<Oid, Kept<Blob>>,
    /// Counts the commits that were read.
    now: u64,
    blobs_read: u64,
}

#[derive(Debug)]
struct Kept<T> {
    value: T,
    used: u64,
}

/// A folder with what is below it. Folders without manifests have no children.
#[derive(Debug, Default)]
struct Folder {
    children: Vec<(String, Child)>,
    size: Size,
}

#[derive(Debug, Clone)]
enum Child {
    Folder(Arc<Folder>),
    File { blob: String, bytes: Bytes },
    Refused(Refusal),
}

#[derive(Debug, Clone)]
enum Blob {
    Bytes(Bytes),
    Refused(Refusal),
}

impl TreeCache {
    /// How many blobs were read from the object database since the start.
    pub fn blobs_read(&self) -> u64 {
        self.blobs_read
    }

    /// The manifests of the tree, by path below it. `name`: of the repository, for errors.
    ///
    /// # Errors
    /// [`ReadFault`]; a tree over the limits of [`rules`] is refused.
    pub fn files(
        &mut self,
        repository: &Repository,
        tree: Oid,
        name: &str,
    ) -> Result<BTreeMap<String, Content>, ReadFault> {
        self.now += 1;
        let odb = repository.odb()?;
        let folder = Read { cache: &mut *self, repository, odb, name }.folder(tree, 0)?;
        let mut files = BTreeMap::new();
        collect(&folder, &mut String::new(), &mut files);
        self.forget();
        Ok(files)
    }

    /// Drops what wasn't used lately. What is below an unchanged folder isn't looked up, so it
    /// stays for as long as that folder holds it.
    fn forget(&mut self) {
        let now = self.now;
        self.folders
            .retain(|_, kept| kept.used + KEPT_FOR > now || Arc::strong_count(&kept.value) > 1);
        self.blobs.retain(|_, kept| {
            kept.used + KEPT_FOR > now
                || matches!(&kept.value, Blob::Bytes(bytes) if !bytes.is_unique())
        });
    }
}

/// One walk.
struct Read<'a> {
    cache: &'a mut TreeCache,
    repository: &'a Repository,
    odb: Odb<'a>,
    name: &'a str,
}

impl Read<'_> {
    fn folder(&mut self, id: Oid, depth: usize) -> Result<Arc<Folder>, ReadFault> {
        if let Some(kept) = self.cache.folders.get_mut(&id) {
            kept.used = self.cache.now;
            return Ok(kept.value.clone());
        }
        if depth > rules::DEEPEST {
            return Err(ReadFault::Refused(SourceError::TooLarge {
                remote: self.name.to_owned(),
                cause: format!("has folders more than {} levels deep", rules::DEEPEST),
            }));
        }
        let tree = self.repository.find_tree(id)?;
        let mut folder = Folder::default();
        for entry in &tree {
            let Some(child) =
                self.child(entry.name_bytes(), entry.filemode_raw(), entry.id(), depth)?
            else {
                continue;
            };
            folder.size = folder.size.plus(child.size());
            folder.size.check(self.name).map_err(ReadFault::Refused)?;
            match rules::readable(entry.name_bytes()) {
                Ok(name) => folder.children.push((name.to_owned(), child)),
                Err(name) => folder.children.push((name, Child::Refused(Refusal::Name))),
            }
        }
        let folder = Arc::new(folder);
        let kept = Kept { value: folder.clone(), used: self.cache.now };
        self.cache.folders.insert(id, kept);
        Ok(folder)
    }

    /// What an entry of a tree is to us; none where it is nothing.
    fn child(
        &mut self,
        name: &[u8],
        mode: i32,
        id: Oid,
        depth: usize,
    ) -> Result<Option<Child>, ReadFault> {
        if rules::is_hidden(name) {
            return Ok(None);
        }
        let mode = mode & TYPE_BITS;
        if mode == FOLDER_MODE {
            let folder = self.folder(id, depth + 1)?;
            return Ok((!folder.children.is_empty()).then_some(Child::Folder(folder)));
        }
        if !rules::is_manifest(name) {
            return Ok(None);
        }
        Ok(Some(match mode {
            FILE_MODE => match self.blob(id)? {
                Blob::Bytes(bytes) => Child::File { blob: id.to_string(), bytes },
                Blob::Refused(refusal) => Child::Refused(refusal),
            },
            LINK_MODE => Child::Refused(Refusal::Symlink),
            SUBMODULE_MODE => Child::Refused(Refusal::Submodule),
            _ => Child::Refused(Refusal::NotAFile),
        }))
    }

    fn blob(&mut self, id: Oid) -> Result<Blob, ReadFault> {
        let now = self.cache.now;
        if let Some(kept) = self.cache.blobs.get_mut(&id) {
            kept.used = now;
            return Ok(kept.value.clone());
        }
        let value = self.read_blob(id)?;
        self.cache.blobs.insert(id, Kept { value: value.clone(), used: now });
        Ok(value)
    }

    fn read_blob(&mut self, id: Oid) -> Result<Blob, ReadFault> {
        let (size, kind) = self.odb.read_header(id)?;
        if kind != ObjectType::Blob {
            return Ok(Blob::Refused(Refusal::NotAFile));
        }
        if size as u64 > rules::LARGEST_FILE {
            return Ok(Blob::Refused(Refusal::TooLarge));
        }
        let bytes = Bytes::copy_from_slice(self.odb.read(id)?.data());
        self.cache.blobs_read += 1;
        Ok(match rules::is_lfs_pointer(&bytes) {
            true => Blob::Refused(Refusal::LargeFileStorage),
            false => Blob::Bytes(bytes),
        })
    }
}

impl Child {
    fn size(&self) -> Size {
        match self {
            Self::Folder(folder) => folder.size,
            Self::File { bytes, .. } => Size { files: 1, bytes: bytes.len() as u64 },
            Self::Refused(_) => Size { files: 1, bytes: 0 },
        }
    }
}

/// Writes the folder's files into `files`. `path`: of the folder, empty or with a `/` behind.
fn collect(folder: &Folder, path: &mut String, files: &mut BTreeMap<String, Content>) {
    let length = path.len();
    for (name, child) in &folder.children {
        path.push_str(name);
        match child {
            Child::Folder(folder) => {
                path.push('/');
                collect(folder, path, files);
            }
            Child::File { blob, bytes } => {
                let content = Content::Bytes { blob: blob.clone(), bytes: bytes.clone() };
                files.insert(path.clone(), content);
            }
            Child::Refused(refusal) => {
                files.insert(path.clone(), refusal.content(path));
            }
        }
        path.truncate(length);
    }
}
