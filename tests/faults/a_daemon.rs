//! A git daemon that may be stopped and started again on its port.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{free_port, wait_until};

pub struct Daemon {
    port: u16,
    folder: PathBuf,
    process: Option<Child>,
}

impl Daemon {
    /// Serves the repositories below `folder` over git's own protocol.
    pub fn start(folder: &Path) -> Self {
        let mut daemon = Self { port: free_port(), folder: folder.to_owned(), process: None };
        daemon.restart();
        daemon
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, repository: &str) -> String {
        format!("git://127.0.0.1:{}/{repository}", self.port)
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub fn restart(&mut self) {
        self.stop();
        // Run directly, since `git daemon` would be a child of `git` that outlives it.
        let exec_path = Command::new("git").arg("--exec-path").output().unwrap().stdout;
        let exec_path = PathBuf::from(String::from_utf8(exec_path).unwrap().trim());
        let process = Command::new(exec_path.join("git-daemon"))
            .args(["--listen=127.0.0.1", "--export-all", "--reuseaddr"])
            .arg(format!("--port={}", self.port))
            .arg(format!("--base-path={}", self.folder.display()))
            .arg(&self.folder)
            .stderr(Stdio::null())
            .spawn();
        self.process = Some(process.unwrap());
        let port = self.port;
        wait_until(Duration::from_secs(20), "the git daemon listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}
