//! Credentials of registries, from where `docker login` puts them: Docker's config.json and the
//! helpers that it names. They are read for each call, so that a new login counts at once, are
//! handed to the engine only, and are in no text of ours.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{DockerEngine, EngineError};

/// How long a helper may take: it may ask a key ring, never a person.
const HELPER: Duration = Duration::from_secs(10);

/// The largest config.json in bytes.
const LARGEST_CONFIG: u64 = 1024 * 1024;

/// The key of Docker Hub's credentials.
const HUB: &str = "https://index.docker.io/v1/";

/// The name that says that the secret beside it is a token.
const TOKEN: &str = "<token>";

const BASE64: GeneralPurpose = STANDARD;

/// The parts of config.json that concern credentials.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    /// Base64 of `USER:PASSWORD`.
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// What a helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

impl DockerEngine {
    /// The credentials for a registry; none where none are known.
    ///
    /// # Errors
    /// The configuration or a helper is there and doesn't work.
    pub(super) async fn credentials(
        &self,
        registry: &str,
    ) -> Result<Option<DockerCredentials>, EngineError> {
        let Some(path) = self.options.docker_config.as_deref() else {
            return Ok(None);
        };
        find(path, registry).await.map_err(|cause| EngineError::Refused {
            doing: format!("read the credentials for {registry}"),
            cause,
        })
    }
}

async fn find(path: &Path, registry: &str) -> Result<Option<DockerCredentials>, String> {
    let Some(config) = read(path).await? else {
        return Ok(None);
    };
    let server = if registry == "docker.io" { HUB } else { registry };
    let same = |key: &&String| host_of(key) == host_of(server);
    let helper = config.cred_helpers.iter().find(|(key, _)| same(key));
    let helper = helper.map(|(_, helper)| helper).or(config.creds_store.as_ref());
    if let Some(helper) = helper.filter(|helper| !helper.is_empty())
        && let Some(credentials) = ask_helper(helper, server).await?
    {
        return Ok(Some(credentials));
    }
    // The exact key first: some registries have one for each path as well.
    let exact = config.auths.get_key_value(server);
    let auth = exact.or_else(|| config.auths.iter().find(|(key, _)| same(key)));
    match auth {
        Some((key, auth)) => written(auth, server).ok_or_else(|| {
            let path = path.display();
            format!("{path}: the entry {key} of auths can't be read: docker login {registry}")
        }),
        None => Ok(None),
    }
}

/// The configuration; none where there is no file.
async fn read(path: &Path) -> Result<Option<Config>, String> {
    let fail = |error: io::Error| format!("{}: {error}", path.display());
    match tokio::fs::metadata(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
        Ok(found) if found.len() > LARGEST_CONFIG => {
            return Err(format!("{}: it is larger than 1 MiB", path.display()));
        }
        Ok(_) => {}
    }
    let bytes = tokio::fs::read(path).await.map_err(fail)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        // What serde says may quote the file.
        let (line, column) = (error.line(), error.column());
        format!("{}:{line}:{column}: this is no configuration of Docker", path.display())
    })
}

/// Host and port of a registry, however it is written: with a scheme, a path, in upper case.
fn host_of(server: &str) -> String {
    let server = server.strip_prefix("https://").unwrap_or(server);
    let server = server.strip_prefix("http://").unwrap_or(server);
    let host = server.split('/').next().unwrap_or_default().to_ascii_lowercase();
    match host.as_str() {
        "docker.io" | "registry-1.docker.io" => "index.docker.io".to_owned(),
        _ => host,
    }
}

/// The credentials of an entry: `Some(None)` for an empty one, which a helper leaves behind;
/// none where it can't be read.
fn written(auth: &Auth, server: &str) -> Option<Option<DockerCredentials>> {
    let (mut username, mut password) = (auth.username.clone(), auth.password.clone());
    if let Some(encoded) = auth.auth.as_deref().filter(|encoded| !encoded.is_empty()) {
        let decoded = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
        let (user, secret) = decoded.split_once(':')?;
        username = Some(user.to_owned());
        password = Some(secret.trim_end_matches('\0').to_owned());
    }
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let credentials = DockerCredentials {
        username: filled(&username),
        password: filled(&password),
        identitytoken: filled(&auth.identitytoken),
        registrytoken: filled(&auth.registrytoken),
        serveraddress: Some(server.to_owned()),
        ..DockerCredentials::default()
    };
    let empty = credentials.username.is_none()
        && credentials.identitytoken.is_none()
        && credentials.registrytoken.is_none();
    Some((!empty).then_some(credentials))
}

/// Runs `docker-credential-HELPER get`.
async fn ask_helper(helper: &str, server: &str) -> Result<Option<DockerCredentials>, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !helper.chars().all(fine) {
        return Err(format!("{helper:?} is no name of a credential helper"));
    }
    let program = format!("docker-credential-{helper}");
    let output = tokio::time::timeout(HELPER, run(Command::new(&program).arg("get"), server)).await;
    let output = output
        .map_err(|_| format!("{program} gave no answer within {} s", HELPER.as_secs()))?
        .map_err(|error| format!("{program} can't be run: {error}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        return match String::from_utf8_lossy(&said).contains("credentials not found") {
            true => Ok(None),
            false => Err(format!("{program} failed ({})", output.status)),
        };
    }
    let helped: Helped = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("{program} printed something else than credentials"))?;
    let Helped { username, secret } = helped;
    let server = Some(server.to_owned());
    Ok(Some(match username.as_str() {
        TOKEN => DockerCredentials {
            identitytoken: Some(secret),
            serveraddress: server,
            ..DockerCredentials::default()
        },
        _ => DockerCredentials {
            username: Some(username),
            password: Some(secret),
            serveraddress: server,
            ..DockerCredentials::default()
        },
    }))
}

async fn run(command: &mut Command, server: &str) -> io::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that doesn't read what it is asked says so with its status.
        let _ = stdin.write_all(format!("{server}\n").as_bytes()).await;
    }
    child.wait_with_output().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(config: &str, registry: &str) -> Result<Option<(String, String)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        let found = find(&path, registry).await;
        found.map(|found| {
            found.map(|found| {
                let secret = found.password.or(found.identitytoken).unwrap_or_default();
                (found.username.unwrap_or_default(), secret)
            })
        })
    }

    #[tokio::test]
    async fn credentials_are_found_as_docker_login_writes_them() {
        // u:p:w and ann:pass
        let config = r#"{"auths": {
            "r.example:5000": {"auth": "dTpwOnc="},
            "https://index.docker.io/v1/": {"auth": "YW5uOnBhc3M="},
            "https://old.example/v1/": {"username": "bob", "password": "x"},
            "token.example": {"auth": "", "identitytoken": "t0ken"},
            "empty.example": {}
        }, "HttpHeaders": {"x": "y"}}"#;
        for (registry, user, secret) in [
            ("r.example:5000", "u", "p:w"),
            ("docker.io", "ann", "pass"),
            ("old.example", "bob", "x"),
            ("token.example", "", "t0ken"),
        ] {
            let pair = (user.to_owned(), secret.to_owned());
            assert_eq!(found(config, registry).await, Ok(Some(pair)), "{registry}");
        }
        for registry in ["r.example", "empty.example", "other"] {
            assert_eq!(found(config, registry).await, Ok(None), "{registry}");
        }
    }

    #[tokio::test]
    async fn a_bad_configuration_is_named_and_not_quoted() {
        for (config, says) in [
            (r#"{"auths": {"r": {"auth": ["hunter2"]}}}"#, "config.json:1:"),
            (r#"{"auths": {"r": {"auth": "hunter2"}}}"#, "the entry r of auths"),
            (r#"{"credsStore": "../hunter2x/y"}"#, "no name of a credential helper"),
            (r#"{"credsStore": "plimsoll-none"}"#, "docker-credential-plimsoll-none can't be run"),
        ] {
            let error = found(config, "r").await.unwrap_err();
            assert!(error.contains(says) && !error.contains("hunter2\""), "{error}");
        }
        assert!(find(Path::new("/nowhere/config.json"), "r").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_helper_is_asked_on_its_standard_input() {
        let mut helper = Command::new("sh");
        helper.args(["-c", "read server; echo \"asked for $server\""]);
        let output = run(&mut helper, "r.example").await.unwrap();
        assert_eq!(output.stdout, b"asked for r.example\n");
    }
}
