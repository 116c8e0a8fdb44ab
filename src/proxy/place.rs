//! Where a balancer's files and sockets lie: for a HAProxy of ours in its folder of the state,
//! for somebody else's where the manifest says.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::machine::file_path;
use super::process::Launch;
use super::render::Places;
use crate::model::{BalancerRun, FilePath, Sha256};

/// A path of a unix socket may have 107 bytes, and HAProxy binds `PATH.PID.tmp` first.
const LONGEST_SOCKET: usize = 107 - ".1234567.tmp".len();

/// All paths of one balancer, on its machine.
#[derive(Debug, Clone)]
pub struct Layout {
    pub config: FilePath,
    pub master_socket: FilePath,
    pub places: Places,
    /// None for a HAProxy that somebody else runs.
    pub launch: Option<Launch>,
}

impl Layout {
    /// The paths; nothing is touched.
    ///
    /// # Errors
    /// For people: a path that HAProxy's configuration can't hold.
    pub fn new(run: &BalancerRun, folder: &Path, haproxy: &str) -> Result<Self, String> {
        match run {
            BalancerRun::Managed => Self::managed(folder, haproxy),
            BalancerRun::External { config, master_socket, runtime_socket, ssh: _ } => Ok(Self {
                config: path(config)?,
                master_socket: path(master_socket)?,
                places: Places {
                    runtime_socket: path(runtime_socket)?,
                    routes: path(&format!("{config}.routes"))?,
                },
                launch: None,
            }),
        }
    }

    fn managed(folder: &Path, haproxy: &str) -> Result<Self, String> {
        let folder = std::path::absolute(folder).map_err(|cause| cause.to_string())?;
        let text = folder.to_str().ok_or("the state folder's path isn't UTF-8")?;
        let sockets = socket_folder(text);
        let config = path(&format!("{text}/haproxy.cfg"))?;
        let master_socket = path(&format!("{sockets}/master.sock"))?;
        Ok(Self {
            places: Places {
                runtime_socket: path(&format!("{sockets}/runtime.sock"))?,
                routes: path(&format!("{text}/routes.map"))?,
            },
            launch: Some(Launch {
                haproxy: haproxy.to_owned(),
                config: config.clone(),
                master_socket: master_socket.clone(),
                pid_file: path(&format!("{text}/haproxy.pid"))?,
            }),
            config,
            master_socket,
        })
    }

    /// Makes the folders of a HAProxy of ours, which only we may enter.
    ///
    /// # Errors
    /// For people.
    pub fn make_folders(&self) -> Result<(), String> {
        for file in [&self.config, &self.master_socket] {
            let folder = PathBuf::from(super::machine::folder_of(file));
            make_private(&folder)
                .map_err(|cause| format!("the folder {}: {cause}", folder.display()))?;
        }
        Ok(())
    }
}

fn path(text: &str) -> Result<FilePath, String> {
    file_path(text).map_err(|cause| cause.to_string())
}

/// The folder itself, or, where its path is too long for a socket, one with a short name that
/// is always the same for it.
fn socket_folder(folder: &str) -> String {
    if folder.len() + "/runtime.sock".len() <= LONGEST_SOCKET {
        return folder.to_owned();
    }
    let base = if rustix::process::geteuid().is_root() { "/run" } else { "/tmp" };
    format!("{base}/plimsoll-{}", Sha256::of(folder.as_bytes()).short(16))
}

/// A folder of that name may have been made by somebody else, where anybody may write.
fn make_private(folder: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let found = std::fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(std::io::Error::other("it belongs to somebody else; remove it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_short_paths() {
        let deep = format!("/{}", "a".repeat(120));
        for folder in ["/var/lib/plimsoll/haproxy/edge", &deep] {
            let layout = Layout::new(&BalancerRun::Managed, Path::new(folder), "haproxy").unwrap();
            for socket in [&layout.master_socket, &layout.places.runtime_socket] {
                assert!(socket.as_str().len() <= LONGEST_SOCKET, "{socket}");
            }
            assert_eq!(layout.config.as_str(), format!("{folder}/haproxy.cfg"));
        }
    }

    #[test]
    fn a_path_that_haproxy_would_read_otherwise_is_refused() {
        for folder in ["/a b", "/a${HOME}", "/a\n"] {
            assert!(Layout::new(&BalancerRun::Managed, Path::new(folder), "haproxy").is_err());
        }
    }
}
