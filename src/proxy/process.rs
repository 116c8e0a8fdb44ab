//! The HAProxy that Plimsoll runs itself: started as a daemon of its own, so that it outlives the
//! controller, and found again by its master socket. What is left of an earlier one is ended
//! only when the new one serves, and only processes whose command line names our file.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep};

use super::ProxyError;
use super::machine::{Machine, MachineError};
use crate::model::FilePath;

const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an orphan has to finish its requests.
const ORPHAN_GRACE: Duration = Duration::from_secs(2);

/// How a HAProxy of ours is started.
#[derive(Debug, Clone)]
pub struct Launch {
    pub haproxy: String,
    pub config: FilePath,
    pub master_socket: FilePath,
    pub pid_file: FilePath,
}

impl Launch {
    /// Starts it. It listens when this returns. `inherit_from`: runtime socket of a worker whose
    /// listening sockets it takes over, so that no connection that waits in them is lost.
    ///
    /// # Errors
    /// [`ProxyError::Start`] with what HAProxy wrote.
    pub async fn start(
        &self,
        machine: &dyn Machine,
        inherit_from: Option<&FilePath>,
    ) -> Result<(), ProxyError> {
        let failed = |cause: MachineError| ProxyError::Start(cause.to_string());
        // A file that names a dead process, or worse a process of somebody else.
        machine.remove(&self.pid_file).await.map_err(failed)?;
        let master = format!("{},mode,600,level,admin", self.master_socket);
        let (config, pid_file) = (self.config.as_str(), self.pid_file.as_str());
        let mut words = vec!["-W", "-D", "-S", &master, "-f", config, "-p", pid_file];
        if let Some(socket) = inherit_from {
            words.extend(["-x", socket.as_str()]);
        }
        let outcome = machine.run(&self.haproxy, &words, START_TIMEOUT).await.map_err(failed)?;
        if outcome.succeeded() {
            return Ok(());
        }
        let alerts: Vec<&str> =
            outcome.stderr.lines().filter(|line| line.contains("[ALERT]")).collect();
        let text = if alerts.is_empty() { outcome.text().to_owned() } else { alerts.join("\n") };
        Err(ProxyError::Start(text))
    }

    /// The processes that run our file now.
    pub fn processes(&self) -> Vec<u32> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut pids: Vec<u32> = pids.filter(|pid| self.is_ours(*pid)).collect();
        pids.sort_unstable();
        pids
    }

    /// Ends these, as far as they still run our file: softly, then for good.
    pub async fn end(&self, pids: &[u32]) {
        self.signal(pids, Signal::USR1);
        let end = Instant::now() + ORPHAN_GRACE;
        while Instant::now() < end && pids.iter().any(|pid| self.is_ours(*pid)) {
            sleep(Duration::from_millis(20)).await;
        }
        self.signal(pids, Signal::KILL);
    }

    fn signal(&self, pids: &[u32], signal: Signal) {
        for pid in pids {
            let Some(pid_now) = i32::try_from(*pid).ok().and_then(Pid::from_raw) else { continue };
            // Opened before the look at the command line, so that the number can't come to mean
            // another process in between.
            let Ok(descriptor) = pidfd_open(pid_now, PidfdFlags::empty()) else { continue };
            if self.is_ours(*pid) {
                // It may have ended by itself, which is as good.
                let _ = pidfd_send_signal(&descriptor, signal);
            }
        }
    }

    /// True for a HAProxy that was started with our file.
    fn is_ours(&self, pid: u32) -> bool {
        let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let program = words.first().and_then(|word| std::str::from_utf8(word).ok());
        let name = program.and_then(|program| Path::new(program).file_name());
        let ours = Path::new(&self.haproxy).file_name();
        name.is_some()
            && name == ours
            && words
                .windows(2)
                .any(|pair| pair[0] == b"-f" && pair[1] == self.config.as_str().as_bytes())
    }
}
