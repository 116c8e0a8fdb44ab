//! Waiting for a condition with a deadline. Nothing else in the tests waits for time to pass.

use std::time::Duration;

use tokio::time::Instant;

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Returns when `condition` holds; panics with `what` when `deadline` has passed before.
#[track_caller]
pub fn wait_until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(deadline, what, || if condition() { Ok(()) } else { Err(String::new()) });
}

/// Returns what `attempt` gives once it succeeds; panics with `what` and its last error when
/// `deadline` has passed before.
#[track_caller]
pub fn wait_for<T>(
    deadline: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T, String>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        let last = match attempt() {
            Ok(value) => return value,
            Err(last) => last,
        };
        assert!(Instant::now() < end, "{what}: not within {deadline:?}; last seen: {last}");
        pause(LOOK);
    }
}

/// Lets time pass between two looks at a condition.
#[allow(clippy::disallowed_methods, reason = "the one place where the tests let time pass")]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}
