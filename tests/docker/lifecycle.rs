//! Containers from creation to removal, and what they are given.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use plimsoll::docker::{Engine, EngineError};
use plimsoll::model::{ContainerId, ContainerState, Span, engine_volume_name};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::claim::free_port;
use crate::dockerd::IMAGE;
use crate::fixture::{Fixture, PATIENCE, published};

/// Waits until the container has ended: its output, line by line.
async fn output(fixture: &Fixture, id: &ContainerId) -> Vec<String> {
    let lines = fixture.engine.logs(&fixture.owner, id, None, true).await.unwrap();
    let lines = lines.map(|line| line.unwrap().text).collect();
    tokio::time::timeout(PATIENCE, lines).await.unwrap()
}

pub async fn a_whole_life(fixture: Arc<Fixture>) {
    let (engine, owner) = (&fixture.engine, &fixture.owner);
    assert!(engine.version().await.unwrap().contains(" (API 1."));
    let image = engine.image(IMAGE).await.unwrap().unwrap();
    assert_eq!((image.id, image.repository_digests), (fixture.image, vec![]));
    assert_eq!(engine.image("plimsoll-none:1").await.unwrap(), None);

    let port = free_port();
    let new = published(fixture.script("life", "httpd -f -p 8080 -h /tmp"), port);
    engine.pull(&new.birth.pin).await.unwrap();
    let none = BTreeMap::new();
    let id = engine.create(&new, &none).await.unwrap();
    assert_eq!(engine.create(&new, &none).await.unwrap(), id, "made twice");
    let name = new.birth.container_name();
    let created = engine.inspect(owner, &name).await.unwrap().unwrap();
    assert_eq!((&created.id, &created.name, &created.birth), (&id, &name, &new.birth));
    assert_eq!((&created.state, created.health), (&ContainerState::Created, None));
    assert_eq!(fixture.seen(&id).await, Some(created));

    // Twice each, since the reply to the first may have been lost.
    engine.start(owner, &name).await.unwrap();
    engine.start(owner, &id.0).await.unwrap();
    let running = engine.inspect(owner, &id.0).await.unwrap().unwrap();
    assert!(running.is_ready());
    assert_eq!(fixture.seen(&id).await, Some(running));
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(Instant::now() < deadline, "nobody listens on {port}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = engine.remove(owner, &id).await.unwrap_err();
    assert!(refused.to_string().contains("it still runs: stop it first"), "{refused}");

    let grace = Span::from_millis(500);
    engine.stop(owner, &id, grace).await.unwrap();
    engine.stop(owner, &id, grace).await.unwrap();
    let ended = engine.inspect(owner, &id.0).await.unwrap().unwrap();
    assert!(matches!(ended.state, ContainerState::Exited { out_of_memory: false, .. }));
    assert_eq!(fixture.seen(&id).await, Some(ended));

    engine.remove(owner, &id).await.unwrap();
    engine.remove(owner, &id).await.unwrap();
    engine.stop(owner, &id, grace).await.unwrap();
    assert_eq!(engine.inspect(owner, &name).await.unwrap(), None);
    assert_eq!(fixture.seen(&id).await, None);
    let gone = engine.start(owner, &name).await.unwrap_err();
    assert!(matches!(gone, EngineError::NotOurs { .. }), "{gone}");
}

pub async fn what_a_container_is_told(fixture: Arc<Fixture>) {
    let script = "id -u; pwd; echo $A $PLIMSOLL_APP $PLIMSOLL_HOST $PLIMSOLL_SLOT; \
                  touch /x || echo read only; touch /scratch/x && echo tmpfs; exec sleep 1000";
    let new = fixture.container(
        "told",
        serde_json::json!({
            "command": ["/bin/sh"],
            "args": ["-c", script],
            "env": {"A": {"plain": "plain value"}},
            "user": "1234",
            "workdir": "/tmp",
            "tmpfs": ["/scratch"],
            "readOnly": true,
            "labels": {"team": "a"},
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            "ulimits": {"nofile": {"soft": 100, "hard": 200}},
            "limits": {"memory": "64MiB", "cpus": 500, "pids": 50},
            "stop": {"signal": "SIGINT", "grace": "3s"},
        }),
    );
    let id = fixture.run(&new).await;
    let deadline = Instant::now() + PATIENCE;
    let wanted = [
        "1234",
        "/tmp",
        "plain value told alpha 0",
        "touch: /x: Read-only file system",
        "read only",
        "tmpfs",
    ];
    loop {
        let lines = fixture.engine.logs(&fixture.owner, &id, None, false).await.unwrap();
        let lines: Vec<_> = lines.map(|line| line.unwrap().text).collect().await;
        if wanted.iter().all(|line| lines.iter().any(|said| said == line)) {
            break;
        }
        assert!(Instant::now() < deadline, "it said {lines:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let format = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} \
                  {{.HostConfig.RestartPolicy.Name}} {{.Config.StopSignal}} \
                  {{.Config.StopTimeout}} {{.HostConfig.CapAdd}} {{.HostConfig.CapDrop}} \
                  {{json .HostConfig.Ulimits}} {{.Config.Labels.team}}";
    assert_eq!(
        fixture.dockerd.docker(&["inspect", "-f", format, &id.0]).unwrap(),
        "67108864 500000000 50 unless-stopped SIGINT 3 [NET_BIND_SERVICE] [ALL] \
         [{\"Hard\":200,\"Name\":\"nofile\",\"Soft\":100}] a"
    );
    fixture.destroy(&id).await;
}

pub async fn a_named_volume_keeps_its_data(fixture: Arc<Fixture>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("note"), "from the host\n").unwrap();
    let spec = |script: &str| {
        serde_json::json!({
            "command": ["/bin/sh"],
            "args": ["-c", script],
            "volumes": [
                {"source": {"named": "data"}, "at": "/data"},
                {"source": {"host": folder.path()}, "at": "/host", "readOnly": true},
            ],
        })
    };
    let write = "echo kept > /data/x; touch /host/y || echo read only; sleep 1000";
    let first = fixture.run(&fixture.container("volume", spec(write))).await;
    let volume = engine_volume_name(
        &fixture.owner.installation,
        &"production/volume".parse().unwrap(),
        "data",
    );
    let labels = ["volume", "inspect", "-f", "{{json .Labels}}", &volume];
    let labels = fixture.dockerd.docker(&labels).unwrap();
    assert!(labels.contains("\"plimsoll.uid\":\"8f14e45f\""), "{labels}");
    let deadline = Instant::now() + PATIENCE;
    while fixture.dockerd.docker(&["exec", &first.0, "cat", "/data/x"]).is_none() {
        assert!(Instant::now() < deadline, "nothing was written");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fixture.destroy(&first).await;

    let read = "cat /data/x /host/note; touch /host/y || echo read only; kill -9 1; sleep 1";
    let second = fixture.container("volume", spec(read));
    let id = fixture.engine.create(&second, &BTreeMap::new()).await.unwrap();
    fixture.dockerd.docker(&["update", "--restart=no", &id.0]).unwrap();
    fixture.engine.start(&fixture.owner, &id.0).await.unwrap();
    let lines = output(&fixture, &id).await;
    for line in ["kept", "from the host", "read only"] {
        assert!(lines.iter().any(|said| said == line), "{lines:?}");
    }
    fixture.destroy(&id).await;
    let kept = fixture.dockerd.docker(&["volume", "inspect", &volume]);
    assert!(kept.is_some(), "the volume went with its container");
}

pub async fn a_missing_folder_and_a_missing_program_are_refused(fixture: Arc<Fixture>) {
    let volumes = serde_json::json!([{"source": {"host": "/nowhere/at/all"}, "at": "/x"}]);
    let new = fixture.container("folder", serde_json::json!({"volumes": volumes}));
    let error = fixture.engine.create(&new, &BTreeMap::new()).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");

    let new = fixture.container("program", serde_json::json!({"command": ["/nowhere/x"]}));
    let id = fixture.engine.create(&new, &BTreeMap::new()).await.unwrap();
    let error = fixture.engine.start(&fixture.owner, &id.0).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("/nowhere/x"), "{error}");
    fixture.engine.remove(&fixture.owner, &id).await.unwrap();

    let network = serde_json::json!({"network": "nowhere"});
    let new = fixture.container("network", network);
    let id = fixture.engine.create(&new, &BTreeMap::new()).await.unwrap();
    let error = fixture.engine.start(&fixture.owner, &id.0).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { .. }), "{error}");
    fixture.engine.remove(&fixture.owner, &id).await.unwrap();
}

pub async fn a_signal_that_is_ignored_ends_at_the_grace(fixture: Arc<Fixture>) {
    let new = fixture.script("deaf", "trap '' TERM; while true; do sleep 1; done");
    let id = fixture.run(&new).await;
    let before = Instant::now();
    fixture.engine.stop(&fixture.owner, &id, Span::from_secs(1)).await.unwrap();
    let took = before.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(9), "{took:?}");
    let ended = fixture.seen(&id).await.unwrap().state;
    assert_eq!(ended, ContainerState::Exited { code: 137, out_of_memory: false });
    fixture.engine.remove(&fixture.owner, &id).await.unwrap();
}
