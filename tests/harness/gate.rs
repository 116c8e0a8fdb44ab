//! A socket in front of an engine that a test can close, as if the host were unreachable, while
//! the engine itself goes on for everybody else.

use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};

use super::engine::Engine;

/// A way to an engine that can be cut.
pub struct Gate {
    runtime: tokio::runtime::Runtime,
    engine: PathBuf,
    socket: PathBuf,
    open: Option<AbortHandle>,
}

impl Gate {
    /// An open gate: everything that connects to `socket` reaches the engine.
    pub fn open(engine: &Engine, socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (engine, socket) = (engine.socket().to_owned(), socket.to_owned());
        let mut gate = Self { runtime, engine, socket, open: None };
        gate.reopen();
        gate
    }

    /// The engine as it is seen through the gate.
    pub fn engine(&self) -> Engine {
        Engine::new(&self.socket)
    }

    /// Cuts the connections that there are; new ones are refused.
    pub fn close(&mut self) {
        if let Some(task) = self.open.take() {
            task.abort();
        }
        let _ = std::fs::remove_file(&self.socket);
    }

    /// Lets connections through again.
    pub fn reopen(&mut self) {
        self.close();
        let _inside = self.runtime.enter();
        let listener = UnixListener::bind(&self.socket).unwrap();
        let engine = self.engine.clone();
        self.open = Some(self.runtime.spawn(forward(listener, engine)).abort_handle());
    }
}

/// Ends with all its connections when it is aborted: they are tasks of its own set.
async fn forward(listener: UnixListener, engine: PathBuf) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let engine = engine.clone();
        connections.spawn(async move {
            if let Ok(mut server) = UnixStream::connect(engine).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
