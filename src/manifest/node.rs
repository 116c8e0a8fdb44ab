//! A document as a tree in which everything knows where it was written, and the merge of two of
//! them. It knows YAML's shapes only, nothing of the kinds.

use std::collections::BTreeMap;

use compact_str::CompactString;

use super::text::Extent;

/// One value.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub at: Extent,
    pub data: Data,
}

#[derive(Debug, Clone)]
pub(super) enum Data {
    Null,
    /// Something that can't be read, and was said to be so.
    Broken,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A text, a number or a boolean, as it was written.
#[derive(Debug, Clone)]
pub(super) struct Scalar {
    pub text: CompactString,
    /// Written without quotes: `80` may be a number, `"80"` is a text.
    pub plain: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: CompactString,
    pub key_at: Extent,
    pub value: Node,
}

impl Node {
    /// What it is, for people.
    pub fn what(&self) -> &'static str {
        match &self.data {
            Data::Null | Data::Broken => "empty",
            Data::Scalar(scalar) if scalar.is_boolean() => "a boolean",
            Data::Scalar(scalar) if scalar.is_number() => "a number",
            Data::Scalar(_) => "a text",
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
        }
    }

    /// The text as it was written, for messages.
    pub fn shown(&self) -> String {
        match &self.data {
            Data::Scalar(scalar) if scalar.plain => scalar.text.to_string(),
            Data::Scalar(scalar) => format!("{:?}", scalar.text),
            _ => self.what().to_owned(),
        }
    }

    pub fn is_broken(&self) -> bool {
        matches!(self.data, Data::Broken)
    }

    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.data {
            Data::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The entry of that key, unless its value is null.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries()?
            .iter()
            .find(|entry| entry.key == key)
            .filter(|entry| !matches!(entry.value.data, Data::Null))
    }

    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// Nodes in this tree, and bytes of text.
    pub fn size(&self) -> (usize, usize) {
        let add = |(nodes, bytes): (usize, usize), (n, b): (usize, usize)| (nodes + n, bytes + b);
        match &self.data {
            Data::Null | Data::Broken => (1, 0),
            Data::Scalar(scalar) => (1, scalar.text.len()),
            Data::List(items) => items.iter().map(Self::size).fold((1, 0), add),
            Data::Map(entries) => {
                entries.iter().map(|e| add(e.value.size(), (1, e.key.len()))).fold((1, 0), add)
            }
        }
    }
}

impl Scalar {
    /// YAML 1.2's `true` and `false`; `yes` and `on` are texts.
    pub fn is_boolean(&self) -> bool {
        self.plain && matches!(&*self.text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE")
    }

    pub fn is_number(&self) -> bool {
        let begins =
            self.text.trim_start_matches(['-', '+', '.']).starts_with(|c: char| c.is_ascii_digit());
        self.plain && begins && self.text.parse::<f64>().is_ok()
    }
}

/// RFC 7386: `patch` over `base`. A null deletes, mappings are merged, all else replaces.
/// Positions stay those of the file that each part came from.
pub(super) fn merge(base: Option<&Node>, patch: &Node) -> Node {
    let Data::Map(changes) = &patch.data else { return patch.clone() };
    let mut merged: Vec<Option<Entry>> = match base.map(|base| &base.data) {
        Some(Data::Map(entries)) => entries.iter().cloned().map(Some).collect(),
        _ => Vec::new(),
    };
    let place: BTreeMap<CompactString, usize> = merged
        .iter()
        .enumerate()
        .filter_map(|(at, entry)| entry.as_ref().map(|entry| (entry.key.clone(), at)))
        .collect();
    for change in changes {
        let there = place.get(&change.key).and_then(|at| merged.get_mut(*at));
        let old = there.as_ref().and_then(|entry| entry.as_ref()).map(|entry| &entry.value);
        let new = match change.value.data {
            Data::Null => None,
            _ => Some(Entry { value: merge(old, &change.value), ..change.clone_key() }),
        };
        match there {
            Some(there) => *there = new,
            None => merged.push(new),
        }
    }
    Node { at: patch.at, data: Data::Map(merged.into_iter().flatten().collect()) }
}

impl Entry {
    fn clone_key(&self) -> Self {
        let value = Node { at: self.value.at, data: Data::Null };
        Self { key: self.key.clone(), key_at: self.key_at, value }
    }
}
