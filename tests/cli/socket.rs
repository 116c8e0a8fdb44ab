//! What the socket bears: mistakes, sizes, silence, crowds, and controllers that go away.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use plimsoll::api::{Client, OperationError, Operations, Progress, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::fake::{Controller, Fake, Mood};
use crate::program::{ask, command, run};

const PATIENCE: Duration = Duration::from_secs(30);

/// Sends `request` as it is and returns status and body.
async fn raw(controller: &Controller, request: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(controller.socket()).await.unwrap();
    // A server that refuses early closes before all is written.
    let _refused_early = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _reset = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (status, body.unwrap_or_default())
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").into_bytes()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[test]
fn every_mistake_is_answered_in_json() {
    let controller = Controller::start(Mood::Busy);
    let deep = "[".repeat(100_000);
    let cases = [
        (post("/v1/apply", "{"), 400),
        (post("/v1/apply", "{\"plan\": 1}"), 400),
        (post("/v1/apply", "{\"plan\": null, \"more\": 1}"), 400),
        (post("/v1/apply", "\u{fffd}\0"), 400),
        (post("/v1/apply", &deep), 400),
        (get("/v1/apply"), 405),
        (get("/v1/nonsense"), 404),
        (get("/v1/objects/nonsense"), 404),
        (get("/v1/objects/app/production/none"), 404),
        (get("/v1/events?limit=many"), 400),
        (get("/v1/events?nonsense=1"), 400),
        (get("/v1/history?app=web"), 400),
        (get("/v1/logs/production/WEB"), 400),
        (get("/v1/logs/production/%ff"), 400),
        (post("/v1/approvals/none", ""), 409),
    ];
    for (request, expected) in cases {
        let (status, body) = controller.block_on(raw(&controller, &request));
        let shown = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        assert_eq!(status, expected, "{shown}: {body}");
        // A path that isn't text is turned away before it reaches a route of ours.
        if !shown.contains("%ff") {
            assert!(serde_json::from_str::<OperationError>(&body).is_ok(), "{shown}: {body}");
        }
    }
    let (status, body) = controller.block_on(raw(&controller, &get("/healthz")));
    assert_eq!((status, body.as_str()), (200, "ok\n"));
    assert!(controller.seen.lock().unwrap().applied.is_empty());
}

#[test]
fn failures_of_the_controller_are_no_mistakes_of_the_caller() {
    let controller = Controller::start(Mood::Failing);
    let (status, body) = controller.block_on(raw(&controller, &get("/v1/status")));
    assert_eq!(status, 500);
    let error: OperationError = serde_json::from_str(&body).unwrap();
    assert_eq!(error.causes.len(), 2);
}

#[test]
fn sizes_are_bounded() {
    let controller = Controller::start(Mood::Busy);
    let declared = b"POST /v1/apply HTTP/1.1\r\nhost: x\r\ncontent-length: 1073741824\r\n\r\n";
    let (status, body) = controller.block_on(raw(&controller, declared));
    assert_eq!(status, 413, "{body}");
    assert!(body.contains("over 16 MiB"), "{body}");

    // Undeclared, it is cut off on the way.
    let mut chunked =
        b"POST /v1/apply HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = vec![b' '; 1 << 20];
    for _ in 0..17 {
        chunked.extend_from_slice(b"100000\r\n");
        chunked.extend_from_slice(&chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    let (status, body) = controller.block_on(raw(&controller, &chunked));
    assert_eq!(status, 413, "{body}");

    let head = get(&format!("/v1/status?{}", "x".repeat(1 << 20)));
    let (status, _) = controller.block_on(raw(&controller, &head));
    assert!([414, 431].contains(&status), "{status}");
}

#[test]
fn silence_is_cut_off() {
    let controller = Controller::start(Mood::Busy);
    controller.block_on(async {
        for beginning in ["", "GET /v1/sta"] {
            let mut stream = UnixStream::connect(controller.socket()).await.unwrap();
            stream.write_all(beginning.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        }
    });
}

#[test]
fn two_hundred_silent_connections_only_delay() {
    let controller = Controller::start(Mood::Busy);
    controller.block_on(async {
        let mut crowd = Vec::new();
        for _ in 0..200 {
            crowd.push(UnixStream::connect(controller.socket()).await.unwrap());
        }
        let began = Instant::now();
        let client = loop {
            match Client::connect(&controller.socket()).await {
                Some(client) => break client,
                None => assert!(began.elapsed() < PATIENCE),
            }
        };
        client.status().await.unwrap();
    });
}

#[test]
fn two_hundred_questions_at_once_are_answered() {
    let controller = Controller::start(Mood::Busy);
    controller.block_on(async {
        let client = Client::connect(&controller.socket()).await.unwrap();
        let answers = futures_util::future::join_all((0..200).map(|_| client.status())).await;
        assert!(answers.iter().all(Result::is_ok));
    });
}

/// Waits until `condition` holds.
async fn eventually(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "it never came to be");
        sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn an_apply_goes_on_when_its_caller_goes() {
    let controller = Controller::start(Mood::Busy);
    controller.block_on(async {
        let client = Client::connect(&controller.socket()).await.unwrap();
        let mut progress = client.apply(None).await;
        assert!(matches!(progress.next().await, Some(Progress::Planned { .. })));
        drop(progress);
        // One plan, three steps that start and finish, one end.
        eventually(|| controller.seen.lock().unwrap().progress == 8).await;
    });
}

#[test]
fn an_apply_whose_controller_dies_is_an_error() {
    let mut controller = Controller::start(Mood::Stuck);
    let folder = controller.folder.path().to_owned();
    let child = command(&folder, &["apply"])
        .env("PLIMSOLL_STATE", &folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let seen = Arc::clone(&controller.seen);
    controller.block_on(eventually(|| seen.lock().unwrap().progress == 1));
    controller.kill();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("it may still go on: plimsoll status"), "{stderr}");
}

#[test]
fn streams_that_never_end_end_with_the_controller() {
    let mut controller = Controller::start(Mood::Busy);
    controller.block_on(async {
        let client = Client::connect(&controller.socket()).await.unwrap();
        let mut events = client.events(1, true).await.unwrap();
        assert!(events.next().await.is_some());
        controller.cancel();
        assert!(timeout(PATIENCE, events.next()).await.unwrap().is_none());
    });
    let socket = controller.socket();
    controller.stop().unwrap();
    assert!(!socket.exists());
}

#[test]
fn the_socket_is_ours_alone() {
    let controller = Controller::start(Mood::Busy);
    let mode = controller.socket().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Nobody else takes it over while we serve.
    let other = Arc::new(Fake { mood: Mood::Busy, seen: Arc::default() });
    let refused = controller.block_on(serve(&controller.socket(), other, CancellationToken::new()));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    controller.block_on(async {
        assert!(Client::connect(&controller.socket()).await.is_some());
        assert!(Client::connect(&controller.folder.path().join("none")).await.is_none());
    });
}

#[test]
fn a_socket_that_is_left_over_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join(plimsoll::api::SOCKET_NAME);
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let controller = Controller::start_in(folder, Mood::Converged);
    assert_eq!(ask(controller.folder.path(), &["diff"]).code, 0);
}

#[test]
fn a_place_that_is_no_place_for_a_socket_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(200)).join("plimsoll.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fake = Arc::new(Fake { mood: Mood::Busy, seen: Arc::default() });
    let error = runtime.block_on(serve(&long, fake, CancellationToken::new())).unwrap_err();
    assert!(error.to_string().contains("plimsoll.sock"), "{error}");
    let ran = run(command(folder.path(), &["status"]).env("PLIMSOLL_STATE", folder.path()));
    assert_ne!(ran.code, 0);
}
