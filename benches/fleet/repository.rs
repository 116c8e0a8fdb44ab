//! The manifests of the fleet, and the remote that they are pushed to.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::inotify;

use crate::options::Size;

/// What all apps run, by its digest: no registry is asked for it.
pub const IMAGE: &str = "registry.example/web";

pub struct Repository {
    remote: PathBuf,
    clone: PathBuf,
    size: Size,
    /// How often each app was changed.
    values: BTreeMap<usize, u32>,
}

impl Repository {
    /// A repository that declares the hosts, and no apps yet. `engine`: the socket of each.
    pub fn new<'a>(folder: &Path, size: Size, engines: impl Iterator<Item = &'a Path>) -> Self {
        let (remote, clone) = (folder.join("remote.git"), folder.join("clone"));
        fs::create_dir_all(&clone).expect("a folder can be made");
        let repository = Self { remote, clone, size, values: BTreeMap::new() };
        repository.git(&["init", "-q", "--bare", "-b", "main", &repository.url()]);
        repository.git(&["init", "-q", "-b", "main"]);
        repository.git(&["config", "user.name", "A Person"]);
        repository.git(&["config", "user.email", "person@example.invalid"]);
        repository.git(&["config", "gc.auto", "0"]);
        repository.write("installation.yaml", SHARED);
        for (number, socket) in engines.enumerate() {
            let address = format!("10.1.{}.{}", number / 250, number % 250 + 1);
            let text = format!(
                "apiVersion: plimsoll/v1alpha1\nkind: Host\nmetadata: {{name: host-{number}}}\n\
                 spec: {{engine: \"unix://{}\", address: {address}, ports: 20000-29999}}\n",
                socket.display()
            );
            repository.write(&format!("hosts/host-{number}.yaml"), &text);
        }
        repository
    }

    /// What `--repo` takes.
    pub fn url(&self) -> String {
        self.remote.display().to_string()
    }

    /// Declares these apps, or declares them differently where they are declared already. App
    /// `n` has one container on host `n` modulo the number of hosts.
    pub fn declare(&mut self, apps: impl Iterator<Item = usize>, digest: &str) {
        for number in apps {
            let value = self.values.entry(number).and_modify(|value| *value += 1).or_default();
            let text = format!(
                "apiVersion: plimsoll/v1alpha1\nkind: App\n\
                 metadata: {{name: app-{number}, environment: production}}\nspec:\n  \
                 image: {IMAGE}@{digest}\n  env: {{NUMBER: \"{number}\", VALUE: \"{value}\"}}\n  \
                 hosts: [host-{}]\n  health: {{settle: 0s}}\n  limits: {{memory: 64MiB}}\n",
                number % self.size.hosts
            );
            self.write(&app_path(number), &text);
        }
    }

    /// Commits what is written and brings it to the remote, where no branch that is looked at
    /// has it yet. Returns the commit.
    pub fn commit(&self) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "A change"]);
        self.git(&["push", "-q", "-f", &self.url(), "HEAD:refs/heads/next"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Moves the branch to it, which is the last that a push does. Tells who reads it then.
    pub fn publish(&self, commit: &str) -> Readers {
        self.git(&["--git-dir", &self.url(), "update-ref", "refs/heads/main", commit]);
        let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC);
        let inotify = inotify.expect("inotify is there");
        let folder = self.remote.join("refs/heads");
        inotify::add_watch(&inotify, &folder, inotify::WatchFlags::OPEN).expect("a watch");
        Readers(inotify)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.clone.join(path);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder");
        fs::write(path, text).expect("the disk has room");
    }

    fn git(&self, words: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(&self.clone)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .args(words)
            .output()
            .expect("git is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {words:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// Who reads the remote's branch.
pub struct Readers(OwnedFd);

impl Readers {
    /// True where the branch was read since it was asked last.
    pub fn came(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.0, &mut buffer);
        let mut came = false;
        while let Ok(event) = events.next() {
            came |= event.file_name().is_some_and(|name| name.to_bytes() == b"main");
        }
        came
    }
}

fn app_path(number: usize) -> String {
    format!("apps/production/{}/app-{number}.yaml", number % 100)
}

const SHARED: &str = "apiVersion: plimsoll/v1alpha1
kind: Installation
metadata: {name: bench, uid: 8f14e45f}
---
apiVersion: plimsoll/v1alpha1
kind: Environment
metadata: {name: production}
spec: {env: {REGION: eu}}
";
