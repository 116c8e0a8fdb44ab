//! A way to a registry on which answers go wrong: refused with a status, cut, or changed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use crate::harness::free_port;

/// What happens to the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Every request is refused with this status.
    Status(u16),
    /// Answers end after a few bytes.
    Cut,
    /// The bytes of images aren't those that their digests say.
    Changed,
}

/// While the test process lives.
pub struct RegistryProxy {
    pub port: u16,
    trouble: Arc<Mutex<Option<Trouble>>>,
    refused: Arc<Mutex<Vec<Instant>>>,
}

impl RegistryProxy {
    /// In front of the registry on that port of 127.0.0.1.
    pub fn before(registry: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let trouble: Arc<Mutex<Option<Trouble>>> = Arc::default();
        let refused: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let (shared, noted) = (trouble.clone(), refused.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let trouble = *shared.lock().unwrap();
                let noted = noted.clone();
                std::thread::spawn(move || {
                    // A caller that leaves early is no concern of the test's.
                    let _ = carry(client, registry, trouble, &noted);
                });
            }
        });
        Self { port, trouble, refused }
    }

    pub fn name(&self, image: &str) -> String {
        format!("127.0.0.1:{}/{image}", self.port)
    }

    pub fn plan(&self, trouble: Trouble) {
        *self.trouble.lock().unwrap() = Some(trouble);
    }

    /// When requests were refused with a status so far.
    pub fn refused(&self) -> Vec<Instant> {
        self.refused.lock().unwrap().clone()
    }

    pub fn heal(&self) {
        *self.trouble.lock().unwrap() = None;
    }
}

/// With what a TLS client begins. Engines try TLS first, and wait 10 s for an answer where they
/// aren't hung up on.
const TLS_HANDSHAKE: u8 = 0x16;

/// One request of a connection; both sides are told to close it after that.
fn carry(
    mut client: TcpStream,
    registry: u16,
    trouble: Option<Trouble>,
    refused: &Mutex<Vec<Instant>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte)? == 0 || (head.is_empty() && byte[0] == TLS_HANDSHAKE) {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    if let Some(Trouble::Status(status)) = trouble {
        refused.lock().unwrap().push(Instant::now());
        let code = match status {
            401 => "UNAUTHORIZED",
            429 => "TOOMANYREQUESTS",
            _ => "UNKNOWN",
        };
        let body = format!(
            "{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"status {status} on purpose\"}}]}}"
        );
        let answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        return client.write_all(answer.as_bytes());
    }
    let mut upstream = TcpStream::connect(("127.0.0.1", registry))?;
    let closing = text.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    upstream.write_all(closing.as_bytes())?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    let path = text.split_whitespace().nth(1).unwrap_or_default();
    match trouble {
        Some(Trouble::Cut) => answer.truncate(40),
        Some(Trouble::Changed) if path.contains("/blobs/") => {
            if let Some(last) = answer.last_mut() {
                *last ^= 1;
            }
        }
        _ => {}
    }
    client.write_all(&answer)
}
