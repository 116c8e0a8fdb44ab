//! The real program, as a process of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use plimsoll::api::{Client, Operations, Status};
use plimsoll::model::Kind;
use tokio::time::Instant;

use crate::options::Options;
use crate::process;

/// Between two looks at what the controller says.
const PAUSE: Duration = Duration::from_millis(10);

/// A running controller. Dropped, it is killed.
pub struct Controller {
    process: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Controller {
    /// Starts it on that remote, with all of its own in `folder`.
    pub fn start(options: &Options, folder: &Path, remote: &str) -> Self {
        let log = folder.join("controller.log");
        let file = File::create(&log).expect("a file can be made");
        let state = folder.join("state");
        let mut command = Command::new(&options.program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLIMSOLL_")) {
            command.env_remove(name);
        }
        let process = command
            .args(["run", "--interval", &options.interval, "--repo", remote, "--state"])
            .arg(&state)
            .current_dir(folder)
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a descriptor"))
            .stderr(file)
            .spawn()
            .expect("the controller starts");
        Self { process, socket: state.join(plimsoll::api::SOCKET_NAME), log }
    }

    /// The commit whose declared state was reached last.
    pub async fn applied(&self) -> Option<String> {
        let client = Client::connect(&self.socket).await?;
        let source = client.get(Kind::Source, Some("source".into())).await.ok()?;
        Some(source.first()?.status.get("applied")?.as_str()?.to_owned())
    }

    /// Waits until that commit is reached; false where it isn't by then.
    pub async fn reaches(&mut self, commit: &str, by: Instant) -> bool {
        while self.applied().await.as_deref() != Some(commit) {
            if Instant::now() > by || !self.lives() {
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
        true
    }

    pub async fn status(&self) -> Option<Status> {
        Client::connect(&self.socket).await?.status().await.ok()
    }

    /// What it has counted so far.
    pub async fn counters(&self) -> BTreeMap<String, u64> {
        self.status().await.map(|status| status.counters).unwrap_or_default()
    }

    pub fn lives(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Resident memory now, and at its highest, in MiB.
    pub fn memory(&self) -> (u64, u64) {
        process::memory(self.process.id())
    }

    pub fn processor_time(&self) -> Duration {
        process::processor_time(self.process.id())
    }

    /// The last lines that it wrote.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
