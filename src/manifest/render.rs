//! Diagnostics for people: message, place, the offending line with what is meant underlined,
//! and what to type instead.

use std::fmt::Write;

use crate::model::Diagnostic;

/// Errors, one block each with an empty line between.
pub fn render(diagnostics: &[Diagnostic], color: bool) -> String {
    blocks(diagnostics, &Style::new("error", "\x1b[1;31m", color))
}

/// Warnings, in the same form.
pub fn render_warnings(diagnostics: &[Diagnostic], color: bool) -> String {
    blocks(diagnostics, &Style::new("warning", "\x1b[1;33m", color))
}

struct Style {
    word: &'static str,
    strong: &'static str,
    dim: &'static str,
    bold: &'static str,
    off: &'static str,
}

impl Style {
    fn new(word: &'static str, strong: &'static str, color: bool) -> Self {
        match color {
            true => Self { word, strong, dim: "\x1b[1;34m", bold: "\x1b[1m", off: "\x1b[0m" },
            false => Self { word, strong: "", dim: "", bold: "", off: "" },
        }
    }
}

fn blocks(diagnostics: &[Diagnostic], style: &Style) -> String {
    let blocks: Vec<_> = diagnostics.iter().map(|diagnostic| block(diagnostic, style)).collect();
    blocks.join("\n")
}

fn block(diagnostic: &Diagnostic, style: &Style) -> String {
    let Style { word, strong, dim, bold, off } = style;
    let Diagnostic { location, column, length, message, hint, source } = diagnostic;
    let line = location.line.to_string();
    let margin = " ".repeat(line.len());
    let mut out = String::new();
    let _ = writeln!(out, "{strong}{word}{off}{bold}: {}{off}", printable(message));
    let file = printable(&location.file);
    match source {
        Some(source) => {
            let before = column.saturating_sub(1) as usize;
            let rest = source.chars().count().saturating_sub(before).max(1);
            let carets = "^".repeat((*length as usize).clamp(1, rest));
            let _ = writeln!(out, "{margin}{dim}-->{off} {file}:{line}:{column}");
            let _ = writeln!(out, "{margin} {dim}|{off}");
            let _ = writeln!(out, "{dim}{line} |{off} {}", printable(source));
            let pad = " ".repeat(before);
            let _ = writeln!(out, "{margin} {dim}|{off} {pad}{strong}{carets}{off}");
        }
        // The whole of the files is meant, not a line of one.
        None if file == "." => {}
        None => {
            let _ = writeln!(out, "{margin}{dim}-->{off} {file}:{line}:{column}");
        }
    }
    if let Some(hint) = hint {
        let _ = writeln!(out, "{margin} {dim}={off} help: {}", printable(hint));
    }
    out
}

/// The text with everything that could move a terminal's cursor made visible, one character
/// for one, so that columns stay.
fn printable(text: &str) -> String {
    let visible = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        // Marks that turn the direction of the text round.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    };
    text.chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Location;

    #[test]
    fn a_mistake_is_underlined() {
        let diagnostic = Diagnostic {
            location: Location { file: "apps/web.yaml".into(), line: 12 },
            column: 3,
            length: 7,
            message: "unknown field `replica`".into(),
            hint: Some("did you mean `replicas`?".into()),
            source: Some("  replica: 2\u{1b}[2J".into()),
        };
        let expected = "error: unknown field `replica`\n  --> apps/web.yaml:12:3\n   |\n12 |   replica: 2\u{fffd}[2J\n   |   ^^^^^^^\n   = help: did you mean `replicas`?\n";
        assert_eq!(render(std::slice::from_ref(&diagnostic), false), expected);
        assert!(render(&[diagnostic], true).starts_with("\x1b[1;31merror\x1b[0m"));
    }
}
