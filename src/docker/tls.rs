//! TLS to an engine, with the three files that Docker's own client takes: the engine is known
//! by ca.pem alone, and Plimsoll shows it cert.pem. Nothing is trusted beside that.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, rustls};

/// A folder with ca.pem, cert.pem and key.pem, and what was read from it.
pub(super) struct Tls {
    folder: PathBuf,
    /// Kept, so that sessions resume; forgotten when a handshake fails, so that renewed files
    /// are read.
    config: Mutex<Option<Arc<ClientConfig>>>,
}

impl Tls {
    pub(super) fn new(folder: impl AsRef<Path>) -> Self {
        Self { folder: folder.as_ref().to_owned(), config: Mutex::new(None) }
    }

    /// TLS over `stream`, with the engine known as `host`: a name or an IP address.
    ///
    /// # Errors
    /// A file that can't be read, or the handshake's failure.
    pub(super) async fn wrap(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let known = self.known().clone();
        let config = match known {
            Some(config) => config,
            None => Arc::new(self.read().await?),
        };
        let stream = TlsConnector::from(config.clone()).connect(name, stream).await;
        *self.known() = stream.is_ok().then_some(config);
        stream.map_err(|error| io::Error::new(error.kind(), format!("TLS with {host}: {error}")))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<Arc<ClientConfig>>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self) -> io::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.folder.join("ca.pem")).await? {
            roots.add(certificate).map_err(io::Error::other)?;
        }
        let chain = certificates(&self.folder.join("cert.pem")).await?;
        let path = self.folder.join("key.pem");
        let key = PrivateKeyDer::from_pem_slice(&read_file(&path).await?)
            .map_err(|error| file_error(&path, error))?;
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_root_certificates(roots).with_client_auth_cert(chain, key)
            })
            .map_err(|error: rustls::Error| file_error(&self.folder, error))
    }
}

async fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let pem = read_file(path).await?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(file_error(path, "there is no certificate in it"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(file_error(path, error)),
    }
}

async fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    tokio::fs::read(path).await.map_err(|error| file_error(path, error))
}

fn file_error(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}
