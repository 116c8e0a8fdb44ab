//! A registry that refuses everybody, and repeats what it was sent.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Serves as long as the test process lives.
pub struct RefusingRegistry {
    pub port: u16,
    logins: Arc<AtomicUsize>,
}

impl RefusingRegistry {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let logins = Arc::new(AtomicUsize::new(0));
        let counted = logins.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = vec![0; 16 << 10];
                let length = stream.read(&mut head).unwrap_or_default();
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                // Engines try TLS first; hung up on, they go on without.
                if !head.contains("HTTP/1.1") {
                    continue;
                }
                counted.fetch_add(usize::from(head.contains("Authorization")), Ordering::Relaxed);
                let body = format!("{{\"errors\":[{{\"code\":\"DENIED\",\"message\":{head:?}}}]}}");
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a\"\r\n\
                     Content-Type: application/json\r\nContent-Length: {length}\r\n\
                     Connection: close\r\n\r\n{body}"
                );
            }
        });
        Self { port, logins }
    }

    /// How often somebody logged in.
    pub fn logins(&self) -> usize {
        self.logins.load(Ordering::Relaxed)
    }
}
