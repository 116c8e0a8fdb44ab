//! Engines and HAProxies to one snapshot, all at the same time. What doesn't answer in time is
//! recorded as unseen, with the reason, and holds up nothing else: its call goes on in the
//! background, no second one is made beside it, and when it ends the loop is woken. What such a
//! late call says is thrown away: it may be older than what was done since.
//!
//! A host whose events are heard isn't asked again before one comes, or `FRESH` has passed:
//! the list is the truth, the events only say when to read it. Nothing is decided here.

mod looks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::docker::Engine;
use crate::model::{BalancerName, BalancerState, HostName, HostState, Observed, Owner, View};
use crate::proxy::Proxy;

use looks::Looks;

/// How long one look waits for a host or balancer that answered the last time. A list of a few
/// hundred containers takes an engine some tens of milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a list is good where no event says otherwise. Engines drop events under load: this
/// is what heals that.
const FRESH: Duration = Duration::from_secs(30);

/// Where to look, and whose containers to see.
pub struct Observer {
    pub owner: Owner,
    pub engines: BTreeMap<HostName, Arc<dyn Engine>>,
    pub proxies: BTreeMap<BalancerName, Arc<dyn Proxy>>,
}

/// Looks, and remembers which calls are still on their way.
pub struct Sight {
    hosts: Looks<HostName, HostState>,
    balancers: Looks<BalancerName, BalancerState>,
    kept: Mutex<BTreeMap<HostName, Kept>>,
}

/// What is known of a host between two lists.
#[derive(Debug, Default)]
struct Kept {
    /// Its events are heard.
    heard: bool,
    /// Counts the reasons to look again.
    stirs: u64,
    /// The last list, when it was asked for, and the reasons counted by then.
    list: Option<(Arc<HostState>, Instant, u64)>,
}

impl Sight {
    /// `woken` is told when something that didn't answer in time did so later.
    pub fn new(woken: Arc<Notify>) -> Self {
        let (hosts, balancers) = (Looks::new(woken.clone()), Looks::new(woken));
        Self { hosts, balancers, kept: Mutex::default() }
    }

    /// Says whether a host's events are heard from now on.
    pub fn hear(&self, host: &HostName, heard: bool) {
        let mut kept = self.kept();
        let kept = kept.entry(host.clone()).or_default();
        kept.heard = heard;
        kept.stirs += 1;
    }

    /// Something happened at a host, or was done there: its last list is old.
    pub fn stir(&self, host: &HostName) {
        self.kept().entry(host.clone()).or_default().stirs += 1;
    }

    /// Looks at everything at once. `lazy`: a list that is good is taken again.
    pub async fn look(&self, observer: &Observer, lazy: bool) -> Observed {
        let hosts = join_all(
            observer.engines.iter().map(|(name, engine)| self.host(observer, name, engine, lazy)),
        );
        let balancers = join_all(observer.proxies.iter().map(|(name, proxy)| {
            let proxy = proxy.clone();
            self.balancers.look(name, PATIENCE, async move {
                proxy.observe().await.map_err(|error| error.to_string())
            })
        }));
        let (hosts, balancers) = join(hosts, balancers).await;
        let balancers = balancers.into_iter().map(|(name, view)| (name, view.map(Arc::new)));
        Observed { hosts: hosts.into_iter().collect(), balancers: balancers.collect() }
    }

    async fn host(
        &self,
        observer: &Observer,
        name: &HostName,
        engine: &Arc<dyn Engine>,
        lazy: bool,
    ) -> (HostName, View<Arc<HostState>>) {
        if let Some(good) = self.good(name).filter(|_| lazy) {
            return (name.clone(), View::Seen(good));
        }
        let stirs = self.kept().entry(name.clone()).or_default().stirs;
        let asked = Instant::now();
        let (engine, owner) = (engine.clone(), observer.owner.clone());
        let call = async move { engine.observe(&owner).await.map_err(|error| error.to_string()) };
        let (name, view) = self.hosts.look(name, PATIENCE, call).await;
        let view = view.map(Arc::new);
        if let Some(kept) = self.kept().get_mut(&name) {
            kept.list = view.seen().map(|state| (state.clone(), asked, stirs));
        }
        (name, view)
    }

    /// The last list of a host, where nothing speaks against it.
    fn good(&self, name: &HostName) -> Option<Arc<HostState>> {
        let kept = self.kept();
        let kept = kept.get(name)?;
        let (state, asked, stirs) = kept.list.as_ref()?;
        let good = kept.heard && kept.stirs == *stirs && asked.elapsed() < FRESH;
        good.then(|| state.clone())
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<HostName, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
