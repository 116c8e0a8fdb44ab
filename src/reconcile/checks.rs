//! A health check that changes is given to every server of the app by one reload. Whether those
//! that serve pass it is found out before: else a wrong path would take down what works.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::join_all;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::model::{
    AdminState, App, AppId, BackendName, BalancerName, BalancerState, Check, CheckState, Desired,
    Observed, ProxyConfig, ProxyFile, ProxyProcess,
};
use crate::proxy::probe;

/// The apps whose declared check isn't that of a balancer's file. They are looked for where
/// something of it changed since the look before.
#[derive(Debug, Clone, Default)]
pub(super) struct Changing {
    apps: OrdMap<AppId, Arc<App>>,
    files: BTreeMap<BalancerName, Arc<ProxyConfig>>,
    candidates: BTreeSet<AppId>,
}

impl Changing {
    /// Takes what is declared and seen now.
    pub fn take(&mut self, desired: &Desired, observed: &Observed) {
        let files: BTreeMap<BalancerName, Arc<ProxyConfig>> = observed
            .balancers
            .iter()
            .filter_map(|(name, view)| match &view.seen()?.file {
                ProxyFile::Ours(config) => Some((name.clone(), config.clone())),
                ProxyFile::Missing | ProxyFile::Damaged { .. } => None,
            })
            .collect();
        let same_backends = |(name, now): (&BalancerName, &Arc<ProxyConfig>)| {
            self.files.get(name).is_some_and(|before| {
                Arc::ptr_eq(before, now) || before.structure.backends == now.structure.backends
            })
        };
        let same = files.len() == self.files.len() && files.iter().all(same_backends);
        let differs = |app: &App| {
            let backend = BackendName::stable(app.id.clone());
            let balancers: BTreeSet<_> = app.routes.iter().map(|route| &route.balancer).collect();
            let mut files = balancers.into_iter().filter_map(|name| files.get(name));
            let check = app.check();
            files.any(|config| checks_otherwise(config, &backend, &check))
        };
        if same {
            for difference in self.apps.diff(&desired.apps) {
                match difference {
                    DiffItem::Add(id, app) | DiffItem::Update { new: (id, app), .. }
                        if differs(app) =>
                    {
                        self.candidates.insert(id.clone());
                    }
                    DiffItem::Add(id, _)
                    | DiffItem::Update { new: (id, _), .. }
                    | DiffItem::Remove(id, _) => drop(self.candidates.remove(id)),
                }
            }
        } else {
            let differing = desired.apps.values().filter(|app| differs(app));
            self.candidates = differing.map(|app| app.id.clone()).collect();
        }
        self.apps = desired.apps.clone();
        self.files = files;
    }

    /// Of these apps, those whose servers don't pass the declared check, and why.
    pub async fn failing(&self, observed: &Observed) -> BTreeMap<AppId, String> {
        let apps = self.candidates.iter().filter_map(|id| self.apps.get(id));
        let questions = apps.filter_map(|app| {
            let servers = servers_to_ask(app, observed);
            (!servers.is_empty()).then_some(async move {
                let check = app.check();
                let answers = join_all(servers.iter().map(|server| ask(*server, &check))).await;
                let failed: Vec<String> = answers.into_iter().filter_map(Result::err).collect();
                (!failed.is_empty()).then(|| (app.id.clone(), failed.join("; ")))
            })
        });
        join_all(questions).await.into_iter().flatten().collect()
    }
}

/// One failure may be chance; two in a row are an answer.
async fn ask(server: SocketAddr, check: &Check) -> Result<(), String> {
    let timeout = check.timeout.duration();
    match probe(server, check.path.as_ref(), timeout).await {
        Ok(()) => Ok(()),
        Err(_) => probe(server, check.path.as_ref(), timeout).await,
    }
}

/// The servers that requests go to, at balancers that check them in another way than declared.
fn servers_to_ask(app: &App, observed: &Observed) -> Vec<SocketAddr> {
    let check = app.check();
    let backend = BackendName::stable(app.id.clone());
    let balancers: std::collections::BTreeSet<_> =
        app.routes.iter().map(|route| &route.balancer).collect();
    let states = balancers.into_iter().filter_map(|name| observed.balancer(name));
    let changing = states.filter(|state| match &state.file {
        ProxyFile::Ours(config) => checks_otherwise(config, &backend, &check),
        ProxyFile::Missing | ProxyFile::Damaged { .. } => false,
    });
    let mut servers: Vec<SocketAddr> =
        changing.flat_map(|state| serving(state, &backend)).collect();
    servers.sort_unstable();
    servers.dedup();
    servers
}

/// Of a kind of check only the path matters here: how often it is made takes nobody down.
fn checks_otherwise(config: &ProxyConfig, backend: &BackendName, check: &Check) -> bool {
    let now = config.structure.backends.get(backend);
    now.is_some_and(|now| now.check.path != check.path || now.check.timeout > check.timeout)
}

fn serving(state: &BalancerState, backend: &BackendName) -> Vec<SocketAddr> {
    let ProxyProcess::Up(runtime) = &state.process else { return Vec::new() };
    let servers = runtime.servers.get(backend).into_iter().flat_map(BTreeMap::values);
    let serves = servers.filter(|server| {
        server.weight > 0 && server.admin == AdminState::Ready && server.check == CheckState::Up
    });
    serves.map(|server| server.address).collect()
}
