//! Maps that share with those before whatever is the same in both.

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

/// The keys under which two maps differ. What they share is skipped.
pub fn differing<'m, K: Ord + Clone, V: PartialEq + Clone>(
    old: &'m OrdMap<K, V>,
    new: &'m OrdMap<K, V>,
) -> impl Iterator<Item = &'m K> {
    old.diff(new).map(|difference| match difference {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
        DiffItem::Update { new: (key, _), .. } => key,
    })
}
