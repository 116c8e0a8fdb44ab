//! Events and output.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use plimsoll::docker::{Engine, LogLine};

use crate::fixture::{Fixture, PATIENCE};

pub async fn events_wake(fixture: Arc<Fixture>) {
    let owner = plimsoll::model::Owner {
        installation: "events".parse().unwrap(),
        uid: "1".parse().unwrap(),
    };
    let mut events = fixture.engine.events(&owner).await.unwrap();
    // A stranger's container wakes nobody; ours does, however late the stream begins.
    let quiet = tokio::time::timeout(Duration::from_millis(300), events.next()).await;
    assert!(quiet.is_err(), "woken by others");
    let mut new = fixture.script("events", "exec sleep 1000");
    new.birth.installation = owner.installation.clone();
    new.birth.uid = owner.uid.clone();
    let id = fixture.engine.create(&new, &Default::default()).await.unwrap();
    tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    fixture.engine.start(&owner, &id.0).await.unwrap();
    tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    fixture.dockerd.docker(&["kill", &id.0]).unwrap();
    tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    fixture.engine.remove(&owner, &id).await.unwrap();
}

pub async fn output_is_read_and_followed(fixture: Arc<Fixture>) {
    let script = "echo one; echo two >&2; while ! test -e /tmp/go; do sleep 0.1; done; \
                  echo three; exec sleep 1000";
    let id = fixture.run(&fixture.script("output", script)).await;
    let mut lines = fixture.engine.logs(&fixture.owner, &id, None, true).await.unwrap();
    let mut first = Vec::new();
    for _ in 0..2 {
        first.push(tokio::time::timeout(PATIENCE, lines.next()).await.unwrap().unwrap().unwrap());
    }
    let line = |is_error, text: &str| LogLine { is_error, text: text.into() };
    first.sort_by_key(|line| line.is_error);
    assert_eq!(first, [line(false, "one"), line(true, "two")]);
    fixture.dockerd.docker(&["exec", &id.0, "touch", "/tmp/go"]).unwrap();
    let next = tokio::time::timeout(PATIENCE, lines.next()).await.unwrap();
    assert_eq!(next.unwrap().unwrap(), line(false, "three"));
    let last = fixture.engine.logs(&fixture.owner, &id, Some(1), false).await.unwrap();
    let last: Vec<_> = last.map(Result::unwrap).collect().await;
    assert_eq!(last, [line(false, "three")]);
    fixture.destroy(&id).await;
    let end = tokio::time::timeout(PATIENCE, lines.next()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
}
