//! A registry on loopback.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::claim::free_port;
use super::engine::Engine;
use super::http::get;
use super::wait::wait_for;
use super::watchdog::{self, Leftover};

/// A running `docker-registry`. Dropped, it is stopped and forgets its images.
pub struct Registry {
    port: u16,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Registry {
    /// Starts an empty registry and waits until it answers.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("plt-r").tempdir().unwrap();
        watchdog::remember(&Leftover::Folder(folder.path().to_str().unwrap()));
        let port = free_port();
        let config = folder.path().join("registry.yml");
        let data = folder.path().join("data");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    \
             enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n",
            data.display()
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry starts: `scripts/setup test` installs it");
        let registry = Self { port, process, _folder: folder };
        wait_for(Duration::from_secs(20), "the registry answers", || {
            get(port, "localhost", "/v2/").map(drop)
        });
        registry
    }

    /// The name of an image in this registry, such as `127.0.0.1:41234/web:1`. Engines take
    /// registries on 127.0.0.0/8 without TLS.
    pub fn name(&self, image: &str) -> String {
        format!("127.0.0.1:{}/{image}", self.port)
    }

    /// Pushes an engine's image under a name of this registry.
    #[track_caller]
    pub fn push(&self, engine: &Engine, image: &str, name: &str) {
        let there = self.name(name);
        engine.docker(["tag", image, &there]).expect(0);
        engine.docker(["push", "--quiet", &there]).expect(0);
        engine.docker(["rmi", &there]).expect(0);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
