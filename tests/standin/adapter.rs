//! Cases that go through Plimsoll's own client.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, StreamExt};
use plimsoll::docker::EngineError;
use plimsoll::model::{
    CommitId, ContainerId, ContainerState, EngineHealth, ImageContent, NewContainer, Pin, Span,
};
use serde_json::json;

use crate::http;
use crate::transcript::Transcript;
use crate::world::{IMAGE, RUNS, World, until};

type Case = for<'a> fn(&'a World) -> LocalBoxFuture<'a, Vec<String>>;

pub fn cases() -> [(&'static str, Case); 8] {
    [
        ("a whole life", |world| a_whole_life(world).boxed_local()),
        ("names that are taken", |world| names(world).boxed_local()),
        ("ports that are taken", |world| ports(world).boxed_local()),
        ("a program that ends again and again", |world| restarts(world).boxed_local()),
        ("a health check", |world| health(world).boxed_local()),
        ("a signal that isn't heeded", |world| signals(world).boxed_local()),
        ("wakes", |world| wakes(world).boxed_local()),
        ("images", |world| images(world).boxed_local()),
    ]
}

/// A case as it goes: the engine, and what came of each call.
struct Run<'a> {
    world: &'a World,
    transcript: Transcript,
}

impl<'a> Run<'a> {
    fn of(world: &'a World) -> Self {
        Self { world, transcript: Transcript::default() }
    }

    fn say(&mut self, what: &str, came: impl std::fmt::Debug) {
        self.transcript.say(what, came);
    }

    async fn create(&mut self, container: &NewContainer) -> Result<ContainerId, EngineError> {
        let made = self.world.engine.create(container, &BTreeMap::new()).await;
        self.say("create", &made);
        made
    }

    async fn start(&mut self, id: &str) {
        let started = self.world.engine.start(&self.world.owner, id).await;
        self.say("start", started);
    }

    async fn stop(&mut self, id: &ContainerId, grace: &str) {
        let grace: Span = grace.parse().unwrap();
        let stopped = self.world.engine.stop(&self.world.owner, id, grace).await;
        self.say("stop", stopped);
    }

    async fn remove(&mut self, id: &ContainerId) {
        let removed = self.world.engine.remove(&self.world.owner, id).await;
        self.say("remove", removed);
    }

    /// One look at the host, and a closer one at the container.
    async fn look(&mut self, id: &ContainerId) {
        let state = self.world.engine.observe(&self.world.owner).await.unwrap();
        let container = state.containers.iter().find(|container| container.id == *id);
        self.say("listed", container);
        let inspected = self.world.engine.inspect(&self.world.owner, &id.0).await;
        self.say("inspected", inspected);
    }
}

async fn a_whole_life(world: &World) -> Vec<String> {
    let mut run = Run::of(world);
    let container = world.script("life", &format!("echo one; echo two >&2; {RUNS}"));
    let id = run.create(&container).await.unwrap();
    run.create(&container).await.unwrap();
    run.look(&id).await;
    run.start(&id.0).await;
    run.start(&container.birth.container_name()).await;
    run.look(&id).await;
    let logs = async |tail| {
        let lines = world.engine.logs(&world.owner, &id, tail, false).await.unwrap();
        let mut lines: Vec<_> = lines.map(Result::unwrap).collect().await;
        lines.sort_by_key(|line| line.is_error);
        lines
    };
    until("it has said both", async || (logs(None).await.len() == 2).then_some(())).await;
    run.say("output", logs(None).await);
    run.say("the last line", logs(Some(1)).await.len());
    run.remove(&id).await;
    run.stop(&id, "5s").await;
    run.look(&id).await;
    run.stop(&id, "5s").await;
    run.start(&id.0).await;
    run.look(&id).await;
    run.stop(&id, "5s").await;
    run.remove(&id).await;
    run.look(&id).await;
    run.remove(&id).await;
    run.stop(&id, "5s").await;
    run.start(&id.0).await;
    run.transcript.lines
}

async fn names(world: &World) -> Vec<String> {
    let mut run = Run::of(world);
    let container = world.script("names", RUNS);
    let name = container.birth.container_name();
    let body = json!({"Image": IMAGE, "Cmd": ["/bin/sleep", "1000"]}).to_string();
    let path = format!("/v1.41/containers/create?name={name}");
    let made = http::ask(&world.socket, "POST", &path, &body).await;
    run.say("somebody makes one", (made.status, String::from_utf8_lossy(&made.body)));
    let taken = run.create(&container).await.unwrap_err();
    let EngineError::NameTaken { id, .. } = taken else { panic!("{taken}") };
    let state = world.engine.observe(&world.owner).await.unwrap();
    run.say("foreign names", state.foreign_names);
    run.start(&id.0).await;
    http::ask(&world.socket, "DELETE", &format!("/v1.41/containers/{}", id.0), "").await;

    // One of ours that never ran makes room for another of its name; one that runs doesn't.
    let mut other = container.clone();
    other.birth.commit = CommitId("d".repeat(40));
    run.create(&other).await.unwrap();
    let id = run.create(&container).await.unwrap();
    run.start(&id.0).await;
    let _ = run.create(&other).await;
    run.stop(&id, "5s").await;
    run.remove(&id).await;
    run.transcript.lines
}

async fn ports(world: &World) -> Vec<String> {
    let mut run = Run::of(world);
    let container = world.publishing("ports");
    let id = run.create(&container).await.unwrap();
    run.start(&id.0).await;
    run.look(&id).await;
    let second = world.publishing("ports-too");
    let other = run.create(&second).await.unwrap();
    let refused = world.engine.start(&world.owner, &other.0).await.unwrap_err();
    let port_taken = matches!(&refused, EngineError::PortTaken { port, .. } if *port == world.port);
    run.say("the port is taken", port_taken);
    run.look(&other).await;
    run.remove(&other).await;
    run.stop(&id, "5s").await;
    run.remove(&id).await;
    run.transcript.lines
}

async fn restarts(world: &World) -> Vec<String> {
    let mut run = Run::of(world);
    let id = run.create(&world.script("ends", "echo here; exit 3")).await.unwrap();
    run.start(&id.0).await;
    let restarting = until("it restarts", async || {
        let seen = world.engine.inspect(&world.owner, &id.0).await.unwrap()?;
        matches!(seen.state, ContainerState::Restarting { .. }).then_some(seen.state)
    });
    let restarting = restarting.await;
    run.say("restarting", restarting);
    let again = until("it was restarted twice", async || {
        let seen = world.engine.inspect(&world.owner, &id.0).await.unwrap()?;
        (seen.restarts >= 2).then_some(())
    });
    again.await;
    run.stop(&id, "1s").await;
    let state = world.engine.inspect(&world.owner, &id.0).await.unwrap().map(|seen| seen.state);
    run.say("stopped", state);
    run.remove(&id).await;
    run.transcript.lines
}

async fn health(world: &World) -> Vec<String> {
    let mut run = Run::of(world);
    let check = json!({"command": ["/bin/test", "-e", "/"], "interval": "500ms", "timeout": "5s"});
    let spec = json!({"command": ["/bin/sh"], "args": ["-c", RUNS], "health": check});
    let id = run.create(&world.container("health", spec)).await.unwrap();
    run.look(&id).await;
    run.start(&id.0).await;
    let healthy = until("it is healthy", async || {
        let state = world.engine.observe(&world.owner).await.unwrap();
        let seen = state.containers.into_iter().find(|container| container.id == id)?;
        (seen.health == Some(EngineHealth::Healthy)).then_some(())
    });
    healthy.await;
    run.look(&id).await;
    run.stop(&id, "5s").await;
    run.look(&id).await;
    run.remove(&id).await;
    run.transcript.lines
}

async fn signals(world: &World) -> Vec<String> {
    let mut run = Run::of(world);
    let id = run.create(&world.script("signals", "exec sleep 1000")).await.unwrap();
    run.start(&id.0).await;
    let begin = tokio::time::Instant::now();
    run.stop(&id, "1s").await;
    run.say("it takes its grace", begin.elapsed() >= Duration::from_secs(1));
    run.look(&id).await;
    run.remove(&id).await;
    run.transcript.lines
}

async fn wakes(world: &World) -> Vec<String> {
    let mut run = Run::of(world);
    let mut events = world.engine.events(&world.owner).await.unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(300), events.next()).await;
    run.say("quiet", quiet.is_err());
    let id = run.create(&world.script("wakes", RUNS)).await.unwrap();
    run.say("woken", events.next().await);
    run.start(&id.0).await;
    run.say("woken", events.next().await);
    run.stop(&id, "5s").await;
    run.say("woken", events.next().await);
    run.remove(&id).await;
    run.transcript.lines
}

async fn images(world: &World) -> Vec<String> {
    let mut run = Run::of(world);
    let engine = &world.engine;
    let (repository, digest) = (&world.repository, world.digest);
    for name in [IMAGE, &world.image.to_string(), "nothing:1", &format!("{repository}:1")] {
        run.say(name, engine.image(name).await);
    }
    for tag in ["1", "2"] {
        let image = format!("{repository}:{tag}").parse().unwrap();
        run.say("resolve", engine.resolve(&image).await);
    }
    let reference: plimsoll::model::ImageRef = format!("{repository}:1").parse().unwrap();
    let pin = |content| Pin { reference: reference.clone(), content };
    let there = pin(ImageContent::Digest(digest));
    let spec = json!({"command": ["/bin/sleep"], "args": ["1000"]});
    let missing = world.container_of("images", there.clone(), spec);
    let _ = run.create(&missing).await;
    let nowhere = pin(ImageContent::Digest(plimsoll::model::Sha256::of(b"nowhere")));
    run.say("pull what is nowhere", engine.pull(&nowhere).await);
    run.say("pull", engine.pull(&there).await);
    run.say("pull again", engine.pull(&there).await);
    run.say("there", engine.image(&there.engine_name()).await);
    let id = run.create(&missing).await.unwrap();
    run.look(&id).await;
    run.remove(&id).await;
    run.transcript.lines
}
