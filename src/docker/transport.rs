//! How requests reach an engine: a connection for each, over a Unix socket, TCP, TLS or ssh,
//! and HTTP on it. Bollard makes the requests and reads the replies; this module carries them,
//! and writes down nothing of what they hold.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::BollardRequest;
use bollard::errors::Error;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::header::{HOST, HeaderValue};
use hyper::{Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::error::{io_error, with_sources};
use super::ssh::Tunnel;
use super::tls::Tls;
use crate::model::EngineAddress;

/// The API that Plimsoll is written for: that of Docker 20.10. Newer engines speak it too, or,
/// where they don't any more, their own oldest.
const API: ApiVersion = ApiVersion { major: 1, minor: 41 };

/// The longest reply to the question for the version, in bytes.
const LONGEST_VERSION: usize = 256 * 1024;

/// A byte stream to an engine.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

enum Way {
    Unix(PathBuf),
    Tcp { host: String, port: u16, tls: Option<Tls> },
    Ssh(Box<Tunnel>),
}

/// Carries requests to one engine. Holds no connection but the ssh session, which it opens
/// anew when it is gone.
pub(super) struct Transport {
    way: Way,
    /// The version that the engine is spoken to in, once it was asked.
    version: Mutex<Option<ApiVersion>>,
    /// Counts the requests.
    calls: Arc<AtomicU64>,
}

impl Transport {
    /// `known_hosts` and `folder` serve ssh: the file of host keys, ssh's own where there is
    /// none, and where to make the private folder of its sockets.
    pub(super) fn new(
        address: &EngineAddress,
        known_hosts: Option<&Path>,
        folder: &Path,
        calls: Arc<AtomicU64>,
    ) -> Self {
        let way = match address {
            EngineAddress::Unix { path } => Way::Unix(path.into()),
            EngineAddress::Tcp { host, port, tls } => {
                Way::Tcp { host: host.clone(), port: *port, tls: tls.as_ref().map(Tls::new) }
            }
            EngineAddress::Ssh { user, host, port, key, socket } => {
                Way::Ssh(Box::new(Tunnel::new(
                    (user.as_deref(), host, *port),
                    key.as_deref().map(Path::new),
                    socket,
                    known_hosts,
                    folder,
                )))
            }
        };
        Self { way, version: Mutex::new(None), calls }
    }

    /// Sends a request of bollard's, in the version of the API that suits the engine.
    pub(super) async fn send(
        self: Arc<Self>,
        mut request: BollardRequest,
    ) -> Result<Response<hyper::body::Incoming>, Error> {
        let version = self.version().await?;
        // Bollard leaves the version out of the path, for which the engine takes its newest.
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = format!("/v{}.{}{path}", version.major, version.minor).parse()?;
        spell_credentials(&mut request);
        let response = self.exchange(request).await?;
        if response.status() == StatusCode::BAD_REQUEST {
            // The engine may have been replaced by one that speaks other versions.
            *self.known_version() = None;
        }
        Ok(response)
    }

    fn known_version(&self) -> std::sync::MutexGuard<'_, Option<ApiVersion>> {
        self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn version(&self) -> Result<ApiVersion, Error> {
        if let Some(version) = *self.known_version() {
            return Ok(version);
        }
        let mut request = BollardRequest::new(bollard::body_full(Bytes::new()));
        *request.uri_mut() = Uri::from_static("/version");
        let response = self.exchange(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_VERSION).collect().await;
        let body = body.map_err(|error| io_error(with_sources(&*error)))?.to_bytes();
        if !status.is_success() {
            let message = String::from_utf8_lossy(&body).into_owned();
            return Err(Error::DockerResponseServerError { status_code: status.into(), message });
        }
        let version = choose_version(&body)?;
        *self.known_version() = Some(version);
        Ok(version)
    }

    /// One request and the head of its reply, on a connection of their own.
    async fn exchange(
        &self,
        mut request: BollardRequest,
    ) -> Result<Response<hyper::body::Incoming>, Error> {
        request.headers_mut().insert(HOST, HeaderValue::from_static("docker"));
        self.calls.fetch_add(1, Ordering::Relaxed);
        let stream = self.dial().await.map_err(|err| Error::IOError { err })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It lives as long as the reply is read, and ends when that is dropped.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let response = sender.send_request(request).await;
        response.map_err(|error| io_error(self.explain(&error)))
    }

    fn explain(&self, error: &hyper::Error) -> String {
        let cause = with_sources(error);
        match &self.way {
            // ssh accepts the connection first, and then finds nobody at the other end.
            Way::Ssh(tunnel) => format!("{cause}; {}", tunnel.hint_no_engine()),
            _ => cause,
        }
    }

    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        match &self.way {
            Way::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                Ok(Box::new(stream.map_err(|error| socket_error(path, &error))?))
            }
            Way::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                keep_alive(&stream)?;
                match tls {
                    Some(tls) => Ok(Box::new(tls.wrap(host, stream).await?)),
                    None => Ok(Box::new(stream)),
                }
            }
            Way::Ssh(tunnel) => Ok(Box::new(tunnel.stream().await?)),
        }
    }
}

fn socket_error(path: &Path, error: &io::Error) -> io::Error {
    let path = path.display();
    let hint = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "; is Docker running? try: systemctl status docker"
        }
        io::ErrorKind::PermissionDenied => {
            "; add this user to the group docker: usermod -aG docker"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("{path}: {error}{hint}"))
}

/// Events and logs may be silent for long: only this tells that the machine is gone.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(15))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5))?;
    Ok(sockopt::set_tcp_keepcnt(stream, 3)?)
}

/// The engine reads credentials in the alphabet of base64 that is safe in URLs, and takes what
/// it can't read for none; bollard writes the other alphabet.
fn spell_credentials(request: &mut BollardRequest) {
    if let Some(value) = request.headers_mut().get_mut("x-registry-auth") {
        let spelled = value.as_bytes().iter().map(|byte| match byte {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        });
        if let Ok(mut spelled) = HeaderValue::from_bytes(&spelled.collect::<Vec<_>>()) {
            spelled.set_sensitive(true);
            *value = spelled;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ApiVersion {
    major: u32,
    minor: u32,
}

/// The version to speak with an engine that answered so to `/version`.
fn choose_version(body: &[u8]) -> Result<ApiVersion, Error> {
    let version: serde_json::Value = serde_json::from_slice(body)?;
    let read = |key: &str| {
        let (major, minor) = version.get(key)?.as_str()?.split_once('.')?;
        Some(ApiVersion { major: major.parse().ok()?, minor: minor.parse().ok()? })
    };
    match (read("ApiVersion"), read("MinAPIVersion")) {
        (Some(newest), _) if newest < API => Err(io_error(format!(
            "it speaks API {}.{}, and Plimsoll needs {}.{} or newer: Docker 20.10 or newer",
            newest.major, newest.minor, API.major, API.minor
        ))),
        (Some(_), Some(oldest)) => Ok(API.max(oldest)),
        (Some(_), None) => Ok(API),
        (None, _) => Err(io_error("it doesn't say which version of Docker's API it speaks")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_common_version_is_spoken() {
        for (body, minor) in [
            (r#"{"ApiVersion":"1.41","MinAPIVersion":"1.12"}"#, Some(41)),
            (r#"{"ApiVersion":"1.52","MinAPIVersion":"1.44"}"#, Some(44)),
            (r#"{"ApiVersion":"1.47"}"#, Some(41)),
            (r#"{"ApiVersion":"1.39","MinAPIVersion":"1.12"}"#, None),
            (r#"{"ApiVersion":"new"}"#, None),
            ("[]", None),
            ("<html>", None),
        ] {
            let chosen = choose_version(body.as_bytes()).ok().map(|version| version.minor);
            assert_eq!(chosen, minor, "{body}");
        }
    }

    #[test]
    fn credentials_are_spelled_for_urls() {
        let mut request = BollardRequest::new(bollard::body_full(Bytes::new()));
        request.headers_mut().insert("x-registry-auth", HeaderValue::from_static("a+b/c="));
        spell_credentials(&mut request);
        assert_eq!(request.headers()["x-registry-auth"], "a-b_c=");
        assert!(request.headers()["x-registry-auth"].is_sensitive());
    }
}
