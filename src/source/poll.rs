//! When the remote is looked at next: at an interval, and less often while it fails. Pure.

use std::time::Duration;

use crate::clock::Randomness;

/// The longest time between two looks at a remote that fails, unless the interval is longer.
pub const LONGEST: Duration = Duration::from_secs(300);

/// How often the remote is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poll {
    interval: Duration,
    failures: u32,
}

impl Poll {
    /// A look every `interval` while all goes well.
    pub fn new(interval: Duration) -> Self {
        Self { interval, failures: 0 }
    }

    /// Looks that failed one after the other.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The remote answered.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The remote didn't answer.
    pub fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// The time until the next look: the interval, doubled for each failure after the first up
    /// to [`LONGEST`], and then up to a tenth shorter or longer, so that many controllers don't
    /// ask a server at the same moment.
    pub fn delay(&self, randomness: &dyn Randomness) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(31);
        let longest = LONGEST.max(self.interval);
        let delay = self.interval.saturating_mul(1 << doublings).min(longest);
        delay.mul_f64(0.9 + 0.2 * randomness.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Random;

    struct Fixed(f64);

    impl Randomness for Fixed {
        fn unit(&self) -> f64 {
            self.0
        }
    }

    #[test]
    fn failures_double_the_delay_up_to_the_cap() {
        let seconds = |interval, failures| {
            let mut poll = Poll::new(Duration::from_secs(interval));
            (0..failures).for_each(|_| poll.failed());
            poll.delay(&Fixed(0.5)).as_secs_f64().round() as u64
        };
        for (interval, failures, expected) in [
            (30, 0, 30),
            (30, 1, 30),
            (30, 2, 60),
            (30, 3, 120),
            (30, 5, 300),
            (30, 1000, 300),
            (1, 40, 300),
            (900, 3, 900),
        ] {
            assert_eq!(seconds(interval, failures), expected, "{interval} {failures}");
        }
    }

    #[test]
    fn success_resets_and_jitter_is_within_a_tenth() {
        let mut poll = Poll::new(Duration::from_secs(30));
        poll.failed();
        poll.failed();
        poll.succeeded();
        let random = Random::seeded(1);
        for _ in 0..1000 {
            let delay = poll.delay(&random).as_secs_f64();
            assert!((27.0..33.0).contains(&delay), "{delay}");
        }
    }
}
