//! One health check, made by Plimsoll itself as HAProxy would make it: where no balancer checks
//! an app, and before a new check is given to servers that requests depend on.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::model::UrlPath;

/// Asks once: a GET of `path`, which 2xx and 3xx answer well, or a TCP connection without one.
///
/// # Errors
/// Why it isn't well, in words for people.
pub async fn probe(
    address: SocketAddr,
    path: Option<&UrlPath>,
    timeout: Duration,
) -> Result<(), String> {
    match tokio::time::timeout(timeout, ask(address, path)).await {
        Ok(answer) => answer.map_err(|why| format!("{address}: {why}")),
        Err(_) => Err(format!("{address} didn't answer within {} ms", timeout.as_millis())),
    }
}

async fn ask(address: SocketAddr, path: Option<&UrlPath>) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let Some(path) = path else { return Ok(()) };
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(text)?;
    let request = Request::get(path.as_str())
        .header("host", address.to_string())
        .header("user-agent", "plimsoll")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let response = tokio::select! {
        biased;
        response = sender.send_request(request) => response.map_err(text)?,
        ended = connection => return Err(match ended {
            Ok(()) => "it closed the connection".into(),
            Err(error) => text(error),
        }),
    };
    match response.status() {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(format!("{path} answered {status}")),
    }
}

fn text(error: hyper::Error) -> String {
    error.to_string()
}
