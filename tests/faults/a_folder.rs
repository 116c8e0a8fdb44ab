//! A folder of manifests and what `plimsoll validate` says of it. Nothing is started: what is
//! wrong in a manifest is told without an engine.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::harness::{Output, run};

/// Declares the hosts `alpha` and `beta`, the balancer `edge` and the environment `production`.
pub const FLEET: &str = include_str!("../golden/manifest/fleet.yaml");

/// Manifests in a temporary folder, `fleet.yaml` among them.
pub struct Folder(tempfile::TempDir);

/// One mistake, as `validate -o json` tells it.
#[derive(Debug, Clone, Deserialize)]
pub struct Mistake {
    pub file: String,
    pub line: u32,
    pub column: u32,
    pub message: String,
    pub hint: Option<String>,
}

/// What `validate -o json` prints.
#[derive(Debug, Clone, Deserialize)]
pub struct Findings {
    pub errors: Vec<Mistake>,
    pub warnings: Vec<Mistake>,
}

impl Findings {
    /// The first mistake in a file.
    #[track_caller]
    pub fn of(&self, file: &str) -> &Mistake {
        let found = self.errors.iter().find(|mistake| mistake.file == file);
        found.unwrap_or_else(|| panic!("{file} has no mistake: {self:#?}"))
    }

    /// The files with mistakes, each once.
    pub fn files(&self) -> Vec<&str> {
        let mut files: Vec<_> = self.errors.iter().map(|mistake| mistake.file.as_str()).collect();
        files.dedup();
        files
    }
}

impl Folder {
    pub fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("fleet.yaml", FLEET);
        folder
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// An app on host alpha with these lines more in its spec.
    pub fn write_app(&self, name: &str, more: &str) {
        self.write(&format!("{name}.yaml"), app(name, more));
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLIMSOLL_")) {
            command.env_remove(name);
        }
        command.env_remove("RUST_LOG").current_dir(self.path());
        command.arg("validate").arg(self.path());
        command
    }

    /// What people see.
    #[track_caller]
    pub fn told(&self) -> Output {
        run(&mut self.command())
    }

    /// What scripts see. The exit code has to agree with it.
    #[track_caller]
    pub fn findings(&self) -> Findings {
        let output = run(self.command().args(["-o", "json"]));
        let findings: Findings = output.json();
        output.expect(i32::from(!findings.errors.is_empty()));
        findings
    }
}

/// An app's manifest on host alpha with these lines more in its spec.
pub fn app(name: &str, more: &str) -> String {
    format!(
        "apiVersion: plimsoll/v1alpha1\nkind: App\nmetadata: {{name: {name}, environment: \
         production}}\nspec:\n  image: web:1\n  hosts: [alpha]\n  port: 8080\n{more}"
    )
}

/// A line with one route to host and path.
pub fn route(host: &str, path: &str) -> String {
    let (host, path) = (serde_json::json!(host), serde_json::json!(path));
    format!("  routes: [{{balancer: edge, listener: web, host: {host}, path: {path}}}]\n")
}
