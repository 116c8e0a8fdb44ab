//! An ssh server on loopback with keys of its own, for hosts and balancers that are reached by
//! ssh.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::claim::free_port;
use super::command::run;
use super::wait::wait_for;
use super::watchdog::{self, Leftover};

/// A running sshd that lets root in with [`Sshd::key`]. Dropped, it is stopped.
pub struct Sshd {
    pub port: u16,
    folder: tempfile::TempDir,
    process: Child,
}

impl Sshd {
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("plt-s").tempdir().unwrap();
        watchdog::remember(&Leftover::Folder(folder.path().to_str().unwrap()));
        // sshd insists on its folder for unprivileged children.
        std::fs::create_dir_all("/run/sshd").unwrap();
        for name in ["host", "user"] {
            let path = folder.path().join(name);
            let words = ["-q", "-t", "ed25519", "-N", "", "-f"];
            run(Command::new("ssh-keygen").args(words).arg(path)).expect(0);
        }
        let port = free_port();
        let config = folder.path().join("sshd_config");
        std::fs::write(&config, config_text(folder.path(), port)).unwrap();
        let process = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sshd starts: `scripts/setup test` installs it");
        let sshd = Self { port, folder, process };
        sshd.write_known_hosts();
        wait_for(Duration::from_secs(20), "sshd answers", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|e| e.to_string())
        });
        sshd
    }

    /// A private key that opens it.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("user")
    }

    /// A file that knows its host key.
    pub fn known_hosts(&self) -> PathBuf {
        self.folder.path().join("known_hosts")
    }

    /// As a manifest names it.
    pub fn url(&self) -> String {
        format!("ssh://root@127.0.0.1:{}", self.port)
    }

    fn write_known_hosts(&self) {
        let key = std::fs::read_to_string(self.folder.path().join("host.pub")).unwrap();
        let line = format!("[127.0.0.1]:{} {key}", self.port);
        std::fs::write(self.known_hosts(), line).unwrap();
    }
}

fn config_text(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/pid\n\
         AuthorizedKeysFile {folder}/user.pub\nPermitRootLogin prohibit-password\n\
         PasswordAuthentication no\nUsePAM no\nStrictModes no\nMaxSessions 100\n\
         Subsystem sftp internal-sftp\n"
    )
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
