//! The Installation, and the stand-in for a `uid` that isn't written yet.

use super::super::document::Head;
use super::super::mistake::Mistakes;
use super::super::node::Node;
use super::{Field, Fields};
use crate::model::{Guards, Installation, InstallationName, InstallationUid, Sha256};

/// The Installation of a document. None where it has mistakes.
pub fn decode(head: &Head, spec: Option<&Node>, found: &mut Mistakes) -> Option<Installation> {
    let name = InstallationName::new(head.name.clone()).ok()?;
    let uid = match &head.uid {
        Some((uid, at)) => match InstallationUid::new(uid.clone()) {
            Ok(uid) => uid,
            Err(error) => {
                found.error(*at, format!("`uid`: {error}"));
                return None;
            }
        },
        None => {
            found
                .warn(head.name_at, "the Installation has no `metadata.uid`; one is derived from its name")
                .hint("type `plimsoll init`: it writes a random one, which tells two installations of one name apart");
            guessed_uid(&name)?
        }
    };
    let guards = match spec {
        Some(spec) => guards(spec, found),
        None => Guards::default(),
    };
    Some(Installation { name, uid, guards })
}

/// What stands for a `uid` that isn't there: 8 hexadecimal digits of the name's SHA-256.
fn guessed_uid(name: &InstallationName) -> Option<InstallationUid> {
    InstallationUid::new(Sha256::of(name.as_str().as_bytes()).short(8)).ok()
}

fn guards(spec: &Node, found: &mut Mistakes) -> Guards {
    let mut guards = Guards::default();
    let Some(mut fields) = Fields::open(spec, "the spec of an Installation", found) else {
        return guards;
    };
    if let Some(field) = fields.get("guards")
        && let Some(mut fields) = field.fields("`guards`", found)
    {
        if let Some(prune) = fields.get("prune") {
            guards.prune_percent = percent(&prune, found).unwrap_or(guards.prune_percent);
        }
        fields.finish(found);
    }
    fields.finish(found);
    guards
}

fn percent(field: &Field<'_>, found: &mut Mistakes) -> Option<u8> {
    let text = field.text(found)?;
    let number = text.strip_suffix('%').and_then(|digits| {
        let is_plain = digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u8>().ok().filter(|percent| is_plain && *percent <= 100)
    });
    if number.is_none() {
        let mistake = found.error(
            field.at(),
            format!("`prune` has to be a share from 0% to 100%, this is {text:?}"),
        );
        match text.parse::<u8>() {
            Ok(number) if number <= 100 => mistake.hint(format!("write `prune: {number}%`")),
            _ => mistake.hint("such as `prune: 50%`"),
        }
    }
    number
}
