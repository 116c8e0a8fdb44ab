//! Image references and what they were pinned to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A SHA-256, written `sha256:` and 64 hexadecimal digits as Docker does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256([u8; 32]);

impl Sha256 {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The 64 digits, without `sha256:`.
    pub fn hex(&self) -> String {
        self.short(64)
    }

    /// The first `digits` of them.
    pub fn short(&self, digits: usize) -> String {
        self.digits().take(digits).collect()
    }

    pub(super) fn digits(&self) -> impl Iterator<Item = char> + '_ {
        let digit = |half: u8| char::from(if half < 10 { b'0' + half } else { b'a' + half - 10 });
        self.0.iter().flat_map(move |byte| [digit(byte >> 4), digit(byte & 15)])
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Sha256 {
    type Err = ImageError;
    fn from_str(text: &str) -> Result<Self, ImageError> {
        let bad = || ImageError::Digest(text.to_owned());
        let hex = text.strip_prefix("sha256:").ok_or_else(bad)?;
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Sha256 {
    type Error = ImageError;
    fn try_from(text: String) -> Result<Self, ImageError> {
        text.parse()
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> String {
        digest.to_string()
    }
}

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("{0:?} is no digest: sha256: and 64 hexadecimal digits")]
    Digest(String),
    #[error(
        "{0:?} is no image reference: [REGISTRY/]NAME[:TAG][@sha256:DIGEST], names in lower case"
    )]
    Reference(String),
}

/// `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`, in the grammar of the distribution project's
/// reference package. Without tag and digest the tag is `latest`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    repository: String,
    tag: Option<String>,
    digest: Option<Sha256>,
}

impl ImageRef {
    /// Registry and path, without tag and digest.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag that a registry is asked for; none where the reference has a digest only.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<Sha256> {
        self.digest
    }

    /// The registry's host and port where the reference names one; `docker.io` otherwise.
    pub fn registry(&self) -> &str {
        match self.repository.split_once('/') {
            Some((first, _)) if is_registry(first) => first,
            _ => "docker.io",
        }
    }
}

fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':'])
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for ImageRef {
    type Err = ImageError;
    fn from_str(text: &str) -> Result<Self, ImageError> {
        let bad = || ImageError::Reference(text.to_owned());
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        let last_part = name.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match name[last_part..].split_once(':') {
            Some((last, tag)) => (&name[..last_part + last.len()], Some(tag.to_owned())),
            None => (name, None),
        };
        if repository.len() > 255 || !repository_is_fine(repository) {
            return Err(bad());
        }
        if !tag.as_deref().is_none_or(tag_is_fine) {
            return Err(bad());
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { repository: repository.to_owned(), tag, digest })
    }
}

fn repository_is_fine(repository: &str) -> bool {
    let (registry, path) = match repository.split_once('/') {
        Some((first, rest)) if is_registry(first) => (Some(first), rest),
        _ => (None, repository),
    };
    registry.is_none_or(registry_is_fine) && path.split('/').all(component_is_fine)
}

fn registry_is_fine(registry: &str) -> bool {
    let (host, port) = registry.split_once(':').map_or((registry, None), |(h, p)| (h, Some(p)));
    let label_is_fine = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label_is_fine) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn component_is_fine(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    component.starts_with(alphanumeric)
        && component.ends_with(alphanumeric)
        && component.chars().all(|c| alphanumeric(c) || "._-".contains(c))
        && !component.contains("..")
        && !component.contains("___")
}

fn tag_is_fine(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || ".-".contains(c))
}

impl TryFrom<String> for ImageRef {
    type Error = ImageError;
    fn try_from(text: String) -> Result<Self, ImageError> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> String {
        image.to_string()
    }
}

/// What an image reference stood for when it was resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ImageContent {
    /// The digest of the manifest in its registry.
    Digest(Sha256),
    /// The id of an image that was built on the hosts, and that no registry knows.
    Id(Sha256),
}

impl ImageContent {
    pub fn sha256(&self) -> &Sha256 {
        match self {
            Self::Digest(sha) | Self::Id(sha) => sha,
        }
    }
}

/// An image reference with what it was resolved to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pin {
    pub reference: ImageRef,
    pub content: ImageContent,
}

impl Pin {
    /// The name by which an engine is asked for it: `REPOSITORY@sha256:...`, or the id.
    pub fn engine_name(&self) -> String {
        match &self.content {
            ImageContent::Digest(digest) => format!("{}@{digest}", self.reference.repository()),
            ImageContent::Id(id) => id.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, repository, tag) in [
            ("web", "web", Some("latest")),
            ("web:1.5", "web", Some("1.5")),
            ("localhost:5000/web:1.5.0", "localhost:5000/web", Some("1.5.0")),
            ("localhost:5000/a/b", "localhost:5000/a/b", Some("latest")),
            (&format!("web@{digest}"), "web", None),
            (&format!("web:1@{digest}"), "web", Some("1")),
        ] {
            let image: ImageRef = text.parse().unwrap();
            assert_eq!((image.repository(), image.tag()), (repository, tag), "{text}");
        }
        let long = "a".repeat(129);
        for bad in [
            "",
            "Web",
            "web:",
            ":1",
            "a b",
            "web@sha256:12",
            "a//b",
            "-a",
            "a:b:c",
            "a\n",
            &format!("a:{long}"),
        ] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_registry_is_named_or_docker_io() {
        for (text, registry) in [
            ("web", "docker.io"),
            ("team/web", "docker.io"),
            ("localhost/web", "localhost"),
            ("r.example:5000/web", "r.example:5000"),
        ] {
            assert_eq!(text.parse::<ImageRef>().unwrap().registry(), registry);
        }
    }
}
