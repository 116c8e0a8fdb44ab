//! A bare repository and a clone to commit in.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{Output, run};

/// A remote, and the clone of the person who writes the manifests.
#[derive(Debug)]
pub struct Repository {
    remote: PathBuf,
    clone: PathBuf,
    /// Where the remote is reached, if not by its folder.
    address: Option<String>,
}

impl Repository {
    /// An empty repository with branch `main` below `folder`.
    pub fn new(folder: &Path) -> Self {
        let repository =
            Self { remote: folder.join("remote.git"), clone: folder.join("clone"), address: None };
        let (remote, clone) = (repository.remote.as_path(), repository.clone.as_path());
        std::fs::create_dir_all(clone).unwrap();
        repository.git(["init", "-q", "--bare", "-b", "main", remote.to_str().unwrap()]);
        // A test may delete the branch that everybody follows.
        let deletes = ["config", "receive.denyDeleteCurrent", "ignore"];
        repository.git(["--git-dir", remote.to_str().unwrap()].into_iter().chain(deletes));
        repository.git(["init", "-q", "-b", "main"]);
        repository.git(["remote", "add", "origin", remote.to_str().unwrap()]);
        repository
    }

    /// What `--repo` takes.
    pub fn url(&self) -> String {
        self.address.clone().unwrap_or_else(|| self.remote.display().to_string())
    }

    /// From now on Plimsoll reaches the remote at this URL, through a server that a test has
    /// started; pushes still go to its folder.
    pub fn reach_at(&mut self, url: &str) {
        self.address = Some(url.to_owned());
    }

    /// The folder of the remote.
    pub fn remote(&self) -> &Path {
        &self.remote
    }

    /// The folder in which the manifests are written.
    pub fn clone(&self) -> &Path {
        &self.clone
    }

    /// Writes a file of the clone.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.clone.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Removes a file of the clone.
    pub fn remove(&self, path: &str) {
        std::fs::remove_file(self.clone.join(path)).unwrap();
    }

    /// Commits everything and pushes it. Returns the commit.
    #[track_caller]
    pub fn push(&self, message: &str) -> String {
        self.commit(message);
        self.git(["push", "-q", "origin", "main"]);
        self.head()
    }

    /// Replaces the last commit and pushes with force: history is rewritten.
    #[track_caller]
    pub fn push_rewritten(&self, message: &str) -> String {
        self.git(["add", "-A"]);
        self.git(["commit", "-q", "--amend", "--allow-empty", "-m", message]);
        self.git(["push", "-q", "--force", "origin", "main"]);
        self.head()
    }

    /// Commits everything, without pushing.
    #[track_caller]
    pub fn commit(&self, message: &str) -> String {
        self.git(["add", "-A"]);
        self.git(["commit", "-q", "--allow-empty", "-m", message]);
        self.head()
    }

    /// The clone's last commit.
    #[track_caller]
    pub fn head(&self) -> String {
        self.git(["rev-parse", "HEAD"]).text().to_owned()
    }

    /// Runs git in the clone, with nobody's own settings.
    #[track_caller]
    pub fn git<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Output {
        run(Command::new("git")
            .current_dir(&self.clone)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .args(["-c", "user.name=A Person", "-c", "user.email=person@example.invalid"])
            .args(words))
        .expect(0)
    }
}
