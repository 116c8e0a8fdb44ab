//! A real Docker Engine. Its cases share it, and run side by side.

use std::any::Any;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, RwLock};

use plimsoll::docker::{Deadlines, DockerEngine, Engine, EngineOptions};
use plimsoll::model::{
    Allow, ContainerId, EngineAddress, Host, HostName, ImageContent, ImageRef, Location, Pin,
    PortRange, Sha256,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::dockerd::{Dockerd, IMAGE, wait_for};
use crate::engine_lab::{EngineLab, PATIENCE, Program};
use crate::haproxy::free_port;

pub struct RealEngine {
    dockerd: RwLock<Dockerd>,
    engine: DockerEngine,
    image: Sha256,
    registry: Mutex<Option<Registry>>,
}

impl RealEngine {
    pub fn start() -> Self {
        let dockerd = Dockerd::start_with(95, &["--shutdown-timeout=3".to_owned()]);
        let host = Host {
            name: HostName::new("alpha").unwrap(),
            engine: EngineAddress::Unix { path: dockerd.socket().display().to_string() },
            address: [127, 0, 0, 1].into(),
            publish: [127, 0, 0, 1].into(),
            ports: PortRange { first: 20000, last: 20999 },
            drain: false,
            allow: Allow::default(),
            location: Location { file: "hosts.yaml".into(), line: 1 },
        };
        // A machine that is busy with other things is no fault of the engine's.
        let (look, observe, change, stop) = (PATIENCE, PATIENCE, PATIENCE, PATIENCE);
        let deadlines = Deadlines { look, observe, change, stop, ..Deadlines::default() };
        let options = EngineOptions { docker_config: None, deadlines, ..EngineOptions::default() };
        let engine = DockerEngine::connect(&host, options);
        let id = dockerd.docker(&["image", "inspect", "-f", "{{.Id}}", IMAGE]).unwrap();
        let (dockerd, registry) = (RwLock::new(dockerd), Mutex::default());
        Self { dockerd, engine, image: id.parse().unwrap(), registry }
    }

    fn docker(&self, arguments: &[&str]) -> Option<String> {
        self.dockerd.read().unwrap().docker(arguments)
    }
}

impl EngineLab for RealEngine {
    fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    fn image(&self, _: Program) -> Pin {
        Pin { reference: IMAGE.parse().unwrap(), content: ImageContent::Id(self.image) }
    }

    fn free_port(&self) -> u16 {
        free_port()
    }

    fn hold_port(&self, port: u16) -> Box<dyn Any + Send> {
        Box::new(TcpListener::bind(("127.0.0.1", port)).unwrap())
    }

    fn foreign(&self, name: &str, port: u16, runs: bool) -> ContainerId {
        let publish = format!("127.0.0.1:{port}:80");
        let words = ["create", "--name", name, "-p", &publish, IMAGE, "sleep", "1000"];
        let id = self.docker(&words).unwrap();
        if runs {
            self.docker(&["start", &id]).unwrap();
        }
        ContainerId(id)
    }

    fn status(&self, id: &ContainerId) -> Option<String> {
        self.docker(&["inspect", "-f", "{{.State.Status}}", &id.0])
    }

    fn kill_program(&self, id: &ContainerId) {
        let pid = self.docker(&["inspect", "-f", "{{.State.Pid}}", &id.0]).unwrap();
        kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    }

    fn kill_by_hand(&self, id: &ContainerId) {
        self.docker(&["kill", &id.0]).unwrap();
    }

    fn pause_by_hand(&self, id: &ContainerId) {
        self.docker(&["pause", &id.0]).unwrap();
    }

    fn rename_by_hand(&self, id: &ContainerId, name: &str) {
        self.docker(&["rename", &id.0, name]).unwrap();
    }

    fn remove_by_hand(&self, id: &ContainerId) {
        self.docker(&["rm", "-f", &id.0]).unwrap();
    }

    fn begin_registry(&self) -> ImageRef {
        let registry = Registry::start(self.free_port());
        let image = registry.image("web:1");
        let id = self.docker(&["create", IMAGE]).unwrap();
        // Made distinct by a comment, so that the host hasn't got it any more in the end.
        self.docker(&["commit", "-m", &image, &id, &image]).unwrap();
        self.docker(&["rm", &id]).unwrap();
        self.docker(&["push", "-q", &image]).expect("it can't be pushed");
        self.docker(&["rmi", &image]).unwrap();
        *self.registry.lock().unwrap() = Some(registry);
        image.parse().unwrap()
    }

    fn end_registry(&self) {
        self.registry.lock().unwrap().take();
    }

    fn end_engine(&self) {
        self.dockerd.write().unwrap().kill();
    }

    fn begin_engine(&self) {
        self.dockerd.write().unwrap().run();
    }
}

/// Debian's docker-registry, which an engine takes without TLS on the loopback.
struct Registry {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Registry {
    fn start(port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {at}/data}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n"
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
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

    fn image(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
