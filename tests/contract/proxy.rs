//! What both balancers keep: structure, routes, servers and weights, each done twice as well.

use std::collections::BTreeMap;

use plimsoll::model::{
    AdminState, CheckState, Listener, ProxyFile, ProxyProcess, RouteKey, Server,
};
use plimsoll::proxy::ProxyError;

use crate::proxy_lab::{A, B, Case, Hand, OTHER, ProxyLab, ROUTE, WEB, backend, server};

/// A refusal of HAProxy's, or in its stead, which is for good.
fn refused<T: std::fmt::Debug>(result: Result<T, ProxyError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, ProxyError::Refused { .. }), "{error}");
    assert!(!error.may_pass());
}

fn unreachable<T: std::fmt::Debug>(result: Result<T, ProxyError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, ProxyError::Unreachable { .. }), "{error}");
    assert!(error.may_pass());
}

fn of_file<T: std::fmt::Debug>(result: Result<T, ProxyError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, ProxyError::File { .. }), "{error}");
    assert!(!error.may_pass());
}

pub async fn nothing_is_there(lab: &dyn ProxyLab) {
    let (case, proxy) = (Case::new(lab), lab.proxy());
    let state = case.state().await;
    assert_eq!(state.file, ProxyFile::Missing);
    assert!(matches!(state.process, ProxyProcess::Down { .. }));
    let (backend, name) = (backend(WEB), server(A));
    let (server, sessions, cut) = tokio::join!(
        proxy.server(&backend, &name),
        proxy.sessions(&backend, &name),
        proxy.cut_sessions(&backend, &name),
    );
    unreachable(server);
    unreachable(sessions);
    unreachable(cut);
    // What is changed is changed in a file that is whole.
    of_file(case.route(ROUTE, Some(WEB)).await);
    of_file(case.add(A, lab.free_address()).await);
    of_file(case.weigh(A, 0).await);
    of_file(case.remove(A).await);
    assert!(!proxy.version().await.unwrap().is_empty());
    assert_eq!(case.state().await, state);
}

pub async fn a_structure_is_made_once(lab: &dyn ProxyLab) {
    let (case, proxy) = (Case::new(lab), lab.proxy());
    let first = case.structure(&[WEB]);
    proxy.restructure(&first).await.unwrap();
    assert_eq!(case.runtime().await.structure, Some(first.digest()));
    assert_eq!(case.file().await.structure, first);
    let begun = lab.generation().await;
    proxy.restructure(&first).await.unwrap();
    assert_eq!(lab.generation().await, begun, "a reload for nothing");
    // Also for another that knows nothing of it.
    lab.another().restructure(&first).await.unwrap();
    assert_eq!(lab.generation().await, begun, "a reload for nothing");
    assert_eq!(lab.another().observe().await.unwrap(), case.state().await);

    let second = case.structure(&[WEB, OTHER]);
    proxy.restructure(&second).await.unwrap();
    assert_ne!(lab.generation().await, begun);
    assert_eq!(case.runtime().await.structure, Some(second.digest()));
    assert!(proxy.version().await.is_ok());
}

pub async fn a_new_backend_is_empty_and_what_stays_is_kept(lab: &dyn ProxyLab) {
    let (case, address) = Case::serving(lab).await;
    let proxy = lab.proxy();
    proxy.restructure(&case.structure(&[WEB, OTHER])).await.unwrap();
    case.route("web other.example.com/", Some(OTHER)).await.unwrap();
    let (file, runtime) = (case.file().await, case.runtime().await);
    let kept = BTreeMap::from([(server(A), Server { address, weight: 100 })]);
    let expected = BTreeMap::from([(backend(OTHER), BTreeMap::new()), (backend(WEB), kept)]);
    assert_eq!(file.servers, expected);
    // Of the process only backends with servers are told.
    assert_eq!(runtime.servers.keys().collect::<Vec<_>>(), [&backend(WEB)]);
    assert_eq!(runtime.servers[&backend(WEB)][&server(A)].weight, 100);
    assert_eq!((file.routes.len(), &runtime.routes), (2, &file.routes));
    assert_eq!(proxy.server(&backend(OTHER), &server(A)).await.unwrap(), None);
    // Without its backend a route goes too.
    proxy.restructure(&case.structure(&[WEB])).await.unwrap();
    let (file, runtime) = (case.file().await, case.runtime().await);
    assert_eq!(file.routes, BTreeMap::from([(ROUTE.parse().unwrap(), backend(WEB))]));
    assert_eq!(runtime.routes, file.routes);
    assert_eq!(case.weights(A).await, (Some(100), Some(100)));
}

pub async fn routes_are_set_and_removed(lab: &dyn ProxyLab) {
    let case = Case::new(lab);
    lab.proxy().restructure(&case.structure(&[WEB, OTHER])).await.unwrap();
    let begun = lab.generation().await;
    let routes = async || {
        let (file, runtime) = (case.file().await, case.runtime().await);
        assert_eq!(file.routes, runtime.routes);
        file.routes.clone()
    };
    let key: RouteKey = ROUTE.parse().unwrap();
    for (to, expected) in [
        (Some(WEB), BTreeMap::from([(key.clone(), backend(WEB))])),
        (Some(OTHER), BTreeMap::from([(key.clone(), backend(OTHER))])),
        (None, BTreeMap::new()),
    ] {
        for _ in 0..2 {
            case.route(ROUTE, to).await.unwrap();
            assert_eq!(routes().await, expected);
        }
    }
    // A change of many is one.
    let more: RouteKey = "web *.example.com/a".parse().unwrap();
    case.route(ROUTE, Some(WEB)).await.unwrap();
    let changes = BTreeMap::from([(key, None), (more.clone(), Some(backend(OTHER)))]);
    lab.proxy().set_routes(&changes).await.unwrap();
    assert_eq!(routes().await, BTreeMap::from([(more, backend(OTHER))]));
    assert_eq!(lab.generation().await, begun);
}

pub async fn a_route_to_nowhere_changes_nothing(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    let before = case.state().await;
    for (key, to) in [("web x.example.com/", OTHER), ("secure x.example.com/", WEB)] {
        let error = case.route(key, Some(to)).await.unwrap_err();
        assert!(matches!(error, ProxyError::Lint(_)), "{error}");
        assert!(!error.may_pass());
        assert_eq!(case.state().await, before);
    }
}

pub async fn a_server_joins_with_weight_0(lab: &dyn ProxyLab) {
    let case = Case::new(lab);
    lab.proxy().restructure(&case.structure(&[WEB])).await.unwrap();
    let begun = lab.generation().await;
    let address = lab.begin_web().await;
    case.add(A, address).await.unwrap();
    for _ in 0..2 {
        let (file, process) = case.seen(A).await;
        assert_eq!(file, Some(Server { address, weight: 0 }));
        let process = process.unwrap();
        assert_eq!((process.address, process.weight), (address, 0));
        assert_eq!(process.admin, AdminState::Ready);
        case.until_check(A, CheckState::Up).await;
        case.add(A, address).await.unwrap();
    }
    // Added again it keeps the weight that it has by now.
    case.weigh(A, 70).await.unwrap();
    case.add(A, address).await.unwrap();
    assert_eq!(case.weights(A).await, (Some(70), Some(70)));

    let before = case.state().await;
    refused(case.add(A, lab.free_address()).await);
    let new = Server { address, weight: 0 };
    refused(lab.proxy().add_server(&backend(OTHER), &server(A), &new).await);
    assert_eq!(case.state().await, before);
    assert_eq!(lab.generation().await, begun);
}

pub async fn weights_go_up_and_down(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    let begun = lab.generation().await;
    for weight in [7, 256, 256, 1, 0, 0, 33] {
        case.weigh(A, weight).await.unwrap();
        assert_eq!(case.weights(A).await, (Some(weight), Some(weight)));
        assert_eq!(case.there(A).await.unwrap().weight, weight);
    }
    let before = case.state().await;
    refused(case.weigh(A, 257).await);
    refused(case.weigh(B, 1).await);
    refused(lab.proxy().set_weight(&backend(OTHER), &server(A), 1).await);
    // No weight is what one that isn't there has.
    case.weigh(B, 0).await.unwrap();
    lab.proxy().set_weight(&backend(OTHER), &server(A), 0).await.unwrap();
    assert_eq!(case.state().await, before);
    assert_eq!(lab.generation().await, begun);
}

/// H10.
pub async fn what_a_person_did_to_a_weight_is_seen_and_undone(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    case.by_hand(A, Hand::Weigh(5)).await;
    case.by_hand(A, Hand::Drain).await;
    assert_eq!(case.weights(A).await, (Some(100), Some(5)));
    assert_eq!(case.there(A).await.unwrap().admin, AdminState::Drain);
    case.weigh(A, 100).await.unwrap();
    assert_eq!(case.weights(A).await, (Some(100), Some(100)));
    assert_eq!(case.there(A).await.unwrap().admin, AdminState::Ready);
}

/// In maintenance a server isn't checked, and isn't up; added again it is, without a weight.
pub async fn what_a_person_keeps_from_work_is_added_again(lab: &dyn ProxyLab) {
    let (case, address) = Case::serving(lab).await;
    case.by_hand(A, Hand::Maintain).await;
    let there = case.there(A).await.unwrap();
    assert_eq!((there.admin, there.check), (AdminState::Maintenance, CheckState::Down));
    case.add(A, address).await.unwrap();
    let there = case.there(A).await.unwrap();
    assert_eq!((there.admin, there.weight), (AdminState::Ready, 0));
    case.until_check(A, CheckState::Up).await;
    assert_eq!(case.weights(A).await, (Some(100), Some(0)));
    case.weigh(A, 100).await.unwrap();
    assert_eq!(case.weights(A).await, (Some(100), Some(100)));
}

/// H9.
pub async fn a_server_that_only_the_file_has(lab: &dyn ProxyLab) {
    let (case, address) = Case::serving(lab).await;
    case.by_hand(A, Hand::Delete).await;
    assert_eq!(case.there(A).await, None);
    refused(case.weigh(A, 50).await);
    refused(case.weigh(A, 200).await);
    // Its way back is to be added, without a weight.
    case.add(A, address).await.unwrap();
    assert_eq!(case.weights(A).await, (Some(0), Some(0)));
    case.until_check(A, CheckState::Up).await;
    case.weigh(A, 100).await.unwrap();
    // Its way out begins with weight 0.
    case.by_hand(A, Hand::Delete).await;
    for _ in 0..2 {
        case.weigh(A, 0).await.unwrap();
        assert_eq!(case.weights(A).await, (Some(0), None));
        assert_eq!(case.sessions(A).await, 0);
    }
    lab.proxy().cut_sessions(&backend(WEB), &server(A)).await.unwrap();
    case.remove(A).await.unwrap();
    assert_eq!(case.seen(A).await, (None, None));
}

pub async fn a_server_that_only_the_process_has(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    let address = lab.begin_web().await;
    case.by_hand(B, Hand::Add(address, 100)).await;
    assert_eq!(case.weights(B).await, (None, Some(100)));
    refused(case.weigh(B, 50).await);
    for _ in 0..2 {
        case.weigh(B, 0).await.unwrap();
        assert_eq!(case.weights(B).await, (None, Some(0)));
    }
    case.until("its requests have ended", async || case.sessions(B).await == 0).await;
    case.remove(B).await.unwrap();
    assert_eq!(case.seen(B).await, (None, None));
}

pub async fn a_server_leaves(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    let begun = lab.generation().await;
    case.weigh(A, 0).await.unwrap();
    case.until("its requests have ended", async || case.sessions(A).await == 0).await;
    for _ in 0..2 {
        case.remove(A).await.unwrap();
        assert_eq!(case.seen(A).await, (None, None));
        assert_eq!(case.there(A).await, None);
        assert_eq!(case.sessions(A).await, 0);
    }
    assert_eq!(case.file().await.servers[&backend(WEB)], BTreeMap::new());
    lab.proxy().remove_server(&backend(OTHER), &server(A)).await.unwrap();
    lab.proxy().cut_sessions(&backend(OTHER), &server(A)).await.unwrap();
    assert_eq!(lab.proxy().sessions(&backend(OTHER), &server(A)).await.unwrap(), 0);
    assert_eq!(lab.generation().await, begun);
}

pub async fn a_server_with_sessions_stays(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    lab.open_tunnel(&backend(WEB), &server(A)).await;
    case.until("a session", async || case.sessions(A).await > 0).await;
    case.weigh(A, 0).await.unwrap();
    assert_eq!(case.sessions(A).await, 1, "a tunnel outlives its server's weight");
    let before = case.seen(A).await;
    refused(case.remove(A).await);
    assert_eq!(case.seen(A).await, before);
    for _ in 0..2 {
        lab.proxy().cut_sessions(&backend(WEB), &server(A)).await.unwrap();
        case.until("the end of the tunnel", async || case.sessions(A).await == 0).await;
    }
    case.remove(A).await.unwrap();
    assert_eq!(case.seen(A).await, (None, None));
}

/// A tunnel goes on in the worker that it began in, and counts there.
pub async fn an_old_worker_has_what_began_in_it(lab: &dyn ProxyLab) {
    let (case, address) = Case::serving(lab).await;
    lab.open_tunnel(&backend(WEB), &server(A)).await;
    case.until("a session", async || case.sessions(A).await > 0).await;
    assert!(case.runtime().await.old_addresses.is_empty());
    lab.proxy().restructure(&case.structure(&[WEB, OTHER])).await.unwrap();
    case.weigh(A, 0).await.unwrap();
    case.until("only the tunnel is left", async || case.sessions(A).await == 1).await;
    assert!(case.runtime().await.old_addresses.contains(&address));
    refused(case.remove(A).await);
    lab.proxy().cut_sessions(&backend(WEB), &server(A)).await.unwrap();
    case.until("the end of the tunnel", async || case.sessions(A).await == 0).await;
    let ended = async || case.runtime().await.old_addresses.is_empty();
    case.until("the end of the old worker", ended).await;
    case.remove(A).await.unwrap();
}

pub async fn two_listeners_on_one_address_change_nothing(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    let (before, begun) = (case.state().await, lab.generation().await);
    let mut structure = case.structure(&[WEB]);
    let again = Listener { bind: lab.listens_at().0, certificates: None };
    structure.listeners.insert("again".parse().unwrap(), again);
    let error = lab.proxy().restructure(&structure).await.unwrap_err();
    assert!(matches!(error, ProxyError::Lint(_)), "{error}");
    assert!(!error.may_pass());
    assert_eq!((case.state().await, lab.generation().await), (before, begun));
}

/// H2.
pub async fn an_address_that_is_taken_changes_nothing(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    let (before, begun) = (case.state().await, lab.generation().await);
    let taken = lab.free_address();
    let held = lab.hold(taken).await;
    let mut with_listener = case.structure(&[WEB]);
    let more = Listener { bind: taken, certificates: None };
    with_listener.listeners.insert("more".parse().unwrap(), more);
    let mut with_stats = case.structure(&[WEB]);
    with_stats.stats = Some(taken);
    for structure in [&with_listener, &with_stats] {
        let error = lab.proxy().restructure(structure).await.unwrap_err();
        assert!(matches!(error, ProxyError::Bind { address, .. } if address == taken), "{error}");
        assert!(!error.may_pass());
        assert_eq!((case.state().await, lab.generation().await), (before.clone(), begun));
    }
    drop(held);
    lab.proxy().restructure(&with_listener).await.unwrap();
    assert_eq!(case.runtime().await.structure, Some(with_listener.digest()));
}

/// H14.
pub async fn a_frozen_process_is_unreachable(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    let (proxy, backend, name) = (lab.proxy(), backend(WEB), server(A));
    lab.freeze().await;
    // A look waits for changes, and both would wait in vain, one after the other.
    let other = lab.another();
    let (server, sessions, weighed, seen) = tokio::join!(
        proxy.server(&backend, &name),
        proxy.sessions(&backend, &name),
        proxy.set_weight(&backend, &name, 200),
        other.observe(),
    );
    unreachable(server);
    unreachable(sessions);
    unreachable(weighed);
    unreachable(seen);
    lab.thaw().await;
    // A weight that goes up is in the file when it is known to be in the process.
    assert_eq!(case.file().await.servers[&backend][&name].weight, 100);
    case.weigh(A, 200).await.unwrap();
    assert_eq!(case.weights(A).await, (Some(200), Some(200)));
}
