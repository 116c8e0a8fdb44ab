//! Writes the uid into an Installation that has none, and leaves every other byte of the file
//! as it is.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::api::OperationError;
use crate::model::InstallationUid;

/// How deep manifests are looked for, and in how many files: what is beyond is named by hand.
const DEPTH: usize = 6;
const FILES: usize = 10_000;

/// The largest file that is looked into, in bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// The file below `folder` that declares the Installation; none where there is none.
///
/// # Errors
/// A folder can't be read.
pub fn find_installation(folder: &Path) -> Result<Option<PathBuf>, OperationError> {
    if !folder.exists() {
        return Ok(None);
    }
    let mut files = Vec::new();
    collect(folder, DEPTH, &mut files).map_err(|error| {
        OperationError::because(format!("{} can't be read", folder.display()), &error)
    })?;
    files.sort();
    let declares = |file: &PathBuf| {
        read(file).is_ok_and(|text| text.lines().any(|line| kind_of(line) == Some("Installation")))
    };
    Ok(files.into_iter().find(declares))
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        let is_manifest = path.extension().is_some_and(|extension| {
            extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml")
        });
        if kind.is_dir() && !is_hidden && depth > 0 {
            collect(&path, depth - 1, files)?;
        } else if kind.is_file() && is_manifest && files.len() < FILES {
            files.push(path);
        }
    }
    Ok(())
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)?.take(FILE_LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

/// The value of a top-level `kind:` on this line.
fn kind_of(line: &str) -> Option<&str> {
    let value = line.strip_prefix("kind:")?.split('#').next()?;
    Some(value.trim().trim_matches(['"', '\'']))
}

/// Writes `uid` into the Installation in `file`.
///
/// # Errors
/// It has a uid already, or is written in a way that isn't understood; the file is left alone.
pub fn write(file: &Path, uid: &str) -> Result<(), OperationError> {
    let shown = file.display();
    let failed = |error: &(dyn std::error::Error + 'static)| {
        OperationError::because(format!("{shown} could not be changed"), error)
    };
    let text = read(file).map_err(|error| failed(&error))?;
    let mended = match insert(&text, uid) {
        Ok(mended) => mended,
        Err(Refusal::HasUid(uid)) => {
            let message = format!("{shown} is an Installation with uid {uid}; nothing was written");
            return Err(OperationError::new(message).hint("check it: plimsoll validate"));
        }
        Err(Refusal::NotUnderstood) => {
            let message =
                format!("the Installation in {shown} has no uid, and no place for one was found");
            return Err(OperationError::new(message)
                .hint(format!("write it by hand, below metadata: uid: \"{uid}\"")));
        }
    };
    replace(file, &mended).map_err(|error| failed(&error))
}

/// The new text is there whole, or the old one.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = file.with_file_name(name);
    let mut new = OpenOptions::new().write(true).create_new(true).open(&beside)?;
    let written = new
        .write_all(text.as_bytes())
        .and_then(|()| new.set_permissions(std::fs::metadata(file)?.permissions()))
        .and_then(|()| new.sync_all())
        .and_then(|()| std::fs::rename(&beside, file));
    if written.is_err() {
        // What is left of the attempt is of no use.
        let _left_over = std::fs::remove_file(&beside);
    }
    written
}

#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    HasUid(String),
    NotUnderstood,
}

/// What matters of an Installation here.
#[derive(Deserialize)]
struct Document {
    kind: String,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    uid: Option<InstallationUid>,
}

/// `text` with the uid in its Installation.
fn insert(text: &str, uid: &str) -> Result<String, Refusal> {
    let (start, end) = installation_range(text).ok_or(Refusal::NotUnderstood)?;
    let document = text.get(start..end).ok_or(Refusal::NotUnderstood)?;
    let before = parse(document).ok_or(Refusal::NotUnderstood)?;
    if let Some(uid) = before.metadata.uid {
        return Err(Refusal::HasUid(uid.to_string()));
    }
    let candidates = [in_flow(document, uid), in_block(document, uid)];
    // Whatever was written is read back before it counts.
    let is_right = |candidate: &String| {
        parse(candidate).is_some_and(|after| {
            let has_uid = after.metadata.uid.is_some_and(|read| read.as_str() == uid);
            has_uid && after.metadata.name == before.metadata.name
        })
    };
    let mended = candidates.into_iter().flatten().find(is_right).ok_or(Refusal::NotUnderstood)?;
    let (head, tail) = (text.get(..start).unwrap_or_default(), text.get(end..).unwrap_or_default());
    Ok(format!("{head}{mended}{tail}"))
}

fn parse(document: &str) -> Option<Document> {
    let document: Document = serde_saphyr::from_str(document).ok()?;
    (document.kind == "Installation").then_some(document)
}

/// Where the Installation's document begins and ends, in bytes.
fn installation_range(text: &str) -> Option<(usize, usize)> {
    let (mut start, mut position, mut found) = (0, 0, false);
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "---" {
            if found {
                return Some((start, position));
            }
            start = position + line.len();
        }
        found |= kind_of(line) == Some("Installation");
        position += line.len();
    }
    found.then_some((start, text.len()))
}

/// `metadata: {name: shop}` becomes `metadata: {name: shop, uid: "..."}`.
fn in_flow(document: &str, uid: &str) -> Option<String> {
    let start = line_start(document, "metadata:")?;
    let open = start + document.get(start..)?.find('{')?;
    let close = open + document.get(open..)?.find('}')?;
    let (head, tail) = (document.get(..close)?, document.get(close..)?);
    Some(format!("{}, uid: \"{uid}\"{tail}", head.trim_end().trim_end_matches(',')))
}

/// A line below `metadata:`, as far in as the one that follows.
fn in_block(document: &str, uid: &str) -> Option<String> {
    let start = line_start(document, "metadata:")?;
    let after = start + document.get(start..)?.find('\n')? + 1;
    let (head, tail) = (document.get(..after)?, document.get(after..)?);
    let next =
        tail.lines().find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))?;
    let indent = &next[..next.len() - next.trim_start().len()];
    let end = if head.ends_with("\r\n") { "\r\n" } else { "\n" };
    Some(format!("{head}{indent}uid: \"{uid}\"{end}{tail}"))
}

fn line_start(text: &str, beginning: &str) -> Option<usize> {
    let mut position = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with(beginning) {
            return Some(position);
        }
        position += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_uid_is_added() {
        for (before, after) in [
            (
                "kind: Installation\nmetadata: {name: shop}\n",
                "kind: Installation\nmetadata: {name: shop, uid: \"00ff00ff\"}\n",
            ),
            (
                "kind: Installation # ours\nmetadata:\n    name: shop\nspec: {}\n",
                "kind: Installation # ours\nmetadata:\n    uid: \"00ff00ff\"\n    name: shop\nspec: {}\n",
            ),
            (
                "metadata:\r\n  name: shop\r\nkind: Installation\r\n",
                "metadata:\r\n  uid: \"00ff00ff\"\r\n  name: shop\r\nkind: Installation\r\n",
            ),
            (
                "kind: Host\nmetadata: {name: a}\n---\nkind: Installation\nmetadata: {name: b}\n---\nkind: Host\n",
                "kind: Host\nmetadata: {name: a}\n---\nkind: Installation\nmetadata: {name: b, uid: \"00ff00ff\"}\n---\nkind: Host\n",
            ),
        ] {
            assert_eq!(insert(before, "00ff00ff").as_deref(), Ok(after));
        }
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        let has = "kind: Installation\nmetadata: {name: shop, uid: \"1234\"}\n";
        assert_eq!(insert(has, "00ff00ff"), Err(Refusal::HasUid("1234".into())));
        for text in ["kind: Host\n", "kind: Installation\nmetadata: [a]\n", "kind: Installation\n"]
        {
            assert_eq!(insert(text, "00ff00ff"), Err(Refusal::NotUnderstood), "{text}");
        }
    }
}
