//! Balancers against each other: one address of one machine is bound once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::super::decode::{self, BalancerDraft};
use super::super::document::Identity;
use super::super::text::Extent;
use super::Linker;
use super::hosts::missing_spec;
use crate::model::{BalancerName, BalancerRun};

/// A bound socket: whose, what, where.
struct Bind<'d> {
    balancer: &'d BalancerName,
    what: &'d str,
    address: SocketAddr,
    at: Extent,
}

impl Linker<'_> {
    pub(super) fn link_balancers(&mut self) {
        let mut drafts: BTreeMap<BalancerName, BalancerDraft> = BTreeMap::new();
        for (identity, objects) in &mut self.objects {
            let Identity::Balancer(name) = identity else { continue };
            for object in objects.iter_mut() {
                let location = object.document.location.clone();
                let Some(spec) = object.document.spec() else {
                    missing_spec(object);
                    continue;
                };
                let draft = decode::balancer(
                    name.clone(),
                    spec,
                    object.head.spec_at,
                    location,
                    &mut object.found,
                );
                if let Some(draft) = draft.filter(|_| !object.is_double) {
                    drafts.insert(name.clone(), draft);
                }
            }
        }
        self.refuse_shared_binds(&drafts);
        for (identity, objects) in &self.objects {
            let Identity::Balancer(name) = identity else { continue };
            let blocked = objects.iter().find_map(|object| object.blocked(self.texts));
            let result = match (blocked, drafts.remove(name)) {
                (None, Some(draft)) => Ok(draft),
                (Some(blocked), _) => Err(blocked),
                (None, None) => continue,
            };
            self.balancers.insert(name.clone(), result);
        }
    }

    fn refuse_shared_binds(&mut self, drafts: &BTreeMap<BalancerName, BalancerDraft>) {
        let mut by_port: BTreeMap<(String, u16), Vec<Bind<'_>>> = BTreeMap::new();
        for (balancer, draft) in drafts {
            for (what, address, at) in &draft.binds {
                let bind = Bind { balancer, what, address: *address, at: *at };
                let key = (machine(&draft.balancer.run), address.port());
                by_port.entry(key).or_default().push(bind);
            }
        }
        for binds in by_port.values().filter(|binds| binds.len() > 1) {
            self.refuse_meeting(binds);
        }
    }

    /// Binds of one port of one machine meet where their addresses are the same, or one of
    /// them is every address.
    fn refuse_meeting(&mut self, binds: &[Bind<'_>]) {
        let mut by_address: BTreeMap<IpAddr, Vec<&Bind<'_>>> = BTreeMap::new();
        for bind in binds {
            by_address.entry(bind.address.ip()).or_default().push(bind);
        }
        for bind in binds {
            let ip = bind.address.ip();
            let other = if ip.is_unspecified() {
                binds.iter().find(|o| o.at != bind.at && o.address.is_ipv4() == ip.is_ipv4())
            } else {
                let every = by_address
                    .iter()
                    .find(|(other, _)| other.is_unspecified() && other.is_ipv4() == ip.is_ipv4());
                let same = by_address.get(&ip).into_iter().chain(every.map(|(_, binds)| binds));
                same.flatten().find(|other| other.at != bind.at).copied()
            };
            let Some(other) = other else { continue };
            let place = self.texts.place(other.at);
            let message = format!(
                "{} of Balancer {} binds {} too, in {place}",
                other.what, other.balancer, other.address
            );
            let identity = Identity::Balancer(bind.balancer.clone());
            if let Some(object) = self.objects.get_mut(&identity).and_then(|list| list.first_mut())
            {
                object.found.error(bind.at, message).hint("give each its own address or port");
            }
        }
    }
}

/// The machine whose addresses a balancer binds.
fn machine(run: &BalancerRun) -> String {
    match run {
        BalancerRun::External { ssh: Some(ssh), .. } => {
            format!("{}:{}", ssh.host, ssh.port.unwrap_or(22))
        }
        BalancerRun::Managed | BalancerRun::External { ssh: None, .. } => String::new(),
    }
}
