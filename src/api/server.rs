//! Listens on the controller's unix socket and bounds what comes in: connections, the size of
//! headers and bodies, and the time that a sender may take. What is asked and answered is in
//! [`super::routes`]; this file never looks into a request.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Operations, routes};

/// How many connections are served at the same time. Further ones wait a moment for a place
/// and are then told that there is none.
pub const CONNECTION_LIMIT: usize = 64;

/// How long a connection may wait for a place.
const PLACE_WAIT: Duration = Duration::from_secs(3);

/// How long a caller may take to send the head of a request. It is shorter than
/// [`PLACE_WAIT`], so that silent connections give way before anybody is refused.
const HEAD_DEADLINE: Duration = Duration::from_secs(2);

/// The largest head of a request, in bytes.
const HEAD_LIMIT: usize = 64 << 10;

/// How long answers under way may go on after the shutdown: as long as a step may.
const GRACE: Duration = Duration::from_secs(10);

/// Serves `operations` on `socket` until `shutdown`; then ends the answers under way, within
/// 10 seconds, and removes the socket.
///
/// The socket belongs to the user who runs this, with mode 0600. A file that is left over from
/// a process that is gone is replaced.
///
/// # Errors
/// Somebody listens there already, or the socket can't be made.
pub async fn serve(
    socket: &Path,
    operations: Arc<dyn Operations>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let bound = BoundSocket::bind(socket).await?;
    let router = routes::router(operations, shutdown.clone());
    let places = Arc::new(Semaphore::new(CONNECTION_LIMIT));
    let connections = TaskTracker::new();
    while let Some((stream, place)) = next_connection(&bound.listener, &places, &shutdown).await {
        let router = if place.is_some() { router.clone() } else { routes::full() };
        let shutdown = shutdown.clone();
        connections.spawn(async move {
            serve_connection(stream, router, shutdown).await;
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
    Ok(())
}

/// The next connection, with its place among those that are served, or none if all are taken.
/// Ends with the shutdown.
async fn next_connection(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(UnixStream, Option<OwnedSemaphorePermit>)> {
    loop {
        let place = tokio::select! {
            biased;
            () = shutdown.cancelled() => return None,
            place = timeout(PLACE_WAIT, Arc::clone(places).acquire_owned()) => place,
        };
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let place = place.ok().and_then(Result::ok);
                let place = place.or_else(|| Arc::clone(places).try_acquire_owned().ok());
                return Some((stream, place));
            }
            // Out of descriptors or memory: those that are open have to end first.
            Err(error) => {
                tracing::warn!(%error, "a connection to the socket could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(stream: UnixStream, router: Router, shutdown: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        ended = connection.as_mut() => Some(ended),
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the socket broke");
    }
}

/// A socket that is removed when it isn't listened to any more.
struct BoundSocket {
    listener: UnixListener,
    path: PathBuf,
    /// The inode that was bound: another process may have put its own in the place since.
    inode: u64,
}

impl BoundSocket {
    /// Binds beside, narrows the mode, and renames into place: at no moment can another user
    /// connect, and at no moment is there no socket.
    async fn bind(path: &Path) -> io::Result<Self> {
        if UnixStream::connect(path).await.is_ok() {
            let message = format!("another process listens on {}", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
        }
        let beside = path.with_extension(format!("{}.new", std::process::id()));
        remove_if_there(&beside)?;
        let bound = Self::bind_beside(&beside, path);
        if bound.is_err() {
            remove_if_there(&beside)?;
        }
        bound.map_err(|error| {
            io::Error::new(error.kind(), format!("listening on {}: {error}", path.display()))
        })
    }

    fn bind_beside(beside: &Path, path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(beside)?;
        std::fs::set_permissions(beside, std::fs::Permissions::from_mode(0o600))?;
        let inode = std::fs::metadata(beside)?.ino();
        std::fs::rename(beside, path)?;
        Ok(Self { listener, path: path.to_owned(), inode })
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let is_ours = std::fs::metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode);
        if is_ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the socket could not be removed");
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
