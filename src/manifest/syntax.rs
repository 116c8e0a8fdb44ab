//! Syntax errors of YAML in plain sentences, with what to type instead.

use granit_parser::ErrorKind;

/// Message and hint for an error at byte `at` of a document.
pub(super) fn explain(kind: &ErrorKind, source: &str, at: usize) -> (String, Option<String>) {
    let line = line_around(source, at);
    if line.trim_start_matches(' ').starts_with('\t') {
        return said("a tab can't indent in YAML", "indent with spaces");
    }
    match kind {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => said("a tab can't indent in YAML", "indent with spaces"),
        ErrorKind::RecursionLimitExceeded => {
            (format!("this is nested deeper than {} levels", super::parse::DEEPEST), None)
        }
        ErrorKind::DirectiveDisallowed => {
            said("YAML directives such as %YAML aren't needed here", "remove the line")
        }
        ErrorKind::UnclosedQuotedScalar | ErrorKind::DocumentIndicatorInQuotedScalar => {
            said("a quote is opened, but never closed", "add the closing quote")
        }
        ErrorKind::UnclosedFlowCollection { open } => {
            (format!("`{open}` is opened, but never closed"), Some(closing(*open)))
        }
        ErrorKind::UnexpectedEofFlowMapping | ErrorKind::UnexpectedEofImplicitFlowMapping => {
            (("`{` is opened, but never closed").into(), Some(closing('{')))
        }
        ErrorKind::UnexpectedEofFlowSequence => {
            ("`[` is opened, but never closed".into(), Some(closing('[')))
        }
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            (format!("`{close}` closes what `{open}` opened"), Some(closing(*open)))
        }
        ErrorKind::MisplacedFlowCollectionEnd => said(
            "there is nothing open that this bracket could close",
            "remove it, or quote the text",
        ),
        ErrorKind::ExpectedFlowMappingSeparator => said(
            "between two entries of `{...}` there has to be a comma",
            "add `,`, or the closing `}`",
        ),
        ErrorKind::ExpectedFlowSequenceSeparator => said(
            "between two items of `[...]` there has to be a comma",
            "add `,`, or the closing `]`",
        ),
        ErrorKind::UnexpectedCharacter { character } => (
            format!("{character:?} can't begin a text without quotes"),
            Some("put the text in quotes".into()),
        ),
        ErrorKind::UnknownQuotedScalarEscape
        | ErrorKind::InvalidQuotedScalarHexEscape
        | ErrorKind::InvalidUnicodeEscape => said(
            "this is no escape that YAML knows",
            "write a backslash as \\\\ in double quotes, or use single quotes",
        ),
        ErrorKind::InvalidTrailingSingleQuotedScalar
        | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            said("there is text after the closing quote", "quote the whole value")
        }
        ErrorKind::MappingValueNotAllowed if begins_with_key(line) => said(
            "this line isn't indented like its neighbours",
            "entries of one mapping begin in the same column; a text of several lines needs quotes or `|`",
        ),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => said(
            "a `KEY: VALUE` can't begin here",
            "quote a text that holds `: `, or check the indentation",
        ),
        ErrorKind::InvalidIndentation
        | ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::MappingKeyNotAllowed => said(
            "this line isn't indented like its neighbours",
            "entries of one mapping, and items of one list, begin in the same column",
        ),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            said("this is neither `KEY: VALUE` nor `- ITEM`", "add `: ` and a value after the key")
        }
        ErrorKind::InvalidBlockEntryWhitespace
        | ErrorKind::BlockSequenceEntryNotAllowed
        | ErrorKind::BlockEntryInFlowCollection => {
            said("an item of a list can't begin here", "put `- ` at the beginning of its own line")
        }
        other => (format!("this isn't YAML: {other}"), None),
    }
}

fn said(message: &str, hint: &str) -> (String, Option<String>) {
    (message.to_owned(), Some(hint.to_owned()))
}

fn closing(open: char) -> String {
    format!("add `{}`", if open == '{' { '}' } else { ']' })
}

/// True for `   key: ...` with one colon only.
fn begins_with_key(line: &str) -> bool {
    let key = line.trim_start().split(':').next().unwrap_or("");
    line.matches(": ").count() + usize::from(line.ends_with(':')) == 1
        && key.chars().all(|c| c.is_ascii_alphanumeric())
}

fn line_around(source: &str, at: usize) -> &str {
    let start = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
    source[start..].lines().next().unwrap_or("")
}
