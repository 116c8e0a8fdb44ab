//! One installation of Plimsoll: a manifest repository, a state folder, ports of its own, and
//! the command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::balancer::Balancer;
use super::claim::Block;
use super::command::{Output, run};
use super::controller::Controller;
use super::engine::Engine;
use super::fleet::Fleet;
use super::git::Repository;
use super::http::{Answer, get};
use super::load::LoadOptions;
use super::manifest::{document, environment, host};
use super::output::{Plan, Status};
use super::watchdog::{self, Leftover};

/// An installation in a temporary folder. Dropped, its HAProxy, its containers and its volumes
/// are removed.
pub struct Installation {
    pub name: String,
    pub repository: Repository,
    pub ports: Block,
    engines: Vec<(String, Engine)>,
    folder: tempfile::TempDir,
}

impl Installation {
    /// An installation on the shared engines. Its repository declares the environment
    /// `production`, the hosts `alpha` and `beta` and the balancer `edge`, and isn't pushed yet.
    pub fn new(name: &str) -> Self {
        Self::on(Fleet::shared(), name)
    }

    /// An installation on these engines.
    pub fn on(fleet: &Fleet, name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        // A short path: the sockets of HAProxy lie below it.
        let folder = tempfile::Builder::new().prefix("plt-").rand_bytes(4).tempdir().unwrap();
        watchdog::remember(&Leftover::Folder(folder.path().to_str().unwrap()));
        let repository = Repository::new(folder.path());
        std::fs::create_dir(folder.path().join("secrets")).unwrap();
        let mut installation =
            Self { name, repository, ports: Block::claim(), engines: Vec::new(), folder };
        installation.declare_basics(fleet);
        installation
    }

    fn declare_basics(&mut self, fleet: &Fleet) {
        let uid = format!("{:08x}", std::process::id());
        let mut root = document("Installation", &self.name, &json!({}));
        root["metadata"]["uid"] = json!(uid);
        self.write("installation.yaml", &root);
        self.write("environments/production.yaml", &environment("production"));
        let ports = self.ports.container_ports();
        for (name, engine, address) in fleet.hosts() {
            self.write(&format!("hosts/{name}.yaml"), &host(name, engine, address, &ports));
            self.engines.push((name.to_owned(), engine.clone()));
        }
        let bind = format!("127.0.0.1:{}", self.http_port());
        let stats = format!("127.0.0.1:{}", self.ports.balancer_port(1));
        let spec =
            json!({"listen": [{"name": "web", "bind": bind}], "stats": stats, "xHost": true});
        self.write("balancers/edge.yaml", &document("Balancer", "edge", &spec));
    }

    /// The folder of everything that belongs to the installation.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The port of listener `web` of balancer `edge`.
    pub fn http_port(&self) -> u16 {
        self.ports.balancer_port(0)
    }

    /// Balancer `edge`.
    pub fn balancer(&self) -> Balancer {
        Balancer::new(&self.state().join("haproxy/edge"))
    }

    /// Load on an app of [`super::app`].
    pub fn load_on(&self, app: &str) -> LoadOptions {
        LoadOptions::new(self.http_port(), &format!("{app}.example.com"))
    }

    /// GET `/` of an app of [`super::app`], through HAProxy.
    pub fn get(&self, app: &str) -> Result<Answer, String> {
        get(self.http_port(), &format!("{app}.example.com"), "/")
    }

    /// Writes a manifest, as YAML.
    pub fn write(&self, path: &str, manifest: &Value) {
        self.repository.write(path, &serde_yaml::to_string(manifest).unwrap());
    }

    /// Writes an app's manifest to `apps/NAME.yaml`.
    pub fn write_app(&self, manifest: &Value) {
        let name = manifest["metadata"]["name"].as_str().unwrap();
        self.write(&format!("apps/{name}.yaml"), manifest);
    }

    /// Removes an app's manifest.
    pub fn remove_app(&self, name: &str) {
        self.repository.remove(&format!("apps/{name}.yaml"));
    }

    /// Writes a secret's file.
    pub fn write_secret(&self, name: &str, value: &str) {
        let path = self.folder.path().join("secrets").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value).unwrap();
    }

    /// Writes an app's manifest, commits, pushes and converges.
    #[track_caller]
    pub fn deploy(&self, manifest: &Value) -> String {
        self.write_app(manifest);
        let commit = self.repository.push(&format!("Deploy {}", manifest["metadata"]["name"]));
        self.converge();
        commit
    }

    /// `plimsoll` with these words, as a person on the controller's machine types them.
    pub fn command<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLIMSOLL_")) {
            command.env_remove(name);
        }
        command
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("PLIMSOLL_SECRETS", self.folder.path().join("secrets"))
            .env_remove("RUST_LOG")
            .args(words)
            .args(["--repo", &self.repository.url()])
            .arg("--state")
            .arg(self.state());
        command
    }

    /// Runs `plimsoll` to its end.
    #[track_caller]
    pub fn plimsoll<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Output {
        run(&mut self.command(words))
    }

    /// The answers to everything that can be asked about one app, in every form.
    #[track_caller]
    pub fn every_answer(&self, app: &str) -> Vec<Output> {
        let questions: [&[&str]; 10] = [
            &["diff"],
            &["status"],
            &["get", "apps"],
            &["get", "app", app],
            &["get", "containers"],
            &["get", "executions"],
            &["describe", "app", app],
            &["events"],
            &["history"],
            &["doctor"],
        ];
        let forms = ["text", "json", "yaml"];
        let ask = |words: &[&str], form| self.plimsoll(words.iter().copied().chain(["-o", form]));
        questions.iter().flat_map(|words| forms.map(|form| ask(words, form))).collect()
    }

    /// Checks the manifests as they lie in the clone.
    #[track_caller]
    pub fn validate<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Output {
        let mut all = vec!["validate", self.repository.clone().to_str().unwrap()];
        for word in words {
            all.push(word);
        }
        self.plimsoll(all)
    }

    /// What would happen. The exit code has to agree with what is printed.
    #[track_caller]
    pub fn diff(&self) -> Plan {
        let output = self.plimsoll(["diff", "-o", "json"]);
        assert!(output.code == 0 || output.code == 1, "{output}");
        let plan: Plan = output.json();
        if plan.waiting.is_empty() && plan.blocked.is_empty() {
            output.expect(i32::from(!plan.steps.is_empty()));
        }
        plan
    }

    /// Converges as far as it goes: to the end (0) or not (1).
    #[track_caller]
    pub fn apply(&self) -> (i32, Plan) {
        let output = self.plimsoll(["apply", "-o", "json"]);
        assert!(output.code == 0 || output.code == 1, "{output}");
        (output.code, output.json())
    }

    /// Converges to the end; then nothing may be left to do.
    #[track_caller]
    pub fn converge(&self) -> Plan {
        let output = self.plimsoll(["apply", "-o", "json"]).expect(0);
        self.expect_nothing_to_do();
        output.json()
    }

    /// Panics unless a plan made now is empty.
    #[track_caller]
    pub fn expect_nothing_to_do(&self) {
        let plan = self.diff();
        assert!(
            plan.steps.is_empty() && plan.waiting.is_empty() && plan.blocked.is_empty(),
            "converged, and still there is something to do: {plan:#?}"
        );
    }

    #[track_caller]
    pub fn status(&self) -> Status {
        self.plimsoll(["status", "-o", "json"]).expect(0).json()
    }

    /// Lets through what waits.
    #[track_caller]
    pub fn approve(&self, id: &str) {
        self.plimsoll(["approve", id]).expect(0);
    }

    /// Starts the controller.
    pub fn start(&self) -> Controller<'_> {
        Controller::start(self)
    }

    /// Ids of all our containers by `HOST/NAME`, as Docker tells.
    #[track_caller]
    pub fn containers(&self) -> BTreeMap<String, String> {
        self.list(Engine::containers)
    }

    /// Ids of our running containers by `HOST/NAME`, as Docker tells.
    #[track_caller]
    pub fn running(&self) -> BTreeMap<String, String> {
        self.list(Engine::running)
    }

    /// Ids of the containers of an app of environment `production` by `HOST/NAME`.
    #[track_caller]
    pub fn containers_of(&self, app: &str) -> BTreeMap<String, String> {
        let part = format!(".production.{app}.");
        let mut containers = self.containers();
        containers.retain(|name, _| name.contains(&part));
        containers
    }

    #[track_caller]
    fn list(
        &self,
        of: impl Fn(&Engine, &str) -> BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let on = |(host, engine): &(String, Engine)| {
            let named = of(engine, &self.name).into_iter();
            named.map(|(name, id)| (format!("{host}/{name}"), id)).collect::<Vec<_>>()
        };
        self.engines.iter().flat_map(on).collect()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the state of {} was in {}", self.name, self.folder.path().display());
        }
        watchdog::end_users_of(self.folder.path().to_str().unwrap());
        for (_, engine) in &self.engines {
            if engine.socket().exists() {
                engine.remove_all(&self.name);
            }
        }
    }
}
