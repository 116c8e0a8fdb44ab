//! Calls that are bounded from outside: those that take too long go on in the background.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::model::View;

/// One kind of thing that is looked at, by name.
pub(super) struct Looks<K, T> {
    /// Calls that a look gave up waiting for.
    late: Mutex<BTreeMap<K, JoinHandle<Result<T, String>>>>,
    woken: Arc<Notify>,
}

impl<K: Ord + Clone, T: Send + 'static> Looks<K, T> {
    pub fn new(woken: Arc<Notify>) -> Self {
        Self { late: Mutex::default(), woken }
    }

    /// Waits for `call`, at most `patience`; not at all while an earlier one is on its way.
    pub async fn look(
        &self,
        name: &K,
        patience: Duration,
        call: impl Future<Output = Result<T, String>> + Send + 'static,
    ) -> (K, View<T>) {
        let unseen =
            || View::Unseen { reason: format!("no answer within {} s", patience.as_secs()) };
        if self.is_late(name) {
            return (name.clone(), unseen());
        }
        let abandoned = Arc::new(AtomicBool::new(false));
        let mut task = tokio::spawn({
            let (abandoned, woken) = (abandoned.clone(), self.woken.clone());
            async move {
                let answer = call.await;
                if abandoned.load(Ordering::SeqCst) {
                    woken.notify_one();
                }
                answer
            }
        });
        let view = match tokio::time::timeout(patience, &mut task).await {
            Ok(Ok(Ok(state))) => View::Seen(state),
            Ok(Ok(Err(reason))) => View::Unseen { reason },
            Ok(Err(broken)) => View::Unseen { reason: format!("the look at it failed: {broken}") },
            Err(_) => {
                abandoned.store(true, Ordering::SeqCst);
                self.late().entry(name.clone()).or_insert(task);
                unseen()
            }
        };
        (name.clone(), view)
    }

    /// True while a call that was given up waiting for is on its way. One that has ended shows
    /// that the thing answers again.
    fn is_late(&self, name: &K) -> bool {
        let mut late = self.late();
        let on_its_way = late.get(name).is_some_and(|task| !task.is_finished());
        if !on_its_way {
            late.remove(name);
        }
        on_its_way
    }

    fn late(&self) -> std::sync::MutexGuard<'_, BTreeMap<K, JoinHandle<Result<T, String>>>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn what_hangs_is_waited_for_once_and_wakes_when_it_answers() {
        let woken = Arc::new(Notify::new());
        let looks: Looks<&str, u8> = Looks::new(woken.clone());
        let (answer, answered) = tokio::sync::oneshot::channel();
        let hangs = async { answered.await.map_err(|_| String::from("it went away")) };
        let begin = tokio::time::Instant::now();
        assert!(looks.look(&"alpha", PATIENCE, hangs).await.1.seen().is_none());
        assert_eq!(begin.elapsed(), PATIENCE);

        // While that call is on its way there is neither a wait nor a second call.
        let never = async { panic!("a second call") };
        assert!(looks.look(&"alpha", PATIENCE, never).await.1.seen().is_none());
        assert_eq!(begin.elapsed(), PATIENCE);

        answer.send(1).unwrap();
        woken.notified().await;
        // The late answer is thrown away, and a new call made.
        tokio::task::yield_now().await;
        let view = looks.look(&"alpha", PATIENCE, async { Ok(2) }).await.1;
        assert_eq!(view.seen(), Some(&2));
    }

    #[tokio::test]
    async fn an_error_is_the_reason() {
        let looks: Looks<&str, u8> = Looks::new(Arc::default());
        let (_, view) = looks.look(&"alpha", PATIENCE, async { Err("refused".into()) }).await;
        assert_eq!(view, View::Unseen { reason: "refused".into() });
    }
}
