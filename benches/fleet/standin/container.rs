//! A container: what it was made from, how it is doing, and how an engine tells of it. What
//! never changes is written as JSON once, when it is made: a fleet is listed far more often.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::image::Image;
use super::program::{Line, Program};
use super::texts::{self, command_line, quoted};

/// How a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Created,
    Running,
    Restarting { code: i64 },
    Exited { code: i64 },
}

impl Life {
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Restarting { .. } => "restarting",
            Self::Exited { .. } => "exited",
        }
    }

    fn code(self) -> i64 {
        match self {
            Self::Created | Self::Running => 0,
            Self::Restarting { code } | Self::Exited { code } => code,
        }
    }
}

/// What the image's or the container's own check finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Starting,
    Healthy,
    Unhealthy,
}

impl Health {
    fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// A port inside, and where on the host it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub inside: String,
    /// Address and port; none where it is exposed only.
    pub published: Option<(String, String)>,
}

pub struct Container {
    pub id: String,
    pub name: String,
    /// Its place in the order in which the engine's containers were made.
    pub made: u64,
    /// The image as the request named it.
    pub image: String,
    pub labels: BTreeMap<String, String>,
    pub program: Program,
    pub ports: Vec<Port>,
    /// It is started again when it ends by itself.
    pub restarts_itself: bool,
    /// The interval of its health check, if it has one.
    pub check: Option<Duration>,
    pub life: Life,
    pub health: Option<Health>,
    pub restarts: u32,
    /// Counts the times that it was started: what a timer of an earlier one wants is over.
    pub era: u64,
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    pub output: Vec<Line>,
    pub followers: Vec<mpsc::UnboundedSender<Bytes>>,
    /// What a list says of it before and after its state.
    listed: (String, String),
    /// What inspect says of it before and after its state.
    inspected: (String, String),
}

impl Container {
    /// A container of that body of a request.
    ///
    /// # Errors
    /// There is nothing that it could run.
    pub fn new(
        id: String,
        name: String,
        made: u64,
        image: &Image,
        mut config: Map<String, Value>,
    ) -> Result<Self, &'static str> {
        let host = match config.remove("HostConfig") {
            Some(Value::Object(host)) => host,
            _ => Map::new(),
        };
        config.remove("NetworkingConfig");
        let (config, host) = (over(&CONFIG, config), over(&HOST_CONFIG, host));
        let mut config = config;
        if strings(&config, "Cmd").is_empty() && strings(&config, "Entrypoint").is_empty() {
            config.insert("Cmd".into(), json!(image.command));
        }
        config.insert("Hostname".into(), json!(id[..12]));
        let arguments = [strings(&config, "Entrypoint"), strings(&config, "Cmd")].concat();
        let [path, rest @ ..] = arguments.as_slice() else { return Err("No command specified") };
        let policy = host["RestartPolicy"]["Name"].as_str().unwrap_or_default();
        let named = config["Image"].as_str().unwrap_or_default().to_owned();
        let labels = serde_json::from_value(config["Labels"].clone()).unwrap_or_default();
        let created = texts::now();
        let about = About { id: &id, name: &name, image, named: &named, path, rest, created };
        Ok(Self {
            program: Program::of(&arguments),
            ports: ports(&config, &host),
            restarts_itself: ["always", "unless-stopped"].contains(&policy),
            check: check(&config),
            life: Life::Created,
            health: None,
            restarts: 0,
            era: 0,
            started: None,
            finished: None,
            output: Vec::new(),
            followers: Vec::new(),
            listed: about.listed(&config, &host),
            inspected: about.inspected(&config, &host),
            labels,
            image: named,
            made,
            id,
            name,
        })
    }

    /// Its entry in a list.
    pub fn listed(&self) -> String {
        let (before, after) = &self.listed;
        let (state, status) = (self.life.word(), self.status());
        let ports = match self.life {
            Life::Running => self.ports.iter().map(listed_port).collect::<Vec<_>>().join(","),
            _ => String::new(),
        };
        format!(
            "{before},\"Ports\":[{ports}],\"State\":\"{state}\",\"Status\":\"{status}\",{after}"
        )
    }

    /// The answer to a closer look.
    pub fn inspected(&self) -> String {
        let (before, after) = &self.inspected;
        let running = self.life == Life::Running;
        let restarting = matches!(self.life, Life::Restarting { .. });
        let health = self.health.map_or(String::new(), |health| {
            let word = health.word();
            format!(",\"Health\":{{\"Status\":\"{word}\",\"FailingStreak\":0,\"Log\":[]}}")
        });
        let (bindings, bridge) = match running {
            true => (self.bindings(), "\"Gateway\":\"172.17.0.1\",\"IPAddress\":\"172.17.0.2\""),
            false => ("{}".to_owned(), "\"Gateway\":\"\",\"IPAddress\":\"\""),
        };
        format!(
            "{before},\"State\":{{\"Status\":\"{}\",\"Running\":{},\"Paused\":false,\
             \"Restarting\":{restarting},\"OOMKilled\":false,\"Dead\":false,\"Pid\":{},\
             \"ExitCode\":{},\"Error\":\"\",\"StartedAt\":\"{}\",\"FinishedAt\":\"{}\"{health}}},\
             \"RestartCount\":{},\"NetworkSettings\":{{\"Bridge\":\"\",\"SandboxID\":\"\",\
             \"HairpinMode\":false,\"Ports\":{bindings},\"SandboxKey\":\"\",{bridge}}},{after}",
            self.life.word(),
            running || restarting,
            if running { 4242 } else { 0 },
            self.life.code(),
            texts::time(self.started),
            texts::time(self.finished),
            self.restarts,
        )
    }

    /// How `docker ps` says how it is doing.
    fn status(&self) -> String {
        match self.life {
            Life::Created => "Created".to_owned(),
            Life::Running => {
                let health = match self.health {
                    None => "",
                    Some(Health::Starting) => " (health: starting)",
                    Some(Health::Healthy) => " (healthy)",
                    Some(Health::Unhealthy) => " (unhealthy)",
                };
                format!("Up {}{health}", texts::since(self.started))
            }
            Life::Restarting { code } => {
                format!("Restarting ({code}) {} ago", texts::since(self.finished))
            }
            Life::Exited { code } => format!("Exited ({code}) {} ago", texts::since(self.finished)),
        }
    }

    fn bindings(&self) -> String {
        let of = |port: &Port| {
            let at =
                port.published.as_ref().map(|(ip, port)| json!([{"HostIp": ip, "HostPort": port}]));
            (port.inside.clone(), at.unwrap_or(Value::Null))
        };
        Value::Object(self.ports.iter().map(of).collect()).to_string()
    }
}

/// What a container's texts are made of.
struct About<'a> {
    id: &'a str,
    name: &'a str,
    image: &'a Image,
    named: &'a str,
    path: &'a str,
    rest: &'a [String],
    created: Timestamp,
}

impl About<'_> {
    fn listed(&self, config: &Map<String, Value>, host: &Map<String, Value>) -> (String, String) {
        let Self { id, name, image, named, path, rest, created } = self;
        let (name, command) = (quoted(&format!("/{name}")), quoted(&command_line(path, rest)));
        let (named, mode) = (quoted(named), &host["NetworkMode"]);
        let before = format!(
            "{{\"Id\":\"{id}\",\"Names\":[{name}],\"Image\":{named},\"ImageID\":\"{}\",\
             \"Command\":{command},\"Created\":{}",
            image.id,
            created.as_second(),
        );
        let network = "{\"Networks\":{\"bridge\":{\"IPAMConfig\":null,\"Links\":null,\
                       \"Aliases\":null,\"NetworkID\":\"\",\"EndpointID\":\"\",\"Gateway\":\"\",\
                       \"IPAddress\":\"\",\"IPPrefixLen\":0,\"IPv6Gateway\":\"\",\
                       \"GlobalIPv6Address\":\"\",\"GlobalIPv6PrefixLen\":0,\"MacAddress\":\"\",\
                       \"DriverOpts\":null}}}";
        let after = format!(
            "\"Labels\":{},\"HostConfig\":{{\"NetworkMode\":{mode}}},\
             \"NetworkSettings\":{network},\"Mounts\":[]}}",
            config["Labels"],
        );
        (before, after)
    }

    fn inspected(
        &self,
        config: &Map<String, Value>,
        host: &Map<String, Value>,
    ) -> (String, String) {
        let Self { id, name, image, path, rest, created, named: _ } = self;
        let (path, rest) = (quoted(path), json!(rest));
        let before =
            format!("{{\"Id\":\"{id}\",\"Created\":\"{created}\",\"Path\":{path},\"Args\":{rest}");
        let json = |map: &Map<String, Value>| serde_json::to_string(map).unwrap_or_default();
        let after = format!(
            "\"Image\":\"{}\",\"ResolvConfPath\":\"\",\"HostnamePath\":\"\",\"HostsPath\":\"\",\
             \"LogPath\":\"\",\"Name\":{},\"Driver\":\"overlay2\",\"Platform\":\"linux\",\
             \"MountLabel\":\"\",\"ProcessLabel\":\"\",\"AppArmorProfile\":\"\",\"ExecIDs\":null,\
             \"HostConfig\":{},\"Mounts\":[],\"Config\":{}}}",
            image.id,
            quoted(&format!("/{name}")),
            json(host),
            json(config),
        );
        (before, after)
    }
}

/// What a request leaves out, and what the engine then says of it.
static CONFIG: LazyLock<Map<String, Value>> = LazyLock::new(|| defaults(CONFIG_TEXT));
static HOST_CONFIG: LazyLock<Map<String, Value>> = LazyLock::new(|| defaults(HOST_CONFIG_TEXT));

fn defaults(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).expect("the defaults are JSON")
}

const CONFIG_TEXT: &str = r#"{
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
    "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null,
    "Cmd": null, "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null,
    "OnBuild": null, "Labels": {}
}"#;

const HOST_CONFIG_TEXT: &str = r#"{
    "Binds": null, "ContainerIDFile": "", "LogConfig": {"Type": "json-file", "Config": {}},
    "NetworkMode": "default", "PortBindings": null,
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": false,
    "VolumeDriver": "", "VolumesFrom": null, "CapAdd": null, "CapDrop": null,
    "CgroupnsMode": "private", "Dns": null, "DnsOptions": null, "DnsSearch": null,
    "ExtraHosts": null, "GroupAdd": null, "IpcMode": "private", "Cgroup": "", "Links": null,
    "OomScoreAdj": 0, "PidMode": "", "Privileged": false, "PublishAllPorts": false,
    "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "",
    "ShmSize": 67108864, "Runtime": "runc", "ConsoleSize": [0, 0], "Isolation": "",
    "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0,
    "BlkioWeightDevice": null, "BlkioDeviceReadBps": null, "BlkioDeviceWriteBps": null,
    "BlkioDeviceReadIOps": null, "BlkioDeviceWriteIOps": null, "CpuPeriod": 0, "CpuQuota": 0,
    "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "",
    "Devices": null, "DeviceCgroupRules": null, "DeviceRequests": null, "KernelMemory": 0,
    "KernelMemoryTCP": 0, "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": null,
    "OomKillDisable": false, "PidsLimit": null, "Ulimits": null, "CpuCount": 0, "CpuPercent": 0,
    "IOMaximumIOps": 0, "IOMaximumBandwidth": 0,
    "MaskedPaths": ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys",
        "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
        "/proc/scsi", "/sys/firmware"],
    "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
}"#;

/// The defaults with what a request says laid over them.
fn over(defaults: &Map<String, Value>, said: Map<String, Value>) -> Map<String, Value> {
    let mut all = defaults.clone();
    for (key, value) in said.into_iter().filter(|(_, value)| !value.is_null()) {
        let value = match (all.get(&key), value) {
            (Some(Value::Object(default)), Value::Object(said)) => over(default, said).into(),
            (_, value) => value,
        };
        all.insert(key, value);
    }
    all
}

/// A list of strings; one string is a list of one.
fn strings(map: &Map<String, Value>, key: &str) -> Vec<String> {
    match &map[key] {
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(text) => vec![text.clone()],
        _ => Vec::new(),
    }
}

fn ports(config: &Map<String, Value>, host: &Map<String, Value>) -> Vec<Port> {
    let exposed = config.get("ExposedPorts").and_then(Value::as_object);
    let exposed = exposed.into_iter().flat_map(Map::keys);
    let of = |inside: &String| {
        let binding = &host["PortBindings"][inside][0];
        let text = |key: &str| binding[key].as_str().map(str::to_owned);
        let published = text("HostPort").map(|port| (text("HostIp").unwrap_or_default(), port));
        Port { inside: inside.clone(), published }
    };
    exposed.map(of).collect()
}

fn listed_port(port: &Port) -> String {
    let (inside, kind) = port.inside.split_once('/').unwrap_or((&port.inside, "tcp"));
    match &port.published {
        None => format!("{{\"PrivatePort\":{inside},\"Type\":\"{kind}\"}}"),
        Some((ip, published)) => format!(
            "{{\"IP\":\"{ip}\",\"PrivatePort\":{inside},\"PublicPort\":{published},\
             \"Type\":\"{kind}\"}}"
        ),
    }
}

fn check(config: &Map<String, Value>) -> Option<Duration> {
    let check = config.get("Healthcheck")?;
    let test = check["Test"].as_array()?;
    if test.first().and_then(Value::as_str).is_none_or(|word| word == "NONE") {
        return None;
    }
    Some(Duration::from_nanos(
        check["Interval"].as_u64().filter(|n| *n > 0).unwrap_or(30_000_000_000),
    ))
}
