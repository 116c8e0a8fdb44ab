//! A Balancer: its listeners, and how its HAProxy is run.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::super::mistake::Mistakes;
use super::super::node::Node;
use super::super::text::Extent;
use super::{Field, Fields, engine};
use crate::model::{
    Balancer, BalancerName, BalancerRun, FilePath, Listener, ListenerName, Location,
};

/// A Balancer, and where its sockets are declared.
#[derive(Debug, Clone)]
pub struct BalancerDraft {
    pub balancer: Balancer,
    /// Listeners and the page of statistics: what, address, place.
    pub binds: Vec<(String, SocketAddr, Extent)>,
}

/// The Balancer of a document. None where it lacks what nothing can stand for.
pub fn decode(
    name: BalancerName,
    spec: &Node,
    spec_at: Extent,
    location: Location,
    found: &mut Mistakes,
) -> Option<BalancerDraft> {
    let mut fields = Fields::open(spec, "the spec of a Balancer", found)?.shown_at(spec_at);
    let mut binds = Vec::new();
    let example = r#"[{name: web, bind: "127.0.0.1:8080"}]"#;
    let listeners = fields
        .require("listen", example, found)
        .map(|field| listeners(&field, &mut binds, found))
        .unwrap_or_default();
    let stats_field = fields.get("stats");
    let stats = stats_field.and_then(|field| bind(&field, found));
    if let (Some(field), Some(stats)) = (stats_field, stats) {
        binds.push(("stats".to_owned(), stats, field.at()));
    }
    let x_host = fields.get("xHost").and_then(|field| field.boolean(found)).unwrap_or(false);
    let run = match fields.get("external") {
        Some(field) => external(&field, found),
        None => Some(BalancerRun::Managed),
    };
    fields.finish(found);
    let balancer = Balancer { name, listeners, stats, x_host, run: run?, location };
    Some(BalancerDraft { balancer, binds })
}

fn listeners(
    field: &Field<'_>,
    binds: &mut Vec<(String, SocketAddr, Extent)>,
    found: &mut Mistakes,
) -> BTreeMap<ListenerName, Listener> {
    let mut listeners = BTreeMap::new();
    let items = field.list(found);
    if items.is_empty() && field.node.what() == "a list" {
        found
            .error(field.at(), "a balancer without a listener serves nothing")
            .hint(r#"such as `listen: [{name: web, bind: "127.0.0.1:8080"}]`"#);
    }
    for item in items {
        let Some(mut fields) = Fields::open(item, "a listener", found) else { continue };
        let name_field = fields.require("name", "web", found);
        let name = name_field.and_then(|field| field.parse::<ListenerName>(found));
        let bind_field = fields.require("bind", "\"127.0.0.1:8080\"", found);
        let address = bind_field.and_then(|field| bind(&field, found));
        let certificates = fields.get("tls").and_then(|field| certificates(&field, found));
        fields.finish(found);
        let (Some(name), Some(bind)) = (name, address) else { continue };
        let at = bind_field.map_or(item.at, |field| field.at());
        binds.push((format!("listener {name}"), bind, at));
        if listeners.contains_key(&name) {
            let at = name_field.map_or(item.at, |field| field.at());
            found
                .error(at, format!("there are two listeners `{name}` in this balancer"))
                .hint("give each its own name");
        }
        listeners.insert(name, Listener { bind, certificates });
    }
    listeners
}

fn certificates(field: &Field<'_>, found: &mut Mistakes) -> Option<FilePath> {
    let mut fields = field.fields("`tls`", found)?;
    let folder = fields.require("certificates", "/etc/haproxy/certs", found);
    let folder = folder.and_then(|field| field.parse(found));
    fields.finish(found);
    folder
}

/// `IP:PORT`, `*:PORT` or `:PORT`, an IPv6 address in brackets.
fn bind(field: &Field<'_>, found: &mut Mistakes) -> Option<SocketAddr> {
    let text = field.text(found)?;
    let every = text.strip_prefix("*:").or_else(|| text.strip_prefix(':'));
    let address = match every {
        Some(port) => port
            .parse::<u16>()
            .ok()
            .filter(|_| port.bytes().all(|b| b.is_ascii_digit()))
            .map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)),
        None => text.parse().ok(),
    };
    let address = address.filter(|address| address.port() != 0);
    if address.is_none() {
        let name = field.name;
        let hint = match text.parse::<u16>() {
            Ok(port) => format!("write `{name}: \"*:{port}\"` for all addresses of the machine"),
            Err(_) => format!("such as `{name}: \"127.0.0.1:8080\"`, \"*:80\" or \"[::]:80\""),
        };
        found.error(field.at(), format!("`{name}` is no IP:PORT: {text:?}")).hint(hint);
    }
    address
}

fn external(field: &Field<'_>, found: &mut Mistakes) -> Option<BalancerRun> {
    let mut fields = field.fields("`external`", found)?;
    let mut path = |name, example: &str, found: &mut Mistakes| {
        let field = fields.require(name, example, found)?;
        field.parse::<FilePath>(found).map(|path| path.as_str().to_owned())
    };
    let config = path("config", "/etc/haproxy/haproxy.cfg", found);
    let master_socket = path("masterSocket", "/run/haproxy-master.sock", found);
    let runtime_socket = path("runtimeSocket", "/run/haproxy/admin.sock", found);
    let ssh = fields.get("ssh");
    let (key_field, hosts_field) = (fields.get("key"), fields.get("knownHosts"));
    for beside in [key_field, hosts_field].into_iter().flatten().filter(|_| ssh.is_none()) {
        let name = beside.name;
        found
            .error(beside.key_at, format!("`{name}` means something with `ssh` only"))
            .hint("add `ssh: ssh://USER@HOST`, or remove it");
    }
    let key = key_field.and_then(|field| engine::local_path(&field, found));
    let known_hosts = hosts_field.and_then(|field| engine::local_path(&field, found));
    let address = ssh.map(|field| engine::ssh_address(&field, key, known_hosts, found));
    fields.finish(found);
    Some(BalancerRun::External {
        config: config?,
        master_socket: master_socket?,
        runtime_socket: runtime_socket?,
        ssh: match address {
            Some(address) => Some(address?),
            None => None,
        },
    })
}
