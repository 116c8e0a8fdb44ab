//! Hosts against each other: one engine is one Host, and a port at an address means one
//! container.

use std::collections::BTreeMap;

use super::super::decode::{self, HostDraft};
use super::super::document::Identity;
use super::Linker;
use crate::model::{EngineAddress, HostName};

impl Linker<'_> {
    pub(super) fn link_hosts(&mut self) {
        let mut drafts: BTreeMap<HostName, HostDraft> = BTreeMap::new();
        for (identity, objects) in &mut self.objects {
            let Identity::Host(name) = identity else { continue };
            for object in objects.iter_mut() {
                let location = object.document.location.clone();
                let Some(spec) = object.document.spec() else {
                    missing_spec(object);
                    continue;
                };
                let found = &mut object.found;
                let draft = decode::host(object.head, name.clone(), spec, location, found);
                if let Some(draft) = draft.filter(|_| !object.is_double) {
                    drafts.insert(name.clone(), draft);
                }
            }
        }
        self.refuse_shared_engines(&drafts);
        self.refuse_shared_ports(&drafts);
        for (identity, objects) in &self.objects {
            let Identity::Host(name) = identity else { continue };
            let blocked = objects.iter().find_map(|object| object.blocked(self.texts));
            let result = match (blocked, drafts.remove(name)) {
                (None, Some(draft)) => Ok(draft),
                (Some(blocked), _) => Err(blocked),
                (None, None) => continue,
            };
            self.hosts.insert(name.clone(), result);
        }
    }

    fn refuse_shared_engines(&mut self, drafts: &BTreeMap<HostName, HostDraft>) {
        let mut by_engine: BTreeMap<String, Vec<&HostDraft>> = BTreeMap::new();
        for draft in drafts.values() {
            by_engine.entry(machine(&draft.host.engine)).or_default().push(draft);
        }
        for sharing in by_engine.into_values().filter(|sharing| sharing.len() > 1) {
            for (number, draft) in sharing.iter().enumerate() {
                let other = sharing[usize::from(number == 0)];
                let place = self.texts.place(other.engine_at);
                let other = &other.host.name;
                let message = format!("Host {other} has the same engine, in {place}");
                self.host_error(
                    draft,
                    draft.engine_at,
                    message,
                    "an engine is one Host: remove one of them",
                );
            }
        }
    }

    /// Neighbours in the order of their first ports overlap, or nothing does.
    fn refuse_shared_ports(&mut self, drafts: &BTreeMap<HostName, HostDraft>) {
        let mut ranges: Vec<&HostDraft> = drafts.values().collect();
        ranges.sort_by_key(|draft| (draft.host.address, draft.host.ports.first));
        let mut widest: Option<&HostDraft> = None;
        for draft in ranges {
            let same = widest.filter(|other| other.host.address == draft.host.address);
            if let Some(other) = same.filter(|o| o.host.ports.last >= draft.host.ports.first) {
                for (one, other) in [(draft, other), (other, draft)] {
                    let (address, place) = (one.host.address, self.texts.place(other.address_at));
                    let message = format!(
                        "Host {} has ports at {address} too, in {place}, and the ranges overlap",
                        other.host.name
                    );
                    self.host_error(
                        one,
                        one.address_at,
                        message,
                        "give each Host at one address its own `ports`",
                    );
                }
            }
            if same.is_none_or(|other| other.host.ports.last < draft.host.ports.last) {
                widest = Some(draft);
            }
        }
    }

    fn host_error(
        &mut self,
        draft: &HostDraft,
        at: super::super::text::Extent,
        message: String,
        hint: &str,
    ) {
        let identity = Identity::Host(draft.host.name.clone());
        if let Some(object) = self.objects.get_mut(&identity).and_then(|list| list.first_mut()) {
            object.found.error(at, message).hint(hint);
        }
    }
}

/// The kinds that mean nothing without a spec.
pub(super) fn missing_spec(object: &mut super::Object<'_>) {
    // Of a cut document the syntax error is said already.
    if object.found.errors.is_empty() {
        let title = object.head.identity.title();
        object.found.error(object.head.name_at, format!("{title} has no `spec`"));
    }
}

/// The engine, whatever the credentials are.
fn machine(engine: &EngineAddress) -> String {
    match engine {
        EngineAddress::Unix { path } => format!("unix {}", path.trim_start_matches("/var")),
        EngineAddress::Tcp { host, port, tls: _ } => format!("tcp {host} {port}"),
        EngineAddress::Ssh { user: _, host, port, key: _, socket } => {
            format!("ssh {host} {} {socket}", port.unwrap_or(22))
        }
    }
}
