//! A real Docker Engine. Its cases share it, and run side by side.

use std::any::Any;
use std::net::TcpListener;
use std::sync::RwLock;

use plimsoll::docker::{DockerEngine, Engine, EngineOptions};
use plimsoll::model::{
    Allow, ContainerId, EngineAddress, Host, HostName, ImageContent, Location, Pin, PortRange,
    Sha256,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::dockerd::{Dockerd, IMAGE};
use crate::engine_lab::{EngineLab, Program};

pub struct RealEngine {
    dockerd: RwLock<Dockerd>,
    engine: DockerEngine,
    image: Sha256,
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
        let options = EngineOptions { docker_config: None, ..EngineOptions::default() };
        let engine = DockerEngine::connect(&host, options);
        let id = dockerd.docker(&["image", "inspect", "-f", "{{.Id}}", IMAGE]).unwrap();
        Self { dockerd: RwLock::new(dockerd), engine, image: id.parse().unwrap() }
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
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
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

    fn remove_by_hand(&self, id: &ContainerId) {
        self.docker(&["rm", "-f", &id.0]).unwrap();
    }

    fn end_engine(&self) {
        self.dockerd.write().unwrap().kill();
    }

    fn begin_engine(&self) {
        self.dockerd.write().unwrap().run();
    }
}
