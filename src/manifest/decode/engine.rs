//! Addresses of engines and of machines reached by ssh, as a Host or a Balancer spells them.

use super::super::mistake::Mistakes;
use super::{Field, path_fault};
use crate::model::{EngineAddress, SshAddress};

/// Where Docker's socket is unless it is said otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// The forms that are understood, for hints.
const FORMS: &str =
    "unix:///var/run/docker.sock, tcp://10.0.0.5:2376 with `tls`, or ssh://deploy@10.0.0.5";

/// `ssh://[USER@]HOST[:PORT][/PATH]`, taken apart.
pub struct SshParts {
    pub user: Option<String>,
    pub host: String,
    pub port: Option<u16>,
    /// What follows the host, with its slash; empty where nothing does.
    pub path: String,
}

/// The engine that `engine`, with `tls` and `key` beside it, names.
pub fn engine(
    engine: &Field<'_>,
    tls: Option<Field<'_>>,
    key: Option<Field<'_>>,
    found: &mut Mistakes,
) -> Option<EngineAddress> {
    let text = engine.text(found)?;
    let tls_folder = tls.and_then(|field| local_path(&field, found));
    let key_file = key.and_then(|field| local_path(&field, found));
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    for (field, only) in [(tls, "tcp"), (key, "ssh")] {
        if let Some(field) = field.filter(|_| scheme != only) {
            let name = field.name;
            found
                .error(field.key_at, format!("`{name}` means something for {only}:// engines only"))
                .hint("remove it");
        }
    }
    match text.split_once("://") {
        Some(("unix", path)) => {
            if let Some(fault) = path_fault(path) {
                found
                    .error(engine.at(), format!("`engine` names no socket: {text:?}: {fault}"))
                    .hint(format!("such as unix://{DEFAULT_SOCKET}"));
                return None;
            }
            Some(EngineAddress::Unix { path: path.to_owned() })
        }
        Some(("tcp", rest)) => tcp(engine, rest, tls_folder, found),
        Some(("ssh", rest)) => {
            let parts = ssh(engine, rest, found)?;
            let socket = match parts.path.as_str() {
                "" | "/" => DEFAULT_SOCKET.to_owned(),
                path => path.to_owned(),
            };
            let SshParts { user, host, port, .. } = parts;
            Some(EngineAddress::Ssh { user, host, port, key: key_file, socket })
        }
        _ => {
            found
                .error(engine.at(), format!("`engine` is no address of an engine: {text:?}"))
                .hint(format!("write {FORMS}"));
            None
        }
    }
}

fn tcp(
    field: &Field<'_>,
    rest: &str,
    tls: Option<String>,
    found: &mut Mistakes,
) -> Option<EngineAddress> {
    let parts = split_host(rest.trim_end_matches('/'));
    let Some((host, Some(port))) = parts.filter(|(host, _)| is_host(host)) else {
        found
            .error(field.at(), format!("`engine` is no tcp://HOST:PORT: \"tcp://{rest}\""))
            .hint("such as tcp://10.0.0.5:2376; 2376 is usual with TLS, 2375 without");
        return None;
    };
    let is_near = host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if tls.is_none() && !is_near {
        found
            .warn(field.at(), "without `tls` everybody who reaches this port is root on the host")
            .hint("add `tls: FOLDER` with ca.pem, cert.pem and key.pem, or use ssh://");
    }
    Some(EngineAddress::Tcp { host, port, tls })
}

/// The parts after `ssh://`; a mistake where ssh could take one for an option.
pub fn ssh(field: &Field<'_>, rest: &str, found: &mut Mistakes) -> Option<SshParts> {
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let (user, machine) = match authority.split_once('@') {
        Some((user, machine)) => (Some(user), machine),
        None => (None, authority),
    };
    let parts = split_host(machine).filter(|(host, _)| is_host(host));
    let user_is_fine = user.is_none_or(|user| {
        let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !user.is_empty() && !user.starts_with('-') && user.chars().all(fine)
    });
    let path_is_fine = path.is_empty() || path_fault(path).is_none();
    match parts {
        Some((host, port)) if user_is_fine && path_is_fine => {
            Some(SshParts { user: user.map(str::to_owned), host, port, path: path.to_owned() })
        }
        _ => {
            let name = field.name;
            if user.is_some_and(|user| user.contains(':')) {
                let mistake = found.error(field.at(), format!("`{name}` holds a password"));
                mistake.hint(
                    "passwords have no place in a manifest: use a key, by `key` or the agent",
                );
                mistake.is_secret = true;
                return None;
            }
            let message =
                format!("`{name}` is no ssh://[USER@]HOST[:PORT][/PATH]: \"ssh://{rest}\"");
            found.error(field.at(), message);
            None
        }
    }
}

/// An `ssh` field with `key` and `knownHosts` beside it.
pub fn ssh_address(
    field: &Field<'_>,
    key: Option<String>,
    known_hosts: Option<String>,
    found: &mut Mistakes,
) -> Option<SshAddress> {
    let text = field.text(found)?;
    let Some(rest) = text.strip_prefix("ssh://") else {
        found
            .error(field.at(), format!("`ssh` is no ssh://[USER@]HOST[:PORT]: {text:?}"))
            .hint("such as ssh://deploy@10.0.0.5");
        return None;
    };
    let parts = ssh(field, rest, found)?;
    if !matches!(parts.path.as_str(), "" | "/") {
        found.error(field.at(), "`ssh` names a machine; it has no path").hint("remove the path");
        return None;
    }
    Some(SshAddress { user: parts.user, host: parts.host, port: parts.port, key, known_hosts })
}

/// An absolute path on the controller's machine.
pub fn local_path(field: &Field<'_>, found: &mut Mistakes) -> Option<String> {
    let text = field.text(found)?;
    super::absolute_path(text, &format!("`{}`", field.name), field.at(), found)
}

/// `HOST[:PORT]`, an IPv6 address in brackets.
fn split_host(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (
                host,
                (!after.is_empty()).then(|| after.strip_prefix(':')).map(|port| port.unwrap_or("")),
            )
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port != 0)?),
        None => None,
    };
    Some((host.to_owned(), port))
}

fn is_host(host: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    host.parse::<std::net::IpAddr>().is_ok()
        || (!host.is_empty()
            && host.len() <= 253
            && !host.starts_with(['-', '.'])
            && host.chars().all(fine))
}
