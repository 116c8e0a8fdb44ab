//! What the cases share: the engine, an owner, and specs of containers to start from.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::docker::{Deadlines, DockerEngine, Engine, EngineOptions};
use plimsoll::model::{
    Allow, AppId, Birth, CommitId, Container, ContainerId, ContainerSpec, EngineAddress, Host,
    HostName, ImageContent, Location, NewContainer, Owner, Pin, PortRange, Sha256, Slot, Span,
};
use tokio::time::Instant;

use crate::dockerd::{Dockerd, IMAGE};

/// How long a case waits for something to become so.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Fixture {
    pub dockerd: Dockerd,
    pub engine: DockerEngine,
    pub owner: Owner,
    pub image: Sha256,
}

impl Fixture {
    pub fn start() -> Self {
        let dockerd = Dockerd::start_with(97, &["--shutdown-timeout=3".to_owned()]);
        let engine = connect(unix(&dockerd.socket()), options());
        let id = dockerd.docker(&["image", "inspect", "-f", "{{.Id}}", IMAGE]).unwrap();
        let owner =
            Owner { installation: "shop".parse().unwrap(), uid: "8f14e45f".parse().unwrap() };
        Self { dockerd, engine, owner, image: id.parse().unwrap() }
    }

    /// A container of an app of that name which runs a shell script.
    pub fn script(&self, app: &str, script: &str) -> NewContainer {
        let args = serde_json::json!(["-c", script]);
        self.container(app, serde_json::json!({"command": ["/bin/sh"], "args": args}))
    }

    /// A container of an app of that name; `spec` is what differs from the empty spec.
    pub fn container(&self, app: &str, spec: serde_json::Value) -> NewContainer {
        let content = ImageContent::Id(self.image);
        self.container_of(app, Pin { reference: IMAGE.parse().unwrap(), content }, spec)
    }

    pub fn container_of(&self, app: &str, pin: Pin, spec: serde_json::Value) -> NewContainer {
        let mut whole = serde_json::json!({"image": pin.content});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let spec: ContainerSpec = serde_json::from_value(whole).unwrap();
        let birth = Birth {
            installation: self.owner.installation.clone(),
            uid: self.owner.uid.clone(),
            app: AppId::new("production", app).unwrap(),
            revision: spec.revision(),
            slot: Slot(0),
            port: None,
            commit: CommitId("c".repeat(40)),
            pin,
        };
        NewContainer { birth, spec, host: HostName::new("alpha").unwrap(), publish: None }
    }

    /// Creates and starts it.
    pub async fn run(&self, container: &NewContainer) -> ContainerId {
        let id = self.engine.create(container, &BTreeMap::new()).await.unwrap();
        self.engine.start(&self.owner, &id.0).await.unwrap();
        id
    }

    /// Stops it at once and removes it.
    pub async fn destroy(&self, id: &ContainerId) {
        self.engine.stop(&self.owner, id, Span::from_millis(0)).await.unwrap();
        self.engine.remove(&self.owner, id).await.unwrap();
    }

    /// The container as a whole look sees it, which has to be what inspect sees.
    pub async fn seen(&self, id: &ContainerId) -> Option<Container> {
        let state = self.engine.observe(&self.owner).await.unwrap();
        let found = state.containers.into_iter().find(|container| container.id == *id);
        found.map(Arc::unwrap_or_clone)
    }

    /// Waits until the container is as `condition` wants it.
    pub async fn until(
        &self,
        id: &ContainerId,
        condition: impl Fn(&Container) -> bool,
    ) -> Container {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.seen(id).await;
            match seen {
                Some(container) if condition(&container) => return container,
                seen => assert!(Instant::now() < deadline, "still {seen:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub fn options() -> EngineOptions {
    EngineOptions { docker_config: None, ..EngineOptions::default() }
}

/// Options whose deadlines pass quickly.
pub fn impatient() -> EngineOptions {
    let look = Duration::from_secs(5);
    let deadlines = Deadlines { look, change: Duration::from_secs(10), ..Deadlines::default() };
    EngineOptions { deadlines, ..options() }
}

pub fn unix(socket: &Path) -> EngineAddress {
    EngineAddress::Unix { path: socket.display().to_string() }
}

pub fn connect(engine: EngineAddress, options: EngineOptions) -> DockerEngine {
    let host = Host {
        name: HostName::new("alpha").unwrap(),
        engine,
        address: [127, 0, 0, 1].into(),
        publish: [127, 0, 0, 1].into(),
        ports: PortRange { first: 20000, last: 20999 },
        drain: false,
        allow: Allow::default(),
        location: Location { file: "hosts.yaml".into(), line: 1 },
    };
    DockerEngine::connect(&host, options)
}

/// A container that publishes its port 8080 at `port` of the loopback.
pub fn published(mut container: NewContainer, port: u16) -> NewContainer {
    container.spec.port = Some(8080);
    container.birth.revision = container.spec.revision();
    container.birth.port = Some(port);
    container.publish = Some(([127, 0, 0, 1], port).into());
    container
}
