//! One plain request to an engine's socket.

use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

pub async fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Answer {
    let response = open(socket, method, path, body).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
    Answer { status, body }
}

/// The answer as it begins; its body is still to be read.
pub async fn open(
    socket: &Path,
    method: &str,
    path: &str,
    body: &str,
) -> hyper::Response<Incoming> {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "docker")
        .header("content-type", "application/json")
        .body(Full::<Bytes>::from(body.to_owned()))
        .unwrap();
    sender.send_request(request).await.unwrap()
}
