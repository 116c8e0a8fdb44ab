//! Engines and HAProxies to one snapshot, all at the same time. What doesn't answer in time is
//! recorded as unseen, with the reason, and holds up nothing else: its call goes on in the
//! background, no second one is made beside it, and when it ends the loop is woken. What such a
//! late call says is thrown away: it may be older than what was done since. Nothing is decided
//! here.

mod looks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::sync::Notify;

use crate::docker::Engine;
use crate::model::{BalancerName, BalancerState, HostName, HostState, Observed, Owner};
use crate::proxy::Proxy;

use looks::Looks;

/// How long one look waits for a host or balancer that answered the last time. A list of a few
/// hundred containers takes an engine some tens of milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

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
}

impl Sight {
    /// `woken` is told when something that didn't answer in time did so later.
    pub fn new(woken: Arc<Notify>) -> Self {
        Self { hosts: Looks::new(woken.clone()), balancers: Looks::new(woken) }
    }

    /// Looks at everything at once.
    pub async fn look(&self, observer: &Observer) -> Observed {
        let hosts = join_all(observer.engines.iter().map(|(name, engine)| {
            let (engine, owner) = (engine.clone(), observer.owner.clone());
            self.hosts.look(name, PATIENCE, async move {
                engine.observe(&owner).await.map_err(|error| error.to_string())
            })
        }));
        let balancers = join_all(observer.proxies.iter().map(|(name, proxy)| {
            let proxy = proxy.clone();
            self.balancers.look(name, PATIENCE, async move {
                proxy.observe().await.map_err(|error| error.to_string())
            })
        }));
        let (hosts, balancers) = join(hosts, balancers).await;
        Observed { hosts: hosts.into_iter().collect(), balancers: balancers.into_iter().collect() }
    }
}
