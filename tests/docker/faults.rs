//! What goes wrong between Plimsoll and an engine, and inside it: each a typed error, nothing
//! done twice, and nothing believed that wasn't heard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::docker::{DockerEngine, Engine, EngineError};
use plimsoll::model::{EnvValue, SecretDigest, SecretName, Sha256, Span};
use secrecy::SecretString;
use tokio::time::Instant;

use crate::claim::free_port;
use crate::engine_proxy::{EngineProxy, Fault};
use crate::fixture::{Fixture, PATIENCE, connect, impatient, published, unix};

fn behind(proxy: &EngineProxy) -> DockerEngine {
    connect(unix(proxy.socket()), impatient())
}

pub async fn a_lost_reply_makes_nothing_twice(fixture: Arc<Fixture>) {
    let proxy = EngineProxy::start(&fixture.dockerd.socket());
    let (engine, owner, none) = (behind(&proxy), &fixture.owner, BTreeMap::new());
    let new = fixture.script("lost", "exec sleep 1000");
    let name = new.birth.container_name();

    proxy.plan("/containers/create", Fault::LoseReply);
    let error = engine.create(&new, &none).await.unwrap_err();
    assert!(matches!(error, EngineError::Unreachable { .. }), "{error}");
    proxy.heal();
    let made = fixture.engine.inspect(owner, &name).await.unwrap().unwrap();
    assert_eq!(engine.create(&new, &none).await.unwrap(), made.id);

    let id = made.id;
    let grace = Span::from_millis(0);
    proxy.plan("/start", Fault::LoseReply);
    engine.start(owner, &name).await.unwrap_err();
    proxy.plan("/stop", Fault::LoseReply);
    engine.start(owner, &name).await.unwrap();
    engine.stop(owner, &id, grace).await.unwrap_err();
    proxy.plan("DELETE ", Fault::LoseReply);
    engine.stop(owner, &id, grace).await.unwrap();
    engine.remove(owner, &id).await.unwrap_err();
    engine.remove(owner, &id).await.unwrap();
    assert_eq!(fixture.seen(&id).await, None);
}

pub async fn broken_replies_are_typed_errors(fixture: Arc<Fixture>) {
    let proxy = EngineProxy::start(&fixture.dockerd.socket());
    let (engine, owner) = (behind(&proxy), &fixture.owner);
    engine.observe(owner).await.unwrap();
    for fault in [Fault::Close, Fault::Garbage, Fault::BadBody, Fault::Silence] {
        proxy.plan("", fault);
        let before = Instant::now();
        let (list, one, version) =
            tokio::join!(engine.observe(owner), engine.inspect(owner, "shop.x"), engine.version());
        for error in [list.map(drop), one.map(drop), version.map(drop)] {
            let error = error.unwrap_err();
            assert!(matches!(error, EngineError::Unreachable { .. }), "{fault:?}: {error}");
        }
        assert!(before.elapsed() < Duration::from_secs(15), "{fault:?}");
    }
    for (status, may_pass) in [(500, true), (503, true), (400, false), (403, false)] {
        proxy.plan("", Fault::Status(status));
        let error = engine.observe(owner).await.unwrap_err();
        assert_eq!(error.may_pass(), may_pass, "{error}");
        assert!(error.to_string().contains("on purpose"), "{error}");
    }
    proxy.heal();
    engine.observe(owner).await.unwrap();
}

pub async fn a_taken_port_is_told(fixture: Arc<Fixture>) {
    // By a process of the host, and by a container.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let by_process = listener.local_addr().unwrap().port();
    let by_container = free_port();
    let holder = fixture.script("holder", "exec sleep 1000");
    let holder = fixture.run(&published(holder, by_container)).await;
    for port in [by_process, by_container] {
        let new = published(fixture.script("port", "exec sleep 1000"), port);
        let id = fixture.engine.create(&new, &BTreeMap::new()).await.unwrap();
        let error = fixture.engine.start(&fixture.owner, &id.0).await.unwrap_err();
        assert!(
            matches!(error, EngineError::PortTaken { port: taken, .. } if taken == port),
            "{error}"
        );
        fixture.engine.remove(&fixture.owner, &id).await.unwrap();
    }
    fixture.destroy(&holder).await;
}

pub async fn a_removal_under_way_is_waited_for(fixture: Arc<Fixture>) {
    let id = fixture.run(&fixture.script("remove", "exec sleep 1000")).await;
    fixture.engine.stop(&fixture.owner, &id, Span::from_millis(0)).await.unwrap();
    let removals = (0..6).map(|_| fixture.engine.remove(&fixture.owner, &id));
    for removed in futures_util::future::join_all(removals).await {
        removed.unwrap();
    }
    assert_eq!(fixture.seen(&id).await, None);
}

pub async fn secrets_are_in_no_label_and_no_error(fixture: Arc<Fixture>) {
    const CANARY: &str = "canary-7f3a-secret";
    let name = SecretName::new("web/password").unwrap();
    let secrets = BTreeMap::from([(name.clone(), SecretString::from(CANARY))]);
    let digest = SecretDigest(Sha256::of(b"keyed"));
    let mut new = fixture.script("secret", "echo $PASSWORD; exec sleep 1000");
    let value = EnvValue::Secret { name: name.clone(), digest };
    new.spec.env.insert("PASSWORD".into(), value);
    new.birth.revision = new.spec.revision();

    let missing = fixture.engine.create(&new, &BTreeMap::new()).await.unwrap_err();
    assert!(matches!(missing, EngineError::SecretMissing(missing) if missing == name));

    // The engine quotes what it can't use.
    let mut bad = new.clone();
    bad.spec.network = Some(format!("container:{CANARY}"));
    let error = fixture.engine.create(&bad, &secrets).await;
    let error = match error {
        Ok(id) => {
            let error = fixture.engine.start(&fixture.owner, &id.0).await.unwrap_err();
            fixture.engine.remove(&fixture.owner, &id).await.unwrap();
            error
        }
        Err(error) => error,
    };
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains(CANARY), "{text}");
    }

    let id = fixture.engine.create(&new, &secrets).await.unwrap();
    fixture.engine.start(&fixture.owner, &id.0).await.unwrap();
    let env = ["inspect", "-f", "{{json .Config.Env}}", &id.0];
    assert!(fixture.dockerd.docker(&env).unwrap().contains(CANARY));
    let rest = ["inspect", "-f", "{{json .Config.Labels}}{{json .Args}}{{.Name}}", &id.0];
    assert!(!fixture.dockerd.docker(&rest).unwrap().contains(CANARY));
    assert!(!format!("{:?}", fixture.seen(&id).await).contains(CANARY));
    fixture.destroy(&id).await;
}

pub async fn an_idle_look_is_one_call(fixture: Arc<Fixture>) {
    let proxy = EngineProxy::start(&fixture.dockerd.socket());
    let engine = behind(&proxy);
    let owner =
        plimsoll::model::Owner { installation: "idle".parse().unwrap(), uid: "1".parse().unwrap() };
    let mut ids = Vec::new();
    for slot in 0..3 {
        let mut new = fixture.script("idle", "exec sleep 1000");
        new.birth.installation = owner.installation.clone();
        new.birth.uid = owner.uid.clone();
        new.birth.slot.0 = slot;
        let id = engine.create(&new, &BTreeMap::new()).await.unwrap();
        engine.start(&owner, &id.0).await.unwrap();
        ids.push(id);
    }
    // Other cases' stopped containers are looked at once each; wait for a look without a new one.
    let deadline = Instant::now() + PATIENCE;
    loop {
        proxy.take_seen();
        let state = engine.observe(&owner).await.unwrap();
        assert_eq!(state.containers.len(), 3);
        let asked = proxy.take_seen();
        if asked.len() == 1 {
            assert!(asked[0].starts_with("GET /v1.41/containers/json?all=true"), "{asked:?}");
            break;
        }
        assert!(Instant::now() < deadline, "{asked:?}");
    }
    for id in &ids {
        engine.stop(&owner, id, Span::from_millis(0)).await.unwrap();
        engine.remove(&owner, id).await.unwrap();
    }
}

/// Runs alone, after all others.
pub async fn an_engine_that_restarts_is_found_again(mut fixture: Fixture) {
    let id = fixture.run(&fixture.script("restart", "exec sleep 1000")).await;
    let mut events = fixture.engine.events(&fixture.owner).await.unwrap();
    fixture.dockerd.kill();
    let error = fixture.engine.observe(&fixture.owner).await.unwrap_err();
    assert!(matches!(error, EngineError::Unreachable { .. }), "{error}");
    assert!(fixture.engine.events(&fixture.owner).await.is_err());
    let ended = async { while futures_util::StreamExt::next(&mut events).await.is_some() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the events didn't end");
    fixture.dockerd.run();
    // Whether the engine brought it back is the engine's affair; that it obeys again is ours.
    fixture.engine.start(&fixture.owner, &id.0).await.unwrap();
    fixture.until(&id, |container| container.runs()).await;
    fixture.destroy(&id).await;
}
