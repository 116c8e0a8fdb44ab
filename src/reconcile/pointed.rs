//! Where balancers that can't be seen may send requests to. As long as the process lives that is
//! where they pointed to when they were seen last. A process that begins anew knows only whether
//! one was ever seen: nothing of ours is behind one that never was, and anything may be behind
//! another.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{BalancerName, BalancerState, Blocked, Kind, Object, Observed, Pointers, View};
use crate::store::{Store, StoreError};

use super::memory::Memory;

/// The field of a stored Balancer's status: whether it was ever seen.
pub(super) const SEEN: &str = "seen";

/// What is known of each balancer.
#[derive(Default)]
pub(super) struct Pointed {
    seen: BTreeMap<BalancerName, Arc<BalancerState>>,
    /// Of those that can't be seen now; none where it isn't known.
    unseen: BTreeMap<BalancerName, Option<Arc<Pointers>>>,
}

impl Pointed {
    /// Takes a look, and tells of the balancers that it doesn't show, and of those whose documents
    /// have mistakes, where they point to. Those of which that isn't known are left out.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn take(
        &mut self,
        broken: &BTreeMap<BalancerName, Blocked>,
        observed: &Observed,
        (store, memory): (&dyn Store, &Memory),
    ) -> Result<BTreeMap<BalancerName, Arc<Pointers>>, StoreError> {
        let mut missing: Vec<&BalancerName> = broken.keys().collect();
        for (name, view) in &observed.balancers {
            match view {
                View::Seen(state) => {
                    self.seen.insert(name.clone(), state.clone());
                    self.unseen.remove(name);
                }
                View::Unseen { .. } => missing.push(name),
            }
        }
        let mut known = BTreeMap::new();
        for name in missing {
            if !self.unseen.contains_key(name) {
                let pointers = match self.seen.get(name) {
                    Some(state) => Some(Arc::new(state.pointers())),
                    None if was_seen(name, store, memory)? => None,
                    None => Some(Arc::default()),
                };
                self.unseen.insert(name.clone(), pointers);
            }
            if let Some(pointers) = self.unseen.get(name).and_then(Option::as_ref) {
                known.insert(name.clone(), pointers.clone());
            }
        }
        Ok(known)
    }

    /// Whether a balancer was ever seen, as far as anybody remembers.
    pub fn was_seen(&self, name: &BalancerName) -> bool {
        self.seen.contains_key(name) || self.unseen.get(name).is_some_and(Option::is_none)
    }
}

/// Whether a process before this one may have seen it. A store that has no installation though a
/// commit was taken up was lost, and with it what there was to know.
fn was_seen(name: &BalancerName, store: &dyn Store, memory: &Memory) -> Result<bool, StoreError> {
    let never = |object: &Object| object.status.get(SEEN) == Some(&serde_json::Value::Bool(false));
    Ok(match store.get(Kind::Balancer, name.as_str())? {
        Some(object) => !never(&object),
        None => {
            memory.commits()?.attempted.is_some() && store.names(Kind::Installation)?.is_empty()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CommitId, ProxyFile, ProxyProcess};
    use crate::reconcile::memory::object;
    use crate::store::{Change, MemoryStore};

    fn edge() -> BalancerName {
        "edge".parse().unwrap()
    }

    fn look(view: View<BalancerState>) -> Observed {
        let balancers = BTreeMap::from([(edge(), view.map(Arc::new))]);
        Observed { balancers, ..Observed::default() }
    }

    fn frozen() -> Observed {
        look(View::Unseen { reason: "no answer".into() })
    }

    fn seen() -> Observed {
        let process = ProxyProcess::Down { reason: "it doesn't run".into() };
        look(View::Seen(BalancerState { file: ProxyFile::Missing, process }))
    }

    /// A process that begins with that store: what it knows of a balancer that it can't see.
    fn begin(store: &Arc<MemoryStore>) -> (Pointed, Option<Arc<Pointers>>) {
        let (memory, mut pointed) = (Memory::new(store.clone()), Pointed::default());
        let beside = (store.as_ref() as &dyn Store, &memory);
        let mut known = pointed.take(&BTreeMap::new(), &frozen(), beside).unwrap();
        (pointed, known.remove(&edge()))
    }

    /// What a process writes of its balancers.
    fn write(store: &MemoryStore, pointed: &Pointed) {
        let mut balancer = object(Kind::Balancer, "edge", None);
        balancer.status = serde_json::json!({ SEEN: pointed.was_seen(&edge()) });
        let installation = object(Kind::Installation, "shop", None);
        store.write(vec![Change::Put(balancer), Change::Put(installation)]).unwrap();
    }

    #[test]
    fn nothing_is_behind_a_balancer_that_never_was_seen() {
        let store = Arc::new(MemoryStore::new());
        for _ in 0..2 {
            let (pointed, known) = begin(&store);
            assert_eq!(known, Some(Arc::default()));
            write(&store, &pointed);
        }
    }

    #[test]
    fn anything_may_be_behind_one_that_a_process_before_has_seen() {
        let store = Arc::new(MemoryStore::new());
        let (mut pointed, _) = begin(&store);
        let memory = Memory::new(store.clone());
        let beside = (store.as_ref() as &dyn Store, &memory);
        pointed.take(&BTreeMap::new(), &seen(), beside).unwrap();
        let last = pointed.take(&BTreeMap::new(), &frozen(), beside).unwrap();
        assert_eq!(last.get(&edge()), Some(&Arc::default()), "as it was seen last");
        write(&store, &pointed);
        for _ in 0..2 {
            let (pointed, known) = begin(&store);
            assert_eq!(known, None);
            write(&store, &pointed);
        }
    }

    #[test]
    fn a_store_that_was_lost_has_never_seen_nobody() {
        let store = Arc::new(MemoryStore::new());
        // The journal knows the commit, and nothing else is left.
        let commit = CommitId("c".repeat(40));
        let memory = Memory::new(store.clone());
        memory.attempt(&commit, String::new(), jiff::Timestamp::UNIX_EPOCH).unwrap();
        for _ in 0..2 {
            let (pointed, known) = begin(&store);
            assert_eq!(known, None);
            write(&store, &pointed);
        }
    }
}
