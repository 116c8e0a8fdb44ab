//! What the store holds, in memory: reads cost nothing and need no disk. Versions and
//! generations are given here. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::stored::{Draft, Stored};
use super::{Change, StoreError};
use crate::model::{Event, Kind};

/// Events that are kept.
pub const MOST_EVENTS: usize = 10_000;

/// Longest message of an event that is kept, in bytes.
pub const LONGEST_MESSAGE: usize = 8 << 10;

/// Which object: its kind, and its name as [`super::key_of`] gives it.
pub type Key = (Kind, Box<str>);

/// All objects and the last events.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    objects: BTreeMap<Kind, BTreeMap<Box<str>, Stored>>,
    /// With their numbers, which only grow.
    events: VecDeque<(u64, Event)>,
    /// The last `resourceVersion` that was given.
    version: u64,
    next_event: u64,
}

/// Changes that were looked at before the store is locked: of several to one object the last,
/// none where it is to go.
#[derive(Debug)]
pub struct Drafts(BTreeMap<Key, Option<Draft>>);

impl Drafts {
    /// Encodes everything.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] where one is too large; then none is to be written.
    pub fn new(changes: Vec<Change>) -> Result<Self, StoreError> {
        let mut last = BTreeMap::new();
        for change in changes {
            let (key, draft) = match change {
                Change::Put(object) => {
                    let (key, draft) = Draft::new(&object)?;
                    (key, Some(draft))
                }
                Change::Delete(kind, name) => ((kind, name.into_boxed_str()), None),
            };
            last.insert(key, draft);
        }
        Ok(Self(last))
    }
}

impl Mirror {
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Stored> {
        self.objects.get(&kind)?.get(name)
    }

    /// All of a kind with their names, by name.
    pub fn list(&self, kind: Kind) -> impl Iterator<Item = (&str, &Stored)> {
        let objects = self.objects.get(&kind).into_iter().flatten();
        objects.map(|(name, object)| (&**name, object))
    }

    /// All objects, by key.
    pub fn objects(&self) -> impl Iterator<Item = (Kind, &str, &Stored)> {
        let of_kind = |kind: &Kind| {
            let kind = *kind;
            self.list(kind).map(move |(name, object)| (kind, name, object))
        };
        self.objects.keys().flat_map(of_kind)
    }

    /// The last `resourceVersion` that was given.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Does what differs from what is there. The keys of what differed, each with the version
    /// that it got.
    pub fn apply(&mut self, drafts: Drafts) -> Vec<(Key, u64)> {
        let mut changed = Vec::new();
        for (key, draft) in drafts.0 {
            let version = match draft {
                None => self.remove(key.0, &key.1),
                Some(draft) => {
                    let old = self.get(key.0, &key.1);
                    draft.over(old, self.version + 1).map(|object| {
                        let version = object.version();
                        self.set(key.clone(), object);
                        version
                    })
                }
            };
            changed.extend(version.map(|version| (key, version)));
        }
        changed
    }

    /// Sets an object as it is, with its version.
    pub fn set(&mut self, (kind, name): Key, object: Stored) {
        self.version = self.version.max(object.version());
        self.objects.entry(kind).or_default().insert(name, object);
    }

    /// Forgets an object; the version of the deletion, or none where it isn't there.
    pub fn remove(&mut self, kind: Kind, name: &str) -> Option<u64> {
        self.objects.get_mut(&kind)?.remove(name)?;
        self.version += 1;
        Some(self.version)
    }

    /// Notes that versions up to this one were given.
    pub fn at_least(&mut self, version: u64) {
        self.version = self.version.max(version);
    }

    /// Appends an event.
    pub fn record(&mut self, event: Event) {
        self.restore_event(self.next_event, event);
    }

    /// Appends an event with the number that it has.
    pub fn restore_event(&mut self, number: u64, event: Event) {
        self.events.push_back((number, event));
        self.next_event = number.saturating_add(1);
        while self.events.len() > MOST_EVENTS {
            self.events.pop_front();
        }
    }

    /// The numbers of the events that are kept.
    pub fn event_numbers(&self) -> Range<u64> {
        self.events.front().map_or(self.next_event, |(first, _)| *first)..self.next_event
    }

    /// The events from that number on, oldest first, with their numbers.
    pub fn events_from(&self, number: u64) -> impl Iterator<Item = &(u64, Event)> {
        let skipped = self.events.partition_point(|(known, _)| *known < number);
        self.events.range(skipped..)
    }

    /// The last `limit` events, oldest first.
    pub fn events(&self, limit: usize) -> Vec<Event> {
        let skipped = self.events.len().saturating_sub(limit);
        self.events.iter().skip(skipped).map(|(_, event)| event.clone()).collect()
    }
}

/// The event with its message cut to [`LONGEST_MESSAGE`]: an error may carry the whole output of
/// another program.
pub fn bounded(mut event: Event) -> Event {
    if event.message.len() > LONGEST_MESSAGE {
        let end = (0..=LONGEST_MESSAGE).rev().find(|at| event.message.is_char_boundary(*at));
        event.message.truncate(end.unwrap_or(0));
        event.message.push_str(" [...]");
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EventType;

    fn event(message: String) -> Event {
        Event {
            time: jiff::Timestamp::UNIX_EPOCH,
            kind: EventType::Warning,
            reason: "Tested".into(),
            object: "App/a".into(),
            message,
        }
    }

    #[test]
    fn the_oldest_events_go() {
        let mut mirror = Mirror::default();
        for number in 0..MOST_EVENTS as u64 {
            mirror.record(event(number.to_string()));
        }
        let next = MOST_EVENTS as u64;
        assert_eq!(mirror.event_numbers(), 0..next);
        mirror.record(event("new".into()));
        assert_eq!(mirror.event_numbers(), 1..next + 1);
        assert_eq!(mirror.events_from(next).count(), 1);
        assert_eq!(mirror.events_from(0).count(), MOST_EVENTS);
        assert_eq!(mirror.events(usize::MAX).len(), MOST_EVENTS);
        assert_eq!(mirror.events(1)[0].message, "new");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        for text in ["x".repeat(LONGEST_MESSAGE + 1), "ü".repeat(LONGEST_MESSAGE), "ok".into()] {
            let message = bounded(event(text.clone())).message;
            assert!(message == text || message.ends_with(" [...]"));
            assert!(message.len() <= LONGEST_MESSAGE + 6);
        }
    }
}
