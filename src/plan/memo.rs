//! What the planner concluded of each app, for as long as nothing touches it. An app of which
//! nothing is to be done is quiet: it takes no part in the next plan but for what it waits for,
//! its leaf of the digest, and its backends. All others are planned again each time.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{AppId, BalancerName, Sha256};

use super::digest::Leaves;
use super::{BlockedApp, Waiting};

/// The conclusions.
#[derive(Debug, Clone, Default)]
pub(super) struct Memo {
    /// Whether each quiet app was planned; else it waits or is blocked, and keeps what it has.
    quiet: BTreeMap<AppId, bool>,
    unfinished: BTreeSet<AppId>,
    waiting: BTreeMap<AppId, Vec<Waiting>>,
    blocked: BTreeMap<AppId, BlockedApp>,
    /// Quiet apps whose backends at a balancer aren't those of its file.
    differing: BTreeMap<BalancerName, BTreeSet<AppId>>,
    pub leaves: Leaves,
}

/// An app of which nothing is to be done.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// None where it wasn't planned, but waits or is blocked.
    pub leaf: Option<Sha256>,
    pub waiting: Vec<Waiting>,
    pub blocked: Option<BlockedApp>,
    /// Balancers whose files have other backends of it than it is to have.
    pub differing: BTreeSet<BalancerName>,
}

impl Memo {
    /// Notes that nothing is to be done for an app.
    pub fn settle(&mut self, app: &AppId, quiet: Quiet) {
        let Quiet { leaf, waiting, blocked, differing } = quiet;
        self.forget(app);
        self.quiet.insert(app.clone(), leaf.is_some());
        self.leaves.set(app, leaf);
        self.note(app, waiting, blocked, differing);
    }

    /// Notes that nothing is to be done for these apps, which come in order and of which nothing is
    /// known yet: the same as settling one after the other.
    pub fn settle_all(&mut self, apps: Vec<(&AppId, Quiet)>) {
        let planned = |(app, quiet): &(&AppId, Quiet)| (AppId::clone(app), quiet.leaf.is_some());
        let mut planned: BTreeMap<AppId, bool> = apps.iter().map(planned).collect();
        self.quiet.append(&mut planned);
        let leaf = |(app, quiet): &(&AppId, Quiet)| Some((AppId::clone(app), quiet.leaf?));
        self.leaves.add(apps.iter().filter_map(leaf));
        for (app, Quiet { leaf: _, waiting, blocked, differing }) in apps {
            self.note(app, waiting, blocked, differing);
        }
    }

    fn note(
        &mut self,
        app: &AppId,
        waiting: Vec<Waiting>,
        blocked: Option<BlockedApp>,
        differing: BTreeSet<BalancerName>,
    ) {
        if !waiting.is_empty() {
            self.waiting.insert(app.clone(), waiting);
        }
        if let Some(blocked) = blocked {
            self.blocked.insert(app.clone(), blocked);
        }
        for balancer in differing {
            self.differing.entry(balancer).or_default().insert(app.clone());
        }
    }

    /// Notes that something is to be done for an app, so that it is looked at each time.
    pub fn unfinish(&mut self, app: &AppId) {
        self.forget(app);
        self.unfinished.insert(app.clone());
    }

    /// Nothing of the app is left, and nothing declares it.
    pub fn forget(&mut self, app: &AppId) {
        if self.quiet.remove(app).is_some() {
            self.waiting.remove(app);
            self.blocked.remove(app);
            self.differing.retain(|_, apps| {
                apps.remove(app);
                !apps.is_empty()
            });
        }
        self.unfinished.remove(app);
        self.leaves.set(app, None);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// True where no app is known yet.
    pub fn is_empty(&self) -> bool {
        self.quiet.is_empty() && self.unfinished.is_empty()
    }

    pub fn unfinished(&self) -> &BTreeSet<AppId> {
        &self.unfinished
    }

    /// True for a quiet app that was planned.
    pub fn is_planned(&self, app: &AppId) -> bool {
        self.quiet.get(app).copied().unwrap_or(false)
    }

    /// True where no quiet app has other backends at a balancer than it is to have.
    pub fn agrees(&self, balancer: &BalancerName) -> bool {
        !self.differing.contains_key(balancer)
    }

    pub fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.values().flatten()
    }

    pub fn blocked(&self) -> impl Iterator<Item = &BlockedApp> {
        self.blocked.values()
    }
}
