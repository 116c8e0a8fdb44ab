//! Programs that weren't written for Plimsoll run under it: a registry, nginx and
//! VictoriaMetrics, as this machine's packages have them, each with command, environment, user,
//! volume and limits, and each upgraded without losing what it stored.

mod harness;

use std::path::Path;
use std::time::Duration;

use harness::{
    Answer, Fleet, Image, Installation, Registry, Rootfs, app, get, request, set, wait_for,
};
use serde_json::{Value, json};

/// A program as an app, and how one sees that it keeps its data.
struct Program {
    name: &'static str,
    image: Image,
    /// The manifest with image `NAME:1`.
    manifest: Value,
    memory_bytes: u64,
    user: &'static str,
}

/// Images `NAME:1` and `NAME:2`, which differ in a label.
fn images(name: &str, rootfs: &Rootfs) -> Image {
    let config = |version: u32| json!({"Labels": {"version": version.to_string()}});
    let images: Vec<_> =
        [1, 2].map(|version| (format!("{name}:{version}"), config(version))).into_iter().collect();
    Image::make(&rootfs.layer(), &images)
}

/// One container with a volume that it writes, at `NAME.example.com`.
fn stateful(name: &str, spec: &Value) -> Value {
    let mut manifest = app(name);
    for (field, value) in spec.as_object().unwrap() {
        manifest["spec"][field] = value.clone();
    }
    let manifest = set(set(manifest, "/image", format!("{name}:1")), "/hosts", json!(["beta"]));
    let rollout = json!({"surge": 0, "unavailable": 1});
    set(set(manifest, "/replicas", 1), "/rollout", rollout)
}

fn registry() -> Program {
    let config = "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: /var/lib/registry\n\
                  http:\n  addr: :5000\n";
    let rootfs = Rootfs::default()
        .program("/usr/bin/docker-registry")
        .file("/etc/registry.yml", config)
        .folder("/var/lib/registry", 0o755, 1000);
    let manifest = stateful(
        "registry",
        &json!({
            "command": ["/usr/bin/docker-registry"],
            "args": ["serve", "/etc/registry.yml"],
            "env": {"REGISTRY_STORAGE_DELETE_ENABLED": "true", "OTEL_TRACES_EXPORTER": "none"},
            "user": "1000:1000",
            "volumes": [{"name": "data", "at": "/var/lib/registry"}],
            "limits": {"memory": "128MiB", "cpus": 1},
            "port": 5000,
            "health": {"path": "/v2/", "interval": "500ms", "deadline": "30s"},
        }),
    );
    let image = images("registry", &rootfs);
    Program { name: "registry", image, manifest, memory_bytes: 128 << 20, user: "1000:1000" }
}

fn nginx() -> Program {
    let config = "daemon off;\npid /tmp/nginx.pid;\nerror_log stderr;\nworker_processes 1;\n\
                  events {}\nhttp {\n  access_log off;\n  client_body_temp_path /tmp/body;\n  \
                  proxy_temp_path /tmp/proxy;\n  fastcgi_temp_path /tmp/fastcgi;\n  \
                  uwsgi_temp_path /tmp/uwsgi;\n  scgi_temp_path /tmp/scgi;\n  server {\n    \
                  listen 8080;\n    root /data;\n    location = /_status { return 200; }\n    \
                  location / { dav_methods PUT; }\n  }\n}\n";
    let rootfs = Rootfs::default()
        .program("/usr/sbin/nginx")
        .file("/etc/nginx/nginx.conf", config)
        .folder("/data", 0o755, 33)
        .folder("/tmp", 0o1777, 0)
        .folder("/var/lib/nginx", 0o755, 33);
    let manifest = stateful(
        "nginx",
        &json!({
            "command": ["/usr/sbin/nginx", "-e", "stderr"],
            "args": ["-c", "/etc/nginx/nginx.conf"],
            "env": {"TZ": "UTC"},
            "user": "33",
            "readOnly": true,
            "tmpfs": ["/tmp"],
            "volumes": [{"name": "data", "at": "/data"}],
            "limits": {"memory": "64MiB"},
            "stop": {"signal": "SIGQUIT", "grace": "5s"},
            "port": 8080,
        }),
    );
    let image = images("nginx", &rootfs);
    Program { name: "nginx", image, manifest, memory_bytes: 64 << 20, user: "33" }
}

fn metrics() -> Program {
    let rootfs = Rootfs::default()
        .program("/usr/bin/victoria-metrics")
        .folder("/data", 0o755, 1000)
        .folder("/tmp", 0o1777, 0);
    let manifest = stateful(
        "metrics",
        &json!({
            "command": ["/usr/bin/victoria-metrics"],
            "args": ["-storageDataPath=/data", "-httpListenAddr=:8428", "-envflag.enable"],
            "env": {"loggerLevel": "WARN"},
            "user": "1000",
            "volumes": [{"name": "data", "at": "/data"}],
            "limits": {"memory": "256MiB", "pids": 100},
            "ulimits": {"nofile": 4096},
            "port": 8428,
            "health": {"path": "/health", "interval": "500ms", "deadline": "30s"},
        }),
    );
    let image = images("metrics", &rootfs);
    Program { name: "metrics", image, manifest, memory_bytes: 256 << 20, user: "1000" }
}

/// A program that is deployed.
struct Deployed {
    shop: Installation,
    program: Program,
}

impl Deployed {
    fn new(program: Program) -> Self {
        let fleet = Fleet::shared();
        for (_, engine, _) in fleet.hosts() {
            program.image.load(engine);
        }
        let shop = Installation::new(program.name);
        shop.deploy(&program.manifest);
        Self { shop, program }
    }

    fn host(&self) -> String {
        format!("{}.example.com", self.program.name)
    }

    #[track_caller]
    fn get(&self, path: &str) -> Answer {
        get(self.shop.http_port(), &self.host(), path).unwrap()
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        request(self.shop.http_port(), &self.host(), method, path, body).unwrap()
    }

    /// The one container, which has to be as the manifest says.
    #[track_caller]
    fn container(&self) -> Value {
        let running = self.shop.running();
        assert_eq!(running.len(), 1, "{running:?}");
        let (_, id) = running.first_key_value().unwrap();
        let found = Fleet::shared().beta.inspect(id).unwrap();
        assert_eq!(found["HostConfig"]["Memory"], self.program.memory_bytes);
        assert_eq!(found["Config"]["User"], self.program.user);
        assert_eq!(found["Mounts"][0]["Type"], "volume");
        found
    }

    /// Upgrades twice, to another image and to another environment, and lets `check` look at
    /// the data each time.
    #[track_caller]
    fn upgrade_and(&self, check: impl Fn(&Self)) {
        let Program { name, manifest, .. } = &self.program;
        let mut last = self.container()["Id"].clone();
        check(self);
        let second = set(manifest.clone(), "/image", format!("{name}:2"));
        let third = set(second.clone(), "/env/UPGRADED", "yes");
        for manifest in [second, third] {
            self.shop.deploy(&manifest);
            let container = self.container();
            assert_ne!(container["Id"], last, "it was replaced");
            assert_eq!(container["Config"]["Labels"]["version"], "2");
            last = container["Id"].clone();
            check(self);
        }
    }
}

#[test]
fn a_registry_keeps_its_blobs_over_upgrades() {
    let deployed = Deployed::new(registry());
    let blob = b"a blob of the registry";
    let digest = plimsoll::model::Sha256::of(blob);
    let begun = deployed.send("POST", "/v2/shop/web/blobs/uploads/", b"");
    assert_eq!(begun.status, 202, "{}", begun.text());
    let location = &begun.headers["location"];
    let path = location.find("/v2/").map(|at| &location[at..]).unwrap();
    let put = deployed.send("PUT", &format!("{path}&digest={digest}"), blob);
    assert_eq!(put.status, 201, "{}", put.text());

    deployed.upgrade_and(|deployed| {
        let found = deployed.get(&format!("/v2/shop/web/blobs/{digest}"));
        assert_eq!((found.status, found.body.as_slice()), (200, &blob[..]));
    });
}

#[test]
fn nginx_keeps_its_files_over_upgrades() {
    let deployed = Deployed::new(nginx());
    let put = deployed.send("PUT", "/page.txt", b"a page");
    assert_eq!(put.status, 201, "{}", put.text());
    deployed.upgrade_and(|deployed| {
        let found = deployed.get("/page.txt");
        assert_eq!((found.status, found.text().as_str()), (200, "a page"));
    });
}

#[test]
fn victoria_metrics_keeps_its_samples_over_upgrades() {
    let deployed = Deployed::new(metrics());
    let sample = b"draught_metres{ship=\"plimsoll\"} 4.25\n";
    let put = deployed.send("POST", "/api/v1/import/prometheus", sample);
    assert!(put.status < 300, "{put:?}");
    deployed.upgrade_and(|deployed| {
        // What has just come in is searchable after a moment.
        wait_for(Duration::from_secs(20), "the sample is found", || {
            let found = deployed.get("/api/v1/export?match%5B%5D=draught_metres");
            let text = found.text();
            if text.contains("plimsoll") && text.contains("4.25") { Ok(()) } else { Err(text) }
        });
    });
}

#[test]
fn two_containers_on_one_writable_volume_are_refused_with_the_way_out() {
    let shop = Installation::new("volume");
    let manifest = set(app("web"), "/volumes", json!([{"name": "data", "at": "/data"}]));
    shop.write_app(&set(manifest, "/replicas", 1));
    shop.repository.push("A volume, and a rollout that would need two containers on it");
    let refused = shop.validate([]).expect(1);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("surge: 0") && said.contains("unavailable: 1"), "{said}");
}

#[test]
fn an_image_of_a_registry_is_pulled_pinned_and_pulled_again_when_the_field_changes() {
    let fleet = Fleet::shared();
    let shop = Installation::new("pull");
    let registry = Registry::start();
    registry.push(&fleet.alpha, "web:1", "pulled:1");
    let web = set(app("web"), "/replicas", 1);
    shop.deploy(&set(web.clone(), "/image", registry.name("pulled:1")));
    assert!(shop.get("web").unwrap().text().contains("version=1"));
    let containers = shop.containers();

    // The tag moves: what is declared doesn't.
    registry.push(&fleet.alpha, "web:2", "pulled:1");
    let (code, plan) = shop.apply();
    assert!(code == 0 && plan.steps.is_empty(), "{plan:?}");
    assert_eq!(shop.containers(), containers);

    registry.push(&fleet.alpha, "web:3", "pulled:2");
    shop.deploy(&set(web.clone(), "/image", registry.name("pulled:2")));
    assert!(shop.get("web").unwrap().text().contains("version=3"));

    // With the registry gone, what runs goes on, and drift is still repaired.
    drop(registry);
    shop.expect_nothing_to_do();
    let id = shop.containers().into_values().next().unwrap();
    let gone = [&fleet.alpha, &fleet.beta].map(|engine| engine.docker(["rm", "-f", &id]).code);
    assert!(gone.contains(&0));
    shop.converge();
    assert_eq!(shop.running().len(), 2);
}

#[test]
fn the_programs_are_on_this_machine() {
    for program in ["/usr/bin/docker-registry", "/usr/sbin/nginx", "/usr/bin/victoria-metrics"] {
        assert!(Path::new(program).exists(), "{program}: `scripts/setup test` installs it");
    }
}
