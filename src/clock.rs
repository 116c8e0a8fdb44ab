//! The seams to time and chance, so that the loop can run in a simulator. Durations and
//! deadlines go by tokio's clock, which a simulator pauses; this module is about the time of
//! day, which is written into events and never decides anything, and about jitter.

use std::sync::Mutex;

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The time of day.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// Chance, for jitter and for ids that nobody may guess.
pub trait Randomness: Send + Sync {
    /// Evenly distributed in 0.0 to 1.0, without 1.0.
    fn unit(&self) -> f64;

    /// `digits` random hexadecimal digits.
    fn hex(&self, digits: usize) -> String {
        (0..digits)
            .map(|_| char::from(b"0123456789abcdef"[(self.unit() * 16.0) as usize & 15]))
            .collect()
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the adapter that reads the clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A generator that is seeded by the operating system, or by a test.
#[derive(Debug)]
pub struct Random(Mutex<StdRng>);

impl Random {
    pub fn from_os() -> Self {
        Self(Mutex::new(StdRng::from_os_rng()))
    }

    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Randomness for Random {
    fn unit(&self) -> f64 {
        let mut rng = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        rng.random()
    }
}
