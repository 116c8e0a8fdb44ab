//! The manifest files of one commit, as they travel from the source to the reader.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::CommitId;

/// The manifest files of one commit: path below the repository's root (with `--path`, below
/// that folder), and content. Bounded in number and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub commit: CommitId,
    pub files: BTreeMap<String, Content>,
}

/// A file's content, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// `blob`: git's id of it, equal where the bytes are.
    Bytes { blob: String, bytes: Bytes },
    /// Too large, a symlink, a submodule: the reason, for people.
    Refused { reason: String },
}
