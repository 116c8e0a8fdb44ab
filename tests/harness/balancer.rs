//! Asking a HAProxy what it does, by its own sockets.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::wait::{pause, wait_for};

/// One HAProxy that Plimsoll runs, by the folder in which it lies.
#[derive(Debug, Clone)]
pub struct Balancer {
    folder: PathBuf,
}

/// A server as `show stat` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRow {
    pub backend: String,
    pub name: String,
    /// `UP`, `DOWN`, `MAINT`, `UP 1/3` and the like.
    pub status: String,
    pub weight: u16,
    pub address: String,
}

impl ServerRow {
    /// True where requests are sent to it.
    pub fn serves(&self) -> bool {
        self.status.starts_with("UP") && self.weight > 0
    }
}

impl Balancer {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The process id of the worker. A reload makes another one.
    #[track_caller]
    pub fn worker(&self) -> i32 {
        self.try_worker().unwrap()
    }

    /// The process id of the newest worker, or why HAProxy didn't tell.
    pub fn try_worker(&self) -> Result<i32, String> {
        let info = self.runtime("show info")?;
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid: "));
        pid.and_then(|pid| pid.parse().ok()).ok_or_else(|| format!("no pid in {info}"))
    }

    /// The process id of the master, which stays the same over reloads.
    #[track_caller]
    pub fn master(&self) -> i32 {
        // While it reloads, a master may refuse or reset the connection.
        wait_for(Duration::from_secs(10), "HAProxy's master answers", || {
            let processes = self.ask("master.sock", "show proc")?;
            let mut rows =
                processes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let master = rows.find(|words| words.get(1) == Some(&"master"));
            let pid = master.and_then(|words| words[0].parse().ok());
            pid.ok_or_else(|| format!("no master in {processes}"))
        })
    }

    /// What must be the same before and after where nothing may have been reloaded.
    #[track_caller]
    pub fn generation(&self) -> (i32, i32) {
        (self.master(), self.worker())
    }

    /// All servers of all backends.
    #[track_caller]
    pub fn servers(&self) -> Vec<ServerRow> {
        self.try_servers().unwrap()
    }

    /// All servers of all backends, or why HAProxy didn't tell.
    pub fn try_servers(&self) -> Result<Vec<ServerRow>, String> {
        // Type 4 is servers.
        let table = self.runtime("show stat -1 4 -1")?;
        let mut lines = table.lines().filter(|line| !line.is_empty());
        let names = lines.next().unwrap_or_default().trim_start_matches("# ").split(',');
        let names: Vec<_> = names.collect();
        let rows = lines.map(|line| {
            let row: BTreeMap<_, _> = names.iter().copied().zip(line.split(',')).collect();
            let field = |name: &str| {
                row.get(name).copied().ok_or_else(|| format!("show stat has no {name}: {table}"))
            };
            Ok(ServerRow {
                backend: field("pxname")?.to_owned(),
                name: field("svname")?.to_owned(),
                status: field("status")?.to_owned(),
                weight: field("weight")?.parse().map_err(|_| table.clone())?,
                address: field("addr")?.to_owned(),
            })
        });
        rows.collect()
    }

    /// The servers of one backend, such as `production.web`.
    #[track_caller]
    pub fn servers_of(&self, backend: &str) -> Vec<ServerRow> {
        self.servers().into_iter().filter(|server| server.backend == backend).collect()
    }

    /// The names of a backend's servers with their weights.
    #[track_caller]
    pub fn weights(&self, backend: &str) -> BTreeMap<String, u16> {
        self.servers_of(backend).into_iter().map(|server| (server.name, server.weight)).collect()
    }

    /// The configuration as it lies on the disk.
    #[track_caller]
    pub fn file(&self) -> String {
        std::fs::read_to_string(self.folder.join("haproxy.cfg")).unwrap()
    }

    /// Sends a command to the worker.
    pub fn runtime(&self, command: &str) -> Result<String, String> {
        self.ask("runtime.sock", command)
    }

    fn ask(&self, socket: &str, command: &str) -> Result<String, String> {
        let path = self.folder.join(socket);
        let describe = |error: std::io::Error| format!("{}: {command}: {error}", path.display());
        let mut stream = UnixStream::connect(&path).map_err(describe)?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(describe)?;
        stream.write_all(format!("{command}\n").as_bytes()).map_err(describe)?;
        // The master's socket stays open until it sees our end.
        stream.shutdown(std::net::Shutdown::Write).map_err(describe)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(describe)?;
        Ok(answer)
    }
}

/// Looks all the time how many servers of a backend serve, and keeps the lowest number.
pub struct LowestServing {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<(usize, u64)>>,
}

impl LowestServing {
    /// Begins to look.
    pub fn watch(balancer: Balancer, backend: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, backend) = (stop.clone(), backend.to_owned());
        let thread = std::thread::spawn(move || {
            let (mut lowest, mut looks) = (usize::MAX, 0);
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(servers) = balancer.try_servers() {
                    let of_backend = servers.iter().filter(|server| server.backend == backend);
                    lowest = lowest.min(of_backend.filter(|server| server.serves()).count());
                    looks += 1;
                }
                pause(Duration::from_millis(10));
            }
            (lowest, looks)
        });
        Self { stop, thread: Some(thread) }
    }

    /// The lowest number that was seen.
    #[track_caller]
    pub fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let (lowest, looks) = self.thread.take().expect("it is stopped once").join().unwrap();
        assert!(looks > 0, "HAProxy was never seen");
        lowest
    }
}

impl Drop for LowestServing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
