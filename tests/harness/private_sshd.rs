//! An ssh server of our own on the loopback, with its own host key and one client key. Killed by
//! its process id at the end.

use std::net::SocketAddr;
use std::process::{Child, Command};

use plimsoll::model::SshAddress;
use tempfile::TempDir;

pub struct Sshd {
    folder: TempDir,
    pub address: SocketAddr,
    child: Child,
}

impl Sshd {
    pub async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("plimsoll-sshd").tempdir().unwrap();
        let path = |name: &str| format!("{}/{name}", folder.path().display());
        for key in ["host", "client"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)])
                .status()
                .unwrap();
            assert!(made.success());
        }
        let address = super::harness::free_address();
        let public = std::fs::read_to_string(path("host.pub")).unwrap();
        let known = format!("[{}]:{} {public}", address.ip(), address.port());
        std::fs::write(path("known_hosts"), known).unwrap();
        std::fs::write(path("unknown_hosts"), "").unwrap();
        let config = format!(
            "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             UsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n\
             AllowStreamLocalForwarding yes\nMaxSessions 50\n",
            path("host"),
            path("client.pub")
        );
        std::fs::write(path("sshd_config"), config).unwrap();
        let log = std::fs::File::create(path("log")).unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &path("sshd_config")])
            .stderr(log)
            .spawn()
            .unwrap();
        super::harness::wait_for("sshd", || async {
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
        Self { folder, address, child }
    }

    /// `known_hosts`: `known_hosts` has its key, `unknown_hosts` hasn't.
    pub fn client(&self, known_hosts: &str) -> SshAddress {
        let path = |name: &str| format!("{}/{name}", self.folder.path().display());
        SshAddress {
            user: None,
            host: self.address.ip().to_string(),
            port: Some(self.address.port()),
            key: Some(path("client")),
            known_hosts: Some(path(known_hosts)),
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        super::harness::kill_all_of(self.folder.path());
    }
}
