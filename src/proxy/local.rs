//! The machine that Plimsoll itself runs on.

use std::future::Future;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::timeout;

use super::machine::{
    CALL_TIMEOUT, ConnectError, Connection, Machine, MachineError, Outcome, beside, folder_of,
};
use crate::model::FilePath;

/// This machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalMachine;

#[async_trait]
impl Machine for LocalMachine {
    fn name(&self) -> String {
        "this machine".into()
    }

    async fn run(
        &self,
        program: &str,
        arguments: &[&str],
        deadline: Duration,
    ) -> Result<Outcome, MachineError> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let doing = || format!("run {program}");
        match timeout(deadline, command.output()).await {
            Ok(Ok(output)) => Ok(Outcome {
                code: output.status.code(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
            Ok(Err(cause)) if cause.kind() == ErrorKind::NotFound => Err(MachineError::Failed {
                doing: doing(),
                cause: format!("{program} isn't installed: apt install haproxy"),
            }),
            Ok(Err(cause)) => Err(failed(doing(), &cause)),
            Err(_) => Err(MachineError::Failed {
                doing: doing(),
                cause: format!("no end in {deadline:?}"),
            }),
        }
    }

    async fn read(&self, path: &FilePath) -> Result<Option<Vec<u8>>, MachineError> {
        let read = async {
            match tokio::fs::read(path.as_str()).await {
                Ok(content) => Ok(Some(content)),
                Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
                Err(cause) => Err(cause),
            }
        };
        within(format!("read {path}"), read).await
    }

    async fn write(&self, path: &FilePath, content: &[u8]) -> Result<(), MachineError> {
        let (file, content) = (path.clone(), content.to_vec());
        within(format!("write {path}"), aside(move || write_durably(&file, &content))).await
    }

    async fn rename(&self, from: &FilePath, to: &FilePath) -> Result<(), MachineError> {
        let (old, new) = (from.clone(), to.clone());
        within(format!("rename {from} to {to}"), aside(move || rename_durably(&old, &new))).await
    }

    /// In one go: each hand-over to a thread that may block costs more than the work, where the
    /// machine is busy.
    async fn replace(&self, path: &FilePath, content: &[u8]) -> Result<(), MachineError> {
        let (beside, path, content) = (beside(path)?, path.clone(), content.to_vec());
        let doing = format!("write {path}");
        let replace = aside(move || {
            let written = write_durably(&beside, &content);
            if let Err(cause) = written {
                return Ok(Err(failed(format!("write {beside}"), &cause)));
            }
            let renamed = rename_durably(&beside, &path);
            Ok(renamed.map_err(|cause| failed(format!("rename {beside} to {path}"), &cause)))
        });
        within(doing, replace).await?
    }

    async fn remove(&self, path: &FilePath) -> Result<(), MachineError> {
        let remove = async {
            match tokio::fs::remove_file(path.as_str()).await {
                Err(cause) if cause.kind() != ErrorKind::NotFound => Err(cause),
                _ => Ok(()),
            }
        };
        within(format!("remove {path}"), remove).await
    }

    async fn bind_beside(&self, address: SocketAddr) -> Result<(), io::Error> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        match bind(&socket, &address) {
            // HAProxy itself may be allowed to.
            Err(rustix::io::Errno::ACCESS) | Ok(()) => Ok(()),
            Err(cause) => Err(cause.into()),
        }
    }

    async fn connect(&self, socket: &FilePath) -> Result<Box<dyn Connection>, ConnectError> {
        match timeout(CALL_TIMEOUT, UnixStream::connect(socket.as_str())).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(cause)) if is_nobody(cause.kind()) => {
                Err(ConnectError::Nobody { socket: socket.clone() })
            }
            Ok(Err(cause)) => Err(failed(format!("connect to {socket}"), &cause).into()),
            Err(_) => Err(MachineError::Unreachable {
                machine: socket.to_string(),
                cause: format!("no connection within {CALL_TIMEOUT:?}"),
            }
            .into()),
        }
    }
}

/// A process that is just ending resets what waits to be accepted.
fn is_nobody(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
}

/// Runs what blocks in a thread that may.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn write_durably(path: &FilePath, content: &[u8]) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path.as_str())?;
    file.write_all(content)?;
    file.sync_all()
}

fn rename_durably(from: &FilePath, to: &FilePath) -> io::Result<()> {
    std::fs::rename(from.as_str(), to.as_str())?;
    std::fs::File::open(folder_of(to))?.sync_all()
}

fn failed(doing: String, cause: &io::Error) -> MachineError {
    MachineError::Failed { doing, cause: cause.to_string() }
}

async fn within<T>(
    doing: String,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, MachineError> {
    match timeout(CALL_TIMEOUT, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(cause)) => Err(failed(doing, &cause)),
        Err(_) => {
            Err(MachineError::Failed { doing, cause: format!("no end within {CALL_TIMEOUT:?}") })
        }
    }
}
