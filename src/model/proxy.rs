//! The typed HAProxy configuration. What is in here may be written into HAProxy's file: every
//! type refuses a text that could add a word, a line or an expansion to it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{AppId, HostName, ListenerName, NameError, Revision, Slot, Span};

/// One whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyConfig {
    pub structure: ProxyStructure,
    /// Which backend a request goes to. Changed at runtime, without a reload.
    pub routes: BTreeMap<RouteKey, BackendName>,
    /// The servers of each backend of `structure`. Changed at runtime, without a reload.
    pub servers: BTreeMap<BackendName, BTreeMap<ServerName, Server>>,
}

/// The part of a configuration that HAProxy 2.6 changes by a reload only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStructure {
    pub stats: Option<SocketAddr>,
    /// Adds the response header `X-Host` with the server's name.
    pub x_host: bool,
    pub listeners: BTreeMap<ListenerName, Listener>,
    pub backends: BTreeMap<BackendName, Backend>,
}

impl ProxyStructure {
    /// SHA-256 over a format word and the canonical JSON. A worker carries it as its
    /// `description`, which tells what structure it runs. The format word counts up whenever the
    /// template writes the same structure differently.
    pub fn digest(&self) -> super::Sha256 {
        let json = serde_json::to_string(self).unwrap_or_default();
        super::Sha256::of(format!("plimsoll structure 1\n{json}").as_bytes())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    pub bind: SocketAddr,
    /// Folder, where HAProxy runs, with certificates and keys in PEM.
    pub certificates: Option<FilePath>,
}

/// A group of servers of one app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    pub check: Check,
}

/// How HAProxy tells whether a server is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Path of the HTTP check; a TCP check otherwise.
    pub path: Option<UrlPath>,
    pub interval: Span,
    pub timeout: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    pub address: SocketAddr,
    /// 0 to 256.
    pub weight: u16,
}

/// HAProxy's largest weight.
pub const LARGEST_WEIGHT: u16 = 256;

/// What a request is looked up by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    pub listener: ListenerName,
    pub host: HostPattern,
    pub path: PathPrefix,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.listener, self.host, self.path)
    }
}

impl FromStr for RouteKey {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let bad = || PatternError::Route(text.to_owned());
        let (listener, rest) = text.split_once(' ').ok_or_else(bad)?;
        let slash = rest.find('/').ok_or_else(bad)?;
        Ok(Self {
            listener: listener.parse().map_err(|_| bad())?,
            host: rest[..slash].parse()?,
            path: rest[slash..].parse()?,
        })
    }
}

/// What of an app a backend serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Track {
    Stable,
    Candidate,
}

/// `ENVIRONMENT.APP`, and `ENVIRONMENT.APP.candidate` for what is being rolled out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendName {
    pub app: AppId,
    pub track: Track,
}

impl BackendName {
    pub fn stable(app: AppId) -> Self {
        Self { app, track: Track::Stable }
    }

    pub fn candidate(app: AppId) -> Self {
        Self { app, track: Track::Candidate }
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match self.track {
            Track::Stable => "",
            Track::Candidate => ".candidate",
        };
        f.pad(&format!("{}.{}{suffix}", self.app.environment, self.app.name))
    }
}

impl FromStr for BackendName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (environment, rest) = text.split_once('.').ok_or(NameError::NotAnApp)?;
        // Names have no dots, so that an app which is called `candidate` isn't taken for a track.
        let (name, track) = match rest.strip_suffix(".candidate") {
            Some(name) => (name, Track::Candidate),
            None => (rest, Track::Stable),
        };
        Ok(Self { app: AppId::new(environment, name)?, track })
    }
}

/// `HOST:IMAGE12:REVISION8-SLOT`: a server's name in HAProxy's statistics and logs, known
/// before its container is made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName {
    pub host: HostName,
    image12: Digits<12>,
    revision8: Digits<8>,
    pub slot: Slot,
}

/// The first digits of a hexadecimal number: ASCII.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Digits<const N: usize>([u8; N]);

impl<const N: usize> Digits<N> {
    fn of(sha: &super::Sha256) -> Self {
        let mut digits = [0; N];
        for (digit, char) in digits.iter_mut().zip(sha.digits()) {
            *digit = char as u8;
        }
        Self(digits)
    }

    /// None where `text` isn't so many digits.
    fn read(text: &str) -> Option<Self> {
        let digits: [u8; N] = text.as_bytes().try_into().ok()?;
        let fine = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
        digits.iter().all(fine).then_some(Self(digits))
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Debug for Digits<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ServerName {
    pub fn new(host: HostName, image: &super::Sha256, revision: &Revision, slot: Slot) -> Self {
        let (image12, revision8) = (Digits::of(image), Digits::of(revision.sha256()));
        Self { host, image12, revision8, slot }
    }

    /// The first digits of the image's digest.
    pub fn image12(&self) -> &str {
        self.image12.as_str()
    }

    /// The first digits of the revision.
    pub fn revision8(&self) -> &str {
        self.revision8.as_str()
    }

    /// True for a server of that revision, as far as its 8 digits tell.
    pub fn is_of(&self, revision: &Revision) -> bool {
        self.revision8 == Digits::of(revision.sha256())
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, image12, revision8, slot } = self;
        let (image12, revision8) = (image12.as_str(), revision8.as_str());
        f.pad(&format!("{host}:{image12}:{revision8}-{slot}"))
    }
}

impl FromStr for ServerName {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let bad = || PatternError::Server(text.to_owned());
        let mut parts = text.split(':');
        let (Some(host), Some(image), Some(last), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let (revision, slot) = last.split_once('-').ok_or_else(bad)?;
        Ok(Self {
            host: host.parse().map_err(|_| bad())?,
            image12: Digits::read(image).ok_or_else(bad)?,
            revision8: Digits::read(revision).ok_or_else(bad)?,
            slot: Slot(slot.parse().map_err(|_| bad())?),
        })
    }
}

/// Why a text may not be written into HAProxy's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error(
        "{0:?} is no host name: letters, digits, hyphens and dots, with *. in front at most; not a port, not an underscore"
    )]
    Host(String),
    #[error(
        "{0:?} is no path: it begins with / and has letters, digits and -._~!&()*+,=:@/ only, percent-encoded otherwise"
    )]
    Path(String),
    #[error("{0:?} is no absolute path of a file: letters, digits and ._-/ only")]
    File(String),
    #[error("{0:?} is no route")]
    Route(String),
    #[error("{0:?} is no server name: HOST:IMAGE12:REVISION8-SLOT")]
    Server(String),
}

/// A host name in lower case, or `*.` and one: the wildcard stands for exactly one label.
/// `*` alone is every host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern(CompactString);

impl HostPattern {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `*`
    pub fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// What follows the `*` of a wildcard, with its dot: `.example.com`.
    pub fn wildcard_suffix(&self) -> Option<&str> {
        self.0.strip_prefix('*').filter(|rest| !rest.is_empty())
    }
}

impl FromStr for HostPattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let bad = || PatternError::Host(text.to_owned());
        if text == "*" {
            return Ok(Self("*".into()));
        }
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let plain = lower.strip_prefix("*.").unwrap_or(&lower);
        if lower.len() > 253 || plain.split('.').any(|part| super::check_label(part).is_err()) {
            return Err(bad());
        }
        Ok(Self(lower.into()))
    }
}

/// A path of whole segments, without a trailing slash but for `/` itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPrefix(CompactString);

impl PathPrefix {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PathPrefix {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let path: UrlPath = text.parse()?;
        let whole = path.as_str();
        if whole.contains(['?', '#']) || whole.contains("//") {
            return Err(PatternError::Path(text.to_owned()));
        }
        let trimmed = whole.trim_end_matches('/');
        Ok(Self(if trimmed.is_empty() { "/".into() } else { trimmed.into() }))
    }
}

/// A path, with a query at most, of characters that mean nothing to HAProxy's parser.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UrlPath(CompactString);

impl UrlPath {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UrlPath {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._~!&()*+,=:@/%?".contains(&b);
        let escapes_are_fine = text
            .split('%')
            .skip(1)
            .all(|rest| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit));
        if !text.starts_with('/')
            || text.len() > 255
            || !text.bytes().all(fine)
            || !escapes_are_fine
        {
            return Err(PatternError::Path(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

/// An absolute path of a file or folder where HAProxy runs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(CompactString);

impl FilePath {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FilePath {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
        let climbs = text.split('/').any(|part| part == "..");
        if !text.starts_with('/') || text.len() > 255 || !text.bytes().all(fine) || climbs {
            return Err(PatternError::File(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

macro_rules! text_of_pattern {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
text_of_pattern!(HostPattern, PathPrefix, UrlPath, FilePath);

macro_rules! serde_by_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_by_text!(HostPattern, PathPrefix, UrlPath, FilePath, RouteKey, BackendName, ServerName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_in_lower_case_without_a_trailing_dot() {
        for (text, host) in
            [("A.Example.", "a.example"), ("*.Example.com", "*.example.com"), ("*", "*")]
        {
            assert_eq!(text.parse::<HostPattern>().unwrap().as_str(), host);
        }
        for bad in [
            "", ".", "a..b", "a b", "a:80", "a\nb", "a;b", "${HOME}", "*.*.a", "a.*", "**", "a_b",
            "ä.de", "*.",
        ] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_whole_segments() {
        for (text, path) in
            [("/", "/"), ("/a", "/a"), ("/a/", "/a"), ("/a/b", "/a/b"), ("/%20", "/%20")]
        {
            assert_eq!(text.parse::<PathPrefix>().unwrap().as_str(), path);
        }
        for bad in [
            "", "a", "/a b", "/a\n", "/a;b", "/${A}", "/a\"", "/a'", "/#", "/a\\", "/a//b", "/%2",
            "/é", "/a\0",
        ] {
            assert!(bad.parse::<PathPrefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_read_back() {
        for text in ["alpha:f753afc24d79:3f2a91bc-0", "a-1:000000000000:00000000-12"] {
            assert_eq!(text.parse::<ServerName>().unwrap().to_string(), text);
        }
        for bad in [
            "alpha:f753afc24d79:3f2a91bc",
            "alpha:x753afc24d79:3f2a91bc-0",
            "a;b:f753afc24d79:3f2a91bc-0",
            "alpha:f753afc24d79:3f2a91bc-0:1",
        ] {
            assert!(bad.parse::<ServerName>().is_err(), "{bad}");
        }
        for text in [
            "production.web",
            "production.web.candidate",
            "production.candidate",
            "production.candidate.candidate",
        ] {
            assert_eq!(text.parse::<BackendName>().unwrap().to_string(), text);
        }
        for text in ["web www.example.com/", "web */a/b", "web *.example.com/a"] {
            assert_eq!(text.parse::<RouteKey>().unwrap().to_string(), text);
        }
    }
}
