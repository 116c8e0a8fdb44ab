//! Which files of a repository are manifests, and how much of them is read. The same for git
//! objects and for files as they lie. Pure.

use bytes::Bytes;

use super::SourceError;
use crate::model::Content;

/// The largest manifest that is read, in bytes.
pub const LARGEST_FILE: u64 = 1 << 20;

/// The most manifests of one commit.
pub const MOST_FILES: u64 = 100_000;

/// The most bytes in the manifests of one commit.
pub const MOST_BYTES: u64 = 256 << 20;

/// Folders below folders that are followed.
pub const DEEPEST: usize = 64;

/// How a file that keeps its content in Git LFS begins.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Why a file that is named like a manifest isn't read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    TooLarge,
    Symlink,
    Submodule,
    LargeFileStorage,
    NotAFile,
    Name,
}

impl Refusal {
    /// The content of the file at `path` that is refused for this reason.
    pub fn content(self, path: &str) -> Content {
        let reason = match self {
            Self::TooLarge => format!("{path} is over 1 MiB: split it into several files"),
            Self::Symlink => format!(
                "{path} is a symbolic link, and links aren't followed: commit the file itself"
            ),
            Self::Submodule => format!(
                "{path} is a submodule, and submodules aren't followed: commit the files themselves"
            ),
            Self::LargeFileStorage => format!(
                "{path} is kept in Git LFS, which isn't asked: commit the file itself (git lfs untrack)"
            ),
            Self::NotAFile => format!("{path} is no regular file"),
            Self::Name => {
                format!("{path} has a name that isn't printable UTF-8: rename it")
            }
        };
        Content::Refused { reason }
    }
}

/// Whether a file of that name is a manifest: it ends in `.yaml` or `.yml` in any case, and
/// isn't hidden, as the settings of other tools are.
pub fn is_manifest(name: &[u8]) -> bool {
    let ends = |end: &[u8]| {
        name.len() > end.len() && name[name.len() - end.len()..].eq_ignore_ascii_case(end)
    };
    !is_hidden(name) && (ends(b".yaml") || ends(b".yml"))
}

/// Whether a file or folder is hidden: its name begins with a dot.
pub fn is_hidden(name: &[u8]) -> bool {
    name.first() == Some(&b'.')
}

/// The name as text, if people can read it; else an escaped form of it.
pub fn readable(name: &[u8]) -> Result<&str, String> {
    match std::str::from_utf8(name) {
        Ok(text) if !text.chars().any(char::is_control) => Ok(text),
        _ => Err(name.escape_ascii().to_string()),
    }
}

/// Whether the bytes are a pointer into Git LFS instead of the content.
pub fn is_lfs_pointer(bytes: &Bytes) -> bool {
    bytes.starts_with(LFS_POINTER)
}

/// How many files and bytes a repository has, checked against the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    pub files: u64,
    pub bytes: u64,
}

impl Size {
    /// The sum. It saturates, so that a folder that contains itself a million times over
    /// can't wrap it.
    pub fn plus(self, other: Self) -> Self {
        Self {
            files: self.files.saturating_add(other.files),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// # Errors
    /// [`SourceError::TooLarge`] where it is over a limit.
    pub fn check(self, name: &str) -> Result<(), SourceError> {
        let cause = if self.files > MOST_FILES {
            format!("has more than {MOST_FILES} manifests")
        } else if self.bytes > MOST_BYTES {
            format!("has more than {} MiB of manifests", MOST_BYTES >> 20)
        } else {
            return Ok(());
        };
        Err(SourceError::TooLarge { remote: name.to_owned(), cause })
    }
}

/// The folder that `--path` names, in canonical form: no empty and no `.` parts, and none that
/// leads out.
///
/// # Errors
/// [`SourceError::Path`] where it is absolute or leads out of the repository.
pub fn checked_path(path: &str) -> Result<String, SourceError> {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if path.starts_with('/') || parts.contains(&"..") || path.chars().any(char::is_control) {
        return Err(SourceError::Path(path.to_owned()));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_known_by_their_names() {
        for good in ["a.yaml", "a.yml", "A.YAML", "a.b.YmL"] {
            assert!(is_manifest(good.as_bytes()), "{good}");
        }
        for bad in ["", "yaml", ".yaml", ".ci.yml", "a.yaml.bak", "a.json", "a.yamlx", "ayml"] {
            assert!(!is_manifest(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn a_path_stays_in_the_repository() {
        for (path, expected) in
            [("", ""), (".", ""), ("a", "a"), ("./a//b/", "a/b"), ("a/./b", "a/b")]
        {
            assert_eq!(checked_path(path).unwrap(), expected);
        }
        for bad in ["/a", "..", "a/../b", "a\nb"] {
            assert!(checked_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_limited_and_never_wrap() {
        let huge = Size { files: u64::MAX, bytes: 1 };
        assert!(huge.plus(huge).check("r").is_err());
        assert!(Size { files: MOST_FILES, bytes: MOST_BYTES }.check("r").is_ok());
        assert!(Size { files: 1, bytes: MOST_BYTES + 1 }.check("r").is_err());
    }

    #[test]
    fn names_that_nobody_can_read_are_escaped() {
        assert_eq!(readable(b"a.yaml"), Ok("a.yaml"));
        assert_eq!(readable(b"a\n.yaml"), Err("a\\n.yaml".into()));
        assert_eq!(readable(b"\xff.yaml"), Err("\\xff.yaml".into()));
    }
}
