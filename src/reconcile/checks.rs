//! A health check that changes is given to every server of the app by one reload. Whether those
//! that serve pass it is found out before: else a wrong path would take down what works.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use futures_util::future::join_all;

use crate::model::{
    AdminState, App, AppId, BackendName, BalancerState, Check, CheckState, Desired, Observed,
    ProxyFile, ProxyProcess,
};
use crate::proxy::probe;

/// The apps whose check changes, and which of their servers don't pass the new one, and why.
pub(super) async fn failing_checks(
    desired: &Desired,
    observed: &Observed,
) -> BTreeMap<AppId, String> {
    let questions = desired.apps.values().filter_map(|app| {
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
    let changing = states.filter(|state| checks_otherwise(state, &backend, &check));
    let mut servers: Vec<SocketAddr> =
        changing.flat_map(|state| serving(state, &backend)).collect();
    servers.sort_unstable();
    servers.dedup();
    servers
}

/// Of a kind of check only the path matters here: how often it is made takes nobody down.
fn checks_otherwise(state: &BalancerState, backend: &BackendName, check: &Check) -> bool {
    let ProxyFile::Ours(config) = &state.file else { return false };
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
