//! Text that came from elsewhere, made safe to show on a terminal.

use std::borrow::Cow;

/// `text` with control characters escaped, so that nothing that a container, a commit or a
/// remote says can move the cursor, hide a line or set the window's title.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let escape = |character: char| -> String {
        if is_unsafe(character) { character.escape_default().to_string() } else { character.into() }
    };
    Cow::Owned(text.chars().map(escape).collect())
}

/// Control characters, and those that turn the direction of writing around.
fn is_unsafe(character: char) -> bool {
    let turns = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (character.is_control() && character != '\t') || turns
}

/// `1 step`, `2 steps`.
pub fn count(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_the_cursor_passes() {
        for (text, shown) in [
            ("plain ✓ text\t1", "plain ✓ text\t1"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\r\nb", "a\\r\\nb"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("a\u{9b}b", "a\\u{9b}b"),
        ] {
            assert_eq!(plain(text), shown);
        }
    }
}
