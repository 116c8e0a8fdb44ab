//! The time, for figures: processes are compared by the time of day, which is theirs alike.

use std::time::Duration;

/// The time of day, since 1970.
#[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub fn now() -> Duration {
    std::time::SystemTime::UNIX_EPOCH.elapsed().expect("it is after 1970")
}

/// Lets time pass between two looks.
#[allow(clippy::disallowed_methods, reason = "between two looks at a condition")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Looks every `between` until `attempt` gives something; panics after a minute.
#[track_caller]
pub fn wait_for<T>(what: &str, between: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = now() + Duration::from_secs(60);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(now() < end, "{what}: not within a minute");
        pause(between);
    }
}
