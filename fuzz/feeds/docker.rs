//! Any bytes as what an engine answers: every question ends with a value or an error, never
//! with a panic, and none waits for what will never come.
//!
//! The first byte says what the rest is: a whole HTTP reply, or the body of one.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use plimsoll::docker::{Deadlines, DockerEngine, Engine, EngineOptions};
use plimsoll::model::{
    Allow, ContainerId, EngineAddress, Host, HostName, Location, Owner, PortRange, Span,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

/// Questions end long before this; what reaches it has hung.
const HUNG: Duration = Duration::from_secs(20);

struct Place {
    runtime: tokio::runtime::Runtime,
    listener: Rc<UnixListener>,
    folder: tempfile::TempDir,
}

thread_local! {
    static PLACE: RefCell<Option<Rc<Place>>> = const { RefCell::new(None) };
}

/// One socket for all runs.
fn place() -> Rc<Place> {
    PLACE.with_borrow_mut(|place| {
        let made = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime can be made");
            let folder = tempfile::tempdir().expect("a folder can be made");
            let listener = {
                let _guard = runtime.enter();
                UnixListener::bind(folder.path().join("engine.sock")).expect("a socket is bound")
            };
            Rc::new(Place { runtime, listener: Rc::new(listener), folder })
        };
        place.get_or_insert_with(made).clone()
    })
}

pub fn feed(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let place = place();
    let socket = place.folder.path().join("engine.sock");
    let engine = connect(&socket.display().to_string());
    place.runtime.block_on(async {
        tokio::select! {
            biased;
            () = ask_everything(&engine) => {}
            () = answer_all(&place.listener, *kind, rest) => {}
            () = tokio::time::sleep(HUNG) => panic!("a question to the engine hangs"),
        }
    });
}

fn connect(socket: &str) -> DockerEngine {
    let second = Duration::from_secs(1);
    let deadlines = Deadlines {
        look: second,
        observe: second,
        change: second,
        stop: second,
        registry: second,
        pull_stall: second,
    };
    let options = EngineOptions { docker_config: None, deadlines, ..EngineOptions::default() };
    let host = Host {
        name: HostName::new("alpha").expect("a name"),
        engine: EngineAddress::Unix { path: socket.to_owned() },
        address: [127, 0, 0, 1].into(),
        publish: [127, 0, 0, 1].into(),
        ports: PortRange { first: 20000, last: 20999 },
        drain: false,
        allow: Allow::default(),
        location: Location { file: "hosts.yaml".into(), line: 1 },
    };
    DockerEngine::connect(&host, options)
}

async fn ask_everything(engine: &DockerEngine) {
    let owner = Owner {
        installation: "shop".parse().expect("a name"),
        uid: "8f14e45f".parse().expect("an id"),
    };
    let id = ContainerId("a".repeat(64));
    let _ = engine.version().await;
    let _ = engine.observe(&owner).await;
    let _ = engine.inspect(&owner, &id.0).await;
    let _ = engine.image("web:1").await;
    let _ = engine.start(&owner, &id.0).await;
    let _ = engine.stop(&owner, &id, Span::from_millis(0)).await;
    let _ = engine.remove(&owner, &id).await;
    let _ = engine.resolve(&"web:1".parse().expect("an image")).await;
    if let Ok(events) = engine.events(&owner).await {
        events.take(100).for_each(async |_| {}).await;
    }
    if let Ok(lines) = engine.logs(&owner, &id, Some(10), false).await {
        lines.take(1000).for_each(async |_| {}).await;
    }
}

/// The engine: the same answer to everything but the question for its version, without which no
/// other is asked.
async fn answer_all(listener: &UnixListener, kind: u8, rest: &[u8]) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let mut asked = vec![0; 4096];
        let length = stream.read(&mut asked).await.unwrap_or_default();
        let is_version = asked[..length].starts_with(b"GET /version");
        let answer = match kind {
            0 if is_version => reply(200, br#"{"ApiVersion":"1.41","MinAPIVersion":"1.12"}"#),
            0 => reply(200, rest),
            1 if is_version => reply(200, br#"{"ApiVersion":"1.41","MinAPIVersion":"1.12"}"#),
            1 => rest.to_vec(),
            2 => reply(200, rest),
            3 => rest.to_vec(),
            _ if is_version => reply(200, br#"{"ApiVersion":"1.47"}"#),
            other => reply(400 + u16::from(other), rest),
        };
        let _ = stream.write_all(&answer).await;
        let _ = stream.shutdown().await;
    }
}

fn reply(status: u16, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}
