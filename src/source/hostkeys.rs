//! Whether an ssh server is the one that is known: its key is looked up in a known_hosts file
//! (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"). A host that isn't in it is refused. Certificates
//! of authorities aren't taken.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

/// What a known_hosts file says of a host's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Known,
    /// The host is known, with other keys.
    Changed,
    Unknown,
    Revoked,
}

/// Looks up `key`, in the form in which the server sends it, for a host and a port.
pub fn verdict(known_hosts: &str, host: &str, port: u16, key: &[u8]) -> Verdict {
    let name = match port {
        22 => host.to_ascii_lowercase(),
        port => format!("[{}]:{port}", host.to_ascii_lowercase()),
    };
    let key_kind = kind_of(key);
    let mut verdict = Verdict::Unknown;
    for line in known_hosts.lines() {
        let Some(line) = Line::parse(line) else { continue };
        if !line.names(&name) {
            continue;
        }
        let is_same = STANDARD.decode(line.key).is_ok_and(|known| known == key);
        match (line.marker, is_same) {
            (Some("@revoked"), true) => return Verdict::Revoked,
            (None, true) => verdict = Verdict::Known,
            (None, false) if verdict == Verdict::Unknown && key_kind == Some(line.kind) => {
                verdict = Verdict::Changed;
            }
            _ => {}
        }
    }
    verdict
}

/// Why the host with this key isn't talked to, with what to type; none where it is known.
pub fn refusal(file: &Path, host: &str, port: u16, key: &[u8]) -> Option<String> {
    let text = match std::fs::read(file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    };
    let verdict = verdict(&text, host, port, key);
    let shown = file.display();
    match verdict {
        Verdict::Known => None,
        Verdict::Unknown => Some(unknown_host(file, host, port)),
        Verdict::Changed => Some(format!(
            "the ssh host key of {host} is another than the one in {shown}: somebody may be listening in; if the server has a new key, remove the old one (`ssh-keygen -f {shown} -R '{}'`) and add the new one",
            scan_name(host, port)
        )),
        Verdict::Revoked => Some(format!("the ssh host key of {host} is revoked in {shown}")),
    }
}

/// The refusal of a host that isn't known, with the command that makes it so.
pub fn unknown_host(file: &Path, host: &str, port: u16) -> String {
    let shown = file.display();
    let port = if port == 22 { String::new() } else { format!("-p {port} ") };
    format!(
        "the ssh host key of {host} isn't in {shown}: type `ssh-keyscan {port}{host} >> {shown}` and compare the fingerprint with the one that the hoster publishes"
    )
}

fn scan_name(host: &str, port: u16) -> String {
    if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") }
}

/// The name of the key's algorithm, with which its encoding begins (RFC 4253, section 6.6).
fn kind_of(key: &[u8]) -> Option<&str> {
    let length = u32::from_be_bytes(key.get(..4)?.try_into().ok()?) as usize;
    std::str::from_utf8(key.get(4..4 + length)?).ok()
}

struct Line<'a> {
    marker: Option<&'a str>,
    hosts: &'a str,
    kind: &'a str,
    key: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().peekable();
        let marker = words.next_if(|word| word.starts_with('@'));
        let hosts = words.next().filter(|hosts| !hosts.starts_with('#'))?;
        Some(Self { marker, hosts, kind: words.next()?, key: words.next()? })
    }

    fn names(&self, name: &str) -> bool {
        if let Some(hash) = self.hosts.strip_prefix("|1|") {
            return is_hash_of(hash, name);
        }
        let mut found = false;
        for pattern in self.hosts.split(',') {
            match pattern.strip_prefix('!') {
                Some(pattern) if fits(pattern, name) => return false,
                Some(_) => {}
                None => found |= fits(pattern, name),
            }
        }
        found
    }
}

/// `SALT|HASH`, both in base 64: HMAC-SHA-1 of the name under the salt.
fn is_hash_of(hash: &str, name: &str) -> bool {
    let check = || {
        let (salt, hash) = hash.split_once('|')?;
        let mut mac = Hmac::<Sha1>::new_from_slice(&STANDARD.decode(salt).ok()?).ok()?;
        mac.update(name.as_bytes());
        mac.verify_slice(&STANDARD.decode(hash).ok()?).ok()
    };
    check().is_some()
}

/// Whether a pattern with `*` and `?` fits the name.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase().into_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where the last `*` was, and how much of the name it holds.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, held)) => {
                    star = Some((at, held + 1));
                    p = at + 1;
                    n = held + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: &str, body: &[u8]) -> Vec<u8> {
        let mut key = (kind.len() as u32).to_be_bytes().to_vec();
        key.extend_from_slice(kind.as_bytes());
        key.extend_from_slice(body);
        key
    }

    fn hashed(name: &str) -> String {
        let mut mac = Hmac::<Sha1>::new_from_slice(b"salt").unwrap();
        mac.update(name.as_bytes());
        let hash = mac.finalize().into_bytes();
        format!("|1|{}|{}", STANDARD.encode(b"salt"), STANDARD.encode(hash))
    }

    #[test]
    fn a_host_is_known_by_name_port_hash_and_pattern() {
        let ours = key("ssh-ed25519", b"ours");
        let other = key("ssh-ed25519", b"other");
        let encoded = STANDARD.encode(&ours);
        let cases = [
            (
                format!("example.com ssh-ed25519 {encoded}"),
                "example.com",
                22,
                &ours,
                Verdict::Known,
            ),
            (
                format!("EXAMPLE.com,b ssh-ed25519 {encoded} x"),
                "Example.com",
                22,
                &ours,
                Verdict::Known,
            ),
            (
                format!("example.com ssh-ed25519 {encoded}"),
                "example.com",
                2222,
                &ours,
                Verdict::Unknown,
            ),
            (
                format!("[example.com]:2222 ssh-ed25519 {encoded}"),
                "example.com",
                2222,
                &ours,
                Verdict::Known,
            ),
            (
                format!("example.com ssh-ed25519 {encoded}"),
                "example.com",
                22,
                &other,
                Verdict::Changed,
            ),
            (
                format!("*.example.com,!b.example.com ssh-ed25519 {encoded}"),
                "a.example.com",
                22,
                &ours,
                Verdict::Known,
            ),
            (
                format!("*.example.com,!b.example.com ssh-ed25519 {encoded}"),
                "b.example.com",
                22,
                &ours,
                Verdict::Unknown,
            ),
            (
                format!("{} ssh-ed25519 {encoded}", hashed("example.com")),
                "example.com",
                22,
                &ours,
                Verdict::Known,
            ),
            (
                format!("{} ssh-ed25519 {encoded}", hashed("example.com")),
                "example.org",
                22,
                &ours,
                Verdict::Unknown,
            ),
            (
                format!("@revoked * ssh-ed25519 {encoded}\nexample.com ssh-ed25519 {encoded}"),
                "example.com",
                22,
                &ours,
                Verdict::Revoked,
            ),
            (
                format!("@cert-authority * ssh-ed25519 {encoded}"),
                "example.com",
                22,
                &ours,
                Verdict::Unknown,
            ),
            (
                format!("# example.com ssh-ed25519 {encoded}\n\ngarbage"),
                "example.com",
                22,
                &ours,
                Verdict::Unknown,
            ),
        ];
        for (text, host, port, key, expected) in cases {
            assert_eq!(verdict(&text, host, port, key), expected, "{text} {host} {port}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_type() {
        let file = Path::new("/nowhere/known_hosts");
        let text = refusal(file, "example.com", 2222, b"key").unwrap();
        assert!(text.contains("ssh-keyscan -p 2222 example.com >> /nowhere/known_hosts"), "{text}");
    }
}
