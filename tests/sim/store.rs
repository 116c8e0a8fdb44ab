//! The simulated disk of the controller, and a store on it. What was written is there after a
//! crash; of what was only noted the youngest may be lost.

use std::collections::BTreeMap;
use std::sync::Mutex;

use plimsoll::model::{Event, Hold, Kind, Object};
use plimsoll::store::{Change, MemoryStore, Store, StoreError, key_of};

use super::call::Caller;
use super::fault::Call;

/// What is on the disk.
#[derive(Debug, Default)]
pub struct Disk {
    objects: BTreeMap<(Kind, String), Object>,
    /// Noted, and not on the disk yet.
    tail: Vec<Change>,
    pub is_full: bool,
    /// Approvals, holds and what else is also in the journal beside the database.
    pub lost: bool,
}

impl Disk {
    fn take(&mut self, change: Change) {
        match change {
            Change::Put(object) => {
                self.objects.insert((object.kind, key_of(&object.metadata)), object);
            }
            Change::Delete(kind, name) => drop(self.objects.remove(&(kind, name))),
        }
    }

    fn flush(&mut self) {
        if !self.is_full {
            for change in std::mem::take(&mut self.tail) {
                self.take(change);
            }
        }
    }

    /// The process ends. `kept`: how many of the changes that were only noted are there.
    pub fn crash(&mut self, kept: usize) {
        let tail = std::mem::take(&mut self.tail);
        let kept = if self.is_full { 0 } else { kept % (tail.len() + 1) };
        for change in tail.into_iter().take(kept) {
            self.take(change);
        }
    }

    /// The database is deleted; the journal beside it stays.
    pub fn lose(&mut self) {
        use Kind::{Approval, Hold, Host, Pin, Source};
        self.objects.retain(|(kind, _), _| matches!(kind, Pin | Hold | Approval | Source | Host));
    }

    pub fn holds(&self) -> Vec<Hold> {
        let holds = self.objects.iter().filter(|((kind, _), _)| *kind == Kind::Hold);
        holds.filter_map(|(_, object)| serde_json::from_value(object.spec.clone()).ok()).collect()
    }

    pub fn get(&self, kind: Kind, name: &str) -> Option<&Object> {
        self.objects.get(&(kind, name.to_owned()))
    }
}

/// The store of one controller.
pub struct SimStore {
    caller: Caller,
    memory: MemoryStore,
    /// One change at a time, as with the real one.
    turn: Mutex<()>,
}

impl SimStore {
    /// Opens what is on the disk.
    pub fn open(caller: Caller) -> Self {
        let objects =
            caller.sim.with(|world| world.disk.objects.values().cloned().collect::<Vec<_>>());
        let memory = MemoryStore::new();
        // Sizes were looked at when they were written.
        let _ = memory.put(objects);
        Self { caller, memory, turn: Mutex::new(()) }
    }
}

impl Store for SimStore {
    fn get(&self, kind: Kind, name: &str) -> Result<Option<Object>, StoreError> {
        self.memory.get(kind, name)
    }

    fn list(&self, kind: Kind) -> Result<Vec<Object>, StoreError> {
        self.memory.list(kind)
    }

    fn names(&self, kind: Kind) -> Result<Vec<String>, StoreError> {
        self.memory.names(kind)
    }

    fn write(&self, changes: Vec<Change>) -> Result<usize, StoreError> {
        if changes.is_empty() {
            return Ok(0);
        }
        let _turn = self.turn.lock();
        let differing = self.memory.write(changes.clone())?;
        if differing == 0 {
            return Ok(0);
        }
        self.caller.sim.with(|world| {
            let about = || names_of(&changes);
            let Some(fate) = self.caller.fate(world, Call::Store, about) else {
                return Ok(differing);
            };
            world.disk.tail.extend(changes.clone());
            world.disk.flush();
            let is_full = world.disk.is_full;
            world.with_audit(|audit, world| audit.stored(world, &changes));
            self.caller.end(world, fate);
            if is_full || fate.fails || fate.reply_lost {
                let (doing, cause) = ("write".to_owned(), "No space left on device".to_owned());
                return Err(StoreError::Io { doing, cause });
            }
            Ok(differing)
        })
    }

    fn note(&self, changes: Vec<Change>) -> Result<usize, StoreError> {
        let differing = self.memory.write(changes.clone())?;
        self.caller.sim.with(|world| {
            if !self.caller.is_dead(world) {
                world.disk.tail.extend(changes);
            }
        });
        Ok(differing)
    }

    fn record(&self, event: Event) -> Result<(), StoreError> {
        self.caller.sim.with(|world| {
            if !self.caller.is_dead(world) {
                super::mark::of_event(world, &event);
                world.tell(|| format!("{} {}: {}", event.reason, event.object, event.message));
            }
        });
        self.memory.record(event)
    }

    fn events(&self, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.memory.events(limit)
    }
}

fn names_of(changes: &[Change]) -> String {
    let name = |change: &Change| match change {
        Change::Put(object) => format!("{} {}", object.kind, key_of(&object.metadata)),
        Change::Delete(kind, name) => format!("-{kind} {name}"),
    };
    changes.iter().map(name).collect::<Vec<_>>().join(", ")
}
