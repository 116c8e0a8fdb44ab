//! What a server is told that asks who we are. Each credential is offered once, in a fixed
//! order, so that a server that refuses them all can't keep us asking.

use std::path::PathBuf;

use git2::{Cred, CredentialType, Error, ErrorClass, ErrorCode};
use secrecy::{ExposeSecret, SecretString};

use super::url::{Remote, redacted};

/// The largest token file, in bytes.
const LARGEST_TOKEN: u64 = 64 << 10;

/// Keys that ssh itself would try, in its folder.
const DEFAULT_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// Where credentials come from, besides the URL.
#[derive(Debug, Clone, Default)]
pub struct CredentialOptions {
    /// A private key for ssh, without a passphrase.
    pub ssh_key: Option<PathBuf>,
    /// A file that holds a token, which is the password for HTTP. It is read at each fetch.
    pub token_file: Option<PathBuf>,
    /// The name that goes with the token, or with the key; `git` otherwise.
    pub username: Option<String>,
}

/// One thing to offer.
#[derive(Debug, Clone)]
enum Offer {
    Url { username: String, password: SecretString },
    Token { username: String, token: SecretString },
    Helper,
    KeyFile(PathBuf),
    Agent,
}

impl Offer {
    fn describe(&self) -> String {
        match self {
            Self::Url { .. } => "those in the URL".into(),
            Self::Token { .. } => "the token file".into(),
            Self::Helper => "git's credential helper".into(),
            Self::KeyFile(path) => format!("the key {}", path.display()),
            Self::Agent => "the ssh agent".into(),
        }
    }

    fn fits(&self, allowed: CredentialType) -> bool {
        match self {
            Self::Url { .. } | Self::Token { .. } | Self::Helper => {
                allowed.contains(CredentialType::USER_PASS_PLAINTEXT)
            }
            Self::KeyFile(_) | Self::Agent => allowed.contains(CredentialType::SSH_KEY),
        }
    }
}

/// The credentials of one connection.
pub struct Credentials {
    /// Still to be offered, the next one last.
    offers: Vec<Offer>,
    offered: Vec<String>,
    username: String,
    username_calls: u32,
    secrets: Vec<SecretString>,
}

impl Credentials {
    /// Gathers what there is for that remote.
    ///
    /// # Errors
    /// A text, where a file that is named in the options can't be read.
    pub fn gather(remote: &Remote, options: &CredentialOptions) -> Result<Self, String> {
        let username = remote
            .username()
            .or(options.username.as_deref())
            .filter(|name| !name.is_empty())
            .unwrap_or("git")
            .to_owned();
        let mut offers = Vec::new();
        let mut secrets = Vec::new();
        if let Some(password) = url_password(remote) {
            let username = remote.username().unwrap_or_default().to_owned();
            offers.push(Offer::Url { username, password });
        }
        if let Some(path) = &options.token_file {
            let token = read_token(path)?;
            secrets.push(token.clone());
            let username = options.username.clone().unwrap_or_else(|| username.clone());
            offers.push(Offer::Token { username, token });
        }
        offers.push(Offer::Helper);
        match &options.ssh_key {
            Some(path) => offers.push(Offer::KeyFile(path.clone())),
            None => {
                if std::env::var_os("SSH_AUTH_SOCK").is_some() {
                    offers.push(Offer::Agent);
                }
                offers.extend(default_keys().into_iter().map(Offer::KeyFile));
            }
        }
        offers.reverse();
        Ok(Self { offers, offered: Vec::new(), username, username_calls: 0, secrets })
    }

    /// The text without the secrets that were gathered.
    pub fn redact(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| redacted(&text, secret))
    }

    /// What libgit2's credentials callback answers.
    ///
    /// # Errors
    /// With [`ErrorCode::Auth`] when all was offered.
    pub fn answer(&mut self, url: &str, allowed: CredentialType) -> Result<Cred, Error> {
        if allowed.contains(CredentialType::USERNAME) {
            self.username_calls += 1;
            if self.username_calls > 2 {
                return Err(self.exhausted());
            }
            return Cred::username(&self.username);
        }
        while let Some(offer) = self.offers.pop() {
            if !offer.fits(allowed) {
                continue;
            }
            self.offered.push(offer.describe());
            // One that can't be had, such as an agent without keys, is like one refused.
            if let Ok(credential) = self.credential(&offer, url) {
                return Ok(credential);
            }
        }
        Err(self.exhausted())
    }

    fn credential(&self, offer: &Offer, url: &str) -> Result<Cred, Error> {
        match offer {
            Offer::Url { username, password } => {
                Cred::userpass_plaintext(username, password.expose_secret())
            }
            Offer::Token { username, token } => {
                Cred::userpass_plaintext(username, token.expose_secret())
            }
            Offer::Helper => Cred::credential_helper(&git2::Config::open_default()?, url, None),
            Offer::KeyFile(path) => Cred::ssh_key(&self.username, None, path, None),
            Offer::Agent => Cred::ssh_key_from_agent(&self.username),
        }
    }

    fn exhausted(&self) -> Error {
        let tried = match self.offered.as_slice() {
            [] => "there are none to offer".to_owned(),
            offered => format!("it took none of: {}", offered.join(", ")),
        };
        let text = format!(
            "the server wants credentials, and {tried}; name a token file (for https) or an ssh key that may read the repository"
        );
        Error::new(ErrorCode::Auth, ErrorClass::Callback, text)
    }
}

/// The password in the URL. A name alone is a token, as hosters give them.
fn url_password(remote: &Remote) -> Option<SecretString> {
    let is_http = remote.transport() == super::url::Transport::Http;
    match (remote.password(), remote.username()) {
        (Some(password), _) => Some(password.clone()),
        (None, Some(_)) if is_http => Some(SecretString::from(String::new())),
        (None, _) => None,
    }
}

fn read_token(path: &std::path::Path) -> Result<SecretString, String> {
    use std::io::Read;
    let shown = path.display();
    let file = std::fs::File::open(path)
        .map_err(|error| format!("the token file {shown} can't be read: {error}"))?;
    let mut text = String::new();
    file.take(LARGEST_TOKEN)
        .read_to_string(&mut text)
        .map_err(|error| format!("the token file {shown} can't be read: {error}"))?;
    match text.trim() {
        "" => Err(format!("the token file {shown} is empty: write the token into it")),
        token => Ok(SecretString::from(token)),
    }
}

fn default_keys() -> Vec<PathBuf> {
    let Some(home) = std::env::home_dir() else { return Vec::new() };
    DEFAULT_KEYS
        .iter()
        .map(|name| home.join(".ssh").join(name))
        .filter(|key| key.is_file())
        .collect()
}
