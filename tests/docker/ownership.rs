//! What belongs to others is seen where it is in the way, and never touched.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll::docker::{Engine, EngineError};
use plimsoll::model::{CommitId, ContainerId, ContainerState, NewContainer, Owner, Span};

use crate::claim::free_port;
use crate::dockerd::IMAGE;
use crate::fixture::{Fixture, published};

fn stranger(fixture: &Fixture, arguments: &[&str]) -> ContainerId {
    let arguments = [&["create"], arguments, &[IMAGE, "sleep", "1000"]].concat();
    ContainerId(fixture.dockerd.docker(&arguments).unwrap())
}

async fn create(fixture: &Fixture, new: &NewContainer) -> Result<ContainerId, EngineError> {
    fixture.engine.create(new, &BTreeMap::new()).await
}

pub async fn what_belongs_to_others_is_not_touched(fixture: Arc<Fixture>) {
    let engine = &fixture.engine;
    let mine = fixture.run(&fixture.script("mine", "exec sleep 1000")).await;
    let other = Owner { uid: "00000000".parse().unwrap(), ..fixture.owner.clone() };
    let plain = stranger(&fixture, &[]);
    let half = stranger(
        &fixture,
        &[
            "--label=plimsoll.installation=shop",
            "--label=plimsoll.uid=8f14e45f",
            "--label=plimsoll.format=1",
        ],
    );
    let owner = &fixture.owner;
    for (owner, id) in [(&other, &mine), (owner, &plain), (owner, &half)] {
        assert_eq!(engine.inspect(owner, &id.0).await.unwrap(), None);
        let state = engine.observe(owner).await.unwrap();
        assert!(state.containers.iter().all(|container| container.id != *id));
        for refused in [
            engine.start(owner, &id.0).await,
            engine.stop(owner, id, Span::from_millis(0)).await,
            engine.remove(owner, id).await,
            engine.logs(owner, id, None, false).await.map(drop),
        ] {
            let error = refused.unwrap_err();
            assert!(matches!(&error, EngineError::NotOurs { id: named, .. } if named == id));
        }
    }
    let status = |id: &ContainerId| {
        fixture.dockerd.docker(&["inspect", "-f", "{{.State.Status}}", &id.0]).unwrap()
    };
    assert_eq!([status(&mine), status(&plain), status(&half)], ["running", "created", "created"]);
    fixture.destroy(&mine).await;
    fixture.dockerd.docker(&["rm", &plain.0, &half.0]).unwrap();
}

pub async fn a_name_that_others_hold_is_told(fixture: Arc<Fixture>) {
    let new = fixture.script("held", "exec sleep 1000");
    let name = new.birth.container_name();
    let holder = stranger(&fixture, &["--name", &name]);
    let error = create(&fixture, &new).await.unwrap_err();
    assert!(
        matches!(&error, EngineError::NameTaken { name: n, id } if *n == name && *id == holder),
        "{error}"
    );
    let state = fixture.engine.observe(&fixture.owner).await.unwrap();
    assert_eq!(state.foreign_names.get(&name), Some(&holder));
    fixture.dockerd.docker(&["rm", &holder.0]).unwrap();
}

pub async fn a_name_of_ours_is_taken_over_or_refused(fixture: Arc<Fixture>) {
    let (first, second) = (free_port(), free_port());
    let old = published(fixture.script("again", "exec sleep 1000"), first);
    let mut new = published(old.clone(), second);
    new.birth.commit = CommitId("d".repeat(40));
    assert_eq!(old.birth.container_name(), new.birth.container_name());
    // One that never ran makes room.
    let created = create(&fixture, &old).await.unwrap();
    let replaced = create(&fixture, &new).await.unwrap();
    assert_ne!(created, replaced);
    assert_eq!(fixture.seen(&created).await, None);
    assert_eq!(fixture.seen(&replaced).await.unwrap().birth, new.birth);
    // One that runs doesn't.
    fixture.engine.start(&fixture.owner, &replaced.0).await.unwrap();
    let error = create(&fixture, &old).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("differs from it in plimsoll.commit, plimsoll.port"));
    assert_eq!(fixture.seen(&replaced).await.unwrap().state, ContainerState::Running);
    fixture.destroy(&replaced).await;
}

pub async fn ports_and_names_of_others_are_seen(fixture: Arc<Fixture>) {
    let (running, stopped) = (free_port(), free_port());
    let publish = |port: u16| format!("127.0.0.1:{port}:80");
    let one = stranger(&fixture, &["-p", &publish(running), "--name", "shop.x"]);
    let two = stranger(&fixture, &["-p", &publish(stopped), "--name", "shopping"]);
    fixture.dockerd.docker(&["start", &one.0]).unwrap();
    // The second look has the ports of the stopped one from the first.
    for _ in 0..2 {
        let state = fixture.engine.observe(&fixture.owner).await.unwrap();
        assert!(state.foreign_ports.contains(&running), "{state:?}");
        assert!(state.foreign_ports.contains(&stopped), "{state:?}");
        assert_eq!(state.foreign_names.get("shop.x"), Some(&one));
        assert!(!state.foreign_names.contains_key("shopping"));
    }
    fixture.dockerd.docker(&["rm", "-f", &one.0, &two.0]).unwrap();
    let state = fixture.engine.observe(&fixture.owner).await.unwrap();
    assert!(!state.foreign_ports.contains(&running) && !state.foreign_ports.contains(&stopped));
}
