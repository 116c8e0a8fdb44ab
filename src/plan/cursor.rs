//! Look-ups in sorted maps by keys that come in order themselves: each goes on where the one
//! before ended, a step or two further, in place of a search through the whole map. Any key is
//! found in any order; out of order it takes a search.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;

use imbl::{OrdMap, ordmap};

/// So many steps cost as much as a search.
const NEAR: usize = 8;

/// A place in a map.
pub(super) struct Cursor<'a, M: Sorted<'a>> {
    map: M,
    /// The last entry that was passed: all before it are behind us too.
    last: Option<(&'a M::Key, &'a M::Value)>,
    ahead: Peekable<M::Entries>,
}

/// A map that can be walked over from any key on.
pub(super) trait Sorted<'a>: Copy {
    type Key: Ord + Clone + 'a;
    type Value: 'a;
    type Entries: Iterator<Item = (&'a Self::Key, &'a Self::Value)>;

    fn from(self, key: &Self::Key) -> Self::Entries;
    fn all(self) -> Self::Entries;
}

impl<'a, M: Sorted<'a>> Cursor<'a, M> {
    pub fn new(map: M) -> Self {
        Self { map, last: None, ahead: map.all().peekable() }
    }

    /// The value under a key.
    pub fn get(&mut self, key: &M::Key) -> Option<&'a M::Value> {
        for _ in 0..NEAR {
            let Some((at, _)) = self.ahead.peek() else { break };
            match (*at).cmp(key) {
                Less => self.last = self.ahead.next(),
                Equal => {
                    self.last = self.ahead.next();
                    return self.last.map(|(_, value)| value);
                }
                Greater => match self.last.map(|(last, value)| (last.cmp(key), value)) {
                    Some((Less, _)) => return None,
                    Some((Equal, value)) => return Some(value),
                    Some((Greater, _)) | None => break,
                },
            }
        }
        self.ahead = self.map.from(key).peekable();
        self.last = self.ahead.next_if(|(at, _)| *at == key);
        self.last.map(|(_, value)| value)
    }
}

impl<'a, K: Ord + Clone, V> Sorted<'a> for &'a BTreeMap<K, V> {
    type Key = K;
    type Value = V;
    type Entries = btree_map::Range<'a, K, V>;

    fn from(self, key: &K) -> Self::Entries {
        self.range(key..)
    }

    fn all(self) -> Self::Entries {
        self.range::<K, _>(..)
    }
}

impl<'a, K: Ord + Clone, V: Clone> Sorted<'a> for &'a OrdMap<K, V> {
    type Key = K;
    type Value = V;
    type Entries = ordmap::RangedIter<'a, K, V, imbl::shared_ptr::DefaultSharedPtr>;

    fn from(self, key: &K) -> Self::Entries {
        self.range::<_, K>(key..)
    }

    fn all(self) -> Self::Entries {
        self.range::<_, K>(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_in_any_order() {
        let sorted: BTreeMap<u32, u32> = (0..100).map(|n| (n * 3, n)).collect();
        let shared: OrdMap<u32, u32> = sorted.iter().map(|(key, value)| (*key, *value)).collect();
        let (mut of_sorted, mut of_shared) = (Cursor::new(&sorted), Cursor::new(&shared));
        let rising = (0..310).chain([0, 299, 5, 6, 6, 297, 298, 400, 1]);
        for key in rising.chain((0..310).rev()).chain((0..310).step_by(40)) {
            assert_eq!(of_sorted.get(&key), sorted.get(&key), "{key}");
            assert_eq!(of_shared.get(&key), shared.get(&key), "{key}");
        }
    }
}
