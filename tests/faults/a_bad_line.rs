//! A bad line to an engine and to a repository: they are reached in a network namespace of their
//! own, whose firewall loses packets or cuts one direction, and by a proxy that delays what they
//! answer. (The kernel's own way to delay packets, netem, isn't in every kernel.)

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::time::Instant;

use crate::harness::{Engine, Leftover, claim, mark, remember, run, wait_until};

/// A network namespace with an engine and a git daemon in it, and a link that leads there.
pub struct BadLine {
    name: String,
    address: String,
    folder: tempfile::TempDir,
    processes: Vec<Child>,
}

const ENGINE: u16 = 2375;
const GIT: u16 = 9418;

impl BadLine {
    /// To that engine, and to the repositories below `repositories`. It is good as yet.
    pub fn to(engine: &Engine, repositories: &Path) -> Self {
        let number = claim("line", 0..60, |number| {
            !Path::new(&format!("/sys/class/net/plml{number}")).exists()
        });
        let name = format!("plml{number}");
        let folder = tempfile::Builder::new().prefix("plt-l").tempdir().unwrap();
        remember(&Leftover::Folder(folder.path().to_str().unwrap()));
        let inner = format!("{name}i");
        let (here, there) = (format!("172.30.{number}.1/30"), format!("172.30.{number}.2"));
        // A run that was killed may have left it behind.
        let _ = Command::new("ip").args(["netns", "del", &name]).stderr(Stdio::null()).status();
        ip(&["netns", "add", &name]);
        ip(&["link", "add", &name, "type", "veth", "peer", "name", &inner, "netns", &name]);
        ip(&["link", "set", "dev", &name, "alias", &mark()]);
        remember(&Leftover::Namespace(&name));
        ip(&["addr", "add", &here, "dev", &name]);
        ip(&["link", "set", &name, "up"]);
        ip(&["-n", &name, "addr", "add", &format!("{there}/30"), "dev", &inner]);
        ip(&["-n", &name, "link", "set", &inner, "up"]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        let mut line = Self { name, address: there, folder, processes: Vec::new() };
        line.nft("add table inet line");
        line.nft("add chain inet line in { type filter hook input priority 0; }");
        line.nft("add chain inet line out { type filter hook output priority 0; }");
        line.serve_engine(engine);
        line.serve_git(repositories);
        line
    }

    /// The engine's address at the other end.
    pub fn engine(&self) -> (String, u16) {
        (self.address.clone(), ENGINE)
    }

    /// The git daemon's address at the other end.
    pub fn git(&self) -> (String, u16) {
        (self.address.clone(), GIT)
    }

    /// From now on so many of a hundred packets are lost, in each direction.
    pub fn lose(&self, percent: u8) {
        for chain in ["in", "out"] {
            self.nft(&format!("add rule inet line {chain} numgen random mod 100 < {percent} drop"));
        }
    }

    /// From now on nothing that is said there is heard here.
    pub fn cut_answers(&self) {
        self.nft("add rule inet line out drop");
    }

    /// From now on nothing that is said here is heard there.
    pub fn cut_questions(&self) {
        self.nft("add rule inet line in drop");
    }

    /// It is good again.
    pub fn heal(&self) {
        self.nft("flush chain inet line in");
        self.nft("flush chain inet line out");
    }

    fn nft(&self, rule: &str) {
        run(self.inside("nft").arg(rule)).expect(0);
    }

    /// A program in the namespace.
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    fn serve_engine(&mut self, engine: &Engine) {
        let config = self.folder.path().join("haproxy.cfg");
        let (address, socket) = (&self.address, engine.socket().display());
        let text = format!(
            "defaults\n    mode tcp\n    timeout connect 60s\n    timeout client 600s\n    \
             timeout server 600s\nlisten engine\n    bind {address}:{ENGINE}\n    server engine \
             unix@{socket}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut haproxy = self.inside("haproxy");
        haproxy.args(["-db", "-f"]).arg(config);
        self.spawn(&mut haproxy, ENGINE);
    }

    fn serve_git(&mut self, repositories: &Path) {
        // Run directly, since `git daemon` would be a child of `git` that outlives it.
        let exec_path = run(Command::new("git").arg("--exec-path")).expect(0);
        let mut daemon = self.inside(&format!("{}/git-daemon", exec_path.text()));
        daemon.args(["--export-all", "--reuseaddr"]);
        daemon.args([format!("--listen={}", self.address), format!("--port={GIT}")]);
        daemon.arg(format!("--base-path={}", repositories.display())).arg(repositories);
        self.spawn(&mut daemon, GIT);
    }

    fn spawn(&mut self, command: &mut Command, port: u16) {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // `ip netns exec` becomes the program, so that this is its process.
        self.processes.push(command.spawn().unwrap());
        let address = (self.address.clone(), port);
        wait_until(Duration::from_secs(20), "it listens at the other end", || {
            TcpStream::connect((address.0.as_str(), address.1)).is_ok()
        });
    }
}

impl Drop for BadLine {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = Command::new("ip").args(["link", "del", &self.name]).status();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(words: &[&str]) {
    run(Command::new("ip").args(words)).expect(0);
}

/// How late answers come; none at first.
#[derive(Clone, Default)]
pub struct Delay(Arc<AtomicU64>);

impl Delay {
    pub fn set(&self, by: Duration) {
        self.0.store(by.as_millis() as u64, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// A port of 127.0.0.1 that leads to `to`, and on which answers come so much later, however many
/// they are. It serves as long as the test process lives.
pub fn delayed(to: (String, u16), by: &Delay) -> u16 {
    let by = by.clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (to, by) = (to.clone(), by.clone());
            std::thread::spawn(move || {
                let Ok(server) = TcpStream::connect((to.0.as_str(), to.1)) else { return };
                let (asking, answering) = (client.try_clone(), server.try_clone());
                let (Ok(mut asking), Ok(mut to_server)) = (asking, answering) else { return };
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut asking, &mut to_server);
                    let _ = to_server.shutdown(Shutdown::Write);
                });
                answer_later(server, client, &by);
            });
        }
    });
    port
}

fn answer_later(mut from: TcpStream, mut to: TcpStream, by: &Delay) {
    let (sender, parts) = mpsc::channel::<(Instant, Vec<u8>)>();
    let reading = std::thread::spawn(move || {
        let mut part = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut part) {
            if sender.send((Instant::now(), part[..length].to_vec())).is_err() {
                break;
            }
        }
    });
    for (came, part) in parts {
        let (by, margin) = (by.get(), Duration::from_secs(10));
        let due = came + by;
        wait_until(by + margin, "the part is due", || Instant::now() >= due);
        if to.write_all(&part).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = reading.join();
}
