//! Trees to values, field by field. A decoder goes on after a mistake, so that all of a
//! document are found at once; what it returns may be used only where there were none.
//!
//! The fields that are asked for here are those of [`super::schema`]; a test holds the two
//! together.

mod app;
mod balancer;
mod container;
mod engine;
mod host;
mod installation;
mod security;
mod volumes;

pub(super) use app::{APP_FIELDS, AppDraft, Replicas, decode as app};
pub(super) use balancer::{BalancerDraft, decode as balancer};
pub(super) use container::{Need, env};
pub(super) use host::{HostDraft, decode as host};
pub(super) use installation::decode as installation;
pub(super) use volumes::folder_fault;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::mistake::{Mistakes, known_names, nearest};
use super::node::{Data, Entry, Node};
use super::text::Extent;
use crate::model::Span;

/// A mapping that is read field by field.
pub(super) struct Fields<'n> {
    /// What the mapping is, such as "the spec of a Host".
    what: &'static str,
    entries: &'n [Entry],
    at: Extent,
    asked: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Shows what is missing at this place.
    pub fn shown_at(self, at: Extent) -> Self {
        Self { at, ..self }
    }

    /// None, and a mistake, where the node is no mapping.
    pub fn open(node: &'n Node, what: &'static str, found: &mut Mistakes) -> Option<Self> {
        let (entries, at) = match &node.data {
            Data::Map(entries) => (entries.as_slice(), node.at),
            Data::Null => ([].as_slice(), node.at),
            Data::Broken => return None,
            _ => {
                found
                    .error(node.at, format!("{what} has to be a mapping, this is {}", node.what()));
                return None;
            }
        };
        Some(Self { what, entries, at, asked: Vec::new() })
    }

    /// The field, unless it is absent or null.
    pub fn get(&mut self, name: &'static str) -> Option<Field<'n>> {
        self.asked.push(name);
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        let is_there = !matches!(entry.value.data, Data::Null | Data::Broken);
        is_there.then_some(Field { name, key_at: entry.key_at, node: &entry.value })
    }

    /// The field; a mistake where it is absent or null.
    pub fn require(
        &mut self,
        name: &'static str,
        example: &str,
        found: &mut Mistakes,
    ) -> Option<Field<'n>> {
        let field = self.get(name);
        if field.is_none() && !self.is_misspelt(name) {
            let empty = self.entries.iter().find(|entry| entry.key == name);
            let what = self.what;
            match empty {
                Some(entry) => found.error(entry.key_at, format!("`{name}` has no value")),
                None => found.error(self.at, format!("{what} needs the field `{name}`")),
            }
            .hint(format!("such as `{name}: {example}`"));
        }
        field
    }

    /// True where the field is there under a wrong name, or with a value that can't be read:
    /// both are said by themselves.
    fn is_misspelt(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| {
            let is_near = nearest(&entry.key, [name]).is_some() && entry.key != name;
            entry.value.is_broken() && entry.key == name
                || is_near && !self.asked.contains(&&*entry.key)
        })
    }

    /// Refuses every field that wasn't asked for.
    pub fn finish(self, found: &mut Mistakes) {
        for entry in self.entries.iter().filter(|entry| !self.asked.contains(&&*entry.key)) {
            if found.is_full() {
                return;
            }
            let hint = known_names(&entry.key, "field", self.asked.iter().copied());
            let what = self.what;
            found.error(entry.key_at, format!("`{}` is no field of {what}", entry.key)).hint = hint;
        }
    }
}

/// One field's value.
#[derive(Clone, Copy)]
pub(super) struct Field<'n> {
    pub name: &'static str,
    pub key_at: Extent,
    pub node: &'n Node,
}

impl<'n> Field<'n> {
    pub fn at(&self) -> Extent {
        self.node.at
    }

    fn wants(&self, wanted: &str, found: &mut Mistakes) {
        if self.node.is_broken() {
            return;
        }
        let (name, what) = (self.name, self.node.what());
        let at = if self.node.at.end > self.node.at.start { self.node.at } else { self.key_at };
        found.error(at, format!("`{name}` has to be {wanted}, this is {what}"));
    }

    /// A text, number or boolean as it was written.
    pub fn text(&self, found: &mut Mistakes) -> Option<&'n str> {
        let text = self.node.text();
        if text.is_none() {
            self.wants("a text", found);
        }
        text
    }

    /// A text that becomes a `T`, whose errors are sentences.
    pub fn parse<T>(&self, found: &mut Mistakes) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = self.text(found)?;
        let value = text.parse::<T>();
        value.map_err(|error| found.error(self.at(), format!("`{}`: {error}", self.name))).ok()
    }

    /// `true` or `false` without quotes.
    pub fn boolean(&self, found: &mut Mistakes) -> Option<bool> {
        match &self.node.data {
            Data::Scalar(scalar) if scalar.is_boolean() => {
                Some(scalar.text.eq_ignore_ascii_case("true"))
            }
            _ => {
                let name = self.name;
                found
                    .error(self.at(), format!("`{name}` has to be true or false"))
                    .hint("write true or false, without quotes");
                None
            }
        }
    }

    /// A whole number in a range, without quotes.
    pub fn integer(&self, range: RangeInclusive<i64>, found: &mut Mistakes) -> Option<i64> {
        integer(self.node, &format!("`{}`", self.name), range, found)
    }

    /// An address of a machine, without a name and without a port.
    pub fn ip(&self, found: &mut Mistakes) -> Option<IpAddr> {
        let text = self.text(found)?;
        let name = self.name;
        text.parse()
            .map_err(|_| {
                let hint = if text.parse::<std::net::SocketAddr>().is_ok() {
                    "leave the port out; published ports come from `ports`"
                } else {
                    "names aren't resolved here: write the address itself, such as 10.0.0.5 or fd00::5"
                };
                found.error(self.at(), format!("`{name}` is no IP address: {text:?}")).hint(hint);
            })
            .ok()
    }

    /// A duration of at least `shortest`.
    pub fn span(&self, shortest: Span, found: &mut Mistakes) -> Option<Span> {
        let span: Span = self.parse(found)?;
        if span < shortest {
            let name = self.name;
            found.error(
                self.at(),
                format!("`{name}` has to be at least {shortest}, this is {span}"),
            );
            return None;
        }
        Some(span)
    }

    pub fn list(&self, found: &mut Mistakes) -> &'n [Node] {
        match &self.node.data {
            Data::List(items) => items,
            _ => {
                self.wants("a list", found);
                if let Some(text) = self.node.text() {
                    hint_last(found, format!("write `{}: [{text}]`", self.name));
                }
                &[]
            }
        }
    }

    pub fn map(&self, found: &mut Mistakes) -> &'n [Entry] {
        match &self.node.data {
            Data::Map(entries) => entries,
            _ => {
                self.wants("a mapping", found);
                &[]
            }
        }
    }

    /// A list of texts.
    pub fn texts(&self, found: &mut Mistakes) -> Vec<(&'n str, Extent)> {
        let mut texts = Vec::new();
        for item in self.list(found) {
            match item.text() {
                Some(text) => texts.push((text, item.at)),
                None if item.is_broken() => {}
                None => {
                    let (name, what) = (self.name, item.what());
                    found.error(item.at, format!("`{name}` is a list of texts, this is {what}"));
                }
            }
        }
        texts
    }

    /// A mapping of this field, read field by field.
    pub fn fields(&self, what: &'static str, found: &mut Mistakes) -> Option<Fields<'n>> {
        Fields::open(self.node, what, found)
    }
}

fn hint_last(found: &mut Mistakes, hint: String) {
    if let Some(last) = found.errors.last_mut() {
        last.hint(hint);
    }
}

/// A whole number in a range; `what` begins the message.
pub(super) fn integer(
    node: &Node,
    what: &str,
    range: RangeInclusive<i64>,
    found: &mut Mistakes,
) -> Option<i64> {
    let (first, last) = (range.start(), range.end());
    let bounds = match (*first, *last) {
        (i64::MIN, i64::MAX) => "a whole number".to_owned(),
        (first, i64::MAX) => format!("a whole number of at least {first}"),
        (first, last) => format!("a whole number from {first} to {last}"),
    };
    let text = match &node.data {
        Data::Scalar(scalar) => &scalar.text,
        Data::Broken => return None,
        _ => {
            found.error(node.at, format!("{what} has to be {bounds}, this is {}", node.what()));
            return None;
        }
    };
    let is_written_well = matches!(&node.data, Data::Scalar(scalar) if scalar.plain)
        && text.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit())
        && !has_leading_zero(text);
    let number = text.parse::<i64>().ok().filter(|n| is_written_well && range.contains(n));
    if number.is_none() {
        let mistake =
            found.error(node.at, format!("{what} has to be {bounds}, this is {}", node.shown()));
        let bare = text.parse::<i64>().is_ok_and(|n| range.contains(&n));
        if bare && has_leading_zero(text) {
            mistake.hint("leave the zeros in front out");
        } else if bare {
            mistake.hint("write it without quotes");
        }
    }
    number
}

fn has_leading_zero(text: &str) -> bool {
    let digits = text.trim_start_matches('-');
    digits.len() > 1 && digits.starts_with('0')
}

/// A text that can be an argument or a value: anything but NUL.
pub(super) fn without_nul(text: &str, what: &str, at: Extent, found: &mut Mistakes) -> String {
    if text.contains('\0') {
        found
            .error(at, format!("{what} holds a NUL character, which no process can be given"))
            .hint("remove the \\0");
    }
    text.to_owned()
}

/// Why a text is no absolute, normalized path; none where it is.
pub(super) fn path_fault(text: &str) -> Option<&'static str> {
    if !text.starts_with('/') {
        Some("it has to begin with /")
    } else if text.split('/').any(|part| part == ".." || part == ".") {
        Some("it can't hold . or .. as a part")
    } else if text.chars().any(char::is_control) {
        Some("it can't hold control characters")
    } else if text.contains([':', ',', '\\']) {
        Some("it can't hold `:`, `,` or a backslash")
    } else if text.len() > 4096 {
        Some("it is longer than 4096 bytes")
    } else {
        None
    }
}

/// The path without double and trailing slashes; a mistake where it is none.
pub(super) fn absolute_path(
    text: &str,
    what: &str,
    at: Extent,
    found: &mut Mistakes,
) -> Option<String> {
    if let Some(fault) = path_fault(text) {
        found.error(at, format!("{what} is no absolute path: {text:?}: {fault}"));
        return None;
    }
    let parts: Vec<_> = text.split('/').filter(|part| !part.is_empty()).collect();
    Some(format!("/{}", parts.join("/")))
}

/// Reads each entry of a mapping whose keys are names of hosts.
pub(super) fn by_host<T>(
    field: &Field<'_>,
    found: &mut Mistakes,
    mut read: impl FnMut(&Node, &str, &mut Mistakes) -> Option<T>,
) -> BTreeMap<String, (T, Extent)> {
    let mut values = BTreeMap::new();
    for entry in field.map(found) {
        let what = format!("`{}` of {}", field.name, entry.key);
        if let Some(value) = read(&entry.value, &what, found) {
            values.insert(entry.key.to_string(), (value, entry.key_at));
        }
    }
    values
}
