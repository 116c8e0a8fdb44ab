//! A Docker Engine of the tests' own, in a temporary folder, with a bridge of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::command::run;
use super::wait::{wait_for, wait_until};
use super::watchdog::{self, Leftover};

/// A running dockerd. Dropped, it is stopped and everything of it is removed; the watchdog does
/// the same when the test process ends without that.
pub struct Dockerd {
    pub socket: PathBuf,
    folder: tempfile::TempDir,
    bridge: String,
    process: Option<Child>,
}

impl Dockerd {
    /// Starts an engine with bridge `plmtNUMBER` and network 172.31.NUMBER.0/24, and waits until
    /// it answers.
    pub fn start(number: u8) -> Self {
        let folder = tempfile::Builder::new().prefix("plt-d").tempdir().unwrap();
        let bridge = format!("plmt{number}");
        watchdog::remember(&Leftover::Bridge(&bridge));
        watchdog::remember(&Leftover::ControlGroup(&bridge));
        watchdog::remember(&Leftover::Folder(folder.path().to_str().unwrap()));
        let address = format!("172.31.{number}.1/24");
        for words in [
            &["link", "add", "name", &bridge, "type", "bridge"][..],
            &["addr", "add", &address, "dev", &bridge],
            &["link", "set", &bridge, "up"],
        ] {
            run(Command::new("ip").args(words)).expect(0);
        }
        let socket = folder.path().join("docker.sock");
        let mut dockerd = Self { socket, folder, bridge, process: None };
        dockerd.start_again();
        dockerd
    }

    /// Starts it once more on the same data, after [`Dockerd::stop`] or [`Dockerd::kill`].
    pub fn start_again(&mut self) {
        self.spawn();
        self.wait_until_it_answers();
    }

    fn spawn(&mut self) {
        let folder = self.folder.path();
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let config = folder.join("daemon.json");
        std::fs::write(&config, "{}").unwrap();
        // A pid file of an engine that was killed would keep the next one from starting.
        let _ = std::fs::remove_file(self.pid_file());
        let child = Command::new("dockerd")
            .arg("--data-root")
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(folder.join("exec"))
            .arg("--pidfile")
            .arg(self.pid_file())
            .arg("--host")
            .arg(format!("unix://{}", self.socket.display()))
            .args(["--bridge", &self.bridge, "--cgroup-parent", &format!("/{}", self.bridge)])
            // The published ports are on loopback, where docker-proxy serves them: engines side
            // by side need not share the chains of one firewall.
            .args(["--iptables=false", "--ip-masq=false", "--shutdown-timeout=3"])
            // Nor does the machine's own configuration concern them.
            .arg("--config-file")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("dockerd starts: `scripts/setup test` installs it");
        self.process = Some(child);
    }

    fn wait_until_it_answers(&mut self) {
        let (socket, log) = (self.socket.clone(), self.log());
        let process = self.process.as_mut().unwrap();
        wait_for(Duration::from_secs(60), "dockerd answers", || {
            if let Some(status) = process.try_wait().unwrap() {
                panic!("dockerd ended with {status}:\n{}", tail(&log));
            }
            ping(&socket).map_err(|error| format!("{error}\n{}", tail(&log)))
        });
    }

    /// Stops the engine in order, and its containers with it.
    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// Kills the engine at once; its containers go on until it is started again.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut process) = self.process.take() else { return };
        watchdog::kill(process.id() as i32, signal);
        let ended = wait_quietly(Duration::from_secs(20), || {
            process.try_wait().is_ok_and(|status| status.is_some())
        });
        if !ended {
            let _ = process.kill();
            let _ = process.wait();
        }
        if signal == Signal::KILL {
            // Its containerd would be found in the way by the next one.
            let own = format!("{}/exec/containerd/containerd.toml", self.folder.path().display());
            for pid in watchdog::users_of(self.folder.path().to_str().unwrap()) {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                if String::from_utf8_lossy(&line).contains(&own) {
                    watchdog::kill(pid, Signal::KILL);
                }
            }
        }
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.path().join("dockerd.pid")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.end(Signal::TERM);
        let folder = self.folder.path().to_str().unwrap();
        watchdog::end_users_of(folder);
        unmount_below(folder);
        let _ = Command::new("ip").args(["link", "del", &self.bridge]).status();
    }
}

fn ping(socket: &Path) -> Result<(), String> {
    use std::io::{Read, Write};
    let mut stream =
        std::os::unix::net::UnixStream::connect(socket).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answer = [0; 12];
    stream
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        .and_then(|()| stream.read_exact(&mut answer))
        .map_err(|error| error.to_string())?;
    if answer.ends_with(b"200") { Ok(()) } else { Err(String::from_utf8_lossy(&answer).into()) }
}

fn unmount_below(folder: &str) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let below = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut below: Vec<_> = below.filter(|path| path.starts_with(folder)).collect();
    below.sort_unstable_by(|a, b| b.cmp(a));
    for path in below {
        let _ = Command::new("umount").args(["-l", path]).stderr(Stdio::null()).status();
    }
}

/// True once `condition` holds; false when the deadline has passed. For clean-up, which may not
/// panic.
fn wait_quietly(deadline: Duration, condition: impl FnMut() -> bool) -> bool {
    let wait = std::panic::AssertUnwindSafe(|| wait_until(deadline, "it ends", condition));
    std::panic::catch_unwind(wait).is_ok()
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
