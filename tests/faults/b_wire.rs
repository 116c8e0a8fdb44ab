//! A wire between Plimsoll and one socket of HAProxy that breaks chosen commands: the answer is
//! lost, never comes, is cut short, or is nonsense. HAProxy itself goes on for everybody else.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::wait_until;

/// What happens to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// The connection is closed before HAProxy hears of it.
    Swallow,
    /// HAProxy does it, and the connection is closed without an answer.
    LoseAnswer,
    /// The first half of the answer.
    Half,
    /// Bytes that are no text.
    Garbage,
    /// Nothing, until the caller gives up.
    Stall,
    /// These words, which HAProxy never said.
    Say(&'static str),
}

/// Which lines suffer, and how.
#[derive(Debug, Clone)]
struct Planned {
    part: String,
    /// One after the other, round and round.
    how: Vec<Break>,
    turn: usize,
    /// They don't suffer before a line with this in it was carried.
    after: Option<String>,
}

/// While it lives, the wire lies in the socket's place.
pub struct Wire(Arc<Shared>);

struct Shared {
    socket: PathBuf,
    real: PathBuf,
    /// Of our own socket, as long as nobody put another one in its place.
    inode: AtomicU64,
    plan: Mutex<Option<Planned>>,
    hits: AtomicU64,
    /// Kept open, so that the caller waits; there are few.
    stalled: Mutex<Vec<UnixStream>>,
}

impl Wire {
    /// Puts itself in front of a socket on which somebody listens. Everything is carried.
    pub fn before(socket: &Path) -> Self {
        let shared = Arc::new(Shared {
            socket: socket.to_owned(),
            real: socket.with_extension("real"),
            inode: AtomicU64::new(0),
            plan: Mutex::new(None),
            hits: AtomicU64::new(0),
            stalled: Mutex::new(Vec::new()),
        });
        shared.take_the_place();
        Self(shared)
    }

    /// From now on lines with `part` in them suffer.
    pub fn plan(&self, part: &str, how: Break) {
        self.0.set(Some(Planned { part: part.to_owned(), how: vec![how], turn: 0, after: None }));
    }

    /// Once a reload was carried, lines with `part` in them suffer each of these in turn. HAProxy
    /// puts a new socket in the place then; the wire is in front of that one too before the answer
    /// to the reload ends.
    pub fn plan_after_reload(&self, part: &str, how: &[Break]) {
        let after = Some("reload".to_owned());
        let how = how.to_vec();
        self.0.set(Some(Planned { part: part.to_owned(), how, turn: 0, after }));
    }

    /// From now on everything is carried.
    pub fn heal(&self) {
        self.0.set(None);
    }

    /// How many lines have suffered so far.
    pub fn hits(&self) -> u64 {
        self.0.hits.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // A new generation of HAProxy may have put its own socket in the place meanwhile.
        if self.0.is_in_place() {
            let _ = std::fs::rename(&self.0.real, &self.0.socket);
        }
    }
}

impl Shared {
    fn set(&self, plan: Option<Planned>) {
        *self.plan.lock().unwrap() = plan;
    }

    fn is_in_place(&self) -> bool {
        let ours = self.inode.load(Ordering::Relaxed);
        std::fs::metadata(&self.socket).is_ok_and(|now| now.ino() == ours)
    }

    fn take_the_place(self: &Arc<Self>) {
        std::fs::rename(&self.socket, &self.real).unwrap();
        let listener = UnixListener::bind(&self.socket).unwrap();
        self.inode.store(std::fs::metadata(&self.socket).unwrap().ino(), Ordering::Relaxed);
        let shared = self.clone();
        // The thread ends with the test process: a listener can't be told to stop.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || shared.carry(client));
            }
        });
    }

    /// What happens to a line, and whether it is the reload that was waited for.
    fn judge(&self, line: &str) -> (Option<Break>, bool) {
        let mut plan = self.plan.lock().unwrap();
        let Some(planned) = plan.as_mut() else { return (None, false) };
        match &planned.after {
            Some(after) if line.contains(after) => {
                planned.after = None;
                (None, true)
            }
            Some(_) => (None, false),
            None if line.contains(&planned.part) => {
                let how = planned.how[planned.turn % planned.how.len()];
                planned.turn += 1;
                (Some(how), false)
            }
            None => (None, false),
        }
    }

    /// HAProxy's master starts itself anew twice when it reloads, and puts a socket in the place
    /// each time: the one that stays counts.
    fn wait_for_the_new_socket(&self) {
        let inode = || std::fs::metadata(&self.socket).map_or(0, |found| found.ino());
        let (mut last, mut stayed) = (self.inode.load(Ordering::Relaxed), 0);
        wait_until(Duration::from_secs(20), "HAProxy's new socket", || {
            let now = inode();
            // In our own place it would be the wire that is asked.
            let answers = || ask(&self.socket, "show proc\n").is_ok_and(|a| !a.is_empty());
            let stays = now == last && !self.is_in_place() && answers();
            stayed = if stays { stayed + 1 } else { 0 };
            last = now;
            stayed >= 15
        });
    }

    fn carry(self: &Arc<Self>, mut client: UnixStream) {
        let mut line = String::new();
        // Plimsoll closes its side after its line.
        if client.read_to_string(&mut line).is_err() {
            return;
        }
        let (fault, is_the_reload) = self.judge(&line);
        if fault.is_some() {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        let answer = match fault {
            Some(Break::Swallow) => return,
            Some(Break::Garbage) => b"\xff\xfe\x00\x80 what is this?\n\n".to_vec(),
            Some(Break::Say(words)) => format!("{words}\n\n").into_bytes(),
            Some(Break::Stall) => {
                self.stalled.lock().unwrap().push(client);
                return;
            }
            // The master drops the connection when it reloads.
            Some(Break::LoseAnswer | Break::Half) | None => {
                ask(&self.real, &line).unwrap_or_default()
            }
        };
        if is_the_reload {
            self.wait_for_the_new_socket();
            self.take_the_place();
        }
        let part = match fault {
            Some(Break::LoseAnswer) => return,
            Some(Break::Half) => &answer[..answer.len() / 2],
            _ => &answer[..],
        };
        let _ = client.write_all(part);
    }
}

/// Sends a line to a socket of HAProxy, and returns everything that it answers.
pub fn ask(upstream: &Path, line: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(upstream)?;
    stream.write_all(line.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
