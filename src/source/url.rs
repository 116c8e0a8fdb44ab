//! Where a repository is, parsed once: which transport, and what may be shown of it. Helpers
//! such as `ext::` are refused, since they run programs. Credentials that stand in the URL are
//! kept apart from it, so that no error of the transport can repeat them.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::SourceError;

/// How the repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A folder of this machine, as a path or `file://`.
    Local,
    /// `http://` or `https://`.
    Http,
    /// `ssh://` or `user@host:path`.
    Ssh,
    /// `git://`: neither encrypted nor authenticated.
    Git,
}

/// A parsed remote.
#[derive(Debug, Clone)]
pub struct Remote {
    transport: Transport,
    /// What the transport gets; without credentials.
    address: String,
    /// What people see: without credentials and without a query.
    display: String,
    username: Option<String>,
    password: Option<SecretString>,
    host: Option<String>,
    port: Option<u16>,
    /// Texts that may appear in no message.
    hidden: Vec<SecretString>,
}

/// What may be shown of a repository that somebody named, whatever it is.
pub fn shown(repository: &str) -> String {
    match Remote::parse(repository) {
        Ok(remote) => remote.display,
        Err(error) => error.to_string(),
    }
}

impl Remote {
    /// Parses a URL, `user@host:path`, or the path of a folder in a repository.
    ///
    /// # Errors
    /// [`SourceError::NotARepository`] where it is none of these, or runs a helper.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(refused(text));
        }
        if is_helper(text) {
            return Err(SourceError::Helper(before(text, "::").to_owned()));
        }
        if text.contains("://") {
            return Self::parse_url(text);
        }
        if !Path::new(text).exists()
            && let Some((login, path)) = scp_like(text)
        {
            return Ok(Self::from_scp(login, path));
        }
        Self::from_folder(text)
    }

    fn parse_url(text: &str) -> Result<Self, SourceError> {
        let mut url = Url::parse(text).map_err(|_| refused(text))?;
        let transport = match url.scheme() {
            "file" => Transport::Local,
            "http" | "https" => Transport::Http,
            "ssh" => Transport::Ssh,
            "git" => Transport::Git,
            _ => return Err(refused(text)),
        };
        if transport != Transport::Local && url.host_str().is_none_or(str::is_empty) {
            return Err(refused(text));
        }
        let username = Some(url.username()).filter(|name| !name.is_empty()).map(decoded);
        let password = url.password().map(|password| SecretString::from(decoded(password)));
        let hidden = hidden_in(&url, transport);
        // The scheme is none of those for which these calls fail.
        let _ = url.set_password(None);
        if transport != Transport::Ssh {
            let _ = url.set_username("");
        }
        let mut shown = url.clone();
        shown.set_query(None);
        shown.set_fragment(None);
        Ok(Self {
            transport,
            address: url.to_string(),
            display: shown.to_string(),
            username,
            password,
            // An IPv6 address is in brackets in a URL, and nowhere else.
            host: url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned()),
            port: url.port(),
            hidden,
        })
    }

    fn from_scp(login: &str, path: &str) -> Self {
        let (username, host) = match login.rsplit_once('@') {
            Some((username, host)) => (Some(username.to_owned()), host),
            None => (None, login),
        };
        Self {
            transport: Transport::Ssh,
            address: format!("{login}:{path}"),
            display: format!("{login}:{path}"),
            username,
            password: None,
            host: Some(host.to_owned()),
            port: None,
            hidden: Vec::new(),
        }
    }

    fn from_folder(text: &str) -> Result<Self, SourceError> {
        let repository = git2::Repository::discover(text).map_err(|error| {
            if error.code() == git2::ErrorCode::NotFound {
                return SourceError::NotARepository(text.to_owned());
            }
            SourceError::Local { path: PathBuf::from(text), cause: error.message().to_owned() }
        })?;
        let root = repository.workdir().unwrap_or_else(|| repository.path());
        let address = root.to_string_lossy().trim_end_matches('/').to_owned();
        Ok(Self {
            transport: Transport::Local,
            display: address.clone(),
            address,
            username: None,
            password: None,
            host: None,
            port: None,
            hidden: Vec::new(),
        })
    }

    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// What the transport gets. It may hold a secret query, so it is not for people.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What people see.
    pub fn display(&self) -> &str {
        &self.display
    }

    /// The user's name, as the URL gives it.
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The password, as the URL gives it.
    pub fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }

    /// The host's name.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The port where it isn't the transport's own.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The text without any of the credentials that stood in the URL.
    pub fn redact(&self, text: &str) -> String {
        self.hidden.iter().fold(text.to_owned(), |text, secret| redacted(&text, secret))
    }
}

/// The text with `***` in place of the secret.
pub fn redacted(text: &str, secret: &SecretString) -> String {
    match secret.expose_secret() {
        "" => text.to_owned(),
        secret => text.replace(secret, "***"),
    }
}

/// Whatever of the URL is a credential, in the spelling of the URL and decoded. A name without a
/// password is one too for HTTP: that is how tokens are given.
fn hidden_in(url: &Url, transport: Transport) -> Vec<SecretString> {
    let mut texts: Vec<&str> = url.password().into_iter().chain(url.query()).collect();
    if transport == Transport::Http {
        texts.push(url.username());
    }
    let mut all: Vec<String> =
        texts.iter().flat_map(|text| [(*text).to_owned(), decoded(text)]).collect();
    // The longer first: a password that holds another text is replaced whole.
    all.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    all.dedup();
    // A letter or two is no secret, and replacing them would garble every message.
    all.into_iter().filter(|text| text.len() > 2 && text != "git").map(SecretString::from).collect()
}

/// `%41` becomes `A`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.filter(|_| first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `NAME::ADDRESS` asks git to run the program `git-remote-NAME`.
fn is_helper(text: &str) -> bool {
    text.split_once("::").is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-+_".contains(c))
    })
}

/// `user@host:path`, with nothing of a path before the colon.
fn scp_like(text: &str) -> Option<(&str, &str)> {
    let (login, path) = text.split_once(':')?;
    let host = login.rsplit_once('@').map_or(login, |(_, host)| host);
    let is_fine = !host.is_empty()
        && !host.starts_with('-')
        && !path.is_empty()
        && !login.contains(['/', '\\', ' ']);
    is_fine.then_some((login, path))
}

fn before<'a>(text: &'a str, mark: &str) -> &'a str {
    text.split_once(mark).map_or(text, |(head, _)| head)
}

/// The error for a text that is no remote, without what may be credentials in it.
fn refused(text: &str) -> SourceError {
    let shown = match text.split_once("://") {
        Some((scheme, rest)) => {
            // A password that isn't escaped may hold what ends an authority.
            match rest.rsplit_once('@') {
                Some((_, host)) => {
                    let host = host.split(['/', '?', '#']).next().unwrap_or_default();
                    format!("{scheme}://{host}")
                }
                None => format!("{scheme}://{}", before(rest, "?")),
            }
        }
        None => text.to_owned(),
    };
    SourceError::NotARepository(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_are_parsed_and_shown_without_credentials() {
        use Transport::{Git, Http, Local, Ssh};
        let cases = [
            ("https://example.com/a.git", Http, "https://example.com/a.git", None, None),
            (
                "https://bob:pa%40ss@example.com:8443/a",
                Http,
                "https://example.com:8443/a",
                Some("bob"),
                Some("pa@ss"),
            ),
            (
                "http://TOKEN123@example.com/a?key=abc",
                Http,
                "http://example.com/a",
                Some("TOKEN123"),
                None,
            ),
            (
                "ssh://git@example.com:2222/a",
                Ssh,
                "ssh://git@example.com:2222/a",
                Some("git"),
                None,
            ),
            (
                "ssh://git:word@example.com/a",
                Ssh,
                "ssh://git@example.com/a",
                Some("git"),
                Some("word"),
            ),
            ("git@example.com:team/a.git", Ssh, "git@example.com:team/a.git", Some("git"), None),
            ("git://127.0.0.1/a", Git, "git://127.0.0.1/a", None, None),
            ("file:///srv/a.git", Local, "file:///srv/a.git", None, None),
        ];
        for (text, transport, display, username, password) in cases {
            let remote = Remote::parse(text).unwrap();
            assert_eq!(remote.transport(), transport, "{text}");
            assert_eq!(remote.display(), display, "{text}");
            assert_eq!(remote.username(), username, "{text}");
            assert_eq!(remote.password().map(ExposeSecret::expose_secret), password, "{text}");
            assert!(!remote.display().contains("key=abc"), "{text}");
        }
    }

    #[test]
    fn what_is_no_remote_is_refused_without_repeating_credentials() {
        for text in [
            "",
            "ext::sh -c id",
            "fd::3",
            "http::https://example.com",
            "ftp://bob:hunter2@example.com/a",
            "https://bob:hunter2@/a",
            "https://",
            "a\nb",
            "/nowhere/at/all",
            "-oProxyCommand=id:path",
        ] {
            let error = Remote::parse(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(!error.contains("sh -c"), "{error}");
        }
    }

    #[test]
    fn messages_are_redacted() {
        let remote = Remote::parse("https://bob:hun%21ter@example.com/a?private=1").unwrap();
        let text = "no: https://bob:hun%21ter@example.com/a?private=1 (hun!ter)";
        let shown = remote.redact(text);
        assert!(!shown.contains("hun") && !shown.contains("private"), "{shown}");
    }
}
