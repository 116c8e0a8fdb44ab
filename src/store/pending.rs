//! What memory has and the disk hasn't yet. Only names and numbers are kept: what is written is
//! what memory has by then, so of ten changes to one object the last is written. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use super::disk::Changes;
use super::mirror::{Key, Mirror};

/// Objects that may wait for the disk. Events that wait are no more than memory keeps of them.
pub const MOST_WAITING: usize = 4096;

/// What memory has and the disk hasn't yet.
#[derive(Debug, Default)]
pub struct Pending {
    /// Objects, each with the version of its last change.
    objects: BTreeMap<Key, u64>,
    /// The numbers of the events that the disk has.
    events: Range<u64>,
}

impl Pending {
    /// Nothing, where the disk has events of these numbers.
    pub fn new(events: Range<u64>) -> Self {
        Self { objects: BTreeMap::new(), events }
    }

    /// These were changed in memory.
    pub fn add(&mut self, changed: Vec<(Key, u64)>) {
        self.objects.extend(changed);
    }

    /// True when no more may wait.
    pub fn is_full(&self) -> bool {
        self.objects.len() >= MOST_WAITING
    }

    /// All that waits, as memory has it now. What is taken has to be written, or else all of
    /// memory has to.
    pub fn take(&mut self, mirror: &Mirror) -> Changes {
        let mut changes = Changes { version: mirror.version(), ..Changes::default() };
        for (key, version) in std::mem::take(&mut self.objects) {
            match mirror.get(key.0, &key.1).cloned() {
                Some(object) => changes.put.push((key, object)),
                None => changes.deleted.push((key, version)),
            }
        }
        let kept = mirror.event_numbers();
        changes.events = mirror.events_from(self.events.end).cloned().collect();
        changes.forgotten = self.events.start..kept.start.min(self.events.end);
        self.events = kept;
        changes
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Change;
    use super::super::mirror::{Drafts, MOST_EVENTS};
    use super::*;
    use crate::model::{API_VERSION, Event, EventType, Kind, Metadata, Object};

    fn put(name: &str, value: u64) -> Change {
        Change::Put(Object {
            api_version: API_VERSION.into(),
            kind: Kind::Execution,
            metadata: Metadata {
                name: name.into(),
                environment: None,
                resource_version: 0,
                generation: 0,
            },
            spec: json!(value),
            status: json!(null),
        })
    }

    fn event(number: u64) -> Event {
        Event {
            time: jiff::Timestamp::UNIX_EPOCH,
            kind: EventType::Normal,
            reason: "Tested".into(),
            object: "App/a".into(),
            message: number.to_string(),
        }
    }

    #[test]
    fn of_several_changes_the_last_is_written_once() {
        let mut mirror = Mirror::default();
        let mut pending = Pending::default();
        let gone = || Change::Delete(Kind::Execution, "b".into());
        for change in [put("a", 1), put("b", 1), put("a", 2), gone(), put("c", 1), put("c", 1)] {
            let changed = mirror.apply(Drafts::new(vec![change]).unwrap());
            pending.add(changed);
        }
        let changes = pending.take(&mirror);
        let names: Vec<_> = changes.put.iter().map(|((_, name), _)| &**name).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(changes.put[0].1.object().unwrap().spec, json!(2));
        assert_eq!(changes.deleted, [((Kind::Execution, "b".into()), 4)]);
        assert_eq!(changes.version, 5);
        assert!(pending.take(&mirror).is_empty());
    }

    #[test]
    fn only_so_many_may_wait() {
        let mut mirror = Mirror::default();
        let mut pending = Pending::default();
        let mut count = 0;
        while !pending.is_full() {
            count += 1;
            // The same again takes no more room.
            for _ in 0..2 {
                let drafts = Drafts::new(vec![put(&count.to_string(), 1)]).unwrap();
                pending.add(mirror.apply(drafts));
            }
        }
        assert_eq!(count, MOST_WAITING);
        assert_eq!(pending.take(&mirror).put.len(), MOST_WAITING);
        assert!(!pending.is_full());
    }

    #[test]
    fn events_are_written_once_and_the_oldest_go() {
        let mut mirror = Mirror::default();
        let mut pending = Pending::default();
        let most = MOST_EVENTS as u64;
        for (count, written, forgotten) in [
            (most - 1, 0..most - 1, 0..0),
            (3, most - 1..most + 2, 0..2),
            // More than are kept, between two writes: those of the first that were forgotten
            // before they were written are nowhere.
            (most + 5, most + 7..2 * most + 7, 2..most + 2),
            (0, 0..0, 0..0),
        ] {
            (0..count).for_each(|number| mirror.record(event(number)));
            let changes = pending.take(&mirror);
            let numbers: Vec<_> = changes.events.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, written.collect::<Vec<_>>());
            assert_eq!(changes.forgotten.clone().count(), forgotten.clone().count());
            assert!(forgotten.is_empty() || changes.forgotten == forgotten);
        }
    }
}
