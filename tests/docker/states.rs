//! How containers are doing, as a look tells it: what the list says and what inspect says are
//! the same.

use std::sync::Arc;

use plimsoll::docker::Engine;
use plimsoll::model::{ContainerState, Ended, EngineHealth, Memory, Span};
use tokio::time::Instant;

use crate::fixture::{Fixture, PATIENCE};

pub async fn health_is_seen_as_it_changes(fixture: Arc<Fixture>) {
    let new = fixture.container(
        "health",
        serde_json::json!({
            "command": ["/bin/sleep", "1000"],
            "health": {
                "command": ["/bin/test", "-e", "/tmp/well"],
                "interval": "500ms",
                "timeout": "2s",
            },
        }),
    );
    let id = fixture.run(&new).await;
    fixture.until(&id, |container| container.health == Some(EngineHealth::Starting)).await;
    fixture.dockerd.docker(&["exec", &id.0, "touch", "/tmp/well"]).unwrap();
    let well = fixture.until(&id, |container| container.is_ready()).await;
    assert_eq!(well.health, Some(EngineHealth::Healthy));
    assert_eq!(fixture.engine.inspect(&fixture.owner, &id.0).await.unwrap(), Some(well));
    fixture.dockerd.docker(&["exec", &id.0, "busybox", "rm", "/tmp/well"]).unwrap();
    let unwell = fixture.until(&id, |container| !container.runs()).await;
    assert_eq!(unwell.health, Some(EngineHealth::Unhealthy));
    assert_eq!(unwell.state, ContainerState::Running);
    fixture.destroy(&id).await;
}

pub async fn death_for_want_of_memory_is_seen(fixture: Arc<Fixture>) {
    let script = "dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 1; exit 137";
    let mut new = fixture.script("memory", script);
    new.spec.limits.memory = Some(Memory::from_bytes(8 << 20));
    let id = fixture.run(&new).await;
    // The engine hears of the reason a moment later, and on a busy machine misses it at times.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let restarting =
            |state: &ContainerState| matches!(state, ContainerState::Restarting { .. });
        fixture.until(&id, |container| restarting(&container.state)).await;
        fixture.engine.stop(&fixture.owner, &id, Span::from_millis(0)).await.unwrap();
        let state = fixture.seen(&id).await.unwrap().state;
        if state == (ContainerState::Exited { code: 137, out_of_memory: true }) {
            break;
        }
        assert!(Instant::now() < deadline, "still {state:?}");
        fixture.engine.start(&fixture.owner, &id.0).await.unwrap();
    }
    fixture.destroy(&id).await;
}

pub async fn paused_restarting_and_ended_are_told_apart(fixture: Arc<Fixture>) {
    let paused = fixture.run(&fixture.script("paused", "exec sleep 1000")).await;
    fixture.dockerd.docker(&["pause", &paused.0]).unwrap();
    assert_eq!(fixture.seen(&paused).await.unwrap().state, ContainerState::Paused);

    let looping = fixture.run(&fixture.script("loop", "exit 3")).await;
    let restarting =
        ContainerState::Restarting { ended: Some(Ended { code: 3, out_of_memory: false }) };
    fixture.until(&looping, |container| container.state == restarting).await;

    let ended = fixture.run(&fixture.script("ended", "exec sleep 1000")).await;
    fixture.dockerd.docker(&["kill", &ended.0]).unwrap();
    let code = ContainerState::Exited { code: 137, out_of_memory: false };
    fixture.until(&ended, |container| container.state == code).await;

    for id in [&paused, &looping, &ended] {
        fixture.destroy(id).await;
    }
}
