//! A real engine and a stand-in with the same images, and a registry beside them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll::docker::{DockerEngines, Engine, EngineOptions, Engines};
use plimsoll::model::{
    Allow, AppId, Birth, CommitId, ContainerSpec, EngineAddress, Host, HostName, ImageContent,
    Location, NewContainer, Owner, Pin, PortRange, Sha256, Slot,
};
use tokio::time::Instant;

use crate::harness::{self, Dockerd, Registry, free_port};
use crate::standin::{Fleet, Image};

/// How long a case waits for something to become so.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The image that both have: busybox, built on the host.
pub const IMAGE: &str = "plimsoll-test:1";

/// One engine, and what a case needs to speak to it.
pub struct World {
    pub engine: std::sync::Arc<dyn Engine>,
    pub socket: PathBuf,
    pub owner: Owner,
    /// The id of [`IMAGE`].
    pub image: Sha256,
    /// An image in the registry, by repository, and its digest there.
    pub repository: String,
    pub digest: Sha256,
    /// A port that is published.
    pub port: u16,
}

/// Both, and what they live in.
pub struct Worlds {
    pub real: World,
    pub standin: World,
    _dockerd: Dockerd,
    _registry: Registry,
    _folder: tempfile::TempDir,
    _fleet: Fleet,
}

impl Worlds {
    pub fn start() -> Self {
        let dockerd = Dockerd::start_with(96, &["--shutdown-timeout=3".to_owned()]);
        let id = dockerd.docker(&["image", "inspect", "-f", "{{.Id}}", IMAGE]).unwrap();
        let registry = Registry::start();
        let (repository, pushed, digest) = push(&dockerd, &registry);
        let folder = tempfile::tempdir().unwrap();
        let fleet = Fleet::start(folder.path(), 1).unwrap();
        let standin = &fleet.engines()[0];
        let image = |id: &str, repository: &str, digest: Option<String>| Image {
            id: id.to_owned(),
            repository: repository.to_owned(),
            tag: "1".into(),
            digest,
            command: vec!["/bin/sh".into()],
        };
        standin.add_image(&image(&id, "plimsoll-test", None));
        standin.offer_image(&image(&pushed, &repository, Some(digest.to_string())));
        let port = free_port();
        let world = |socket: &Path| World {
            engine: connect(socket),
            socket: socket.to_owned(),
            owner: Owner {
                installation: "shop".parse().unwrap(),
                uid: "8f14e45f".parse().unwrap(),
            },
            image: id.parse().unwrap(),
            repository: repository.clone(),
            digest,
            port,
        };
        let (real, standin) = (world(&dockerd.socket()), world(standin.socket()));
        Self {
            real,
            standin,
            _dockerd: dockerd,
            _registry: registry,
            _folder: folder,
            _fleet: fleet,
        }
    }
}

/// Brings an image into the registry and takes it off the engine: repository, id, digest.
fn push(dockerd: &Dockerd, registry: &Registry) -> (String, String, Sha256) {
    let engine = harness::Engine::new(&dockerd.socket());
    let repository = registry.name("web");
    let name = format!("{repository}:1");
    let container = dockerd.docker(&["create", IMAGE]).unwrap();
    assert!(dockerd.docker(&["commit", "-m", "another", &container, &name]).is_some());
    dockerd.docker(&["rm", &container]).unwrap();
    engine.docker(["push", "--quiet", &name]).expect(0);
    let inspect = |format| dockerd.docker(&["image", "inspect", "-f", format, &name]).unwrap();
    let (id, digest) = (inspect("{{.Id}}"), inspect("{{index .RepoDigests 0}}"));
    dockerd.docker(&["rmi", &name]).unwrap();
    let digest = digest.split_once('@').unwrap().1.parse().unwrap();
    (repository, id, digest)
}

fn connect(socket: &Path) -> std::sync::Arc<dyn Engine> {
    let options = EngineOptions { docker_config: None, ..EngineOptions::default() };
    DockerEngines::new(options).engine(&Host {
        name: HostName::new("alpha").unwrap(),
        engine: EngineAddress::Unix { path: socket.display().to_string() },
        address: [127, 0, 0, 1].into(),
        publish: [127, 0, 0, 1].into(),
        ports: PortRange { first: 20000, last: 20999 },
        drain: false,
        allow: Allow::default(),
        location: Location { file: "hosts.yaml".into(), line: 1 },
    })
}

impl World {
    /// A container of an app of that name; `spec` is what differs from the empty spec.
    pub fn container(&self, app: &str, spec: serde_json::Value) -> NewContainer {
        let content = ImageContent::Id(self.image);
        self.container_of(app, Pin { reference: IMAGE.parse().unwrap(), content }, spec)
    }

    /// A container of an app of that name which runs a shell script.
    pub fn script(&self, app: &str, script: &str) -> NewContainer {
        let args = serde_json::json!(["-c", script]);
        self.container(app, serde_json::json!({"command": ["/bin/sh"], "args": args}))
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

    /// The container of an app of that name publishes its port 8080.
    pub fn publishing(&self, app: &str) -> NewContainer {
        let mut container = self.script(app, RUNS);
        container.spec.port = Some(8080);
        container.birth.revision = container.spec.revision();
        container.birth.port = Some(self.port);
        container.publish = Some(([127, 0, 0, 1], self.port).into());
        container
    }
}

/// A script that runs until it is told to end, and then ends well.
pub const RUNS: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

/// Waits until `look` gives something.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
