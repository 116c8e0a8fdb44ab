//! A Host: its engine, its address, its ports, and what its apps may ask for.

use std::collections::BTreeSet;

use super::super::document::Head;
use super::super::mistake::Mistakes;
use super::super::node::Node;
use super::super::text::Extent;
use super::{Field, Fields, absolute_path, engine};
use crate::model::{Allow, Host, HostName, Location, PortRange};

/// The ports that are published on where a Host doesn't say.
const DEFAULT_PORTS: PortRange = PortRange { first: 20000, last: 20999 };

/// A Host, and where the parts lie that other Hosts are compared with.
#[derive(Debug, Clone)]
pub struct HostDraft {
    pub host: Host,
    pub engine_at: Extent,
    pub address_at: Extent,
}

/// The Host of a document. None where it lacks what nothing can stand for.
pub fn decode(
    head: &Head,
    name: HostName,
    spec: &Node,
    location: Location,
    found: &mut Mistakes,
) -> Option<HostDraft> {
    let mut fields = Fields::open(spec, "the spec of a Host", found)?.shown_at(head.spec_at);
    let engine_field = fields.require("engine", "unix:///var/run/docker.sock", found);
    let (tls, key) = (fields.get("tls"), fields.get("key"));
    let engine = engine_field.and_then(|field| engine::engine(&field, tls, key, found));
    let address_field = fields.require("address", "127.0.0.1", found);
    let address = address_field.and_then(|field| field.ip(found));
    let publish = fields.get("publish").and_then(|field| field.ip(found));
    let ports = fields.get("ports").and_then(|field| ports(&field, found));
    let drain = fields.get("drain").and_then(|field| field.boolean(found));
    let allow = fields.get("allow").map(|field| allow(&field, found)).unwrap_or_default();
    fields.finish(found);
    let (engine, address) = (engine?, address?);
    if address.is_unspecified() {
        found
            .error(
                address_field?.at(),
                "`address` is where balancers connect to; this one means \"any\"",
            )
            .hint("write the address of the machine; `publish` may be 0.0.0.0");
    }
    Some(HostDraft {
        host: Host {
            name,
            engine,
            address,
            publish: publish.unwrap_or(address),
            ports: ports.unwrap_or(DEFAULT_PORTS),
            drain: drain.unwrap_or(false),
            allow,
            location,
        },
        engine_at: engine_field.map_or(head.name_at, |field| field.at()),
        address_at: address_field.map_or(head.name_at, |field| field.at()),
    })
}

fn ports(field: &Field<'_>, found: &mut Mistakes) -> Option<PortRange> {
    let text = field.text(found)?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Some(PortRange { first, last }),
        (Some(first), Some(last)) => {
            found
                .error(field.at(), format!("`ports` ends before it begins: {text:?}"))
                .hint(format!("write `ports: {last}-{first}`"));
            None
        }
        _ => {
            found
                .error(
                    field.at(),
                    format!("`ports` is no range of ports from 1 to 65535: {text:?}"),
                )
                .hint("such as `ports: 20000-20999`");
            None
        }
    }
}

fn allow(field: &Field<'_>, found: &mut Mistakes) -> Allow {
    let mut allow = Allow::default();
    let Some(mut fields) = field.fields("`allow`", found) else { return allow };
    if let Some(folders) = fields.get("folders") {
        allow.folders = folders
            .texts(found)
            .into_iter()
            .filter_map(|(text, at)| absolute_path(text, "a folder of `folders`", at, found))
            .collect::<BTreeSet<_>>();
    }
    let mut flag = |name, found: &mut Mistakes| {
        fields.get(name).and_then(|field| field.boolean(found)).unwrap_or(false)
    };
    allow.privileged = flag("privileged", found);
    allow.host_network = flag("hostNetwork", found);
    allow.engine_socket = flag("engineSocket", found);
    fields.finish(found);
    allow
}
