//! Rust source as tokens with their lines: enough to read paths, not a parser of the language.
//! Comments and texts are left out, and so is what `#[cfg(test)]` stands before.

/// A word, or a mark of one or two characters (`::`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    /// From 1.
    pub line: usize,
}

/// The tokens of code that is in the program.
pub fn tokens(source: &str) -> Vec<Token> {
    without_tests(all_tokens(source))
}

fn all_tokens(source: &str) -> Vec<Token> {
    let bytes = source.as_bytes();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b'\n'),
            b'/' if bytes[at..].starts_with(b"/*") => end_of_comment(bytes, at),
            b'"' => end_of_text(bytes, at + 1),
            b'\'' => end_of_quote(bytes, at),
            b'r' | b'b' | b'c' if raw_text(bytes, at).is_some() => {
                raw_text(bytes, at).unwrap_or(at + 1)
            }
            byte if is_word(byte) => {
                let end = (at..bytes.len()).find(|i| !is_word(bytes[*i])).unwrap_or(bytes.len());
                tokens.push(Token { text: source[at..end].to_owned(), line });
                end
            }
            byte if byte.is_ascii_whitespace() => at + 1,
            _ => {
                let length = if bytes[at..].starts_with(b"::") { 2 } else { 1 };
                tokens.push(Token { text: source[at..at + length].to_owned(), line });
                at + length
            }
        };
        line += bytes[at..end].iter().filter(|byte| **byte == b'\n').count();
        at = end;
    }
    tokens
}

/// Bytes beyond ASCII are taken for letters, so that no character is ever cut.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn find(bytes: &[u8], from: usize, wanted: u8) -> usize {
    (from..bytes.len()).find(|at| bytes[*at] == wanted).unwrap_or(bytes.len())
}

fn end_of_comment(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn end_of_text(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of a character (`'x'`, `'\''`), or of the mark of a lifetime.
fn end_of_quote(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at + 1) == Some(&b'\\') {
        return (find(bytes, at + 3, b'\'') + 1).min(bytes.len());
    }
    // A character has one to four bytes; a lifetime has no quote behind it.
    let closes = |end: &usize| bytes.get(*end) == Some(&b'\'');
    let width = bytes.get(at + 1).map_or(1, |first| match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    });
    Some(at + 1 + width).filter(closes).map_or(at + 1, |end| end + 1)
}

/// The end of a raw text (`r"..."`, `br#"..."#`); none where `at` begins a word.
fn raw_text(bytes: &[u8], at: usize) -> Option<usize> {
    let mut open = at;
    while matches!(bytes.get(open), Some(b'b' | b'c')) {
        open += 1;
    }
    if bytes.get(open) != Some(&b'r') {
        return (open > at && bytes.get(open) == Some(&b'"')).then(|| end_of_text(bytes, open + 1));
    }
    let hashes = bytes[open + 1..].iter().take_while(|byte| **byte == b'#').count();
    let quote = open + 1 + hashes;
    if bytes.get(quote) != Some(&b'"') {
        return raw_word(bytes, open, hashes);
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let rest = &bytes[quote + 1..];
    let length = rest.windows(close.len()).position(|window| window == close)?;
    Some(quote + 1 + length + close.len())
}

/// The end of a word that is spelled `r#word`: it is no keyword, and is left out.
fn raw_word(bytes: &[u8], at: usize, hashes: usize) -> Option<usize> {
    let begins = hashes == 1 && bytes.get(at + 2).is_some_and(|byte| is_word(*byte));
    begins.then(|| (at + 2..bytes.len()).find(|i| !is_word(bytes[*i])).unwrap_or(bytes.len()))
}

fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let is_mark =
        |at: usize| tokens[at..].iter().map(|token| token.text.as_str()).take(MARK.len()).eq(MARK);
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_mark(at) {
            at = end_of_item(&tokens, at + MARK.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// Behind the `;` or the closing brace that ends an item.
fn end_of_item(tokens: &[Token], from: usize) -> usize {
    let mut depth = 0_usize;
    let mut opened_by_use = false;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.text.as_str() {
            "use" if depth == 0 => opened_by_use = true,
            "{" | "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && !opened_by_use {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}
