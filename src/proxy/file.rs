//! The files as bytes: a trailer that tells whether a file is whole and untouched. A file that
//! was cut, also at the end of a line, or edited, also in a comment, doesn't fit its trailer.
//!
//! Nothing in here reads or writes a disk; that is a [`super::machine::Machine`]'s work.

use crate::model::Sha256;

const TRAILER: &str = "# plimsoll ";

/// `body`, which ends with a newline, with a last line that holds its SHA-256.
pub fn seal(body: String) -> String {
    let trailer = format!("{TRAILER}{}\n", Sha256::of(body.as_bytes()));
    body + &trailer
}

/// What was sealed.
///
/// # Errors
/// What is wrong with it, for people.
pub fn unseal(sealed: &str) -> Result<&str, String> {
    let cut = || {
        "its last line is no trailer: it is cut, somebody added to it, or it was never ours"
            .to_owned()
    };
    let start = sealed.trim_end_matches('\n').rfind('\n').map_or(0, |end| end + 1);
    let (body, last) = sealed.split_at(start);
    let digest = last.strip_prefix(TRAILER).ok_or_else(cut)?;
    let digest = digest.strip_suffix('\n').ok_or("its last line is cut")?;
    let expected: Sha256 = digest.parse().map_err(|_| cut())?;
    if Sha256::of(body.as_bytes()) != expected {
        return Err("it was edited: its content doesn't fit the hash in its trailer".into());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_and_every_edit_is_seen() {
        let sealed = seal("global\nbackend a\n    server b\n".into());
        assert_eq!(unseal(&sealed), Ok("global\nbackend a\n    server b\n"));
        for end in 0..sealed.len() {
            assert!(unseal(&sealed[..end]).is_err(), "cut at {end}");
        }
        assert!(unseal(&format!("{sealed}# me\n")).is_err());
        assert!(unseal(&format!("{sealed}\n")).is_err());
        assert!(unseal(&sealed.replace("server b", "server c")).is_err());
    }

    #[test]
    fn nothing_sealed_is_something() {
        assert_eq!(unseal(&seal(String::new())), Ok(""));
    }
}
