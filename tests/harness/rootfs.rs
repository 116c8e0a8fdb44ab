//! The root file system of an image that holds a program of this machine and the libraries that
//! it is linked to, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use super::command::run;
use super::tar::{Archive, Entry};

/// What goes into the image's one layer.
#[derive(Debug, Default)]
pub struct Rootfs {
    folders: BTreeMap<String, (u32, u32)>,
    files: BTreeMap<String, (Vec<u8>, u32)>,
}

impl Rootfs {
    /// Adds a program of this machine under its own path, with its libraries.
    #[track_caller]
    #[must_use]
    pub fn program(mut self, path: &str) -> Self {
        let bytes = std::fs::read(path)
            .unwrap_or_else(|e| panic!("{path}: {e}: `scripts/setup test` installs it"));
        self.files.insert(path.to_owned(), (bytes, 0o755));
        for library in libraries_of(path) {
            let bytes = std::fs::read(&library).unwrap();
            self.files.insert(library, (bytes, 0o755));
        }
        self
    }

    /// Adds a text file that everybody may read.
    #[must_use]
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_owned(), (text.as_bytes().to_vec(), 0o644));
        self
    }

    /// Adds an empty folder that belongs to `owner`, as user and as group.
    #[must_use]
    pub fn folder(mut self, path: &str, mode: u32, owner: u32) -> Self {
        self.folders.insert(path.to_owned(), (mode, owner));
        self
    }

    /// The layer as a tar archive.
    pub fn layer(&self) -> Vec<u8> {
        let mut archive = Archive::default();
        let parents: BTreeSet<String> = self
            .files
            .keys()
            .chain(self.folders.keys())
            .flat_map(|path| parents_of(path))
            .collect();
        for parent in parents.iter().filter(|parent| !self.folders.contains_key(*parent)) {
            archive.add(&format!("{}/", parent.trim_start_matches('/')), &Entry::Folder, 0o755, 0);
        }
        for (path, (mode, owner)) in &self.folders {
            let path = format!("{}/", path.trim_start_matches('/'));
            archive.add(&path, &Entry::Folder, *mode, *owner);
        }
        for (path, (bytes, mode)) in &self.files {
            archive.add(path.trim_start_matches('/'), &Entry::File(bytes), *mode, 0);
        }
        archive.finish()
    }
}

/// The folders above a path: `/a/b/c` gives `/a` and `/a/b`.
fn parents_of(path: &str) -> Vec<String> {
    let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
    ends.map(|at| path[..at].to_owned()).collect()
}

/// Paths of the shared libraries and of the dynamic linker, as `ldd` tells.
fn libraries_of(program: &str) -> Vec<String> {
    let output = run(Command::new("ldd").arg(program));
    if output.code != 0 {
        return Vec::new(); // static
    }
    let word_is_path = |word: &&str| word.starts_with('/');
    let path_in = |line: &str| line.split_whitespace().find(word_is_path).map(str::to_owned);
    output.stdout.lines().filter_map(path_in).collect()
}
