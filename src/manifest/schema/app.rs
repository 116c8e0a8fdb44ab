//! An App as people write it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Duration, Name, Word};

/// One service in one environment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppDocument {
    /// The version of the manifests' format.
    #[schemars(extend("const" = "plimsoll/v1alpha1"))]
    pub api_version: String,
    /// What the document declares.
    #[schemars(extend("const" = "App"))]
    pub kind: String,
    pub metadata: AppMetadata,
    pub spec: AppSpec,
}

/// What the App is called. Everywhere else it is written `ENVIRONMENT/NAME`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppMetadata {
    /// Its name, once in its environment.
    #[schemars(extend("examples" = ["web"]))]
    pub name: Name,
    /// The Environment that it belongs to.
    #[schemars(extend("examples" = ["production"]))]
    pub environment: Name,
}

/// What its containers are made from, where they run, how they are reached, checked and
/// replaced. `image` and `hosts` are required, here or in the base.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["base"]}, {"required": ["image", "hosts"]}]))]
pub struct AppSpec {
    /// Path, from this file, of another file with a spec. This spec is a merge patch (RFC 7386)
    /// over that one: mappings are merged, `null` deletes, all else replaces. A base may have a
    /// base.
    #[schemars(extend("examples" = ["../../base/web.yaml"]))]
    pub base: Option<String>,
    /// The image, `[REGISTRY/]NAME[:TAG][@sha256:DIGEST]`. A tag is resolved to a digest when
    /// this field changes, and pinned.
    #[schemars(extend("examples" = ["localhost:5000/web:1.5.0"]))]
    pub image: Option<String>,
    /// Replaces the image's entrypoint. A list of words; no shell splits it.
    #[schemars(length(min = 1), extend("default" = "the image's own", "examples" = [["/bin/web"]]))]
    pub command: Option<Vec<Word>>,
    /// Replaces the image's default arguments.
    #[schemars(extend("default" = "the image's own", "examples" = [["--port", "8080"]]))]
    pub args: Option<Vec<Word>>,
    /// Variables, over those of the Environment. Names that begin with `PLIMSOLL_` are set by
    /// Plimsoll.
    #[schemars(extend("examples" = [{"RAILS_ENV": "production", "DATABASE_URL": {"secret": "web/database-url"}}]))]
    pub env: Option<BTreeMap<String, Option<EnvValue>>>,
    /// `USER` or `USER:GROUP`, names or numbers.
    #[schemars(extend("default" = "the image's own", "examples" = ["1000:1000"]))]
    pub user: Option<Word>,
    /// The folder that the process starts in.
    #[schemars(regex(pattern = "^/"), extend("default" = "the image's own", "examples" = ["/srv/app"]))]
    pub workdir: Option<String>,
    /// Volumes of the engine, and folders of the host. A writable one needs `rollout: {surge:
    /// 0, unavailable: 1}` and `replicas: 1` at most.
    #[schemars(extend("default" = [], "examples" = [[{"name": "data", "at": "/data"}, {"host": "/srv/x", "at": "/x", "readOnly": true}]]))]
    pub volumes: Option<Vec<VolumeSpec>>,
    /// Folders in memory.
    #[schemars(extend("default" = [], "examples" = [["/tmp"]]))]
    pub tmpfs: Option<Vec<String>>,
    /// The container's root file system can't be written.
    #[schemars(extend("default" = false))]
    pub read_only: Option<bool>,
    /// All of the host's devices and capabilities. Each of the app's Hosts has to allow it.
    #[schemars(extend("default" = false))]
    pub privileged: Option<bool>,
    /// Capabilities of Linux beside, or less than, the engine's default.
    pub capabilities: Option<CapabilitiesSpec>,
    /// Limits of the processes in the container by name, -1 for none: a number, or soft and
    /// hard.
    #[schemars(extend("examples" = [{"nofile": 65536, "nproc": {"soft": 100, "hard": 200}}]))]
    pub ulimits: Option<BTreeMap<String, UlimitSpec>>,
    /// A network of the engine by name. `host` is the host's own, which each of the app's Hosts
    /// has to allow, and which publishes no port.
    #[schemars(extend("default" = "the engine's bridge", "examples" = ["backend"]))]
    pub network: Option<String>,
    /// Labels of the container. Keys that begin with `plimsoll.` are Plimsoll's own.
    #[schemars(extend("examples" = [{"com.example.team": "shop"}]))]
    pub labels: Option<BTreeMap<String, Option<Word>>>,
    /// What the container may use.
    pub limits: Option<LimitsSpec>,
    /// How a container is stopped.
    pub stop: Option<StopSpec>,
    /// The port that the app listens on in its container. Routes and `health.path` need it. An
    /// app without it is a worker.
    #[schemars(range(min = 1, max = 65535), extend("examples" = [8080]))]
    pub port: Option<u16>,
    /// The Hosts that it runs on.
    #[schemars(length(min = 1), extend("examples" = [["alpha", "beta"]]))]
    pub hosts: Option<Vec<Name>>,
    /// How many containers there are on each host: a number, or numbers by host.
    #[schemars(extend("default" = 1, "examples" = [2]))]
    pub replicas: Option<ReplicasSpec>,
    /// HAProxy's weight of each server on a host, 0 to 256. 0 means no traffic at all.
    #[schemars(extend("default" = "100 on each host", "examples" = [{"alpha": 100, "beta": 50}]))]
    pub weights: Option<BTreeMap<String, WeightSpec>>,
    /// The requests that it gets.
    #[schemars(extend("default" = [], "examples" = [[{"balancer": "edge", "listener": "web", "host": "www.example.com"}]]))]
    pub routes: Option<Vec<RouteSpec>>,
    /// How it is checked.
    pub health: Option<HealthSpec>,
    /// How long sessions may go on when a server is taken out.
    #[schemars(extend("default" = "30s"))]
    pub drain: Option<Duration>,
    /// How one revision takes the place of another.
    pub rollout: Option<RolloutSpec>,
}

/// A value of a variable: a text (numbers and booleans are taken as they are written), or the
/// name of a secret.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EnvValue {
    Boolean(bool),
    Number(f64),
    Text(String),
    Secret(SecretSpec),
}

/// A value that lies in the folder of secrets, and in no manifest.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretSpec {
    /// Path of its file in the folder of secrets.
    #[schemars(extend("examples" = ["web/database-url"]))]
    pub secret: String,
}

/// A volume of the engine (`name`) or a folder of the host (`host`).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["name"]}, {"required": ["host"]}]))]
pub struct VolumeSpec {
    /// A volume of the engine. It belongs to this app on each of its hosts, and is kept when
    /// containers are replaced.
    #[schemars(regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$"), extend("examples" = ["data"]))]
    pub name: Option<String>,
    /// A folder of the host. Each of the app's Hosts has to allow it.
    #[schemars(regex(pattern = "^/"), extend("examples" = ["/srv/data"]))]
    pub host: Option<String>,
    /// Where it is mounted in the container.
    #[schemars(regex(pattern = "^/."), extend("examples" = ["/data"]))]
    pub at: String,
    /// The container can't write it.
    #[schemars(extend("default" = false))]
    pub read_only: Option<bool>,
}

/// Names as in capabilities(7), with or without `CAP_`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CapabilitiesSpec {
    /// Those beside the default. One that lets a process leave its container has to be allowed
    /// by each of the app's Hosts (`privileged`).
    #[schemars(extend("default" = [], "examples" = [["NET_BIND_SERVICE"]]))]
    pub add: Option<Vec<String>>,
    /// Those to be taken away; `ALL` for all that aren't added.
    #[schemars(extend("default" = [], "examples" = [["ALL"]]))]
    pub drop: Option<Vec<String>>,
}

/// One limit for soft and hard, or both.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum UlimitSpec {
    Both(#[schemars(range(min = -1))] i64),
    Each(UlimitPair),
}

/// A soft limit, which a process may raise up to the hard one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UlimitPair {
    /// What holds at first.
    #[schemars(range(min = -1), extend("examples" = [1024]))]
    pub soft: i64,
    /// What it may be raised to.
    #[schemars(range(min = -1), extend("examples" = [4096]))]
    pub hard: i64,
}

/// What a container may use. No limit where nothing is said.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsSpec {
    /// Memory, with a binary unit (`KiB`, `MiB`, `GiB`) or a decimal one (`kB`, `MB`, `GB`). At
    /// least 6MiB.
    #[schemars(regex(pattern = r"^[0-9]+(B|kB|MB|GB|KiB|MiB|GiB)$"), extend("examples" = ["512MiB"]))]
    pub memory: Option<String>,
    /// Processors, with up to three decimals.
    #[schemars(range(min = 0.001, max = 1000.0), extend("examples" = [1.5]))]
    pub cpus: Option<f64>,
    /// Processes and threads.
    #[schemars(range(min = 1, max = 4_194_304), extend("examples" = [200]))]
    pub pids: Option<u32>,
}

/// How a container is stopped.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StopSpec {
    /// The signal that asks it to end.
    #[schemars(regex(pattern = "^SIG"), extend("default" = "the image's own, or SIGTERM", "examples" = ["SIGQUIT"]))]
    pub signal: Option<String>,
    /// How long it has until it is killed.
    #[schemars(extend("default" = "10s"))]
    pub grace: Option<Duration>,
}

/// A number on each host, or numbers by host; a host that isn't named has 1.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ReplicasSpec {
    OnEach(#[schemars(range(min = 0, max = 1000))] u32),
    ByHost(BTreeMap<String, ReplicasNumber>),
}

/// A number of containers.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct ReplicasNumber(#[schemars(range(min = 0, max = 1000))] pub u32);

/// HAProxy's weight of a server.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct WeightSpec(#[schemars(range(min = 0, max = 256))] pub u16);

/// Requests by listener, host and path. An exact host wins over a wildcard, a longer path over
/// a shorter one; the same route in two apps is a mistake.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec {
    /// The Balancer.
    #[schemars(extend("examples" = ["edge"]))]
    pub balancer: Name,
    /// One of its listeners.
    #[schemars(extend("examples" = ["web"]))]
    pub listener: Name,
    /// A host name in any case, without a port; `*.example.com` for exactly one label more; `*`
    /// for every host. International names in punycode.
    #[schemars(extend("default" = "*", "examples" = ["www.example.com"]))]
    pub host: Option<String>,
    /// A path of whole segments: `/a` is `/a` and `/a/b`, not `/ab`.
    #[schemars(regex(pattern = "^/"), extend("default" = "/", "examples" = ["/shop"]))]
    pub path: Option<String>,
}

/// How a container is checked. HAProxy checks `path`, or the port by TCP where there is none;
/// the engine runs `command`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthSpec {
    /// Path of HAProxy's HTTP check. Any answer from 200 to 399 is healthy.
    #[schemars(regex(pattern = "^/"), extend("default" = "a TCP check", "examples" = ["/_status"]))]
    pub path: Option<String>,
    /// A command that the engine runs in the container. Exit status 0 is healthy.
    #[schemars(length(min = 1), extend("default" = "the image's own check", "examples" = [["/bin/ready"]]))]
    pub command: Option<Vec<Word>>,
    /// How often it is checked, at least 10ms.
    #[schemars(extend("default" = "1s"))]
    pub interval: Option<Duration>,
    /// How long a check may take, at least 10ms.
    #[schemars(extend("default" = "1s"))]
    pub timeout: Option<Duration>,
    /// How long a new container may take to become healthy.
    #[schemars(extend("default" = "1m"))]
    pub deadline: Option<Duration>,
    /// How long a container without any check must have run before it counts.
    #[schemars(extend("default" = "3s"))]
    pub settle: Option<Duration>,
}

/// How one revision takes the place of another, on each host. `surge` and `unavailable` can't
/// both be 0.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutSpec {
    /// The only strategy yet: a few containers at a time.
    #[schemars(extend("enum" = ["rolling"], "default" = "rolling"))]
    pub strategy: Option<String>,
    /// How many more than declared there may be on a host; draining ones don't count.
    #[schemars(range(min = 0, max = 1000), extend("default" = 1))]
    pub surge: Option<u32>,
    /// How many fewer than declared may serve on a host.
    #[schemars(range(min = 0, max = 1000), extend("default" = 0))]
    pub unavailable: Option<u32>,
}
