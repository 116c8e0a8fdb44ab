//! The lower bound: what the same rollout takes when somebody makes the calls by hand and knows
//! everything in advance. Both hosts side by side, on each one container after the other: create,
//! start, into HAProxy with the same quick checks, and when it is up one line of runtime commands
//! that gives it its weight and takes the old one's. The old one is stopped and removed aside, as
//! Plimsoll does.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::Scope;
use std::time::Duration;

use serde_json::{Value, json};

use super::Roll;
use super::clock::{now, wait_for};
use super::harness::{Balancer, Block, Fleet};
use super::profile::Profile;

/// How often HAProxy is asked whether a server is up.
const LOOK: Duration = Duration::from_millis(5);

/// The keywords that Plimsoll gives the servers of the same app.
const CHECK: &str = "check inter 500ms fastinter 50ms downinter 50ms rise 1 fall 3";

/// Between two quick checks.
const QUICK: Duration = Duration::from_millis(50);

/// Two engines with containers that nothing but this benchmark knows, and their HAProxy.
pub struct Bare {
    haproxy: Haproxy,
    hosts: Vec<Host>,
    next_port: u16,
}

struct Host {
    name: &'static str,
    address: &'static str,
    socket: PathBuf,
    /// Ids by the names of their servers.
    containers: BTreeMap<String, String>,
}

struct Haproxy {
    process: Child,
    balancer: Balancer,
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A container that was made in a rollout, and when each thing was done.
struct Made {
    server: String,
    id: String,
    times: [Duration; 5],
}

impl Bare {
    /// A HAProxy in a folder below `folder`; no container yet.
    pub fn start(fleet: &Fleet, folder: &Path) -> Self {
        let folder = folder.join("bare");
        std::fs::create_dir(&folder).unwrap();
        let ports = Block::claim();
        let hosts = fleet.hosts().map(|(name, engine, address)| Host {
            name,
            address,
            socket: engine.socket().to_owned(),
            containers: BTreeMap::new(),
        });
        let haproxy = Haproxy::start(&folder, ports.balancer_port(0));
        Self { haproxy, hosts: hosts.into(), next_port: ports.first_container_port() }
    }

    /// Two new containers on each host, in the place of those that are there.
    pub fn roll(&mut self, round: u32) -> Roll {
        let image = format!("web:{}", 1 + round % 3);
        let balancer = &self.haproxy.balancer;
        let first_port = self.next_port;
        self.next_port += 4;
        let begin = now();
        let made: Vec<Vec<Made>> = std::thread::scope(|scope| {
            let hosts = self.hosts.iter().zip([first_port, first_port + 2]);
            let hosts = hosts.map(|(host, port)| {
                let image = image.as_str();
                scope.spawn(move || host.replace(scope, balancer, image, port))
            });
            let hosts: Vec<_> = hosts.collect();
            hosts.into_iter().map(|host| host.join().unwrap()).collect()
        });
        let last = made.iter().max_by_key(|of_host| of_host.last().map(|made| made.times[4]));
        let roll = roll_of(begin, last.map(Vec::as_slice).unwrap_or_default());
        for (host, made) in self.hosts.iter_mut().zip(made) {
            host.containers = made.into_iter().map(|made| (made.server, made.id)).collect();
        }
        roll
    }
}

/// The path through the host that was last.
fn roll_of(begin: Duration, made: &[Made]) -> Roll {
    let mut profile = Profile::default();
    let mut end = begin;
    for made in made {
        profile.add("between batches", made.times[0] - end);
        for (part, times) in
            ["create", "start", "until it is up", "weights"].iter().zip(made.times.windows(2))
        {
            profile.add(part, times[1] - times[0]);
        }
        end = made.times[4];
    }
    Roll { total: end - begin, profile }
}

impl Host {
    /// Two containers, one after the other, from `port` on. What they replace goes aside.
    fn replace<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        balancer: &'s Balancer,
        image: &str,
        port: u16,
    ) -> Vec<Made> {
        let mut old = self.containers.iter();
        let mut next = |port| {
            let old = old.next();
            let made = self.raise(balancer, image, port, old.map(|(server, _)| server));
            if let Some((server, id)) = old {
                scope.spawn(move || self.drop_old(balancer, server, id));
            }
            made
        };
        vec![next(port), next(port + 1)]
    }

    /// A container from nothing to its weight; `old` loses its own at the same moment.
    fn raise(&self, balancer: &Balancer, image: &str, port: u16, old: Option<&String>) -> Made {
        let begun = now();
        let server = format!("{}-{port}", self.name);
        let body = json!({
            "Image": image,
            "Labels": {"plimsoll.bench": "bare"},
            "ExposedPorts": {"8080/tcp": {}},
            "HostConfig": {
                "PortBindings": {
                    "8080/tcp": [{"HostIp": self.address, "HostPort": port.to_string()}],
                },
                "RestartPolicy": {"Name": "unless-stopped"},
            },
        });
        let created = self.ask("POST", &format!("/containers/create?name=bare-{port}"), &body);
        let id = created["Id"].as_str().unwrap_or_else(|| panic!("{created}")).to_owned();
        let created = now();
        self.ask("POST", &format!("/containers/{id}/start"), &Value::Null);
        let started = now();
        let address = format!("{}:{port}", self.address);
        let answer = balancer.runtime(&format!(
            "add server web/{server} {address} weight 0 {CHECK};enable health web/{server};enable \
             server web/{server}"
        ));
        assert!(answer.as_ref().is_ok_and(|text| text.contains("registered")), "{answer:?}");
        let is_up = || is_up(balancer, &server).then(now);
        let first = wait_for("it is up", LOOK, is_up);
        // The second quick check.
        wait_for("it stays up", LOOK, || is_up().filter(|now| *now >= first + QUICK));
        let up = now();
        let falls = old.map(|old| format!(";set server web/{old} weight 0")).unwrap_or_default();
        let answer = balancer.runtime(&format!("set server web/{server} weight 100{falls}"));
        assert_eq!(answer.as_deref().map(str::trim), Ok(""));
        Made { server, id, times: [begun, created, started, up, now()] }
    }

    /// Out of HAProxy, stopped, removed.
    fn drop_old(&self, balancer: &Balancer, server: &str, id: &str) {
        wait_for("the old server is gone", LOOK, || {
            let answer = balancer.runtime(&format!("set server web/{server} state maint"));
            answer.ok().filter(|text| text.trim().is_empty())?;
            let answer = balancer.runtime(&format!("del server web/{server}"));
            answer.is_ok_and(|text| text.contains("deleted")).then_some(())
        });
        self.ask("POST", &format!("/containers/{id}/stop?t=5"), &Value::Null);
        self.ask("DELETE", &format!("/containers/{id}?v=true"), &Value::Null);
    }

    /// One call to the engine, on a connection of its own.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let head = format!(
            "{method} /v1.41{path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
        let content = answer.split_once("\r\n\r\n").map_or("", |(_, content)| content);
        serde_json::from_str(content).unwrap_or(Value::Null)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for id in self.containers.values() {
            self.ask("DELETE", &format!("/containers/{id}?force=true&v=true"), &Value::Null);
        }
    }
}

impl Haproxy {
    fn start(folder: &Path, port: u16) -> Self {
        let config = folder.join("haproxy.cfg");
        let socket = folder.join("runtime.sock");
        let text = format!(
            "global\n    stats socket {} mode 600 level admin\ndefaults\n    mode http\n    timeout \
             connect 5s\n    timeout client 60s\n    timeout server 60s\nfrontend in\n    bind \
             127.0.0.1:{port}\n    default_backend web\nbackend web\n    balance roundrobin\n    \
             option httpchk\n    http-check send meth GET uri /_status ver HTTP/1.1 hdr Host web hdr \
             Connection close\n    http-check expect status 200-399\n    timeout check 1s\n",
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new("haproxy")
            .arg("-f")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let haproxy = Self { process, balancer: Balancer::new(folder) };
        wait_for("HAProxy listens", LOOK, || haproxy.balancer.runtime("show info").ok());
        haproxy
    }
}

/// Whether it has passed its checks: up (`DRAIN` at weight 0) without a fraction.
fn is_up(balancer: &Balancer, server: &str) -> bool {
    let table = balancer.runtime("show stat web 4 -1").unwrap_or_default();
    let mut lines = table.lines();
    let names: Vec<_> = lines.next().unwrap_or_default().split(',').collect();
    let place = |name: &str| names.iter().position(|other| *other == name);
    let (Some(status), Some(check)) = (place("status"), place("check_status")) else {
        return false;
    };
    let mut rows = lines.map(|line| line.split(',').collect::<Vec<_>>());
    let row = rows.find(|row| row.get(1) == Some(&server)).unwrap_or_default();
    matches!(row.get(status), Some(&("UP" | "DRAIN"))) && row.get(check) == Some(&"L7OK")
}
