//! Any bytes as what HAProxy answers, and as the files that it runs with: an error or a value,
//! never a panic.

/// The same bytes as the answer to every question.
pub fn feed(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    plimsoll::proxy::fuzzing::read_everything(&text);
}
