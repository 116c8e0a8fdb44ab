//! Registries, asked through the engine: Debian's docker-registry on the loopback, which the
//! engine takes without TLS.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use plimsoll::docker::{DockerEngine, Engine, EngineError, EngineOptions};
use plimsoll::model::{ImageContent, ImageRef, Pin, Sha256};

use crate::claim::free_port;
use crate::dockerd::{IMAGE, wait_for};
use crate::fixture::{Fixture, PATIENCE, connect, options, unix};

/// A password whose credentials differ in the two alphabets of base64, and its bcrypt hash.
const PASSWORD: &str = "hunter2>>>???";
const ACCOUNTS: &str = "ann:$2b$04$DKR4O60jX32X4LV5VpBpouyVaEjiZDu4r0rxtmPKJWO6wNS9SZ8C6\n";

struct Registry {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Registry {
    /// `accounts`: the text of a password file, where one has to log in.
    fn start(accounts: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, at) = (free_port(), folder.path().display());
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {at}/data}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n"
        );
        if let Some(accounts) = accounts {
            fs::write(folder.path().join("accounts"), accounts).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {at}/accounts}}}}\n");
        }
        let file = folder.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry can't be started: is it installed?");
        let answers = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        assert!(wait_for(PATIENCE, answers), "the registry didn't come up");
        Self { child, port, _folder: folder }
    }

    fn image(&self, name: &str) -> ImageRef {
        format!("127.0.0.1:{}/{name}", self.port).parse().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pushes the test image, made distinct by a comment, and takes it off the engine again.
fn push(fixture: &Fixture, image: &ImageRef, config: Option<&Path>) -> Sha256 {
    let name = image.to_string();
    let docker = |arguments: &[&str]| fixture.dockerd.docker(arguments);
    let id = docker(&["create", IMAGE]).unwrap();
    assert!(docker(&["commit", "-m", &name, &id, &name]).is_some());
    docker(&["rm", &id]).unwrap();
    let config = config.map(|config| config.display().to_string());
    let push = match &config {
        Some(config) => docker(&["--config", config, "push", "-q", &name]),
        None => docker(&["push", "-q", &name]),
    };
    assert!(push.is_some(), "{name} can't be pushed");
    let format = "{{index .RepoDigests 0}}";
    let digest = docker(&["image", "inspect", "-f", format, &name]).unwrap();
    docker(&["rmi", &name]).unwrap();
    digest.split_once('@').unwrap().1.parse().unwrap()
}

fn pin(reference: &ImageRef, digest: Sha256) -> Pin {
    Pin { reference: reference.clone(), content: ImageContent::Digest(digest) }
}

pub async fn tags_are_resolved_and_digests_pulled(fixture: Arc<Fixture>) {
    let registry = Registry::start(None);
    let engine = &fixture.engine;
    let image = registry.image("web:1.5.0");
    let digest = push(&fixture, &image, None);
    assert_eq!(engine.resolve(&image).await.unwrap(), digest);
    let fixed: ImageRef = format!("{}@{digest}", image.repository()).parse().unwrap();
    assert_eq!(engine.resolve(&fixed).await.unwrap(), digest);

    let web = pin(&image, digest);
    assert_eq!(engine.image(&web.engine_name()).await.unwrap(), None);
    let new = fixture.container_of("registry", web.clone(), serde_json::json!({}));
    let error = engine.create(&new, &Default::default()).await.unwrap_err();
    assert!(matches!(error, EngineError::ImageMissing { .. }), "{error}");
    engine.pull(&web).await.unwrap();
    let info = engine.image(&web.engine_name()).await.unwrap().unwrap();
    assert_eq!(info.repository_digests, [web.engine_name()]);
    let id = engine.create(&new, &Default::default()).await.unwrap();
    engine.remove(&fixture.owner, &id).await.unwrap();

    for missing in [registry.image("web:2"), registry.image("none:1")] {
        for error in [
            engine.resolve(&missing).await.map(drop),
            engine.pull(&pin(&missing, Sha256::of(b"nothing"))).await,
        ] {
            let error = error.unwrap_err();
            assert!(matches!(error, EngineError::ImageMissing { .. }), "{error}");
        }
    }
    // What is on the host needs no registry; what isn't waits for it.
    drop(registry);
    engine.pull(&web).await.unwrap();
    for error in [
        engine.resolve(&image).await.map(drop),
        engine.pull(&pin(&image, Sha256::of(b"nothing"))).await,
    ] {
        let error = error.unwrap_err();
        assert!(matches!(error, EngineError::Transient { .. }), "{error}");
        assert!(error.to_string().contains("can't be asked"), "{error}");
    }
    let built = Pin { reference: image, content: ImageContent::Id(Sha256::of(b"nothing")) };
    let error = engine.pull(&built).await.unwrap_err();
    assert!(matches!(error, EngineError::ImageMissing { .. }), "{error}");
    assert!(error.to_string().contains("docker save"), "{error}");
}

pub async fn credentials_open_a_registry(fixture: Arc<Fixture>) {
    let registry = Registry::start(Some(ACCOUNTS));
    let server = format!("127.0.0.1:{}", registry.port);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let engine: DockerEngine = connect(
        unix(&fixture.dockerd.socket()),
        EngineOptions { docker_config: Some(config.clone()), ..options() },
    );
    let log_in = |password: &str| {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("ann:{password}"));
        let auths = serde_json::json!({"auths": {&server: {"auth": auth}}});
        fs::write(&config, auths.to_string()).unwrap();
    };
    log_in(PASSWORD);
    let image = registry.image("private:1");
    let digest = push(&fixture, &image, Some(folder.path()));
    // Read anew for each call: a login counts at once, and so does its end.
    log_in("wrong");
    for error in [
        engine.resolve(&image).await.map(drop),
        engine.pull(&pin(&image, digest)).await,
        fixture.engine.resolve(&image).await.map(drop),
        fixture.engine.pull(&pin(&image, digest)).await,
    ] {
        let error = error.unwrap_err();
        assert!(matches!(error, EngineError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(&format!("docker login {server}")), "{error}");
    }
    log_in(PASSWORD);
    assert_eq!(engine.resolve(&image).await.unwrap(), digest);
    engine.pull(&pin(&image, digest)).await.unwrap();
}
