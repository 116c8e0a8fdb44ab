//! One YAML document to a tree. It bounds depth, nodes and aliases before anything is built
//! from them, and keeps the part of a document that comes before a syntax error.

use std::collections::BTreeMap;
use std::ops::Range;

use compact_str::CompactString;
use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use super::mistake::Mistakes;
use super::node::{Data, Entry, Node, Scalar};
use super::syntax;
use super::text::{Extent, FileId};

/// The deepest nesting.
pub(super) const DEEPEST: usize = 64;
/// The most values of one document, those that aliases stand for counted.
const MOST_NODES: usize = 100_000;
/// The most bytes of text in them.
const MOST_BYTES: usize = 4 << 20;

/// Documents of a file, told apart by their `---` and `...` lines only: a syntax error in one
/// loses none of the others. In YAML such a line ends a document wherever it stands.
pub(super) fn split(text: &str) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        let marker = line
            .get(..3)
            .filter(|_| line[3..].is_empty() || line[3..].starts_with(char::is_whitespace));
        match marker {
            Some("---") if at > start => {
                parts.push(start..at);
                start = at;
            }
            Some("...") => {
                parts.push(start..at + line.len());
                start = at + line.len();
            }
            _ => {}
        }
        at += line.len();
    }
    parts.push(start..at);
    parts
}

/// One document's tree.
#[derive(Debug)]
pub(super) struct Parsed {
    /// None where the document is empty, or nothing of it could be read.
    pub root: Option<Node>,
    /// False where a syntax error cut it off: `root` then holds the entries before it.
    pub complete: bool,
}

/// Parses the document in `range` of `text`.
pub(super) fn parse(text: &str, range: Range<usize>, file: FileId, found: &mut Mistakes) -> Parsed {
    let source = text.get(range.clone()).unwrap_or("");
    let mut builder = Builder {
        file,
        base: range.start,
        end: range.end,
        stack: Vec::new(),
        root: None,
        anchors: BTreeMap::new(),
        nodes: 0,
        bytes: 0,
    };
    if let Some((at, bad)) = source.char_indices().find(|(_, c)| is_forbidden(*c)) {
        let code = u32::from(bad);
        found
            .error(
                builder.extent_of(at, at + bad.len_utf8()),
                format!("the control character U+{code:04X} isn't allowed in YAML"),
            )
            .hint(format!(
                "write it as an escape in double quotes: \"\\x{code:02X}\", or remove it"
            ));
        return Parsed { root: None, complete: false };
    }
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        emit_comments: false,
        flow_nesting_limit: DEEPEST,
        block_nesting_limit: DEEPEST
    };
    for event in Parser::new_from_str_with_options(source, options) {
        let outcome = match event {
            Ok((event, span)) => builder.take(event, span, found),
            Err(error) => {
                builder.report(source, &error, found);
                Err(Stop)
            }
        };
        if outcome.is_err() {
            return Parsed { root: builder.salvage(), complete: false };
        }
    }
    Parsed { root: builder.root, complete: true }
}

/// What YAML 1.2 doesn't allow in a stream; NUL would silently end it.
fn is_forbidden(c: char) -> bool {
    matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\x7f')
}

/// The document can't be read on.
struct Stop;

enum Frame {
    List { start: Extent, anchor: usize, items: Vec<Node> },
    Map { start: Extent, anchor: usize, entries: Vec<Entry>, key: Key, is_broken: bool },
}

/// Where a mapping is between two of its entries.
enum Key {
    Awaited,
    Read(CompactString, Extent),
    /// It can't be a key; its value is read and dropped.
    Unusable,
}

struct Builder {
    file: FileId,
    base: usize,
    end: usize,
    stack: Vec<Frame>,
    root: Option<Node>,
    /// Trees that aliases stand for.
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    bytes: usize,
}

impl Builder {
    fn extent_of(&self, start: usize, end: usize) -> Extent {
        let clip = |offset: usize| (self.base + offset).min(self.end) as u32;
        Extent { file: self.file, start: clip(start), end: clip(end) }
    }

    fn extent(&self, span: &Span) -> Extent {
        let Range { start, end } = span.byte_range().unwrap_or(0..0);
        self.extent_of(start, end)
    }

    fn report(&self, source: &str, error: &ScanError, found: &mut Mistakes) {
        let at = byte_of(source, error.marker()).min(source.len());
        // An error at the end is shown where the last text is.
        let shown = if source[at..].trim().is_empty() { source.trim_end().len() } else { at };
        let start = if shown < at { shown.saturating_sub(1) } else { shown };
        let start = (0..=start).rev().find(|at| source.is_char_boundary(*at)).unwrap_or(0);
        let (message, hint) = syntax::explain(error.kind(), source, at);
        let end = start + source[start..].chars().next().map_or(0, char::len_utf8);
        let mistake = found.error(self.extent_of(start, end), message);
        mistake.hint = hint;
    }

    fn take(&mut self, event: Event<'_>, span: Span, found: &mut Mistakes) -> Result<(), Stop> {
        let at = self.extent(&span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let as_text = self.check_tag(tag.as_deref(), &span, found);
                self.spend((1, text.len()), at, found)?;
                let plain = style == ScalarStyle::Plain && as_text != Some(true);
                let data = match &*text {
                    _ if as_text.is_none() => Data::Broken,
                    "" | "~" | "null" | "Null" | "NULL" if plain => Data::Null,
                    _ => Data::Scalar(Scalar { text: text.into(), plain }),
                };
                self.place(Node { at, data }, anchor, found)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), &span, found);
                self.open(at, found)?;
                self.stack.push(Frame::List { start: at, anchor, items: Vec::new() });
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), &span, found);
                self.open(at, found)?;
                self.stack.push(Frame::Map {
                    start: at,
                    anchor,
                    entries: Vec::new(),
                    key: Key::Awaited,
                    is_broken: false,
                });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(at, found),
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some(node) => {
                    self.spend(node.size(), at, found)?;
                    self.place(node, 0, found)
                }
                None => {
                    found.error(at, "an alias stands inside the very value that it names");
                    Err(Stop)
                }
            },
            Event::UnresolvedAlias(name) => {
                found
                    .error(at, format!("there is no anchor `&{name}` before this alias"))
                    .hint("quote the text if no alias is meant: '*...'");
                self.place(Node { at, data: Data::Broken }, 0, found)
            }
            _ => Ok(()),
        }
    }

    /// Refuses tags other than those that change nothing. True for `!!str`, none for an unknown
    /// one.
    fn check_tag(&self, tag: Option<&Tag>, span: &Span, found: &mut Mistakes) -> Option<bool> {
        let Some(tag) = tag else { return Some(false) };
        match tag.core_suffix() {
            Some("str") => Some(true),
            Some("map" | "seq") => Some(false),
            _ => {
                let at = span.tag_span().map_or_else(|| self.extent(span), |tag| self.extent(&tag));
                found
                    .error(at, format!("the tag `{}` has no meaning here", tag.original()))
                    .hint("remove the tag; a text that begins with ! is written in quotes");
                None
            }
        }
    }

    fn open(&mut self, at: Extent, found: &mut Mistakes) -> Result<(), Stop> {
        if self.stack.len() >= DEEPEST {
            found.error(at, format!("this is nested deeper than {DEEPEST} levels"));
            return Err(Stop);
        }
        self.spend((1, 0), at, found)
    }

    fn spend(
        &mut self,
        (nodes, bytes): (usize, usize),
        at: Extent,
        found: &mut Mistakes,
    ) -> Result<(), Stop> {
        self.nodes += nodes;
        self.bytes += bytes;
        if self.nodes > MOST_NODES || self.bytes > MOST_BYTES {
            found
                .error(at, format!("this document holds more than {MOST_NODES} values or {} MiB of text, its aliases written out", MOST_BYTES >> 20))
                .hint("split it into several documents");
            return Err(Stop);
        }
        Ok(())
    }

    fn close(&mut self, end: Extent, found: &mut Mistakes) -> Result<(), Stop> {
        let (start, anchor, data) = match self.stack.pop() {
            // What is read is kept for as long as the file is the same.
            Some(Frame::List { start, anchor, mut items }) => {
                items.shrink_to_fit();
                (start, anchor, Data::List(items))
            }
            Some(Frame::Map { start, anchor, entries, is_broken, .. }) => {
                let mut entries = finish_map(entries, found);
                entries.shrink_to_fit();
                (start, anchor, if is_broken { Data::Broken } else { Data::Map(entries) })
            }
            None => return Ok(()),
        };
        // A block's end is only seen where the next thing begins.
        let end = if end.end > end.start { end.end } else { start.end.max(start.start) };
        self.place(Node { at: Extent { end, ..start }, data }, anchor, found)
    }

    /// Puts a finished value where it belongs.
    fn place(&mut self, node: Node, anchor: usize, found: &mut Mistakes) -> Result<(), Stop> {
        if anchor != 0 {
            self.spend(node.size(), node.at, found)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, key, is_broken, .. }) => {
                *key = match std::mem::replace(key, Key::Awaited) {
                    Key::Awaited => {
                        let key = read_key(node, found);
                        *is_broken |= matches!(key, Key::Unusable);
                        key
                    }
                    Key::Unusable => Key::Awaited,
                    Key::Read(key, key_at) => {
                        entries.push(Entry { key, key_at, value: node });
                        Key::Awaited
                    }
                };
            }
        }
        Ok(())
    }

    /// The finished entries of the outermost mapping.
    fn salvage(self) -> Option<Node> {
        match self.stack.into_iter().next() {
            Some(Frame::Map { start, entries, .. }) => {
                Some(Node { at: start, data: Data::Map(entries) })
            }
            Some(Frame::List { .. }) => None,
            None => self.root,
        }
    }
}

fn byte_of(source: &str, marker: &Marker) -> usize {
    marker.byte_offset().unwrap_or_else(|| {
        source.char_indices().nth(marker.index()).map_or(source.len(), |(at, _)| at)
    })
}

fn read_key(node: Node, found: &mut Mistakes) -> Key {
    match node.data {
        Data::Scalar(scalar) => Key::Read(scalar.text, node.at),
        _ => {
            let mistake = found.error(node.at, "a key has to be a text");
            if matches!(node.data, Data::Map(_)) {
                mistake.hint("write {{ and }} in quotes if this is a template's placeholder");
            }
            Key::Unusable
        }
    }
}

/// Refuses keys that occur twice, and writes the merge key `<<` out.
fn finish_map(entries: Vec<Entry>, found: &mut Mistakes) -> Vec<Entry> {
    let mut first: BTreeMap<&str, ()> = BTreeMap::new();
    for entry in &entries {
        if first.insert(&entry.key, ()).is_some() {
            found
                .error(entry.key_at, format!("`{}` is there twice in this mapping", entry.key))
                .hint("keep one of them");
        }
    }
    if !first.contains_key("<<") {
        return entries;
    }
    let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|e| e.key == "<<");
    for merge in merges {
        let sources = match merge.value.data {
            Data::List(items) => items,
            _ => vec![merge.value],
        };
        for source in sources {
            let Data::Map(entries) = source.data else {
                found.error(source.at, "`<<` takes a mapping, or a list of mappings, by alias");
                continue;
            };
            let there: std::collections::BTreeSet<_> = own.iter().map(|e| e.key.clone()).collect();
            own.extend(entries.into_iter().filter(|entry| !there.contains(&entry.key)));
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Parsed, Mistakes) {
        let mut found = Mistakes::default();
        let parsed = parse(text, 0..text.len(), FileId(0), &mut found);
        (parsed, found)
    }

    fn show(node: &Node) -> String {
        match &node.data {
            Data::Null | Data::Broken => "null".into(),
            Data::Scalar(scalar) if scalar.plain => scalar.text.to_string(),
            Data::Scalar(scalar) => format!("{:?}", scalar.text),
            Data::List(items) => {
                format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(","))
            }
            Data::Map(entries) => {
                let entries: Vec<_> =
                    entries.iter().map(|e| format!("{}:{}", e.key, show(&e.value))).collect();
                format!("{{{}}}", entries.join(","))
            }
        }
    }

    #[test]
    fn documents_are_split_at_their_markers() {
        for (text, parts) in [
            ("a: 1\n---\nb: 2\n", vec!["a: 1\n", "---\nb: 2\n"]),
            ("---\na: 1\n...\n---\nb\n", vec!["---\na: 1\n...\n", "---\nb\n"]),
            ("--- {a: 1}\n----\n", vec!["--- {a: 1}\n----\n"]),
            ("a: |\n  ---\n", vec!["a: |\n  ---\n"]),
            ("a: 1\r\n---\r\nb: 2", vec!["a: 1\r\n", "---\r\nb: 2"]),
            ("", vec![""]),
            ("é\n", vec!["é\n"]),
        ] {
            let found: Vec<_> = split(text).into_iter().map(|range| &text[range]).collect();
            assert_eq!(found, parts, "{text:?}");
        }
    }

    #[test]
    fn values_keep_their_text() {
        for (text, tree) in [
            ("a: 1.50\nb: '1'\nc: yes\nd:\n", r#"{a:1.50,b:"1",c:yes,d:null}"#),
            ("a: &x {k: v}\nb: *x\n", "{a:{k:v},b:{k:v}}"),
            ("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\n", "{a:{k:1,l:2},b:{k:3,l:2}}"),
            ("a: !!str 1\n", r#"{a:"1"}"#),
            ("- |\n  x\n  y\n", r#"["x\ny\n"]"#),
        ] {
            let (parsed, found) = read(text);
            assert_eq!(found.errors, [], "{text}");
            assert_eq!(show(&parsed.root.unwrap()), tree, "{text}");
        }
    }

    #[test]
    fn what_comes_before_a_syntax_error_is_kept() {
        let (parsed, found) = read("kind: App\nmetadata: {name: web}\nspec:\n  a: [1\n  b: }\n");
        assert!(!parsed.complete);
        assert_eq!(show(&parsed.root.unwrap()), "{kind:App,metadata:{name:web}}");
        assert_eq!(found.errors.len(), 1);
    }

    #[test]
    fn bombs_and_pits_are_refused() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..9 {
            let alias = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(","));
        }
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(900_000), "*a,".repeat(1000));
        for text in [
            bomb,
            long,
            "[".repeat(10_000),
            "{a: ".repeat(10_000),
            "- ".repeat(10_000),
            (0..10_000).map(|level| format!("{}a:\n", " ".repeat(level.min(90)))).collect(),
            "a: &a [*a]\n".into(),
            "a: \0".into(),
            "%YAML 1.2\n".into(),
        ] {
            let (parsed, found) = read(&text);
            assert!(!parsed.complete);
            assert!(!found.errors.is_empty(), "{}", &text[..30.min(text.len())]);
        }
    }
}
