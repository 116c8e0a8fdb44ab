//! The thread that writes what nobody waits for, and that tries again while the disk fails.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::StoreError;
use super::durable::{Shared, State};
use super::files::RETRY_AFTER;

/// How long the first that waits may wait for others, so that one sync serves all.
const GATHER: Duration = Duration::from_millis(5);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Starts the thread. It ends when the store is being closed and all is written.
///
/// # Errors
/// [`StoreError::Io`], where there can't be another thread.
pub fn start(shared: Arc<Shared>) -> Result<JoinHandle<()>, StoreError> {
    let thread = std::thread::Builder::new().name("store".into());
    thread.spawn(move || run(&shared)).map_err(|error| StoreError::Io {
        doing: "start the thread of the store".into(),
        cause: error.to_string(),
    })
}

fn run(shared: &Shared) {
    let mut failing = false;
    let mut pause = RETRY_AFTER;
    loop {
        let mut state = wait(shared, |state| state.wanted || state.closing);
        if !state.closing {
            state = rest(shared, state, GATHER);
        }
        state.wanted = false;
        let (done, closing) = (state.done, state.closing);
        drop(state);
        let written = shared.write_up_to(done);
        tell(&written, failing);
        failing = written.is_err();
        if closing {
            return;
        }
        if failing {
            drop(rest(shared, shared.state(), pause));
            pause = (pause * 2).min(LONGEST_PAUSE);
        } else {
            pause = RETRY_AFTER;
        }
    }
}

/// Said once when it begins and once when it is over.
fn tell(written: &Result<(), StoreError>, failing: bool) {
    match written {
        Err(error) if !failing => {
            tracing::warn!(%error, "the store works from memory, and tries to write again");
        }
        Ok(()) if failing => tracing::info!("the store is written again"),
        _ => {}
    }
}

fn wait(shared: &Shared, until: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
    let state = shared.asked.wait_while(shared.state(), |state| !until(state));
    state.unwrap_or_else(PoisonError::into_inner)
}

/// Waits so long, or until the store is being closed.
fn rest<'a>(
    shared: &'a Shared,
    state: MutexGuard<'a, State>,
    time: Duration,
) -> MutexGuard<'a, State> {
    let rested = shared.asked.wait_timeout_while(state, time, |state| !state.closing);
    rested.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state)
}
