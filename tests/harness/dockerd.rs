//! A private Docker Engine for tests: its own bridge, data, socket and folder. Everything of it
//! is gone when it is dropped, also after a failed test. Needs root, and Debian's docker.io.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// The image that every engine has: busybox with a shell, and a folder /tmp.
pub const IMAGE: &str = "plimsoll-test:1";

/// How long the engine may take to come up.
const START: Duration = Duration::from_secs(30);

/// How long it may take to go.
const STOP: Duration = Duration::from_secs(15);

pub struct Dockerd {
    child: Option<Child>,
    folder: tempfile::TempDir,
    bridge: String,
    arguments: Vec<String>,
    /// Held as long as the engine runs, so that no other one takes its bridge.
    _lock: File,
}

impl Dockerd {
    /// Starts an engine on bridge `plmtNUMBER` with 172.31.NUMBER.1/24, and gives it [`IMAGE`].
    /// Waits while another process runs the engine of that number.
    pub fn start(number: u8) -> Self {
        Self::start_with(number, &[])
    }

    /// The same with more arguments for dockerd.
    pub fn start_with(number: u8, arguments: &[String]) -> Self {
        let lock = take_number(number);
        let folder = tempfile::Builder::new().prefix("plmt").tempdir().unwrap();
        let bridge = format!("plmt{number}");
        // A run that was killed may have left it behind.
        ip(&["link", "del", &bridge]);
        assert!(ip(&["link", "add", "name", &bridge, "type", "bridge"]), "{bridge}: not root?");
        assert!(ip(&["addr", "add", &format!("172.31.{number}.1/24"), "dev", &bridge]));
        assert!(ip(&["link", "set", &bridge, "up"]));
        let arguments = arguments.to_vec();
        let mut engine = Self { child: None, folder, bridge, arguments, _lock: lock };
        engine.run();
        engine.make_image();
        engine
    }

    /// Starts the process, the first time or after [`Self::kill`].
    pub fn run(&mut self) {
        let folder = self.folder.path();
        let log = File::create(folder.join("log")).unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        let child = Command::new("dockerd")
            .args(["--data-root", &path("data"), "--exec-root", &path("exec")])
            .args(["-p", &path("pid"), "-H", &format!("unix://{}", path("docker.sock"))])
            .args(["--bridge", &self.bridge])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("dockerd can't be started: is docker.io installed?");
        self.child = Some(child);
        let mut exited = false;
        wait_for(START, || {
            let child = self.child.as_mut();
            exited = child.is_some_and(|child| child.try_wait().is_ok_and(|it| it.is_some()));
            exited || self.docker(&["version"]).is_some()
        });
        let said = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let up = !exited && self.docker(&["version"]).is_some();
        assert!(up, "dockerd didn't come up: {}", said());
    }

    /// Kills the process without warning; its containers go on.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // The kernel ends its containerd with it. Until init has taken note of that, the next
        // dockerd takes the number in the file for a containerd that lives, and waits in vain.
        let file = self.folder.path().join("exec/containerd/containerd.pid");
        let pid = fs::read_to_string(&file).unwrap_or_default();
        let status = format!("/proc/{}/status", pid.trim());
        wait_for(STOP, || {
            fs::read_to_string(&status).map_or(true, |status| status.contains("State:\tZ"))
        });
        let _ = fs::remove_file(file);
    }

    /// Asks the process to end, and waits until it has; what becomes of its containers is its own
    /// affair.
    pub fn terminate(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal("-TERM", child.id());
        if !wait_for(STOP, || child.try_wait().is_ok_and(|status| status.is_some())) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs Docker's own client on it: its output, or none where it failed.
    pub fn docker(&self, arguments: &[&str]) -> Option<String> {
        let output = self.client(arguments).stderr(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    /// Docker's own client, talking to it.
    pub fn client(&self, arguments: &[&str]) -> Command {
        let mut client = Command::new("docker");
        client.arg("-H").arg(format!("unix://{}", self.socket().display())).args(arguments);
        client.stdin(Stdio::null());
        client
    }

    fn make_image(&self) {
        let root = self.folder.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir_all(root.join("tmp")).unwrap();
        let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(root.join("tmp"), mode(0o1777)).unwrap();
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("is busybox-static installed?");
        for name in ["sh", "sleep", "cat", "id", "touch", "test", "nc", "httpd", "dd"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        let tar = self.folder.path().join("root.tar");
        let packed =
            Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status();
        assert!(packed.unwrap().success());
        let tar = tar.display().to_string();
        assert!(self.docker(&["import", "-c", "CMD [\"/bin/sh\"]", &tar, IMAGE]).is_some());
    }

    /// Ends whatever still runs of it, by the ids of its own processes.
    fn end(&mut self) {
        if self.child.is_some() {
            let ids = self.docker(&["ps", "-aq"]).unwrap_or_default();
            let ids: Vec<_> = ids.lines().collect();
            if !ids.is_empty() {
                self.docker(&[&["rm", "-f"], ids.as_slice()].concat());
            }
        }
        self.terminate();
        // Its containerd, if it was killed and not started again.
        let pid = fs::read_to_string(self.folder.path().join("exec/containerd/containerd.pid"));
        if let Some(pid) = pid.ok().and_then(|pid| pid.trim().parse().ok()) {
            signal("-KILL", pid);
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.end();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let folder = self.folder.path().display().to_string();
        let ours = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let mut ours: Vec<_> = ours.filter(|at| at.starts_with(&folder)).collect();
        ours.sort_by_key(|at| std::cmp::Reverse(at.len()));
        for at in ours {
            let _ = Command::new("umount").args(["-l", at]).stderr(Stdio::null()).status();
        }
        ip(&["link", "del", &self.bridge]);
    }
}

/// Waits for a condition, but no longer than `limit`.
pub fn wait_for(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        pause();
    }
}

#[allow(clippy::disallowed_methods, reason = "between two looks at a condition, with a deadline")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

fn signal(name: &str, pid: u32) {
    let _ = Command::new("kill").args([name, &pid.to_string()]).stderr(Stdio::null()).status();
}

fn ip(arguments: &[&str]) -> bool {
    let status = Command::new("ip").args(arguments).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn take_number(number: u8) -> File {
    use rustix::fs::{FlockOperation, flock};
    let path = std::env::temp_dir().join(format!("plimsoll-dockerd-{number}.lock"));
    let file = File::create(&path).unwrap();
    let taken = wait_for(Duration::from_secs(300), || {
        flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
    });
    assert!(taken, "{} is held by another run for too long", path.display());
    file
}
