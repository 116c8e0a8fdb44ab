//! A way to a git daemon on which packs come a byte at a time, for as long as a test wants that.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// While the test process lives.
pub struct SlowRemote {
    port: u16,
    slow: Arc<AtomicBool>,
    hanging: Arc<AtomicUsize>,
}

impl SlowRemote {
    /// In front of the git daemon on that port of 127.0.0.1. Everything is carried.
    pub fn before(daemon: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (slow, hanging) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (slows, hangs) = (slow.clone(), hanging.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", daemon)) else { continue };
                let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone())
                else {
                    continue;
                };
                let (slow, hanging) = (slows.clone(), hangs.clone());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut &from_client, &mut &to_server);
                    let _ = to_server.shutdown(std::net::Shutdown::Write);
                });
                std::thread::spawn(move || carry(&server, &client, &slow, &hanging));
            }
        });
        Self { port, slow, hanging }
    }

    pub fn url(&self, repository: &str) -> String {
        format!("git://127.0.0.1:{}/{repository}", self.port)
    }

    /// Packs that begin from now on come a byte at a time.
    pub fn slow_down(&self) {
        self.slow.store(true, Ordering::Relaxed);
    }

    /// From now on everything is carried as it comes.
    pub fn heal(&self) {
        self.slow.store(false, Ordering::Relaxed);
    }

    /// How many packs have begun to come a byte at a time.
    pub fn hanging(&self) -> usize {
        self.hanging.load(Ordering::Relaxed)
    }
}

/// What the server says to the client, until one of them is gone.
fn carry(mut server: &TcpStream, mut client: &TcpStream, slow: &AtomicBool, hanging: &AtomicUsize) {
    let mut buffer = [0; 4096];
    let (mut in_pack, mut counted) = (false, false);
    while let Ok(length @ 1..) = server.read(&mut buffer) {
        let part = &buffer[..length];
        in_pack |= part.windows(4).any(|window| window == b"PACK");
        for byte in part.chunks(if in_pack { 1 } else { length }) {
            if in_pack && slow.load(Ordering::Relaxed) {
                if !std::mem::replace(&mut counted, true) {
                    hanging.fetch_add(1, Ordering::Relaxed);
                }
                pause();
            }
            if client.write_all(byte).is_err() {
                return;
            }
        }
    }
    let _ = client.shutdown(std::net::Shutdown::Write);
}

#[allow(clippy::disallowed_methods, reason = "a byte a second is the fault itself")]
fn pause() {
    std::thread::sleep(Duration::from_secs(1));
}
