//! Asking a Docker Engine by the `docker` command line, which knows nothing of Plimsoll.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::command::{Output, run};

/// One engine, by its socket.
#[derive(Debug, Clone)]
pub struct Engine {
    socket: PathBuf,
}

impl Engine {
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// As a Host declares it.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs `docker` with these words.
    #[track_caller]
    pub fn docker<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Output {
        run(Command::new("docker")
            .env_remove("DOCKER_CONTEXT")
            .env("DOCKER_HOST", self.url())
            .args(words))
    }

    /// Names and ids of an installation's containers, running or not.
    #[track_caller]
    pub fn containers(&self, installation: &str) -> BTreeMap<String, String> {
        self.list(&["ps", "-a", "--no-trunc"], installation)
    }

    /// Names and ids of an installation's running containers.
    #[track_caller]
    pub fn running(&self, installation: &str) -> BTreeMap<String, String> {
        self.list(&["ps", "--no-trunc"], installation)
    }

    #[track_caller]
    fn list(&self, words: &[&str], installation: &str) -> BTreeMap<String, String> {
        let filter = format!("label=plimsoll.installation={installation}");
        let format = ["--filter", &filter, "--format", "{{.Names}} {{.ID}}"];
        let output = self.docker(words.iter().copied().chain(format)).expect(0);
        output
            .text()
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, id)| (name.to_owned(), id.to_owned()))
            .collect()
    }

    /// Everything that the engine tells of a container; none where it is gone.
    #[track_caller]
    pub fn inspect(&self, container: &str) -> Option<Value> {
        let output = self.docker(["container", "inspect", container]);
        let mut found: Vec<Value> = serde_json::from_str(&output.stdout).ok()?;
        found.pop()
    }

    /// Starts a container that Plimsoll knows nothing of, and returns its id.
    #[track_caller]
    pub fn run_foreign<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> String {
        let words = ["run", "-d"].into_iter().chain(words);
        self.docker(words).expect(0).text().to_owned()
    }

    /// Ends and removes a container, as a person would.
    #[track_caller]
    pub fn remove(&self, container: &str) {
        self.docker(["rm", "-f", container]).expect(0);
    }

    /// Removes an installation's containers and volumes. For clean-up: failures are ignored.
    pub fn remove_all(&self, installation: &str) {
        let filter = format!("label=plimsoll.installation={installation}");
        for (list, remove) in [
            (&["ps", "-aq"][..], &["rm", "-f", "-v"][..]),
            (&["volume", "ls", "-q"], &["volume", "rm", "-f"]),
        ] {
            let listed = self.docker(list.iter().copied().chain(["--filter", filter.as_str()]));
            let names: Vec<_> = listed.stdout.split_whitespace().collect();
            if listed.code == 0 && !names.is_empty() {
                self.docker(remove.iter().copied().chain(names.iter().copied()));
            }
        }
    }
}
