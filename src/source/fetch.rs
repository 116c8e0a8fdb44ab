//! One conversation with a remote: which commit the branch is at, and the objects that are
//! missing here. Nothing is executed, no hook runs, no reference moves but by the caller.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use git2::{
    AutotagOption, CertificateCheckStatus, Direction, ErrorClass, ErrorCode, FetchOptions, Oid,
    ProxyOptions, RemoteCallbacks, Repository,
};

use super::cache::CacheFault;
use super::credentials::{CredentialOptions, Credentials};
use super::hostkeys;
use super::url::Remote;

/// The most that is received in one fetch, in bytes.
const MOST_RECEIVED: u64 = 4 << 30;

/// Everything that a conversation needs.
#[derive(Debug, Clone)]
pub struct Request {
    pub remote: Remote,
    pub branch: String,
    pub credentials: CredentialOptions,
    pub known_hosts: PathBuf,
    /// Set when nobody waits for the answer any more: the transfer ends, nothing is written.
    pub cancelled: Arc<AtomicBool>,
}

/// Why it failed.
#[derive(Debug)]
pub enum FetchFault {
    NoBranch,
    /// Nobody waits any more.
    Cancelled,
    /// The remote, or the way to it. For people, without credentials.
    Remote(String),
    /// Perhaps the cache. For people, without credentials.
    Local(String),
}

impl From<git2::Error> for FetchFault {
    fn from(error: git2::Error) -> Self {
        Self::Local(error.message().to_owned())
    }
}

impl From<std::io::Error> for FetchFault {
    fn from(error: std::io::Error) -> Self {
        Self::Local(error.to_string())
    }
}

impl From<CacheFault> for FetchFault {
    fn from(fault: CacheFault) -> Self {
        Self::Local(fault.to_string())
    }
}

impl Request {
    /// Brings the branch's tip and its history here, and returns the tip.
    ///
    /// # Errors
    /// [`FetchFault`].
    pub fn branch_tip(&self, repository: &Repository) -> Result<Oid, FetchFault> {
        let reference = format!("refs/heads/{}", self.branch);
        self.converse(repository, |talk| {
            let tip = talk.tip(&reference)?;
            if repository.find_commit(tip).is_err() || talk.is_behind(repository, &reference, tip) {
                talk.download(&[format!("+{reference}:{reference}")])?;
            }
            // A damaged cache may claim to have what it can't give, and nothing is sent then.
            repository.find_commit(tip)?.tree()?;
            Ok(tip)
        })
    }

    /// Brings all branches and tags here, and returns where they are.
    ///
    /// # Errors
    /// [`FetchFault`].
    pub fn everything(&self, repository: &Repository) -> Result<Vec<(String, Oid)>, FetchFault> {
        self.converse(repository, |talk| {
            talk.download(&["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"])?;
            let is_wanted =
                |name: &str| name.starts_with("refs/heads/") || name.starts_with("refs/tags/");
            let heads = talk.connection.list()?.iter();
            Ok(heads
                .map(|head| (head.name().to_owned(), head.oid()))
                // `TAG^{}` is what an annotated tag points at.
                .filter(|(name, _)| is_wanted(name) && !name.ends_with("^{}"))
                .collect())
        })
    }

    fn converse<T>(
        &self,
        repository: &Repository,
        talk: impl FnOnce(&mut Talk<'_, '_, '_>) -> Result<T, TalkFault>,
    ) -> Result<T, FetchFault> {
        let credentials =
            Credentials::gather(&self.remote, &self.credentials).map_err(FetchFault::Remote)?;
        let shared =
            Rc::new(Shared { credentials: RefCell::new(credentials), refusal: RefCell::default() });
        let remote = repository.remote_anonymous(self.remote.address());
        let result = remote.map_err(TalkFault::from).and_then(|mut remote| {
            let mut proxy = ProxyOptions::new();
            proxy.auto();
            let callbacks = Some(self.callbacks(&shared));
            let connection = remote.connect_auth(Direction::Fetch, callbacks, Some(proxy))?;
            talk(&mut Talk { connection, request: self, shared: &shared })
        });
        result.map_err(|fault| self.explain(fault, &shared))
    }

    /// What libgit2 asks while it talks.
    fn callbacks<'a>(&'a self, shared: &Rc<Shared>) -> RemoteCallbacks<'a> {
        let mut callbacks = RemoteCallbacks::new();
        let asked = shared.clone();
        callbacks.credentials(move |url, _, allowed| {
            let answer = asked.credentials.borrow_mut().answer(url, allowed);
            answer.inspect_err(|error| asked.refuse(error.message()))
        });
        let asked = shared.clone();
        callbacks.certificate_check(move |certificate, host| {
            // Certificates for TLS are checked by libgit2.
            let Some(key) = certificate.as_hostkey() else {
                return Ok(CertificateCheckStatus::CertificatePassthrough);
            };
            let port = self.remote.port().unwrap_or(22);
            let refusal = match key.hostkey() {
                Some(key) => hostkeys::refusal(&self.known_hosts, host, port, key),
                None => Some(hostkeys::unknown_host(&self.known_hosts, host, port)),
            };
            match refusal {
                None => Ok(CertificateCheckStatus::CertificateOk),
                Some(text) => {
                    asked.refuse(&text);
                    Err(git2::Error::new(ErrorCode::Certificate, ErrorClass::Ssh, text))
                }
            }
        });
        let asked = shared.clone();
        callbacks.transfer_progress(move |progress| {
            let is_huge = progress.received_bytes() as u64 > MOST_RECEIVED;
            if is_huge {
                let gigabytes = MOST_RECEIVED >> 30;
                asked.refuse(&format!(
                    "it has more than {gigabytes} GiB: give the manifests a repository of their own"
                ));
            }
            !is_huge && !self.is_cancelled()
        });
        callbacks.sideband_progress(|_| !self.is_cancelled());
        callbacks
    }

    /// True when nobody waits for the answer any more.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn explain(&self, fault: TalkFault, shared: &Shared) -> FetchFault {
        let error = match fault {
            _ if self.is_cancelled() => return FetchFault::Cancelled,
            TalkFault::NoBranch => return FetchFault::NoBranch,
            TalkFault::Git(error) => error,
        };
        let refusal = shared.refusal.borrow().clone();
        let is_remote = refusal.is_some() || is_of_the_remote(&error);
        let text = refusal.unwrap_or_else(|| error.message().to_owned());
        let text = shared.credentials.borrow().redact(&self.remote.redact(&text));
        let text: String =
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect();
        match is_remote {
            true => FetchFault::Remote(text),
            false => FetchFault::Local(text),
        }
    }
}

/// Whether the error tells of the remote or of the way to it, and not of our own files.
fn is_of_the_remote(error: &git2::Error) -> bool {
    use ErrorClass::{Callback, Http, Net, Ssh, Ssl};
    matches!(error.class(), Net | Ssh | Ssl | Http | Callback)
        || matches!(
            error.code(),
            ErrorCode::Auth | ErrorCode::Certificate | ErrorCode::User | ErrorCode::Timeout
        )
}

/// What the callbacks share with the conversation.
struct Shared {
    credentials: RefCell<Credentials>,
    /// Why a callback said no: libgit2 puts a text of its own in its place.
    refusal: RefCell<Option<String>>,
}

impl Shared {
    fn refuse(&self, text: &str) {
        *self.refusal.borrow_mut() = Some(text.to_owned());
    }
}

enum TalkFault {
    NoBranch,
    Git(git2::Error),
}

impl From<git2::Error> for TalkFault {
    fn from(error: git2::Error) -> Self {
        Self::Git(error)
    }
}

/// A connection that is open.
struct Talk<'repository, 'connection, 'request> {
    connection: git2::RemoteConnection<'repository, 'connection, 'request>,
    request: &'request Request,
    shared: &'request Rc<Shared>,
}

impl Talk<'_, '_, '_> {
    fn tip(&self, reference: &str) -> Result<Oid, TalkFault> {
        let heads = self.connection.list()?;
        heads
            .iter()
            .find(|head| head.name() == reference)
            .map(git2::RemoteHead::oid)
            .ok_or(TalkFault::NoBranch)
    }

    /// True where our branch isn't at the tip, so that a part of the history may be missing.
    fn is_behind(&self, repository: &Repository, reference: &str, tip: Oid) -> bool {
        repository.refname_to_id(reference).ok() != Some(tip)
    }

    fn download<S: AsRef<str>>(&mut self, refspecs: &[S]) -> Result<(), TalkFault> {
        let refspecs: Vec<&str> = refspecs.iter().map(AsRef::as_ref).collect();
        let mut proxy = ProxyOptions::new();
        proxy.auto();
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(self.request.callbacks(self.shared))
            .proxy_options(proxy)
            .download_tags(AutotagOption::None)
            .update_fetchhead(false);
        Ok(self.connection.remote().download(&refspecs, Some(&mut options))?)
    }
}
