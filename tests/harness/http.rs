//! One HTTP request at a time, for looking at what is served.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// GET from a port of 127.0.0.1, with that Host.
pub fn get(port: u16, host: &str, path: &str) -> Result<Answer, String> {
    request(port, host, "GET", path, b"")
}

/// Any request to a port of 127.0.0.1 on a connection of its own.
pub fn request(
    port: u16,
    host: &str,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<Answer, String> {
    let describe = |error: std::io::Error| format!("{method} {host}:{port}{path}: {error}");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(describe)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(describe)?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\
         Content-Type: application/octet-stream\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).map_err(describe)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(describe)?;
    parse(&bytes).ok_or_else(|| {
        format!("{method} {host}:{port}{path}: no answer: {:?}", String::from_utf8_lossy(&bytes))
    })
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let rest = &bytes[end + 4..];
    let chunked = headers.get("transfer-encoding").is_some_and(|value| value == "chunked");
    let body = if chunked { join_chunks(rest)? } else { rest.to_vec() };
    Some(Answer { status, headers, body })
}

/// The content of a chunked body (RFC 9112, section 7.1).
fn join_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let line = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + size)?);
        rest = rest.get(end + 2 + size + 2..)?;
    }
}
