//! One installation, seen from one process.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use imbl::OrdMap;
use tokio::sync::{Notify, RwLock, broadcast};

use crate::api::OperationError;
use crate::clock::{Clock, Random, Randomness, SystemClock};
use crate::docker::{DockerEngines, EngineOptions, Engines};
use crate::execute::Limits;
use crate::manifest::Reader;
use crate::model::{
    AppId, Balancer, BalancerName, CommitId, Desired, Event, EventType, Host, HostName,
};
use crate::observe::{Observer, Sight};
use crate::plan::Planner;
use crate::proxy::{HaproxyProxies, Proxies};
use crate::source::{
    CredentialOptions, GitSource, SecretFolder, Source, SourceOptions, WorktreeSource,
};
use crate::store::{SledStore, Store};

use super::ControllerOptions;
use super::checks::Changing;
use super::images::Resolutions;
use super::knowledge::Knowledge;
use super::memory::Memory;
use super::pointed::Pointed;
use super::situation::{Reading, Situation};
use super::status::Written;

/// How many events may wait for a slow reader before it misses some.
const EVENT_BACKLOG: usize = 1024;

/// What a controller is made of: the seams of the loop.
pub struct Parts {
    pub source: Arc<dyn Source>,
    pub secrets: SecretFolder,
    pub engines: Arc<dyn Engines>,
    pub proxies: Arc<dyn Proxies>,
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub randomness: Arc<dyn Randomness>,
}

/// One installation, seen from one process.
pub struct Controller {
    pub(super) parts: Parts,
    pub(super) memory: Memory,
    pub(super) state: PathBuf,
    pub(super) options: ControllerOptions,
    pub(super) reader: Mutex<Reader>,
    /// That of the loop, and of what is applied by hand.
    pub(super) planner: Mutex<Planner>,
    pub(super) resolutions: Mutex<Resolutions>,
    pub(super) recollection: Mutex<Recollection>,
    pub(super) events: broadcast::Sender<Event>,
    /// Somebody wants the loop to look now.
    pub(super) wake: Arc<Notify>,
    pub(super) sight: Sight,
    pub(super) limits: Arc<Limits>,
    /// Held for reading by all that executes; an `apply` takes it alone.
    pub(super) gate: Arc<RwLock<()>>,
}

/// Where the last look looked, and what tells that it is still there.
pub(super) struct KnownObserver {
    pub hosts: OrdMap<HostName, Arc<Host>>,
    pub departed: BTreeMap<HostName, Host>,
    pub balancers: BTreeMap<BalancerName, Balancer>,
    pub observer: Arc<Observer>,
}

/// Of which hosts, known and declared, which aren't declared any more.
pub(super) struct KnownDeparted {
    pub known: OrdMap<HostName, Arc<Host>>,
    pub declared: OrdMap<HostName, Arc<Host>>,
    /// How many were declared by documents with mistakes.
    pub broken: usize,
    pub departed: BTreeMap<HostName, Host>,
}

/// What a process remembers between two looks without writing it down: all of it is found out
/// again.
#[derive(Default)]
pub(super) struct Recollection {
    /// The commit that was read last.
    pub read: Option<Arc<Reading>>,
    /// What the last applied commit declared.
    pub applied: Option<(CommitId, Arc<Desired>)>,
    /// Where balancers pointed to when they were seen last.
    pub pointed: Pointed,
    pub knowledge: Knowledge,
    pub changing: Changing,
    pub observer: Option<KnownObserver>,
    pub departed: Option<KnownDeparted>,
    /// Ports that somebody else turned out to have.
    pub taken_ports: BTreeMap<HostName, BTreeSet<u16>>,
    /// What was written to the store last, and the apps that were planned since then.
    pub written: Option<Written>,
    pub unwritten: BTreeSet<AppId>,
    /// The last look, for `status`.
    pub last: Option<Arc<Situation>>,
    pub source_error: Option<String>,
    /// Why the last reload of a balancer failed.
    pub balancer_troubles: BTreeMap<BalancerName, String>,
    /// What went wrong last with an app's steps, of those that haven't succeeded since.
    pub app_troubles: BTreeMap<AppId, String>,
    /// Apps whose steps are being executed now.
    pub busy: BTreeSet<AppId>,
    /// True where a loop runs in this process.
    pub looping: bool,
    pub counters: BTreeMap<String, u64>,
    /// Somebody asked for a look at the remote.
    pub fetch_wanted: bool,
}

impl Controller {
    /// Opens the store and the source. Nothing is looked at yet.
    ///
    /// # Errors
    /// The store is held by another process or can't be read, or `repo` is no repository.
    pub fn open(options: ControllerOptions) -> Result<Arc<Self>, OperationError> {
        let opened = SledStore::open(&options.state).map_err(|error| {
            OperationError::because("the state can't be opened", &error)
                .hint("is another Plimsoll at work? `plimsoll status` asks it")
        })?;
        let source = open_source(&options)?;
        let engine_options = EngineOptions {
            docker_config: options.docker_config.clone(),
            known_hosts: options.git.known_hosts.clone(),
            ..EngineOptions::default()
        };
        let parts = Parts {
            source,
            secrets: SecretFolder::new(&options.secrets),
            engines: Arc::new(DockerEngines::new(engine_options)),
            proxies: Arc::new(HaproxyProxies::new(
                &options.state,
                options.haproxy.to_string_lossy(),
            )),
            store: Arc::new(opened.store),
            clock: Arc::new(SystemClock),
            randomness: Arc::new(Random::from_os()),
        };
        let controller = Arc::new(Self::new(options, parts));
        for note in opened.notes {
            tracing::warn!("{note}");
            controller.event(EventType::Warning, "StoreRepaired", "Installation", &note);
        }
        Ok(controller)
    }

    /// A controller of these parts.
    pub fn new(options: ControllerOptions, parts: Parts) -> Self {
        let wake = Arc::new(Notify::new());
        Self {
            sight: Sight::new(wake.clone()),
            limits: Arc::default(),
            memory: Memory::new(parts.store.clone()),
            parts,
            state: options.state.clone(),
            options,
            reader: Mutex::new(Reader::new()),
            planner: Mutex::default(),
            resolutions: Mutex::default(),
            recollection: Mutex::default(),
            events: broadcast::channel(EVENT_BACKLOG).0,
            wake,
            gate: Arc::default(),
        }
    }

    pub(super) fn recollect(&self) -> MutexGuard<'_, Recollection> {
        self.recollection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, counter: &str, by: u64) {
        *self.recollect().counters.entry(counter.to_owned()).or_default() += by;
    }

    /// How often what was done, of this process since it began.
    pub(super) fn counters(&self, recollection: &Recollection) -> BTreeMap<String, u64> {
        let mut counters = recollection.counters.clone();
        counters.insert("blobsRead".into(), self.parts.source.blobs_read());
        counters.insert("engineCalls".into(), self.parts.engines.calls());
        counters.insert("haproxyCalls".into(), self.parts.proxies.calls());
        for name in ["appsPlanned", "filesParsed", "looks", "objectsWritten", "plans", "steps"] {
            counters.entry(name.into()).or_default();
        }
        counters
    }

    /// Writes down that something happened, and tells those who follow.
    pub(super) fn event(&self, kind: EventType, reason: &str, object: &str, message: &str) {
        let event = Event {
            time: self.parts.clock.now(),
            kind,
            reason: reason.to_owned(),
            object: object.to_owned(),
            message: message.to_owned(),
        };
        // The store says by itself, and once, that the disk fails; it writes the event later.
        if let Err(error) = self.parts.store.record(event.clone()) {
            tracing::debug!(%error, "an event isn't on the disk yet");
        }
        // Nobody may be following.
        let _ = self.events.send(event);
    }
}

/// The repository, or the folder, that the options name.
///
/// # Errors
/// It is neither a folder nor a git URL.
pub fn open_source(options: &ControllerOptions) -> Result<Arc<dyn Source>, OperationError> {
    let failed = |error: crate::source::SourceError| {
        OperationError::because("the manifest repository can't be opened", &error)
            .hint("name it with --repo: a folder, or a git URL")
    };
    if options.worktree {
        let folder = PathBuf::from(&options.repo);
        let source = WorktreeSource::open(&folder, options.path.as_deref()).map_err(failed)?;
        return Ok(Arc::new(source));
    }
    let mut source = SourceOptions::new(&options.repo, options.state.join("source"));
    source.branch = options.branch.clone();
    source.path = options.path.clone();
    source.known_hosts = options.git.known_hosts.clone();
    source.credentials = CredentialOptions {
        ssh_key: options.git.ssh_key.clone(),
        token_file: options.git.token_file.clone(),
        username: options.git.username.clone(),
    };
    Ok(Arc::new(GitSource::open(source).map_err(failed)?))
}
