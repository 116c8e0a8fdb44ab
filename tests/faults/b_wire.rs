//! A wire between Plimsoll and one socket of HAProxy that breaks chosen commands: the answer is
//! lost, never comes, is cut short, or is nonsense. HAProxy itself goes on for everybody else.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

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

/// While it lives, the wire lies in the socket's place.
pub struct Wire {
    socket: PathBuf,
    real: PathBuf,
    inode: u64,
    plan: Arc<Mutex<Option<(String, Break)>>>,
    hits: Arc<AtomicU64>,
}

impl Wire {
    /// Puts itself in front of a socket on which somebody listens. Everything is carried.
    pub fn before(socket: &Path) -> Self {
        let real = socket.with_extension("real");
        std::fs::rename(socket, &real).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let inode = std::fs::metadata(socket).unwrap().ino();
        let plan: Arc<Mutex<Option<(String, Break)>>> = Arc::default();
        let hits = Arc::new(AtomicU64::new(0));
        let (upstream, plans, counter) = (real.clone(), plan.clone(), hits.clone());
        // Kept open, so that the caller waits; there are few.
        let stalled: Arc<Mutex<Vec<UnixStream>>> = Arc::default();
        // The thread ends with the test process: a listener can't be told to stop.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (upstream, plans) = (upstream.clone(), plans.clone());
                let (counter, stalled) = (counter.clone(), stalled.clone());
                std::thread::spawn(move || carry(client, &upstream, &plans, &counter, &stalled));
            }
        });
        Self { socket: socket.to_owned(), real, inode, plan, hits }
    }

    /// From now on lines with `part` in them suffer.
    pub fn plan(&self, part: &str, how: Break) {
        *self.plan.lock().unwrap() = Some((part.to_owned(), how));
    }

    /// From now on everything is carried.
    pub fn heal(&self) {
        *self.plan.lock().unwrap() = None;
    }

    /// How many lines have suffered so far.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // A new generation of HAProxy may have put its own socket in the place meanwhile.
        if std::fs::metadata(&self.socket).is_ok_and(|now| now.ino() == self.inode) {
            let _ = std::fs::rename(&self.real, &self.socket);
        }
    }
}

fn carry(
    mut client: UnixStream,
    upstream: &Path,
    plan: &Mutex<Option<(String, Break)>>,
    hits: &AtomicU64,
    stalled: &Mutex<Vec<UnixStream>>,
) {
    let mut line = String::new();
    // Plimsoll closes its side after its line.
    if client.read_to_string(&mut line).is_err() {
        return;
    }
    let plan = plan.lock().unwrap().clone();
    let fault = plan.filter(|(part, _)| line.contains(part.as_str())).map(|(_, fault)| fault);
    if fault.is_some() {
        hits.fetch_add(1, Ordering::Relaxed);
    }
    let answer = match fault {
        Some(Break::Swallow) => return,
        Some(Break::Garbage) => b"\xff\xfe\x00\x80 what is this?\n\n".to_vec(),
        Some(Break::Say(words)) => format!("{words}\n\n").into_bytes(),
        Some(Break::Stall) => {
            stalled.lock().unwrap().push(client);
            return;
        }
        Some(Break::LoseAnswer | Break::Half) | None => match ask(upstream, &line) {
            Ok(answer) => answer,
            Err(_) => return,
        },
    };
    let part = match fault {
        Some(Break::LoseAnswer) => return,
        Some(Break::Half) => &answer[..answer.len() / 2],
        _ => &answer[..],
    };
    let _ = client.write_all(part);
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
