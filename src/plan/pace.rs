//! The pace of a rollout: which new containers each leaving one waits for.
//!
//! Two rules hold at once. On each host never fewer than `n - u` are there (see
//! [`super::rolling`]). And over all hosts, in each balancer, never fewer servers serve than the
//! route's minimum, or than serve now where that is less: what one host lacks yet, because it is
//! new to the app or its containers broke, another may not give up before.
//!
//! The rollout is played through with numbers first: whatever may rise rises, else the first
//! that may leave leaves. Each leaving container then waits for those risen before it that the
//! rules ask for. All waits point back in one sequence, so they never form a circle. Of the i
//! first leaving ones any may be gone, and at least as many are up as the last of them asked
//! for: so the numbers hold in every other order that the waits allow.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{BalancerName, HostName};

use super::Input;
use super::fleet::Fleet;
use super::floor::{minimum, serving_now};
use super::survey::{HostWork, Target, Work, routed_balancers};

/// A new container: its host, and its place among the new ones there.
pub(super) type Up<'a> = (&'a HostName, usize);

/// For each leaving container of each host the new ones that must serve before.
pub(super) type Gates<'a> = BTreeMap<&'a HostName, Vec<BTreeSet<Up<'a>>>>;

/// The gates of what may leave. What isn't in them stays until the next plan: it would need a
/// new container that can't be made now, for want of a port or because a balancer is unseen.
pub(super) fn gates<'a>(
    input: &Input<'_>,
    fleet: &Fleet<'a>,
    work: &Work<'a>,
    target: &Target<'a>,
) -> Gates<'a> {
    let mut play = Play::new(input, fleet, work, target);
    while play.next() {}
    play.gates
}

/// How many of the leaving containers of a host must be out before its new one at place `i` is
/// made; 0 for one that is there already.
pub(super) fn must_be_out(host: &HostWork<'_>, i: usize, surge: u32) -> usize {
    if host.fresh.get(i).is_some_and(|unit| unit.existing.is_some()) {
        return 0;
    }
    let (n, k, m) = (host.replicas as usize, host.kept.len(), host.leaving.len());
    (k + i + 1 + m).saturating_sub(n + surge as usize).min(m)
}

/// The rollout, played with numbers.
struct Play<'p, 'a> {
    work: &'p Work<'a>,
    rolling: (u32, u32),
    floors: Vec<Floor<'a>>,
    risen: Vec<Up<'a>>,
    gates: Gates<'a>,
}

/// One balancer.
struct Floor<'a> {
    /// How many must serve.
    least: usize,
    /// How many serve now.
    now: usize,
    /// Those of the leaving that serve, by host and place.
    leaving: BTreeSet<Up<'a>>,
    /// Those of the new that will serve and don't yet.
    joining: BTreeSet<Up<'a>>,
    /// How many left so far.
    left: usize,
}

impl Floor<'_> {
    /// How many must have joined before another may leave.
    fn needed(&self) -> usize {
        (self.least + self.left + 1).saturating_sub(self.now)
    }
}

impl<'p, 'a> Play<'p, 'a> {
    fn new(input: &Input<'_>, fleet: &Fleet<'a>, work: &'p Work<'a>, target: &Target<'a>) -> Self {
        let balancers = routed_balancers(&target.app);
        let seen = balancers.into_iter().filter(|name| fleet.balancers.contains_key(name));
        let floors = seen.map(|name| floor(input, work, name, target)).collect();
        let gates = work.hosts.keys().map(|host| (*host, Vec::new())).collect();
        Self { work, rolling: target.rolling(), floors, risen: Vec::new(), gates }
    }

    /// One move; false when nothing can move any more. Where the declaration allows no move at
    /// all, one is made against the floors: they show it, and the promise tells.
    fn next(&mut self) -> bool {
        self.rise() || self.leave(true) || (self.is_idle() && self.leave(false))
    }

    fn is_idle(&self) -> bool {
        self.risen.is_empty() && self.gates.values().all(Vec::is_empty)
    }

    fn out(&self, host: &HostName) -> usize {
        self.gates.get(host).map_or(0, Vec::len)
    }

    /// The next that rises.
    fn rise(&mut self) -> bool {
        let may = |host: &'a HostName, of: &HostWork<'a>, i: usize| {
            !self.risen.contains(&(host, i)) && must_be_out(of, i, self.rolling.0) <= self.out(host)
        };
        let next = self.work.hosts.iter().find_map(|(host, of)| {
            (0..of.fresh.len()).find(|i| may(host, of, *i)).map(|i| (*host, i))
        });
        self.risen.extend(next);
        next.is_some()
    }

    /// The next that leaves: with all rules, or with the host's own only.
    fn leave(&mut self, with_floors: bool) -> bool {
        if !self.work.unseen_balancers.is_empty() {
            return false;
        }
        // The host that gave up least goes first, so that all go on side by side.
        let mut hosts: Vec<_> = self.work.hosts.iter().collect();
        hosts.sort_by_key(|(host, _)| self.out(host));
        let next = hosts.into_iter().find_map(|(host, of)| {
            let j = self.out(host);
            if j >= of.leaving.len() {
                return None;
            }
            let mut gate = self.gate_of_host(host, of, j)?;
            if with_floors {
                gate.extend(self.gate_of_floors((*host, j))?);
            }
            Some((*host, gate))
        });
        let Some((host, gate)) = next else { return false };
        self.note((host, self.out(host)), gate);
        true
    }

    fn note(&mut self, leaves: Up<'a>, gate: BTreeSet<Up<'a>>) {
        for floor in &mut self.floors {
            floor.left += usize::from(floor.leaving.contains(&leaves));
        }
        self.gates.entry(leaves.0).or_default().push(gate);
    }

    /// What the host's own numbers ask for; none where that hasn't risen yet.
    fn gate_of_host(
        &self,
        host: &'a HostName,
        of: &HostWork<'a>,
        j: usize,
    ) -> Option<BTreeSet<Up<'a>>> {
        let gate: BTreeSet<Up<'a>> = if of.replicas == 0 {
            let hosts = self.work.hosts.iter();
            hosts.flat_map(|(host, of)| (0..of.fresh.len()).map(|i| (*host, i))).collect()
        } else {
            let (n, k, m) = (of.replicas as usize, of.kept.len(), of.leaving.len());
            let needed = n.saturating_sub(self.rolling.1 as usize + k + (m - j - 1));
            (0..needed).map(|i| (host, i)).collect()
        };
        gate.iter().all(|up| self.risen.contains(up)).then_some(gate)
    }

    /// What the floors ask for; none where that hasn't risen yet.
    fn gate_of_floors(&self, leaves: Up<'a>) -> Option<BTreeSet<Up<'a>>> {
        let mut gate = BTreeSet::new();
        for floor in self.floors.iter().filter(|floor| floor.leaving.contains(&leaves)) {
            let joined = self.risen.iter().filter(|up| floor.joining.contains(*up));
            let first: Vec<Up<'a>> = joined.take(floor.needed()).copied().collect();
            if first.len() < floor.needed() {
                return None;
            }
            gate.extend(first);
        }
        Some(gate)
    }
}

fn floor<'a>(
    input: &Input<'_>,
    work: &Work<'a>,
    balancer: &BalancerName,
    target: &Target<'a>,
) -> Floor<'a> {
    let serving = serving_now(input, work, balancer);
    let mut leaving = BTreeSet::new();
    let mut joining = BTreeSet::new();
    for (host, of) in &work.hosts {
        for (j, container) in of.leaving.iter().enumerate() {
            if serving.contains(&container.birth.server_name(host)) {
                leaving.insert((*host, j));
            }
        }
        for (i, unit) in of.fresh.iter().enumerate() {
            let will = |(name, _): &(crate::model::ServerName, _)| !serving.contains(name);
            if of.weight > 0 && unit.server.as_ref().is_some_and(will) {
                joining.insert((*host, i));
            }
        }
    }
    let least = minimum(work, &target.app).min(serving.len() as u32) as usize;
    Floor { least, now: serving.len(), leaving, joining, left: 0 }
}
