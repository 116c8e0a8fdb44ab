//! A file's documents. What is read here depends on the file's bytes alone, so that it may be
//! kept for as long as they don't change.

use std::sync::Arc;

use super::document::Document;
use super::mistake::{Mistake, Mistakes};
use super::parse::{parse, split};
use super::text::{Extent, FileId, Text};
use crate::model::Location;

/// The largest file.
pub(super) const LARGEST_FILE: usize = 1 << 20;
/// The most documents of one file.
const MOST_DOCUMENTS: usize = 10_000;

#[derive(Debug)]
pub(super) struct File {
    pub id: FileId,
    pub text: Arc<Text>,
    pub documents: Vec<Document>,
    /// Why the file as a whole can't be read; it has no documents then.
    pub fault: Option<Mistake>,
}

impl File {
    /// Reads a file's bytes.
    pub fn read(path: &str, bytes: &[u8], id: FileId) -> Self {
        match decode(bytes) {
            Ok(text) => {
                let text = Arc::new(Text::new(path.to_owned(), text.to_owned()));
                let parts = split(text.as_str());
                if parts.len() > MOST_DOCUMENTS {
                    let message = format!("{path} has more than {MOST_DOCUMENTS} documents");
                    return Self::unreadable(path, id, 1, message, Some("split it".to_owned()));
                }
                let documents = parts.into_iter().map(|part| document(&text, part, id)).collect();
                Self { id, text, documents, fault: None }
            }
            Err((line, message, hint)) => {
                Self::unreadable(path, id, line, format!("{path} {message}"), hint)
            }
        }
    }

    /// A file without documents, for the reason `message`.
    pub fn unreadable(
        path: &str,
        id: FileId,
        line: usize,
        message: String,
        hint: Option<String>,
    ) -> Self {
        // The text isn't known, its lines are: a place is a line.
        let text = Text::new(path.to_owned(), "\n".repeat(line.saturating_sub(1)));
        let offset = line.saturating_sub(1) as u32;
        let at = Extent { file: id, start: offset, end: offset };
        let fault = Some(Mistake { at, message, hint, is_secret: false });
        Self { id, text: Arc::new(text), documents: Vec::new(), fault }
    }
}

/// UTF-8 with or without byte order mark; else the line, what is wrong, and a hint.
fn decode(bytes: &[u8]) -> Result<&str, (usize, &'static str, Option<String>)> {
    if bytes.len() > LARGEST_FILE {
        return Err((1, "is over 1 MiB", Some("split it into several files".to_owned())));
    }
    let as_utf8 = "save it as UTF-8".to_owned();
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err((1, "is UTF-16, not UTF-8", Some(as_utf8)));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            Err((line, "isn't UTF-8 from this line on", Some(as_utf8)))
        }
    }
}

fn document(text: &Text, part: std::ops::Range<usize>, id: FileId) -> Document {
    let mut found = Mistakes::default();
    let parsed = parse(text.as_str(), part.clone(), id, &mut found);
    let start = match &parsed.root {
        Some(root) => root.at.start,
        None => part.start as u32,
    };
    let first = text.as_str().get(start as usize..part.end).and_then(|rest| rest.lines().next());
    let end = start + first.map_or(0, str::len) as u32;
    let at = Extent { file: id, start, end };
    let location = Location { file: text.path.clone(), line: text.line_of(start) };
    Document::new(parsed, at, location, found)
}

/// True for what is read: `.yaml` and `.yml` in any case, outside hidden folders.
pub(super) fn is_manifest(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let has_extension = lower.ends_with(".yaml") || lower.ends_with(".yml");
    has_extension && path.split('/').all(|part| !part.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_told_by_their_extension() {
        for (path, is) in [
            ("a.yaml", true),
            ("a/b.YML", true),
            ("a/b.Yaml", true),
            ("README.md", false),
            (".github/workflows/ci.yaml", false),
            ("a/.b.yaml", false),
            ("yaml", false),
        ] {
            assert_eq!(is_manifest(path), is, "{path}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_said_to_be_none() {
        for (bytes, line, message) in [
            (b"a: 1\nb: \xff\n".as_slice(), 2, "x.yaml isn't UTF-8 from this line on"),
            (b"\xff\xfea\0".as_slice(), 1, "x.yaml is UTF-16, not UTF-8"),
        ] {
            let file = File::read("x.yaml", bytes, FileId(0));
            let fault = file.fault.unwrap();
            assert_eq!((file.text.line_of(fault.at.start), &*fault.message), (line, message));
        }
        assert!(File::read("x.yaml", b"\xef\xbb\xbfa: 1", FileId(0)).fault.is_none());
        let large = File::read("x.yaml", &vec![b'#'; LARGEST_FILE + 1], FileId(0));
        assert_eq!(large.fault.unwrap().message, "x.yaml is over 1 MiB");
    }
}
