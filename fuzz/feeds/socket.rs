//! Any bytes on the controller's socket: an HTTP answer or a closed connection, within the time
//! that a caller has, and never a panic.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use plimsoll::api::{
    Checkup, Diff, HistoryEntry, LogRecord, OperationError, Operations, Progress, Status, serve,
};
use plimsoll::model::{AppId, ApprovalRequest, Event, Kind, Object};
use plimsoll::plan::Plan;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

/// A caller gets an answer, or the end of the connection, long before this.
const HUNG: Duration = Duration::from_secs(40);

struct Place {
    runtime: tokio::runtime::Runtime,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

thread_local! {
    static PLACE: RefCell<Option<Rc<Place>>> = const { RefCell::new(None) };
}

/// One controller for all runs.
fn place() -> Rc<Place> {
    PLACE.with_borrow_mut(|place| place.get_or_insert_with(|| Rc::new(begin())).clone())
}

fn begin() -> Place {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let folder = tempfile::tempdir().expect("a folder can be made");
    let socket = folder.path().join("c.sock");
    let listened = socket.clone();
    runtime.spawn(async move {
        let ended = serve(&listened, Arc::new(Nothing), CancellationToken::new()).await;
        panic!("the controller stopped listening: {ended:?}");
    });
    let made = socket.clone();
    runtime.block_on(async move {
        while !made.exists() {
            tokio::task::yield_now().await;
        }
    });
    Place { runtime, socket, _folder: folder }
}

pub fn feed(bytes: &[u8]) {
    let place = place();
    place.runtime.block_on(async {
        let asked = tokio::time::timeout(HUNG, ask(&place.socket, bytes)).await;
        let answer = asked.expect("the controller neither answers nor hangs up");
        let is_http = answer.is_empty() || answer.starts_with(b"HTTP/1.");
        assert!(is_http, "not an answer: {:?}", String::from_utf8_lossy(&answer));
    });
}

/// Sends the bytes, says that no more come, and reads to the end.
async fn ask(socket: &std::path::Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).await.expect("the controller listens");
    // It may hang up before all is sent.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

/// A controller of nothing.
struct Nothing;

fn nothing() -> OperationError {
    OperationError::new("there is nothing here")
}

#[async_trait]
impl Operations for Nothing {
    async fn diff(&self, _: Option<String>) -> Result<Diff, OperationError> {
        Err(nothing())
    }

    async fn apply(&self, _: Option<Box<Plan>>) -> BoxStream<'static, Progress> {
        stream::iter([Progress::Failed { error: nothing() }]).boxed()
    }

    async fn status(&self) -> Result<Status, OperationError> {
        Ok(Status::default())
    }

    async fn get(&self, _: Kind, _: Option<String>) -> Result<Vec<Object>, OperationError> {
        Ok(Vec::new())
    }

    async fn events(&self, _: usize, _: bool) -> Result<BoxStream<'static, Event>, OperationError> {
        Ok(stream::empty().boxed())
    }

    async fn history(&self, _: Option<AppId>) -> Result<Vec<HistoryEntry>, OperationError> {
        Ok(Vec::new())
    }

    async fn logs(
        &self,
        _: AppId,
        _: Option<u32>,
        _: bool,
    ) -> Result<BoxStream<'static, LogRecord>, OperationError> {
        Ok(stream::empty().boxed())
    }

    async fn approve(&self, _: String) -> Result<ApprovalRequest, OperationError> {
        Err(nothing())
    }

    async fn doctor(&self) -> Result<Vec<Checkup>, OperationError> {
        Ok(Vec::new())
    }
}
