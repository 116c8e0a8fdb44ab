//! What the commands are told beside their own arguments: flag beats environment beats
//! configuration file beats default. It reads the configuration file and nothing else.

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use super::failure::Failure;
use super::output::Format;
use crate::api::{OperationError, SOCKET_NAME};
use crate::model::Span;
use crate::reconcile::{ControllerOptions, GitOptions};
use crate::source::shown;

/// Read where no other is named, if it is there.
const CONFIG_FILE: &str = "/etc/plimsoll/config.yaml";

/// The largest configuration file, in bytes.
const CONFIG_LIMIT: u64 = 1 << 20;

/// Between looks at the remote.
const INTERVAL: Span = Span::from_secs(30);

/// Flags that every command takes, before or after its name. An environment variable that is
/// empty counts as not set. Shown without what the repository's URL holds in secret.
#[derive(Clone, Default, Args)]
#[command(next_help_heading = "Options of all commands")]
pub struct GlobalArguments {
    /// URL or folder of the manifest repository [default: the folder we are in]
    #[arg(long, global = true, value_name = "URL", env = "PLIMSOLL_REPO", hide_env_values = true)]
    pub repo: Option<String>,

    /// Branch that is followed [default: main]
    #[arg(long, global = true, value_name = "NAME", env = "PLIMSOLL_BRANCH")]
    pub branch: Option<String>,

    /// Folder of the manifests in the repository [default: its root]
    #[arg(long, global = true, value_name = "FOLDER", env = "PLIMSOLL_PATH")]
    pub path: Option<String>,

    /// Read the files as they lie in the folder, without git
    #[arg(long, global = true)]
    pub worktree: bool,

    /// Folder of the controller's state and socket [default: /var/lib/plimsoll, for others than
    /// root ~/.local/state/plimsoll]
    #[arg(long, global = true, value_name = "FOLDER", env = "PLIMSOLL_STATE")]
    pub state: Option<OsString>,

    /// Folder of the secrets [default: secrets in the state folder]
    #[arg(long, global = true, value_name = "FOLDER", env = "PLIMSOLL_SECRETS")]
    pub secrets: Option<OsString>,

    /// Configuration file in YAML [default: /etc/plimsoll/config.yaml, if it is there]
    #[arg(long, global = true, value_name = "FILE", env = "PLIMSOLL_CONFIG")]
    pub config: Option<OsString>,

    /// Private key for a repository behind ssh [default: the ssh agent's]
    #[arg(long, global = true, value_name = "FILE", env = "PLIMSOLL_GIT_SSH_KEY")]
    pub git_ssh_key: Option<OsString>,

    /// Host keys of repositories behind ssh [default: ~/.ssh/known_hosts]
    #[arg(long, global = true, value_name = "FILE", env = "PLIMSOLL_GIT_KNOWN_HOSTS")]
    pub git_known_hosts: Option<OsString>,

    /// File that holds the token for a repository behind http or https
    #[arg(long, global = true, value_name = "FILE", env = "PLIMSOLL_GIT_TOKEN_FILE")]
    pub git_token_file: Option<OsString>,

    /// User name at the repository
    #[arg(long, global = true, value_name = "NAME", env = "PLIMSOLL_GIT_USERNAME")]
    pub git_username: Option<String>,

    /// Docker's config.json with the registries' credentials [default: the user's own]
    #[arg(long, global = true, value_name = "FILE", env = "PLIMSOLL_DOCKER_CONFIG")]
    pub docker_config: Option<OsString>,

    /// The haproxy program [default: found in PATH]
    #[arg(long, global = true, value_name = "FILE", env = "PLIMSOLL_HAPROXY")]
    pub haproxy: Option<OsString>,

    /// Form of the data on stdout
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
}

impl fmt::Debug for GlobalArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            repo,
            branch,
            path,
            worktree,
            state,
            secrets,
            config,
            git_ssh_key,
            git_known_hosts,
            git_token_file,
            git_username,
            docker_config,
            haproxy,
            output,
        } = self;
        f.debug_struct("GlobalArguments")
            .field("repo", &repo.as_deref().map(shown))
            .field("branch", branch)
            .field("path", path)
            .field("worktree", worktree)
            .field("state", state)
            .field("secrets", secrets)
            .field("config", config)
            .field("git_ssh_key", git_ssh_key)
            .field("git_known_hosts", git_known_hosts)
            .field("git_token_file", git_token_file)
            .field("git_username", git_username)
            .field("docker_config", docker_config)
            .field("haproxy", haproxy)
            .field("output", output)
            .finish()
    }
}

/// The configuration file. Shown without what the repository's URL holds in secret.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConfigFile {
    repo: Option<String>,
    branch: Option<String>,
    path: Option<String>,
    state: Option<PathBuf>,
    secrets: Option<PathBuf>,
    interval: Option<Span>,
    git_ssh_key: Option<PathBuf>,
    git_known_hosts: Option<PathBuf>,
    git_token_file: Option<PathBuf>,
    git_username: Option<String>,
    docker_config: Option<PathBuf>,
    haproxy: Option<PathBuf>,
}

impl fmt::Debug for ConfigFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            repo,
            branch,
            path,
            state,
            secrets,
            interval,
            git_ssh_key,
            git_known_hosts,
            git_token_file,
            git_username,
            docker_config,
            haproxy,
        } = self;
        f.debug_struct("ConfigFile")
            .field("repo", &repo.as_deref().map(shown))
            .field("branch", branch)
            .field("path", path)
            .field("state", state)
            .field("secrets", secrets)
            .field("interval", interval)
            .field("git_ssh_key", git_ssh_key)
            .field("git_known_hosts", git_known_hosts)
            .field("git_token_file", git_token_file)
            .field("git_username", git_username)
            .field("docker_config", docker_config)
            .field("haproxy", haproxy)
            .finish()
    }
}

impl ConfigFile {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// It isn't there, is over 1 MiB, or holds what isn't known.
    pub fn read(path: &Path) -> Result<Self, OperationError> {
        let shown = path.display();
        let mut text = String::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(CONFIG_LIMIT + 1).read_to_string(&mut text));
        if let Err(error) = read {
            let message = format!("the configuration file {shown} could not be read");
            return Err(OperationError::because(message, &error)
                .hint("name another with --config FILE or PLIMSOLL_CONFIG"));
        }
        if text.len() as u64 > CONFIG_LIMIT {
            return Err(OperationError::new(format!(
                "the configuration file {shown} is over 1 MiB"
            )));
        }
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(&text).map_err(|error| {
            let mut failure =
                OperationError::new(format!("the configuration file {shown} can't be read"));
            failure.causes.push(error.to_string());
            failure.hint(
                "its keys are repo, branch, path, state, secrets, interval, gitSshKey, \
                 gitKnownHosts, gitTokenFile, gitUsername, dockerConfig and haproxy",
            )
        })
    }
}

/// What the defaults depend on.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub folder: PathBuf,
    pub is_root: bool,
    pub home: Option<PathBuf>,
    /// Folders in which programs are looked for.
    pub programs: Vec<PathBuf>,
}

impl Surroundings {
    fn of_this_process() -> Result<Self, OperationError> {
        let folder = std::env::current_dir().map_err(|error| {
            OperationError::because("the folder we are in can't be read", &error)
        })?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Only root has these in PATH on most systems, and haproxy lies in one of them.
        let further = ["/usr/local/sbin", "/usr/sbin"].map(PathBuf::from);
        Ok(Self {
            folder,
            is_root: rustix::process::geteuid().is_root(),
            home: std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from),
            programs: std::env::split_paths(&path).chain(further).collect(),
        })
    }
}

impl GlobalArguments {
    /// The settings of this process.
    pub fn settings(&self, interval: Option<Span>) -> Result<ControllerOptions, Failure> {
        let surroundings = Surroundings::of_this_process()?;
        let file = match path(&self.config) {
            Some(named) => ConfigFile::read(&named)?,
            None if Path::new(CONFIG_FILE).exists() => ConfigFile::read(Path::new(CONFIG_FILE))?,
            None => ConfigFile::default(),
        };
        Ok(self.resolve(interval, file, &surroundings)?)
    }

    /// Flag or environment, else the file, else the default.
    pub fn resolve(
        &self,
        interval: Option<Span>,
        file: ConfigFile,
        surroundings: &Surroundings,
    ) -> Result<ControllerOptions, OperationError> {
        let folder = &surroundings.folder;
        let place = |own: &Option<OsString>, file: Option<PathBuf>| {
            path(own).or(file).map(|path| folder.join(path))
        };
        let state = match place(&self.state, file.state) {
            Some(state) => state,
            None => default_state(surroundings)?,
        };
        Ok(ControllerOptions {
            repo: repository(text(&self.repo).or(file.repo), folder),
            branch: text(&self.branch).or(file.branch).unwrap_or_else(|| "main".into()),
            path: text(&self.path).or(file.path),
            worktree: self.worktree,
            secrets: place(&self.secrets, file.secrets).unwrap_or_else(|| state.join("secrets")),
            state,
            interval: interval.or(file.interval).unwrap_or(INTERVAL).duration(),
            git: GitOptions {
                ssh_key: place(&self.git_ssh_key, file.git_ssh_key),
                known_hosts: place(&self.git_known_hosts, file.git_known_hosts),
                token_file: place(&self.git_token_file, file.git_token_file),
                username: text(&self.git_username).or(file.git_username),
            },
            docker_config: place(&self.docker_config, file.docker_config),
            haproxy: path(&self.haproxy)
                .or(file.haproxy)
                .unwrap_or_else(|| find_program("haproxy", &surroundings.programs)),
        })
    }
}

/// Where a controller with these settings listens.
pub fn socket(options: &ControllerOptions) -> PathBuf {
    options.state.join(SOCKET_NAME)
}

fn text(value: &Option<String>) -> Option<String> {
    value.clone().filter(|value| !value.is_empty())
}

fn path(value: &Option<OsString>) -> Option<PathBuf> {
    value.as_ref().filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A folder that is there is named by its whole path, so that it means the same wherever it is
/// read later; anything else is a URL and stays as it is.
pub fn repository(named: Option<String>, folder: &Path) -> String {
    let Some(named) = named else { return folder.display().to_string() };
    let joined = folder.join(&named);
    if joined.is_dir() {
        joined.canonicalize().unwrap_or(joined).display().to_string()
    } else {
        named
    }
}

fn default_state(surroundings: &Surroundings) -> Result<PathBuf, OperationError> {
    match &surroundings.home {
        _ if surroundings.is_root => Ok("/var/lib/plimsoll".into()),
        Some(home) => Ok(home.join(".local/state/plimsoll")),
        None => Err(OperationError::new("it isn't known where the state is kept: HOME isn't set")
            .hint("name the folder with --state FOLDER or PLIMSOLL_STATE")),
    }
}

fn find_program(name: &str, folders: &[PathBuf]) -> PathBuf {
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn surroundings() -> Surroundings {
        Surroundings {
            folder: "/work".into(),
            is_root: false,
            home: Some("/home/ada".into()),
            programs: Vec::new(),
        }
    }

    fn file() -> ConfigFile {
        serde_saphyr::from_str(
            "repo: git@example.com:infra.git\nbranch: fleet\npath: manifests\nstate: /srv/state\n\
             interval: 5m\ngitSshKey: /srv/key\nhaproxy: /opt/haproxy\n",
        )
        .unwrap()
    }

    #[test]
    fn defaults() {
        let options =
            GlobalArguments::default().resolve(None, ConfigFile::default(), &surroundings());
        assert_eq!(
            options.unwrap(),
            ControllerOptions {
                repo: "/work".into(),
                branch: "main".into(),
                path: None,
                worktree: false,
                state: "/home/ada/.local/state/plimsoll".into(),
                secrets: "/home/ada/.local/state/plimsoll/secrets".into(),
                interval: Duration::from_secs(30),
                git: GitOptions::default(),
                docker_config: None,
                haproxy: "haproxy".into(),
            }
        );
        let root = Surroundings { is_root: true, ..surroundings() };
        let options = GlobalArguments::default().resolve(None, ConfigFile::default(), &root);
        assert_eq!(options.unwrap().state, Path::new("/var/lib/plimsoll"));
        let homeless = Surroundings { home: None, ..surroundings() };
        let options = GlobalArguments::default().resolve(None, ConfigFile::default(), &homeless);
        assert!(options.unwrap_err().hint.unwrap().contains("--state"));
    }

    #[test]
    fn the_file_beats_defaults_and_flags_beat_the_file() {
        let options = GlobalArguments::default().resolve(None, file(), &surroundings()).unwrap();
        assert_eq!(options.repo, "git@example.com:infra.git");
        assert_eq!(options.branch, "fleet");
        assert_eq!(options.secrets, Path::new("/srv/state/secrets"));
        assert_eq!(options.interval, Duration::from_secs(300));
        assert_eq!(options.git.ssh_key.as_deref(), Some(Path::new("/srv/key")));
        assert_eq!(options.haproxy, Path::new("/opt/haproxy"));

        let flags = GlobalArguments {
            branch: Some("try".into()),
            path: Some(String::new()),
            state: Some("here".into()),
            ..GlobalArguments::default()
        };
        let options = flags.resolve(Some(Span::from_secs(1)), file(), &surroundings()).unwrap();
        assert_eq!(options.branch, "try");
        assert_eq!(options.path.as_deref(), Some("manifests"), "an empty value counts as not set");
        assert_eq!(options.state, Path::new("/work/here"));
        assert_eq!(options.interval, Duration::from_secs(1));
    }

    #[test]
    fn no_secret_of_the_url_is_shown() {
        for (url, shows) in [
            (
                "https://ada:stieglitz-0dd5@git.example.com/infra.git?t=stieglitz-0dd5",
                "git.example",
            ),
            ("https://stieglitz-0dd5@git.example.com/infra.git", "git.example"),
            ("ftp://ada:stieglitz-0dd5@git.example.com/infra.git", "neither a folder"),
            ("https://ada:stieglitz-0dd5@[::/infra.git", "neither a folder"),
            ("https://ada:x/stieglitz-0dd5@git.example.com/infra.git", "git.example.com"),
        ] {
            let flags = GlobalArguments { repo: Some(url.into()), ..GlobalArguments::default() };
            let file = ConfigFile { repo: Some(url.into()), ..ConfigFile::default() };
            let options = flags.resolve(None, file.clone(), &surroundings()).unwrap();
            for told in [format!("{flags:?}"), format!("{file:?}"), format!("{options:#?}")] {
                assert!(!told.contains("stieglitz-0dd5"), "{told}");
                assert!(told.contains(shows), "{told}");
            }
        }
    }

    #[test]
    fn mistakes_in_the_file_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        for (text, told) in [
            ("branhc: main\n", "branhc"),
            ("branch: a\nbranch: b\n", "branch"),
            ("interval: 30\n", "30"),
            ("- a\n", ""),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = ConfigFile::read(&path).unwrap_err();
            assert!(error.message.contains("config.yaml"), "{error:?}");
            assert!(error.causes.concat().contains(told), "{error:?}");
        }
        std::fs::write(&path, "# nothing is set\n\n").unwrap();
        assert_eq!(ConfigFile::read(&path).unwrap(), ConfigFile::default());
        assert!(ConfigFile::read(&folder.path().join("none.yaml")).is_err());
    }
}
