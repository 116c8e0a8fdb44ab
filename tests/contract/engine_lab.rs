//! What the cases of the engine's seam need of a world: an engine, containers of programs that
//! behave as they are told, and a hand that does what no call of the seam can.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use plimsoll::docker::{Engine, EngineError, LogLine};
use plimsoll::model::{
    AppId, Birth, CommitId, Container, ContainerId, ContainerSpec, ContainerState, HostName,
    ImageRef, NewContainer, Owner, Pin, Slot, Span,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// How long a case waits for something to become so.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const NO_GRACE: Span = Span::from_millis(0);

/// What a container's program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// It says something, runs, and ends with 0 when it is told to.
    Runs,
    /// It runs, and doesn't end when it is told to.
    Deaf,
    /// It ends with 1 right after each start.
    Crashes,
    /// It runs, and the engine's check of it passes.
    Well,
    /// It runs, and the engine's check of it fails.
    Sick,
    /// It is to run as a user that the image doesn't have.
    Unstartable,
}

impl Program {
    /// What differs from the empty spec.
    fn spec(self) -> Value {
        let script = match self {
            Self::Runs | Self::Well | Self::Sick | Self::Unstartable => {
                "trap 'exit 0' TERM; echo begun >&2; sleep 1000 & wait"
            }
            Self::Deaf => "trap '' TERM; echo begun >&2; exec sleep 1000",
            Self::Crashes => "echo begun >&2; exit 1",
        };
        let mut spec = json!({"command": ["/bin/sh"], "args": ["-c", script]});
        let check = |path| {
            let command = ["/bin/test", "-e", path];
            json!({"command": command, "interval": "500ms", "timeout": "5s"})
        };
        match self {
            Self::Well => spec["health"] = check("/tmp"),
            Self::Sick => spec["health"] = check("/nowhere"),
            Self::Unstartable => spec["user"] = json!("nobody-at-all"),
            Self::Runs | Self::Deaf | Self::Crashes => {}
        }
        spec
    }
}

/// A world with one engine.
pub trait EngineLab: Send + Sync {
    fn engine(&self) -> &dyn Engine;

    /// An image of the host whose containers behave so where their spec says so too.
    fn image(&self, program: Program) -> Pin;

    /// A port of the host that nobody has.
    fn free_port(&self) -> u16;

    /// A program outside of containers listens on that port until what is given is dropped.
    fn hold_port(&self, port: u16) -> Box<dyn Any + Send>;

    /// A container of somebody else, which publishes `port` once it runs.
    fn foreign(&self, name: &str, port: u16, runs: bool) -> ContainerId;

    /// How any container is doing, in Docker's word for it; none where there is none.
    fn status(&self, id: &ContainerId) -> Option<String>;

    /// The container's program is killed, as by the kernel.
    fn kill_program(&self, id: &ContainerId);

    /// `docker kill`: the engine knows that somebody wants it not to run.
    fn kill_by_hand(&self, id: &ContainerId);

    /// `docker pause`.
    fn pause_by_hand(&self, id: &ContainerId);

    /// `docker rename`.
    fn rename_by_hand(&self, id: &ContainerId, name: &str);

    /// `docker rm -f`.
    fn remove_by_hand(&self, id: &ContainerId);

    /// A registry begins, with one image, which the host doesn't have. It lacks all others, and
    /// says so of those whose tag ends with `-nopull`.
    fn begin_registry(&self) -> ImageRef;

    fn end_registry(&self);

    /// The engine ends without a word. Only a case that is alone on the engine may do that.
    fn end_engine(&self);

    /// The engine is started again.
    fn begin_engine(&self);
}

/// Ended with that code, not for want of memory.
pub fn exited(code: i64) -> ContainerState {
    ContainerState::Exited { code, out_of_memory: false }
}

/// A case with an installation of its own, so that it meets no containers of other cases.
pub struct Case<'a> {
    pub lab: &'a dyn EngineLab,
    pub owner: Owner,
}

impl<'a> Case<'a> {
    pub fn new(lab: &'a dyn EngineLab, installation: &str) -> Self {
        let installation = installation.parse().unwrap();
        Self { lab, owner: Owner { installation, uid: "8f14e45f".parse().unwrap() } }
    }

    pub fn engine(&self) -> &dyn Engine {
        self.lab.engine()
    }

    pub fn container(&self, program: Program) -> NewContainer {
        let pin = self.lab.image(program);
        let mut whole = program.spec();
        whole["image"] = json!(pin.content);
        let spec: ContainerSpec = serde_json::from_value(whole).unwrap();
        let birth = Birth {
            installation: self.owner.installation.clone(),
            uid: self.owner.uid.clone(),
            app: AppId::new("production", "web").unwrap(),
            revision: spec.revision(),
            slot: Slot(0),
            port: None,
            commit: CommitId("c".repeat(40)),
            pin,
        };
        NewContainer { birth, spec, host: HostName::new("alpha").unwrap(), publish: None }
    }

    /// The same with its port 8080 at `port` of the host.
    pub fn published(&self, program: Program, port: u16) -> NewContainer {
        let mut new = self.container(program);
        new.spec.port = Some(8080);
        new.birth.revision = new.spec.revision();
        new.birth.port = Some(port);
        new.publish = Some(([127, 0, 0, 1], port).into());
        new
    }

    pub async fn create(&self, new: &NewContainer) -> Result<ContainerId, EngineError> {
        self.engine().create(new, &BTreeMap::new()).await
    }

    pub async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.engine().start(&self.owner, &id.0).await
    }

    pub async fn stop(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.engine().stop(&self.owner, id, Span::from_secs(10)).await
    }

    pub async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.engine().remove(&self.owner, id).await
    }

    /// Creates and starts it.
    pub async fn run(&self, new: &NewContainer) -> ContainerId {
        let id = self.create(new).await.unwrap();
        self.start(&id).await.unwrap();
        id
    }

    /// Stops it at once and removes it.
    pub async fn destroy(&self, id: &ContainerId) {
        self.engine().stop(&self.owner, id, Span::from_millis(0)).await.unwrap();
        self.remove(id).await.unwrap();
    }

    /// All of ours, as a whole look sees them.
    pub async fn ours(&self) -> Vec<Container> {
        let state = self.engine().observe(&self.owner).await.unwrap();
        state.containers.into_iter().map(Arc::unwrap_or_clone).collect()
    }

    /// One of ours, as a whole look sees it.
    pub async fn seen(&self, id: &ContainerId) -> Option<Container> {
        self.ours().await.into_iter().find(|container| container.id == *id)
    }

    pub async fn inspected(&self, id: &ContainerId) -> Option<Container> {
        self.engine().inspect(&self.owner, &id.0).await.unwrap()
    }

    /// Waits until the program has said so: then it also minds signals.
    pub async fn says_begun(&self, id: &ContainerId) {
        let deadline = Instant::now() + PATIENCE;
        let begun = LogLine { is_error: true, text: "begun".into() };
        loop {
            let lines = self.engine().logs(&self.owner, id, Some(1), false).await.unwrap();
            let lines: Vec<_> = lines.map(Result::unwrap).collect().await;
            if lines == [begun.clone()] {
                return;
            }
            assert!(Instant::now() < deadline, "it said {lines:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until inspection tells what `condition` wants.
    pub async fn until(
        &self,
        id: &ContainerId,
        condition: impl Fn(&Container) -> bool,
    ) -> Container {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.inspected(id).await {
                Some(container) if condition(&container) => return container,
                seen => assert!(Instant::now() < deadline, "still {seen:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}
