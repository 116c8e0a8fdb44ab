//! Volumes, folders in memory, and which of a host's folders an app may have.

use std::collections::{BTreeMap, BTreeSet};

use super::super::mistake::Mistakes;
use super::super::node::Node;
use super::super::text::Extent;
use super::container::{Need, Needs};
use super::{Field, Fields, absolute_path};
use crate::model::{Allow, Volume, VolumeSource};

/// Where in the container each volume and each folder in memory is mounted.
pub type Mounts = BTreeMap<String, Extent>;

pub fn volumes(
    field: &Field<'_>,
    mounts: &mut Mounts,
    needs: &mut Needs,
    found: &mut Mistakes,
) -> Vec<Volume> {
    let items = field.list(found);
    items.iter().filter_map(|item| volume(item, mounts, needs, found)).collect()
}

fn volume(
    item: &Node,
    mounts: &mut Mounts,
    needs: &mut Needs,
    found: &mut Mistakes,
) -> Option<Volume> {
    if let Some(text) = item.text() {
        let mistake = found.error(item.at, "a volume is a mapping, this is a text");
        let parts: Vec<_> = text.split(':').collect();
        mistake.hint(match parts.as_slice() {
            [host, at, ..] if host.starts_with('/') => format!("write {{host: {host}, at: {at}}}"),
            [name, at, ..] => format!("write {{name: {name}, at: {at}}}"),
            _ => "write {name: data, at: /data}".to_owned(),
        });
        return None;
    }
    let mut fields = Fields::open(item, "a volume", found)?;
    let (name, host) = (fields.get("name"), fields.get("host"));
    let at_field = fields.require("at", "/data", found);
    let read_only = fields.get("readOnly").and_then(|field| field.boolean(found));
    fields.finish(found);
    let source = match (name, host) {
        (Some(name), None) => volume_name(&name, found).map(VolumeSource::Named),
        (None, Some(host)) => host_folder(&host, needs, found).map(VolumeSource::Host),
        (Some(_), Some(host)) => {
            found
                .error(host.key_at, "a volume has either `name` or `host`")
                .hint("`name` is a volume of the engine, `host` a folder of the host: keep one");
            None
        }
        (None, None) => {
            found
                .error(item.at, "a volume needs `name` or `host`")
                .hint("`name: data` for a volume of the engine, `host: /srv/data` for a folder of the host");
            None
        }
    };
    let at = at_field.and_then(|field| mount(&field, field.node, mounts, found));
    Some(Volume { source: source?, at: at?, read_only: read_only.unwrap_or(false) })
}

/// A place in the container that nothing else is mounted on.
fn mount(
    field: &Field<'_>,
    node: &Node,
    mounts: &mut Mounts,
    found: &mut Mistakes,
) -> Option<String> {
    let name = field.name;
    let Some(text) = node.text() else {
        found.error(
            node.at,
            format!("`{name}` has to be an absolute path, this is {}", node.what()),
        );
        return None;
    };
    let path = absolute_path(text, &format!("`{name}`"), node.at, found)?;
    if path == "/" {
        found
            .error(node.at, "nothing can be mounted on / of a container")
            .hint("mount it on a folder, such as /data");
        return None;
    }
    if mounts.insert(path.clone(), node.at).is_some() {
        found
            .error(node.at, format!("{path} is mounted twice in this app"))
            .hint("give each volume and each tmpfs its own place");
        return None;
    }
    Some(path)
}

fn volume_name(field: &Field<'_>, found: &mut Mistakes) -> Option<String> {
    let text = field.text(found)?;
    let fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if text.len() > 128
        || !text.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !text.chars().all(fine)
    {
        let mistake = found.error(field.at(), format!("{text:?} is no name of a volume"));
        match text.starts_with('/') {
            true => mistake.hint(format!("for a folder of the host write `host: {text}`")),
            false => mistake
                .hint("it begins with a letter or digit and has letters, digits, `_`, `.` and `-`"),
        }
        return None;
    }
    Some(text.to_owned())
}

fn host_folder(field: &Field<'_>, needs: &mut Needs, found: &mut Mistakes) -> Option<String> {
    let text = field.text(found)?;
    let path = absolute_path(text, "`host`", field.at(), found)?;
    needs.push((Need::Folder(path.clone()), field.at()));
    Some(path)
}

/// The folders in memory.
pub fn tmpfs(field: &Field<'_>, mounts: &mut Mounts, found: &mut Mistakes) -> BTreeSet<String> {
    let items = field.list(found);
    items.iter().filter_map(|item| mount(field, item, mounts, found)).collect()
}

/// Folders that belong to the machine, its engine or its kernel: who may write them owns the
/// host. They are allowed only by name, never because something above them is.
const SENSITIVE: [&str; 10] = [
    "/boot",
    "/dev",
    "/etc",
    "/proc",
    "/run",
    "/sys",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/run",
    "/",
];

/// The engine's sockets, which give all of the host to whoever reaches them.
const SOCKETS: [&str; 4] =
    ["/run/docker.sock", "/var/run/docker.sock", "/run/containerd", "/var/run/containerd"];

/// True where `inner` is `outer` or lies below it.
pub fn holds(outer: &str, inner: &str) -> bool {
    outer == "/"
        || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// True where one of the two lies in the other, or they are the same.
pub fn overlap(one: &str, other: &str) -> bool {
    holds(one, other) || holds(other, one)
}

/// What a host with this policy and engine socket doesn't let `folder` be mounted for; none
/// where it may be. The text ends a sentence that begins with "the host".
pub fn folder_fault(
    folder: &str,
    allow: &Allow,
    socket: Option<&str>,
) -> Option<(&'static str, String)> {
    let sockets = SOCKETS.into_iter().chain(socket);
    if !allow.engine_socket && folder != "/" && sockets.into_iter().any(|s| overlap(folder, s)) {
        return Some((
            "doesn't let apps reach its engine",
            "allow: {engineSocket: true}".to_owned(),
        ));
    }
    let is_socket = allow.engine_socket && SOCKETS.into_iter().chain(socket).any(|s| folder == s);
    let may = |allowed: &String| {
        let sensitive = SENSITIVE.into_iter().filter(|place| overlap(folder, place));
        // `/` holds everything; it is sensitive itself only.
        let mut sensitive = sensitive.filter(|place| *place != "/" || folder == "/");
        holds(allowed, folder)
            && (allowed == folder || sensitive.all(|place| holds(place, allowed)))
    };
    if is_socket || allow.folders.iter().any(may) {
        return None;
    }
    Some(("doesn't allow this folder", format!("allow: {{folders: [{folder}]}}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_allowed_by_name() {
        for (allowed, socket, folder, is_fine) in [
            (vec![], false, "/srv/x", false),
            (vec!["/srv"], false, "/srv/x", true),
            (vec!["/srv"], false, "/srvx", false),
            (vec!["/srv/x"], false, "/srv", false),
            (vec!["/"], false, "/srv", true),
            (vec!["/"], false, "/etc", false),
            (vec!["/"], false, "/", true),
            (vec!["/srv"], false, "/", false),
            (vec!["/etc/ssl"], false, "/etc/ssl/certs", true),
            (vec!["/var"], false, "/var/lib/docker", false),
            (vec!["/var"], false, "/var/lib", false),
            (vec!["/var"], false, "/var", false),
            (vec!["/var"], true, "/var", true),
            (vec!["/var/run"], false, "/var/run/docker.sock", false),
            (vec![], true, "/var/run/docker.sock", true),
            (vec![], true, "/run/other.sock", false),
            (vec!["/opt"], false, "/opt/engine.sock", false),
        ] {
            let allow = Allow {
                folders: allowed.iter().map(|folder| (*folder).to_owned()).collect(),
                engine_socket: socket,
                ..Allow::default()
            };
            let fault = folder_fault(folder, &allow, Some("/opt/engine.sock"));
            assert_eq!(fault.is_none(), is_fine, "{allowed:?} {folder}: {fault:?}");
        }
    }
}
