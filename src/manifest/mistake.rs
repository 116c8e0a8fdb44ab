//! Mistakes as they are found, by place in a file, and their way to people. Finding goes on
//! after a mistake; the collection is bounded.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::text::{Extent, FileId, Text};
use crate::model::{Diagnostic, Location};

/// The most mistakes, and the most warnings, that are kept of one document.
const MOST_PER_DOCUMENT: usize = 100;

/// One mistake at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mistake {
    pub at: Extent,
    pub message: String,
    pub hint: Option<String>,
    /// The line may hold a credential: it isn't shown.
    pub is_secret: bool,
}

impl Mistake {
    /// What to write instead.
    pub fn hint(&mut self, hint: impl Into<String>) {
        self.hint = Some(hint.into());
    }
}

/// What was found in one document.
#[derive(Debug, Clone, Default)]
pub(super) struct Mistakes {
    pub errors: Vec<Mistake>,
    pub warnings: Vec<Mistake>,
}

impl Mistakes {
    /// Adds a mistake; the returned one takes a hint.
    pub fn error(&mut self, at: Extent, message: impl Into<String>) -> &mut Mistake {
        push(&mut self.errors, at, message.into())
    }

    /// Adds something that is allowed, but hardly meant.
    pub fn warn(&mut self, at: Extent, message: impl Into<String>) -> &mut Mistake {
        push(&mut self.warnings, at, message.into())
    }

    /// True where no more are kept, so that their finding may stop.
    pub fn is_full(&self) -> bool {
        self.errors.len() >= MOST_PER_DOCUMENT
    }

    pub fn add(&mut self, other: &Self) {
        self.errors.extend(other.errors.iter().cloned());
        self.warnings.extend(other.warnings.iter().cloned());
    }
}

fn push(list: &mut Vec<Mistake>, at: Extent, message: String) -> &mut Mistake {
    let mistake = Mistake { at, message, hint: None, is_secret: false };
    if list.len() >= MOST_PER_DOCUMENT {
        let message = format!("this document has more than {MOST_PER_DOCUMENT} mistakes");
        list.truncate(MOST_PER_DOCUMENT - 1);
        list.push(Mistake { message, ..mistake });
    } else {
        list.push(mistake);
    }
    let last = list.len() - 1;
    &mut list[last]
}

/// The texts of one commit, by which places become lines.
#[derive(Debug, Default)]
pub(super) struct Texts(BTreeMap<FileId, Arc<Text>>);

impl Texts {
    pub fn add(&mut self, file: FileId, text: Arc<Text>) {
        self.0.insert(file, text);
    }

    pub fn forget(&mut self, file: FileId) {
        self.0.remove(&file);
    }

    /// File and line of a place.
    pub fn location(&self, at: Extent) -> Location {
        match self.0.get(&at.file) {
            Some(text) => Location { file: text.path.clone(), line: text.line_of(at.start) },
            None => Location { file: String::new(), line: 1 },
        }
    }

    /// `FILE:LINE`.
    pub fn place(&self, at: Extent) -> String {
        let Location { file, line } = self.location(at);
        format!("{file}:{line}")
    }

    pub fn diagnostic(&self, mistake: &Mistake) -> Diagnostic {
        let Mistake { at, message, hint, is_secret } = mistake.clone();
        let location = self.location(at);
        let text = self.0.get(&at.file);
        Diagnostic {
            column: text.map_or(1, |text| text.position(at.start).1),
            length: text.map_or(1, |text| text.length(at)),
            source: text
                .filter(|_| !is_secret)
                .and_then(|text| text.line(location.line))
                .map(str::to_owned),
            location,
            message,
            hint,
        }
    }
}

/// The one of `candidates` that `text` was probably meant to be.
pub(super) fn nearest<'c>(
    text: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let lower = text.to_ascii_lowercase();
    let farthest = (text.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&lower, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= farthest)
        .min()
        .map(|(_, candidate)| candidate)
}

/// A hint for a name that isn't among `known`: the nearest, or all where they are few.
pub(super) fn known_names<'c>(
    text: &str,
    what: &str,
    known: impl IntoIterator<Item = &'c str> + Clone,
) -> Option<String> {
    if let Some(near) = nearest(text, known.clone()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let names: Vec<_> = known.into_iter().take(31).collect();
    match names.len() {
        0 => None,
        1 => Some(format!("the only {what} is `{}`", names[0])),
        2..=30 => Some(format!("the {what}s are {}", names.join(", "))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_what_was_meant() {
        for (text, near) in [
            ("replica", Some("replicas")),
            ("Image", Some("image")),
            ("imgae", Some("image")),
            ("zzzz", None),
            ("i", None),
        ] {
            assert_eq!(nearest(text, ["image", "replicas", "routes"]), near, "{text}");
        }
    }
}
