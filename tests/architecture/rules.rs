//! The table of allowed imports, and the rules that are read off it.

use crate::tokens::{Token, tokens};

/// A module and what it may import, in the order of the design. `lib` only declares them.
const ARROWS: [(&str, &[&str]); 18] = [
    ("mutant", &[]),
    ("model", &[]),
    ("clock", &[]),
    ("failpoint", &[]),
    ("source", &["model", "clock"]),
    ("manifest", &["model", "clock"]),
    ("proxy", &["model", "clock"]),
    ("docker", &["model", "clock"]),
    ("store", &["model", "clock"]),
    ("plan", &["model"]),
    ("check", &["model", "plan"]),
    ("observe", &["docker", "proxy", "store", "model", "clock"]),
    ("execute", &["docker", "proxy", "store", "plan", "model", "clock", "failpoint"]),
    ("api", &["model", "plan"]),
    (
        "reconcile",
        &[
            "source", "manifest", "observe", "plan", "check", "execute", "api", "store", "docker",
            "proxy", "model", "clock",
        ],
    ),
    ("cli", &["reconcile", "api", "manifest", "source", "plan", "model", "clock"]),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Crates that one module alone may name.
const OWNED_CRATES: [(&str, &str); 4] =
    [("bollard", "docker"), ("sled", "store"), ("git2", "source"), ("notify", "source")];

/// Modules whose functions return at once.
const NEVER_WAIT: [&str; 2] = ["plan", "check"];
const WAITING: [&str; 3] = ["async", "await", "tokio"];

/// A sentence with file and line for everything that breaks a rule. `files`: path below the
/// repository's root, and text.
pub fn broken_rules(files: &[(String, String)]) -> Vec<String> {
    files.iter().flat_map(|(path, text)| broken_in(path, text)).collect()
}

fn broken_in(path: &str, text: &str) -> Vec<String> {
    let location = Location::of(path);
    let Some((_, allowed)) = ARROWS.iter().find(|(module, _)| *module == location.module) else {
        return vec![format!("{path}:1: the design has no module {}", location.module)];
    };
    let tokens = tokens(text);
    let mut broken = Vec::new();
    for (imported, line) in imports(&tokens, &location) {
        // What switches on a deliberate bug may stand anywhere, and knows nothing itself.
        let is_free = imported == "mutant" || imported == location.module;
        if !is_free && !allowed.contains(&imported.as_str()) {
            broken.push((line, format!("{} may not import {imported}", location.module)));
        }
    }
    for token in &tokens {
        broken.extend(named(token, &location.module).map(|sentence| (token.line, sentence)));
    }
    broken.sort();
    broken.dedup();
    broken.into_iter().map(|(line, sentence)| format!("{path}:{line}: {sentence}")).collect()
}

/// Where a file stands in the tree of modules.
struct Location {
    /// Its first module, such as `plan`.
    module: String,
    /// How many modules it is below the crate's root.
    depth: usize,
}

impl Location {
    fn of(path: &str) -> Self {
        let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut parts: Vec<_> = inner.split('/').collect();
        if parts.last() == Some(&"mod") {
            parts.pop();
        }
        let is_root = parts == ["lib"] || parts == ["main"];
        let depth = if is_root { 0 } else { parts.len() };
        Self { module: parts.first().copied().unwrap_or_default().to_owned(), depth }
    }
}

/// What a single word breaks.
fn named(token: &Token, module: &str) -> Option<String> {
    let word = token.text.as_str();
    if let Some((name, owner)) = OWNED_CRATES.iter().find(|(name, _)| *name == word)
        && *owner != module
    {
        return Some(format!("only {owner} may name {name}, not {module}"));
    }
    let waits = NEVER_WAIT.contains(&module) && WAITING.contains(&word);
    waits.then(|| format!("{module} may not wait: it names {word}"))
}

/// The first-level modules that are named by paths, with their lines.
fn imports(tokens: &[Token], location: &Location) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut nesting = Nesting::default();
    let mut at = 0;
    while at < tokens.len() {
        nesting.read(tokens, at);
        let continues = at > 0 && tokens[at - 1].text == "::";
        let behind = match tokens[at].text.as_str() {
            "crate" => Some(at + 1),
            "plimsoll" if location.module == "main" && !continues => Some(at + 1),
            "super" if !continues => behind_supers(tokens, at, location.depth + nesting.modules()),
            _ => None,
        };
        if let Some(behind) = behind
            && tokens.get(behind).is_some_and(|token| token.text == "::")
        {
            heads(tokens, behind + 1, &mut found);
        }
        at += 1;
    }
    found
}

/// Behind `super::super`, where these lead to the crate's root.
fn behind_supers(tokens: &[Token], at: usize, depth: usize) -> Option<usize> {
    let mut supers = 1;
    let mut end = at + 1;
    while tokens.get(end).is_some_and(|token| token.text == "::")
        && tokens.get(end + 1).is_some_and(|token| token.text == "super")
    {
        supers += 1;
        end += 2;
    }
    (supers == depth).then_some(end)
}

/// The first words of a path, or of every path of a group in braces.
fn heads(tokens: &[Token], at: usize, found: &mut Vec<(String, usize)>) {
    let Some(first) = tokens.get(at) else { return };
    if first.text != "{" {
        found.push((first.text.clone(), first.line));
        return;
    }
    let mut depth = 0_usize;
    for (place, token) in tokens.iter().enumerate().skip(at) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => return,
            "}" => depth -= 1,
            "," => {}
            _ if depth == 1 && matches!(tokens[place - 1].text.as_str(), "{" | ",") => {
                found.push((token.text.clone(), token.line));
            }
            _ => {}
        }
    }
}

/// Modules that are written inside a file, as far as they are open.
#[derive(Default)]
struct Nesting {
    braces: usize,
    /// The number of braces that were open where each of them begins.
    open: Vec<usize>,
}

impl Nesting {
    fn read(&mut self, tokens: &[Token], at: usize) {
        match tokens[at].text.as_str() {
            "{" => {
                if at >= 2 && tokens[at - 2].text == "mod" {
                    self.open.push(self.braces);
                }
                self.braces += 1;
            }
            "}" => {
                self.braces = self.braces.saturating_sub(1);
                if self.open.last() == Some(&self.braces) {
                    self.open.pop();
                }
            }
            _ => {}
        }
    }

    fn modules(&self) -> usize {
        self.open.len()
    }
}
