//! What happened, line by line, in words that don't depend on which engine it was.

use std::collections::BTreeMap;

/// Lines, with ids replaced by their number in the order in which they turn up.
#[derive(Default)]
pub struct Transcript {
    pub lines: Vec<String>,
    ids: BTreeMap<String, usize>,
}

impl Transcript {
    pub fn say(&mut self, what: &str, came: impl std::fmt::Debug) {
        let text = format!("{came:?}");
        let text = self.without_ids(&text);
        self.lines.push(format!("{what}: {text}"));
    }

    /// The text with every id replaced: 64 hexadecimal digits, or the first 12 of one.
    pub fn without_ids(&mut self, text: &str) -> String {
        let mut clean = String::new();
        let mut run = String::new();
        for c in text.chars().chain(['\0']) {
            if c.is_ascii_hexdigit() && !c.is_ascii_uppercase() {
                run.push(c);
                continue;
            }
            match run.len() {
                64 => {
                    let next = self.ids.len() + 1;
                    let number = *self.ids.entry(run.clone()).or_insert(next);
                    clean.push_str(&format!("<{number}>"));
                }
                12 => match self.ids.iter().find(|(id, _)| id.starts_with(&run)) {
                    Some((_, number)) => clean.push_str(&format!("<{number}>")),
                    None => clean.push_str(&run),
                },
                _ => clean.push_str(&run),
            }
            run.clear();
            clean.push(c);
        }
        clean.trim_end_matches('\0').to_owned()
    }
}

/// Where two transcripts part.
pub fn difference(name: &str, real: &[String], standin: &[String]) -> Option<String> {
    if real == standin {
        return None;
    }
    let longest = real.len().max(standin.len());
    let of = |lines: &[String], nth: usize| lines.get(nth).cloned().unwrap_or("nothing".into());
    let parts: Vec<_> = (0..longest)
        .filter(|nth| real.get(*nth) != standin.get(*nth))
        .map(|nth| format!("  real:     {}\n  stand-in: {}", of(real, nth), of(standin, nth)))
        .collect();
    Some(format!("{name}:\n{}", parts.join("\n")))
}
