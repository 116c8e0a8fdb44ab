//! What can be asked over the socket, and in which shape it is answered: JSON, or a JSON
//! document on each line where the answer takes its time. Every refusal is an
//! [`OperationError`] as JSON. It hands on to [`Operations`] and decides nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{
    ApplyRequest, BODY_LIMIT, Checkup, Diff, HistoryEntry, OperationError, Operations, Progress,
    Status,
};
use crate::model::{AppId, ApprovalRequest, Kind, Object};

/// How long a caller may take to send a body.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Events of which `events` tells where no limit is given.
const EVENT_LIMIT: usize = 100;

#[derive(Clone)]
struct Controller {
    operations: Arc<dyn Operations>,
    shutdown: CancellationToken,
}

/// All routes.
pub(super) fn router(operations: Arc<dyn Operations>, shutdown: CancellationToken) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/v1/diff", get(diff))
        .route("/v1/apply", post(apply))
        .route("/v1/status", get(status))
        .route("/v1/objects/{kind}", get(objects))
        .route("/v1/objects/{kind}/{*name}", get(object))
        .route("/v1/events", get(events))
        .route("/v1/history", get(history))
        .route("/v1/logs/{environment}/{name}", get(logs))
        .route("/v1/approvals/{id}", post(approve))
        .route("/v1/doctor", get(doctor))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "there is no such route"))
        .method_not_allowed_fallback(async || {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "this route doesn't know that method")
        })
        .with_state(Controller { operations, shutdown })
}

/// What those are told for whom no place is left.
pub(super) fn full() -> Router {
    Router::new().fallback(async || {
        let limit = super::CONNECTION_LIMIT;
        refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the controller serves {limit} connections already"),
        )
    })
}

/// A refusal with its HTTP status.
struct Refusal(StatusCode, OperationError);

fn refuse(status: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal(status, OperationError::new(message))
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        let mut response = (status, Json(error)).into_response();
        // The rest of a request that was refused isn't worth reading.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

impl From<OperationError> for Refusal {
    /// Manifests with mistakes are the caller's; anything else that fails is ours.
    fn from(error: OperationError) -> Self {
        let status = if error.diagnostics.is_empty() {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            StatusCode::UNPROCESSABLE_ENTITY
        };
        Self(status, error)
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        refuse(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

type Answer<T> = Result<Json<T>, Refusal>;
type Asked<T> = Result<Query<T>, QueryRejection>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiffQuery {
    revision: Option<String>,
}

async fn diff(State(controller): State<Controller>, query: Asked<DiffQuery>) -> Answer<Diff> {
    let Query(DiffQuery { revision }) = query?;
    Ok(Json(controller.operations.diff(revision).await?))
}

async fn apply(
    State(controller): State<Controller>,
    request: Request,
) -> Result<Response, Refusal> {
    let body = read_body(request).await?;
    let ApplyRequest { plan } = if body.is_empty() {
        ApplyRequest { plan: None }
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            refuse(StatusCode::BAD_REQUEST, format!("the body can't be read: {error}"))
        })?
    };
    let progress = controller.operations.apply(plan).await;
    Ok(json_lines(detach(progress)))
}

/// Goes on reading when the caller has gone, so that nobody stops an apply half way by closing
/// a terminal.
fn detach(mut progress: BoxStream<'static, Progress>) -> impl Stream<Item = Progress> + Send {
    // Not bounded by the channel but by the plan: a few items for each of its steps. A bound
    // here would let a slow reader hold the apply up.
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(item) = progress.next().await {
            let _caller_is_gone = sender.send(item).is_err();
        }
    });
    UnboundedReceiverStream::new(receiver)
}

async fn status(State(controller): State<Controller>) -> Answer<Status> {
    Ok(Json(controller.operations.status().await?))
}

async fn objects(
    State(controller): State<Controller>,
    Path(kind): Path<String>,
) -> Answer<Vec<Object>> {
    Ok(Json(controller.operations.get(parse_kind(&kind)?, None).await?))
}

async fn object(
    State(controller): State<Controller>,
    Path((kind, name)): Path<(String, String)>,
) -> Answer<Vec<Object>> {
    let kind = parse_kind(&kind)?;
    let found = controller.operations.get(kind, Some(name.clone())).await?;
    if found.is_empty() {
        return Err(Refusal(StatusCode::NOT_FOUND, OperationError::no_such_object(kind, &name)));
    }
    Ok(Json(found))
}

fn parse_kind(text: &str) -> Result<Kind, Refusal> {
    text.parse().map_err(|error: String| refuse(StatusCode::NOT_FOUND, error))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    limit: Option<usize>,
    #[serde(default)]
    follow: bool,
}

async fn events(
    State(controller): State<Controller>,
    query: Asked<EventsQuery>,
) -> Result<Response, Refusal> {
    let Query(EventsQuery { limit, follow }) = query?;
    let events = controller.operations.events(limit.unwrap_or(EVENT_LIMIT), follow).await?;
    Ok(json_lines(until(events, controller.shutdown)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    app: Option<String>,
}

async fn history(
    State(controller): State<Controller>,
    query: Asked<HistoryQuery>,
) -> Answer<Vec<HistoryEntry>> {
    let Query(HistoryQuery { app }) = query?;
    let app = app.map(|app| parse_app(&app)).transpose()?;
    Ok(Json(controller.operations.history(app).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogsQuery {
    tail: Option<u32>,
    #[serde(default)]
    follow: bool,
}

async fn logs(
    State(controller): State<Controller>,
    Path((environment, name)): Path<(String, String)>,
    query: Asked<LogsQuery>,
) -> Result<Response, Refusal> {
    let Query(LogsQuery { tail, follow }) = query?;
    let app = parse_app(&format!("{environment}/{name}"))?;
    let lines = controller.operations.logs(app, tail, follow).await?;
    Ok(json_lines(until(lines, controller.shutdown)))
}

fn parse_app(text: &str) -> Result<AppId, Refusal> {
    text.parse().map_err(|error| {
        refuse(StatusCode::BAD_REQUEST, format!("{text:?} doesn't name an app: {error}"))
    })
}

async fn approve(
    State(controller): State<Controller>,
    Path(id): Path<String>,
) -> Answer<ApprovalRequest> {
    // What doesn't wait any more was let through already, or has changed since.
    let approved = controller.operations.approve(id).await;
    approved.map(Json).map_err(|error| Refusal(StatusCode::CONFLICT, error))
}

async fn doctor(State(controller): State<Controller>) -> Answer<Vec<Checkup>> {
    Ok(Json(controller.operations.doctor().await?))
}

/// The whole body, in memory: at most [`BODY_LIMIT`] bytes within [`BODY_DEADLINE`].
async fn read_body(request: Request) -> Result<Bytes, Refusal> {
    let too_large = || {
        let mebibytes = BODY_LIMIT >> 20;
        refuse(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is over {mebibytes} MiB"))
    };
    let length = request.headers().get(header::CONTENT_LENGTH);
    let declared = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > BODY_LIMIT as u64) {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), BODY_LIMIT);
    match timeout(BODY_DEADLINE, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            Err(refuse(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")))
        }
        Err(_elapsed) => {
            let seconds = BODY_DEADLINE.as_secs();
            let message = format!("the body didn't come within {seconds} s");
            Err(refuse(StatusCode::REQUEST_TIMEOUT, message))
        }
    }
}

/// A stream that may never end by itself ends with the controller.
fn until<T: Send + 'static>(
    stream: BoxStream<'static, T>,
    shutdown: CancellationToken,
) -> impl Stream<Item = T> + Send {
    stream.take_until(shutdown.cancelled_owned())
}

/// A JSON document on each line, sent as soon as it is there.
fn json_lines<T: Serialize + Send + 'static>(
    items: impl Stream<Item = T> + Send + 'static,
) -> Response {
    let lines = items.filter_map(async |item| match serde_json::to_vec(&item) {
        Ok(mut line) => {
            line.push(b'\n');
            Some(Ok::<_, Infallible>(Bytes::from(line)))
        }
        Err(error) => {
            tracing::error!(%error, "an item of a stream could not be written as JSON");
            None
        }
    });
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"))];
    (kind, Body::from_stream(lines)).into_response()
}
