//! Which calls there are, and how often each was made.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Ping,
    Version,
    Info,
    List,
    Inspect,
    Create,
    Start,
    Stop,
    Kill,
    Remove,
    Logs,
    Image,
    Pull,
    Distribution,
    Events,
    /// Something that is no call of these.
    Other,
}

impl Call {
    const ALL: [Self; 16] = [
        Self::Ping,
        Self::Version,
        Self::Info,
        Self::List,
        Self::Inspect,
        Self::Create,
        Self::Start,
        Self::Stop,
        Self::Kill,
        Self::Remove,
        Self::Logs,
        Self::Image,
        Self::Pull,
        Self::Distribution,
        Self::Events,
        Self::Other,
    ];
}

/// How many of something there are at one time, and were at most.
#[derive(Default)]
pub struct Gauge {
    now: AtomicU64,
    most: AtomicU64,
}

impl Gauge {
    /// One more, until what is returned is dropped.
    pub fn enter(&self) -> Entered<'_> {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        Entered(self)
    }

    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

pub struct Entered<'a>(&'a Gauge);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts of one engine, as they grow.
#[derive(Default)]
pub struct Counters([AtomicU64; Call::ALL.len()]);

impl Counters {
    pub fn count(&self, call: Call) {
        self.0[call as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn counts(&self) -> Counts {
        let of = |call: &Call| (*call, self.0[*call as usize].load(Ordering::Relaxed));
        Counts(Call::ALL.iter().map(of).filter(|(_, count)| *count > 0).collect())
    }
}

/// How often each call was made; those that never were aren't in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<Call, u64>);

impl Counts {
    pub fn of(&self, call: Call) -> u64 {
        self.0.get(&call).copied().unwrap_or_default()
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Each kind with its count divided by `by`, the most frequent first: `inspect 2.0, list 0.1`.
    pub fn per(&self, by: f64) -> String {
        let mut kinds: Vec<_> = self.0.iter().collect();
        kinds.sort_by_key(|(call, count)| (std::cmp::Reverse(**count), **call));
        let word = |(call, count): (&Call, &u64)| {
            format!("{} {:.2}", format!("{call:?}").to_lowercase(), *count as f64 / by)
        };
        kinds.into_iter().map(word).collect::<Vec<_>>().join(", ")
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        let mut all = Self::default();
        for (call, count) in counts.flat_map(|counts| counts.0) {
            *all.0.entry(call).or_default() += count;
        }
        all
    }
}

/// What was counted since `earlier`.
impl Sub<&Counts> for Counts {
    type Output = Self;

    fn sub(mut self, earlier: &Self) -> Self {
        for (call, count) in &mut self.0 {
            *count = count.saturating_sub(earlier.of(*call));
        }
        self.0.retain(|_, count| *count > 0);
        self
    }
}
