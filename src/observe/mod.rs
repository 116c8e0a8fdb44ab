//! Engines and HAProxies to one snapshot, all at the same time. What doesn't answer is recorded
//! as unseen, with the reason, and holds up nothing else. Nothing is decided here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::docker::Engine;
use crate::model::{BalancerName, HostName, Observed, Owner, View};
use crate::proxy::Proxy;

/// How long one host or balancer may take before it counts as unseen. A list of a few hundred
/// containers takes an engine some tens of milliseconds.
const PATIENCE: Duration = Duration::from_secs(12);

/// Where to look.
pub struct Observer {
    pub owner: Owner,
    pub engines: BTreeMap<HostName, Arc<dyn Engine>>,
    pub proxies: BTreeMap<BalancerName, Arc<dyn Proxy>>,
}

impl Observer {
    /// Looks at everything at once.
    pub async fn look(&self) -> Observed {
        let hosts = join_all(self.engines.iter().map(|(name, engine)| async move {
            (name.clone(), within(engine.observe(&self.owner)).await)
        }));
        let balancers = join_all(
            self.proxies
                .iter()
                .map(|(name, proxy)| async move { (name.clone(), within(proxy.observe()).await) }),
        );
        let (hosts, balancers) = futures_util::future::join(hosts, balancers).await;
        Observed { hosts: hosts.into_iter().collect(), balancers: balancers.into_iter().collect() }
    }
}

/// The view that a look gives: seen, or the reason why not.
async fn within<T, E: std::error::Error>(look: impl Future<Output = Result<T, E>>) -> View<T> {
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(Ok(state)) => View::Seen(state),
        Ok(Err(error)) => View::Unseen { reason: error.to_string() },
        Err(_) => View::Unseen { reason: format!("no answer within {} s", PATIENCE.as_secs()) },
    }
}
