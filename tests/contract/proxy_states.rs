//! What both balancers keep when time goes on and things go wrong: checks, reloads, files that
//! were damaged, processes that were killed.

use std::collections::BTreeMap;

use plimsoll::model::{AdminState, CheckState, ProxyFile, ProxyProcess, Server};
use plimsoll::proxy::ProxyError;

use crate::proxy_lab::{
    A, B, Case, Damage, Hand, OTHER, ProxyLab, ROUTE, Victim, WEB, backend, server,
};

/// The states that are left when those that say nothing are.
fn told(said: &[CheckState]) -> Vec<CheckState> {
    said.iter().copied().filter(|check| *check != CheckState::Unknown).collect()
}

pub async fn checks_follow_what_is_behind(lab: &dyn ProxyLab) {
    let case = Case::new(lab);
    lab.proxy().restructure(&case.structure(&[WEB])).await.unwrap();
    let address = lab.begin_web().await;
    case.add(A, address).await.unwrap();
    case.until_check(A, CheckState::Up).await;
    for _ in 0..2 {
        lab.end_web(address).await;
        assert_eq!(told(&case.until_check(A, CheckState::Down).await), [CheckState::Up]);
        lab.begin_web_again(address).await;
        assert_eq!(told(&case.until_check(A, CheckState::Up).await), [CheckState::Down]);
    }
}

pub async fn a_server_that_nobody_is_behind_is_never_up(lab: &dyn ProxyLab) {
    let case = Case::new(lab);
    lab.proxy().restructure(&case.structure(&[WEB])).await.unwrap();
    case.add(A, lab.free_address()).await.unwrap();
    assert_eq!(told(&case.until_check(A, CheckState::Down).await), []);
    // Nor after a reload, when the new worker hasn't checked it yet.
    lab.proxy().restructure(&case.structure(&[WEB, OTHER])).await.unwrap();
    let seen = case.seen(A).await.1.unwrap();
    assert_ne!(seen.check, CheckState::Up);
    assert_eq!(told(&case.until_check(A, CheckState::Down).await), []);
}

/// A look after a reload knows what the worker before had found.
pub async fn a_reload_forgets_no_check(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    let mut structure = case.structure(&[WEB]);
    for round in 0..3 {
        structure.x_host = !structure.x_host;
        lab.proxy().restructure(&structure).await.unwrap();
        let seen = case.seen(A).await.1.unwrap();
        assert_eq!((seen.check, seen.weight), (CheckState::Up, 100), "round {round}");
    }
    // One that comes anew says what HAProxy says, which becomes the same.
    let other = lab.another();
    case.until_check(A, CheckState::Up).await;
    assert_eq!(other.observe().await.unwrap(), case.state().await);
}

/// H11.
pub async fn a_reload_gives_the_weights_of_the_file(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    let address = lab.begin_web().await;
    case.by_hand(A, Hand::Weigh(7)).await;
    case.by_hand(A, Hand::Drain).await;
    case.by_hand(B, Hand::Add(address, 50)).await;
    assert_eq!(case.weights(A).await, (Some(100), Some(7)));
    assert_eq!(case.weights(B).await, (None, Some(50)));
    lab.reload_by_hand().await;
    case.until("the new worker", async || case.there(B).await.is_none()).await;
    assert_eq!(case.weights(A).await, (Some(100), Some(100)));
    assert_eq!(case.there(A).await.unwrap().admin, AdminState::Ready);
    assert_eq!(case.weights(B).await, (None, None));
}

/// A change that was cut short left the file behind the process: what serves goes on.
pub async fn a_new_structure_keeps_what_serves(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    let address = lab.begin_web().await;
    case.join(B, address, 50).await;
    // The file has a weight: it counts. It has none: what serves counts.
    case.by_hand(A, Hand::Weigh(7)).await;
    case.by_hand(A, Hand::Drain).await;
    case.weigh(B, 0).await.unwrap();
    case.by_hand(B, Hand::Weigh(60)).await;
    lab.proxy().restructure(&case.structure(&[WEB, OTHER])).await.unwrap();
    assert_eq!(case.weights(A).await, (Some(100), Some(100)));
    assert_eq!(case.there(A).await.unwrap().admin, AdminState::Ready);
    assert_eq!(case.weights(B).await, (Some(60), Some(60)));
    // One that isn't up doesn't serve.
    case.weigh(B, 0).await.unwrap();
    case.by_hand(B, Hand::Weigh(60)).await;
    lab.end_web(address).await;
    case.until_check(B, CheckState::Down).await;
    lab.proxy().restructure(&case.structure(&[WEB])).await.unwrap();
    assert_eq!(case.weights(B).await, (Some(0), Some(0)));
}

/// H3, H12.
pub async fn a_damaged_file_is_seen_and_mended_from_the_process(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    let address = lab.begin_web().await;
    case.join(B, address, 50).await;
    lab.end_web(address).await;
    case.until_check(B, CheckState::Down).await;
    let (before, structure) = (case.runtime().await, case.structure(&[WEB]));
    for damage in [Damage::Edited, Damage::Cut, Damage::Foreign, Damage::Gone] {
        lab.damage(damage).await;
        let state = case.state().await;
        match damage {
            Damage::Gone => assert_eq!(state.file, ProxyFile::Missing),
            _ => assert!(matches!(state.file, ProxyFile::Damaged { .. }), "{:?}", state.file),
        }
        // Nothing is changed on top of it, neither there nor in the process.
        for refused in [
            case.weigh(A, 5).await,
            case.weigh(A, 0).await,
            case.add(A, address).await,
            case.remove(B).await,
            case.route(ROUTE, None).await,
        ] {
            let error = refused.unwrap_err();
            assert!(matches!(error, ProxyError::File { .. }), "{error}");
            assert!(!error.may_pass());
        }
        let now = case.runtime().await;
        assert_eq!((&now.routes, &now.servers), (&before.routes, &before.servers), "{damage:?}");

        let begun = lab.generation().await;
        lab.proxy().restructure(&structure).await.unwrap();
        assert_ne!(lab.generation().await, begun);
        assert_eq!(case.weights(A).await, (Some(100), Some(100)), "{damage:?}");
        // What isn't known to be up gets no weight where the file didn't say that it had one.
        assert_eq!(case.weights(B).await, (Some(0), Some(0)), "{damage:?}");
        assert_eq!(case.file().await.routes, before.routes);
        case.weigh(B, 50).await.unwrap();
        case.until_check(B, CheckState::Down).await;
        case.until_check(A, CheckState::Up).await;
    }
}

/// HAProxy takes a file that was cut between two lines.
pub async fn a_cut_file_is_what_a_reload_gives(lab: &dyn ProxyLab) {
    let (case, address) = Case::serving(lab).await;
    lab.damage(Damage::Cut).await;
    assert_eq!(case.there(A).await.unwrap().weight, 100);
    lab.reload_by_hand().await;
    case.until("the new worker", async || case.there(A).await.is_none()).await;
    let runtime = case.runtime().await;
    assert_eq!(runtime.structure, Some(case.structure(&[WEB]).digest()));
    assert_eq!(runtime.servers.get(&backend(WEB)), None);
    // The servers are lost, the routes lie elsewhere. All the rest is brought back.
    lab.proxy().restructure(&case.structure(&[WEB])).await.unwrap();
    let file = case.file().await;
    assert!(file.servers[&backend(WEB)].is_empty());
    assert_eq!(file.routes.len(), 1);
    case.join(A, address, 100).await;
}

/// H8.
pub async fn a_killed_process_comes_back_with_the_file(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    case.weigh(A, 42).await.unwrap();
    case.by_hand(A, Hand::Weigh(7)).await;
    let file = case.file().await;
    lab.kill(Victim::Both).await;
    let state = case.state().await;
    assert_eq!(state.file, ProxyFile::Ours(file.clone()));
    assert!(matches!(state.process, ProxyProcess::Down { .. }));
    // Each tries for a moment, so each goes its own way.
    let ways: [_; 4] = std::array::from_fn(|_| lab.another());
    let (backend, name) = (backend(WEB), server(A));
    let new = Server { address: lab.free_address(), weight: 0 };
    let routes = BTreeMap::from([(ROUTE.parse().unwrap(), Some(backend.clone()))]);
    let (there, sessions, cut, removed, added, weighed, routed) = tokio::join!(
        lab.proxy().server(&backend, &name),
        lab.proxy().sessions(&backend, &name),
        lab.proxy().cut_sessions(&backend, &name),
        ways[0].remove_server(&backend, &name),
        ways[1].add_server(&backend, &name, &new),
        ways[2].set_weight(&backend, &name, 50),
        ways[3].set_routes(&routes),
    );
    for failed in [there.map(drop), sessions.map(drop), cut, removed, added, weighed, routed] {
        let error = failed.unwrap_err();
        assert!(matches!(error, ProxyError::Unreachable { .. }), "{error}");
        assert!(error.may_pass());
    }
    assert_eq!(case.file().await, file);
    // What goes down is in the file before the process is told.
    let error = case.weigh(A, 41).await.unwrap_err();
    assert!(matches!(error, ProxyError::Unreachable { .. }), "{error}");
    lab.proxy().restructure(&case.structure(&[WEB])).await.unwrap();
    assert_eq!(case.weights(A).await, (Some(41), Some(41)));
    assert_eq!(case.runtime().await.routes, file.routes);
    case.until_check(A, CheckState::Up).await;
}

/// HAProxy doesn't outlive its master, nor its worker.
pub async fn whoever_is_killed_all_of_it_is_brought_back(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    for victim in [Victim::Worker, Victim::Master] {
        lab.kill(victim).await;
        lab.proxy().restructure(&case.structure(&[WEB])).await.unwrap();
        assert_eq!(case.weights(A).await, (Some(100), Some(100)), "{victim:?}");
        case.until_check(A, CheckState::Up).await;
    }
}

pub async fn a_killed_process_whose_address_is_taken(lab: &dyn ProxyLab) {
    let (case, _) = Case::serving(lab).await;
    lab.kill(Victim::Both).await;
    let down = case.state().await;
    let address = lab.listens_at().0;
    let held = lab.hold(address).await;
    for structure in [case.structure(&[WEB]), case.structure(&[WEB, OTHER])] {
        let error = lab.proxy().restructure(&structure).await.unwrap_err();
        assert!(matches!(error, ProxyError::Bind { address: of, .. } if of == address), "{error}");
        assert_eq!(case.state().await, down);
    }
    drop(held);
    lab.proxy().restructure(&case.structure(&[WEB])).await.unwrap();
    assert_eq!(case.weights(A).await, (Some(100), Some(100)));
}

pub async fn a_killed_process_without_a_file_begins_empty(lab: &dyn ProxyLab) {
    let (case, address) = Case::serving(lab).await;
    lab.kill(Victim::Both).await;
    lab.damage(Damage::Gone).await;
    assert_eq!(case.state().await.file, ProxyFile::Missing);
    lab.proxy().restructure(&case.structure(&[WEB])).await.unwrap();
    let (file, runtime) = (case.file().await, case.runtime().await);
    assert!(file.servers[&backend(WEB)].is_empty() && file.routes.is_empty());
    assert!(runtime.servers.is_empty() && runtime.routes.is_empty());
    case.join(A, address, 100).await;
}
