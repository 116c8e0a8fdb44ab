//! What the store holds, in memory: reads cost nothing and need no disk. Versions and
//! generations are given here. Pure.

use std::collections::{BTreeMap, VecDeque};

use super::{StoreError, key_of, record};
use crate::model::{Event, Kind, Object};

/// Events that are kept.
pub const MOST_EVENTS: usize = 10_000;

/// Longest message of an event that is kept, in bytes.
pub const LONGEST_MESSAGE: usize = 8 << 10;

/// Which object: its kind, and its name as [`key_of`] gives it.
pub type Key = (Kind, String);

/// All objects and the last events.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    objects: BTreeMap<Key, Object>,
    /// With their numbers, which only grow.
    events: VecDeque<(u64, Event)>,
    /// The last `resourceVersion` that was given.
    version: u64,
    next_event: u64,
}

impl Mirror {
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Object> {
        self.objects.get(&(kind, name.to_owned()))
    }

    /// All of a kind, by name.
    pub fn list(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects
            .range((kind, String::new())..)
            .take_while(move |((k, _), _)| *k == kind)
            .map(|(_, object)| object)
    }

    /// All objects, by key.
    pub fn objects(&self) -> impl Iterator<Item = (&Key, &Object)> {
        self.objects.iter()
    }

    /// All events, oldest first, with their numbers.
    pub fn numbered_events(&self) -> impl Iterator<Item = (u64, &Event)> {
        self.events.iter().map(|(number, event)| (*number, event))
    }

    /// The last `resourceVersion` that was given.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Of these, the ones that differ from what is there, with their versions set; where one
    /// comes twice, the last counts. Nothing is changed yet.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] where one is too large; then none is to be written.
    pub fn changes(&self, objects: Vec<Object>) -> Result<Vec<(Key, Object)>, StoreError> {
        let mut last = BTreeMap::new();
        for object in objects {
            last.insert((object.kind, key_of(&object.metadata)), object);
        }
        let mut version = self.version;
        let mut changes = Vec::new();
        for (key, mut object) in last {
            let old = self.objects.get(&key);
            let metadata = &mut object.metadata;
            metadata.resource_version = old.map_or(0, |old| old.metadata.resource_version);
            metadata.generation = old.map_or(0, |old| old.metadata.generation);
            if old == Some(&object) {
                continue;
            }
            if old.is_none_or(|old| old.spec != object.spec) {
                object.metadata.generation += 1;
            }
            version += 1;
            object.metadata.resource_version = version;
            check_size(&key, &object)?;
            changes.push((key, object));
        }
        Ok(changes)
    }

    /// Sets an object as it is, with its version.
    pub fn set(&mut self, key: Key, object: Object) {
        self.version = self.version.max(object.metadata.resource_version);
        self.objects.insert(key, object);
    }

    /// Forgets an object; the version of the deletion, or none where it isn't there.
    pub fn remove(&mut self, key: &Key) -> Option<u64> {
        self.objects.remove(key)?;
        self.version += 1;
        Some(self.version)
    }

    /// Notes that versions up to this one were given.
    pub fn at_least(&mut self, version: u64) {
        self.version = self.version.max(version);
    }

    /// Appends an event; its number, and the numbers below which events are forgotten now.
    pub fn record(&mut self, event: Event) -> (u64, u64) {
        let number = self.next_event;
        self.restore_event(number, event);
        (number, self.events.front().map_or(0, |(first, _)| *first))
    }

    /// Appends an event with the number that it has.
    pub fn restore_event(&mut self, number: u64, event: Event) {
        self.events.push_back((number, event));
        self.next_event = number.saturating_add(1);
        while self.events.len() > MOST_EVENTS {
            self.events.pop_front();
        }
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

fn check_size(key: &Key, object: &Object) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(object).map_or(usize::MAX, |json| json.len());
    if bytes > record::LARGEST_OBJECT {
        return Err(StoreError::TooLarge { object: format!("{}/{}", key.0, key.1), bytes });
    }
    Ok(())
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
            assert_eq!(mirror.record(event(number.to_string())), (number, 0));
        }
        let next = MOST_EVENTS as u64;
        assert_eq!(mirror.record(event("new".into())), (next, 1));
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
