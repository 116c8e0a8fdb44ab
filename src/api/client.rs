//! Asks a running controller over its socket. It answers as the controller's own process
//! would: the same values, the same errors. A stream that is dropped ends only its connection,
//! never what the controller does.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::lines::{self, LineError};
use super::{
    ApplyRequest, BODY_LIMIT, Checkup, Diff, HistoryEntry, LogRecord, OperationError, Operations,
    Progress, Status,
};
use crate::model::{AppId, ApprovalRequest, Event, Kind, Object};
use crate::plan::Plan;

/// How long a controller may take to say that it is there.
const GREETING_DEADLINE: Duration = Duration::from_secs(10);

/// The largest answer that is read whole, in bytes.
const ANSWER_LIMIT: usize = 256 << 20;

/// A controller behind a socket. Each question has a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The controller that listens on `socket`; none where nobody does.
    pub async fn connect(socket: &Path) -> Option<Self> {
        Self::try_connect(socket).await.ok()
    }

    /// The controller that listens on `socket`.
    ///
    /// # Errors
    /// `NotFound` and `ConnectionRefused` where nobody listens, `TimedOut` where somebody does
    /// but doesn't answer within 10 seconds, `PermissionDenied` where the socket is another
    /// user's.
    pub async fn try_connect(socket: &Path) -> io::Result<Self> {
        let client = Self { socket: socket.to_owned() };
        let greeting = async {
            drop(UnixStream::connect(socket).await?);
            client.send(Method::GET, "/healthz", None).await.map_err(io::Error::other)
        };
        match tokio::time::timeout(GREETING_DEADLINE, greeting).await {
            Ok(answer) => answer.map(|_ok| client),
            Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Sends a request and waits for the head of its answer, whatever it is.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, OperationError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.gone(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
                .await
                .map_err(|error| self.gone(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the controller broke");
            }
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "plimsoll")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| {
                OperationError::because("the controller can't be asked that", &error)
            })?;
        sender.send_request(request).await.map_err(|error| self.gone(&error))
    }

    /// Sends a request; an answer that is a refusal becomes the error that it carries.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, OperationError> {
        let response = self.send(method, path, body).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = self.read(response).await?;
        Err(serde_json::from_slice(&body).unwrap_or_else(|_no_json| {
            OperationError::new(format!("the controller answered {status}")).hint(
                "does the controller have the same version as this command? plimsoll --version",
            )
        }))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, OperationError> {
        self.exchange(Method::GET, path).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
    ) -> Result<T, OperationError> {
        let response = self.ask(method, path, None).await?;
        let body = self.read(response).await?;
        serde_json::from_slice(&body).map_err(|error| {
            OperationError::because("the controller's answer can't be read", &error).hint(
                "does the controller have the same version as this command? plimsoll --version",
            )
        })
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Bytes, OperationError> {
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| self.gone(&*error))
    }

    async fn stream<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
    ) -> Result<BoxStream<'static, T>, OperationError> {
        let response = self.ask(Method::GET, path, None).await?;
        let items = lines::documents(response.into_body());
        // There is no place for an error in the stream; that it ended early is told aside.
        let items = items.filter_map(async |item: Result<T, LineError>| {
            item.inspect_err(|error| tracing::warn!(%error, "the controller's stream ended")).ok()
        });
        Ok(Box::pin(items))
    }

    async fn apply_request(
        &self,
        plan: Option<Box<Plan>>,
    ) -> Result<Response<Incoming>, OperationError> {
        let body = serde_json::to_vec(&ApplyRequest { plan }).map_err(|error| {
            OperationError::because("the plan can't be written as JSON", &error)
        })?;
        if body.len() > BODY_LIMIT {
            let mebibytes = BODY_LIMIT >> 20;
            return Err(OperationError::new(format!("the plan is over {mebibytes} MiB"))
                .hint("plimsoll apply, without --plan, lets the controller plan by itself"));
        }
        self.ask(Method::POST, "/v1/apply", Some(body.into())).await
    }

    fn gone(&self, error: &(dyn std::error::Error + 'static)) -> OperationError {
        let message =
            format!("the controller on {} went away before it answered", self.socket.display());
        OperationError::because(message, error)
            .hint("does it still run? plimsoll doctor, or start one with plimsoll run")
    }
}

#[async_trait]
impl Operations for Client {
    async fn diff(&self, revision: Option<String>) -> Result<Diff, OperationError> {
        let revision = revision.map(|revision| ("revision", revision));
        self.get(&with_query("/v1/diff", revision)).await
    }

    async fn apply(&self, plan: Option<Box<Plan>>) -> BoxStream<'static, Progress> {
        let response = match self.apply_request(plan).await {
            Ok(response) => response,
            Err(error) => return failed(error),
        };
        let items = lines::documents::<Progress, _>(response.into_body());
        let items = items.map(|item| item.unwrap_or_else(|error| broken_off(&error)));
        // An apply that ends without saying how has not ended.
        let end = futures_util::stream::once(async {
            broken_off(&LineError::Broken("it is cut".into()))
        });
        let mut is_over = false;
        let whole = items.chain(end).take_while(move |item| {
            let goes_on = !is_over;
            is_over = matches!(item, Progress::Ended { .. } | Progress::Failed { .. });
            std::future::ready(goes_on)
        });
        Box::pin(whole)
    }

    async fn status(&self) -> Result<Status, OperationError> {
        self.get("/v1/status").await
    }

    async fn get(&self, kind: Kind, name: Option<String>) -> Result<Vec<Object>, OperationError> {
        let kind = kind.to_string().to_lowercase();
        let path = match name {
            Some(name) => format!("/v1/objects/{kind}/{}", encode(&name, "/")),
            None => format!("/v1/objects/{kind}"),
        };
        self.get(&path).await
    }

    async fn events(
        &self,
        limit: usize,
        follow: bool,
    ) -> Result<BoxStream<'static, Event>, OperationError> {
        self.stream(&format!("/v1/events?limit={limit}&follow={follow}")).await
    }

    async fn history(&self, app: Option<AppId>) -> Result<Vec<HistoryEntry>, OperationError> {
        let app = app.map(|app| ("app", app.to_string()));
        self.get(&with_query("/v1/history", app)).await
    }

    async fn logs(
        &self,
        app: AppId,
        tail: Option<u32>,
        follow: bool,
    ) -> Result<BoxStream<'static, LogRecord>, OperationError> {
        let AppId { environment, name } = app;
        let tail = tail.map(|tail| format!("&tail={tail}")).unwrap_or_default();
        self.stream(&format!("/v1/logs/{environment}/{name}?follow={follow}{tail}")).await
    }

    async fn approve(&self, id: String) -> Result<ApprovalRequest, OperationError> {
        self.exchange(Method::POST, &format!("/v1/approvals/{}", encode(&id, ""))).await
    }

    async fn doctor(&self) -> Result<Vec<Checkup>, OperationError> {
        self.get("/v1/doctor").await
    }
}

fn failed(error: OperationError) -> BoxStream<'static, Progress> {
    Box::pin(futures_util::stream::once(async { Progress::Failed { error } }))
}

fn broken_off(error: &LineError) -> Progress {
    let error = OperationError::because("the controller stopped telling how the apply goes", error)
        .hint("it may still go on: plimsoll status");
    Progress::Failed { error }
}

fn with_query(path: &str, parameter: Option<(&str, String)>) -> String {
    match parameter {
        Some((key, value)) => format!("{path}?{key}={}", encode(&value, "")),
        None => path.to_owned(),
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986 (section 2.3) and `kept`.
fn encode(text: &str, kept: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        let character = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-._~".contains(character) || kept.contains(character) {
            encoded.push(character);
        } else {
            // Writing into a String can't fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_asked_stays_in_its_place() {
        for (text, encoded) in [
            ("HEAD~1", "HEAD~1"),
            ("a b&c=d#?", "a%20b%26c%3Dd%23%3F"),
            ("é", "%C3%A9"),
            ("a\r\nb", "a%0D%0Ab"),
            ("a/b", "a%2Fb"),
        ] {
            assert_eq!(encode(text, ""), encoded);
        }
        assert_eq!(encode("a/b", "/"), "a/b");
    }
}
