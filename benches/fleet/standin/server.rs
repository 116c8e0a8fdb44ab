//! HTTP: a request to what it does to the engine, and the answer that Docker would give.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::Inner;
use super::events::Filters;
use super::program::Line;
use super::question::Question;
use super::state::{Done, Later, Refusal};

/// The API that is spoken, as numbers: 1.41, and 1.12 at least.
const NEWEST: u32 = 41;
const OLDEST: u32 = 12;

/// Older clients are told errors as plain text.
const FIRST_WITH_JSON_ERRORS: u32 = 24;

type Body = Either<Full<Bytes>, StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;
type Answer = Result<Response<Body>, Refusal>;
type Query = BTreeMap<String, String>;

/// Answers everybody who connects, for as long as the runtime lives.
pub async fn serve(listener: UnixListener, engine: Arc<Inner>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let engine = engine.clone();
        tokio::spawn(async move {
            let _entered = engine.connections.enter();
            let service = service_fn(|request| answer(engine.clone(), request));
            let http = hyper::server::conn::http1::Builder::new();
            // A client that goes away in the middle is no trouble of the engine's.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    engine: Arc<Inner>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let (version, path) = split_version(head.uri.path());
    let question = Question::read(&head.method, path);
    engine.counters.count(question.call());
    engine.take_time().await;
    let query = head.uri.query().unwrap_or_default().as_bytes();
    let query = url::form_urlencoded::parse(query).into_owned().collect();
    let answer = match refused_version(version) {
        Some(refusal) => Err(refusal),
        None => respond(&engine, &question, &query, body).await,
    };
    Ok(answer.unwrap_or_else(|Refusal { status, message }| {
        if version.is_some_and(|version| version < FIRST_WITH_JSON_ERRORS) {
            return response(status, Some("text/plain; charset=utf-8"), message + "\n");
        }
        let text = json!({ "message": message }).to_string();
        response(status, Some("application/json"), text + "\n")
    }))
}

/// `/v1.41/info` to 41 and `/info`.
fn split_version(path: &str) -> (Option<u32>, &str) {
    let versioned = path.strip_prefix("/v1.").and_then(|rest| {
        let (version, _) = rest.split_once('/')?;
        Some((version.parse().ok()?, &rest[version.len()..]))
    });
    versioned.map_or((None, path), |(version, path)| (Some(version), path))
}

fn refused_version(version: Option<u32>) -> Option<Refusal> {
    let version = version?;
    let message = if version > NEWEST {
        format!(
            "client version 1.{version} is too new. Maximum supported API version is 1.{NEWEST}"
        )
    } else if version < OLDEST {
        format!(
            "client version 1.{version} is too old. Minimum supported API version is 1.{OLDEST}, \
             please upgrade your client to a newer version"
        )
    } else {
        return None;
    };
    Some(Refusal::new(StatusCode::BAD_REQUEST, message))
}

async fn respond(
    engine: &Arc<Inner>,
    question: &Question,
    query: &Query,
    body: Incoming,
) -> Answer {
    let flag = |key: &str| query.get(key).is_some_and(|value| value == "true" || value == "1");
    match question {
        Question::Ping => Ok(response(StatusCode::OK, Some("text/plain; charset=utf-8"), "OK")),
        Question::Version => Ok(json(StatusCode::OK, version())),
        Question::Info => Ok(json(StatusCode::OK, info())),
        Question::List => {
            let filters = filters(query)?;
            Ok(json(StatusCode::OK, engine.state().list(flag("all"), &filters)))
        }
        Question::Inspect(id) => {
            Ok(json(StatusCode::OK, engine.state().container(id)?.inspected()))
        }
        Question::Create => create(engine, query, body).await,
        Question::Start(id) => {
            let (done, later) = engine.state().start(id)?;
            schedule(engine, later);
            Ok(empty(if done == Done::Already { 304 } else { 204 }))
        }
        Question::Stop(id) => stop(engine, id, query).await,
        Question::Kill(id) => {
            engine.state().kill(id)?;
            Ok(empty(204))
        }
        Question::Remove(id) => {
            engine.state().remove(id, flag("force"))?;
            Ok(empty(204))
        }
        Question::Logs(id) => logs(engine, id, query),
        Question::Image(name) => {
            let image = engine.state().image(name);
            let image =
                image.map_err(|refusal| refusal.behind(format!("no such image: {name}")))?;
            Ok(json(StatusCode::OK, image.inspected()))
        }
        Question::Pull => pull(engine, query),
        Question::Distribution(name) => distribution(engine, name),
        Question::Events => events(engine, query),
        Question::Other => Err(Refusal::new(StatusCode::NOT_FOUND, "page not found")),
    }
}

async fn create(engine: &Arc<Inner>, query: &Query, body: Incoming) -> Answer {
    let unreadable = |error: String| Refusal::new(StatusCode::BAD_REQUEST, error);
    let bytes = body.collect().await.map_err(|error| unreadable(error.to_string()))?.to_bytes();
    let body = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    let id = engine.state().create(query.get("name").map(String::as_str), body)?;
    Ok(json(StatusCode::CREATED, format!("{{\"Id\":\"{id}\",\"Warnings\":[]}}\n")))
}

async fn stop(engine: &Arc<Inner>, id: &str, query: &Query) -> Answer {
    let grace = query.get("t").and_then(|seconds| seconds.parse().ok()).unwrap_or(10);
    let takes = engine.state().stop_takes(id, Duration::from_secs(grace))?;
    let Some(takes) = takes else { return Ok(empty(304)) };
    if !takes.is_zero() {
        tokio::time::sleep(takes).await;
    }
    engine.state().stop(id)?;
    Ok(empty(204))
}

/// Does later what is due later, and what follows from that.
fn schedule(engine: &Arc<Inner>, later: Vec<Later>) {
    for later in later {
        let engine = Arc::downgrade(engine);
        tokio::spawn(async move {
            let mut next = Some(later);
            while let Some(later) = next.take() {
                tokio::time::sleep(later.after).await;
                let Some(engine) = engine.upgrade() else { return };
                let mut follows = engine.state().fall_due(&later);
                next = follows.pop();
                schedule(&engine, follows);
            }
        });
    }
}

fn logs(engine: &Arc<Inner>, id: &str, query: &Query) -> Answer {
    let flag = |key: &str| query.get(key).is_some_and(|value| value == "true" || value == "1");
    let (output, errors) = (flag("stdout"), flag("stderr"));
    if !output && !errors {
        let message = "Bad parameters: you must choose at least one stream";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    let tail = query.get("tail").and_then(|tail| tail.parse().ok());
    let (lines, following) = engine.state().output(id, tail, flag("follow"))?;
    let wanted = move |line: &Line| if line.is_error { errors } else { output };
    let frames: Vec<Bytes> = lines.iter().filter(|line| wanted(line)).map(frame).collect();
    let following = following.map(UnboundedReceiverStream::new);
    let following = stream::iter(following).flatten();
    Ok(streamed(None, stream::iter(frames).chain(following)))
}

/// A line as a container without a terminal sends it: which of the two streams, how long, and
/// the line.
pub fn frame(line: &Line) -> Bytes {
    let text = format!("{}\n", line.text);
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
    let head = [if line.is_error { 2 } else { 1 }, 0, 0, 0];
    [&head, &length, text.as_bytes()].concat().into()
}

fn pull(engine: &Arc<Inner>, query: &Query) -> Answer {
    let name = query.get("fromImage").cloned().unwrap_or_default();
    let name = match query.get("tag").filter(|tag| !tag.is_empty()) {
        Some(tag) if tag.starts_with("sha256:") => format!("{name}@{tag}"),
        Some(tag) => format!("{name}:{tag}"),
        None => name,
    };
    let mut state = engine.state();
    let image = state.offered(&name);
    let image =
        image.map_err(|refusal| refusal.behind(format!("manifest for {name} not found")))?;
    state.add_image(image.as_ref().clone());
    let digest = image.digest.as_deref().unwrap_or_default();
    let lines = [
        json!({"status": format!("Pulling from {}", image.repository), "id": digest}),
        json!({"status": format!("Digest: {digest}")}),
        json!({"status": format!("Status: Downloaded newer image for {name}")}),
    ];
    let lines = lines.map(|line| Bytes::from(format!("{line}\r\n")));
    Ok(streamed(Some("application/json"), stream::iter(lines)))
}

fn distribution(engine: &Arc<Inner>, name: &str) -> Answer {
    let image = engine.state().offered(name)?;
    let answer = json!({
        "Descriptor": {
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "digest": image.digest, "size": 527,
        },
        "Platforms": [{"architecture": "amd64", "os": "linux"}],
    });
    Ok(json(StatusCode::OK, answer.to_string()))
}

fn events(engine: &Arc<Inner>, query: &Query) -> Answer {
    let heard = engine.state().listen(filters(query)?);
    Ok(streamed(Some("application/json"), UnboundedReceiverStream::new(heard)))
}

fn filters(query: &Query) -> Result<Filters, Refusal> {
    let Some(text) = query.get("filters").filter(|text| !text.is_empty()) else {
        return Ok(Filters::default());
    };
    Filters::parse(text).ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "invalid filter"))
}

fn version() -> String {
    let (version, api, oldest) = ("20.10.24+dfsg1", format!("1.{NEWEST}"), format!("1.{OLDEST}"));
    json!({
        "Platform": {"Name": ""},
        "Components": [{"Name": "Engine", "Version": version, "Details": {
            "ApiVersion": api, "MinAPIVersion": oldest, "Os": "linux", "Arch": "amd64",
            "Experimental": "false", "GitCommit": "5d6db84", "GoVersion": "go1.19.8",
            "BuildTime": "2024-01-01T00:00:00.000000000+00:00", "KernelVersion": "6.1.0",
        }}],
        "Version": version, "ApiVersion": api, "MinAPIVersion": oldest, "GitCommit": "5d6db84",
        "GoVersion": "go1.19.8", "Os": "linux", "Arch": "amd64", "KernelVersion": "6.1.0",
        "BuildTime": "2024-01-01T00:00:00.000000000+00:00",
    })
    .to_string()
}

fn info() -> String {
    json!({
        "ID": "STAND:IN", "Driver": "overlay2", "OperatingSystem": "Debian", "OSType": "linux",
        "Architecture": "x86_64", "NCPU": 2, "MemTotal": 1_u64 << 33, "Name": "standin",
        "ServerVersion": "20.10.24+dfsg1",
    })
    .to_string()
}

// ---- answers ----

fn response(status: StatusCode, kind: Option<&str>, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(text.into())));
    *response.status_mut() = status;
    dress(&mut response, kind);
    response
}

fn json(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    response(status, Some("application/json"), text)
}

fn empty(status: u16) -> Response<Body> {
    response(StatusCode::from_u16(status).unwrap_or_default(), None, "")
}

fn streamed(
    kind: Option<&str>,
    pieces: impl stream::Stream<Item = Bytes> + Send + 'static,
) -> Response<Body> {
    let frames = pieces.map(|piece| Ok(Frame::data(piece))).boxed();
    let mut response = Response::new(Either::Right(StreamBody::new(frames)));
    dress(&mut response, kind);
    response
}

fn dress(response: &mut Response<Body>, kind: Option<&str>) {
    use hyper::header::HeaderValue;
    let headers = response.headers_mut();
    headers.insert("api-version", HeaderValue::from_static("1.41"));
    headers.insert("ostype", HeaderValue::from_static("linux"));
    if let Some(kind) = kind.and_then(|kind| HeaderValue::from_str(kind).ok()) {
        headers.insert(CONTENT_TYPE, kind);
    }
}
