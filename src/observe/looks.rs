//! Calls that are bounded from outside: those that take too long go on in the background.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::model::View;

/// One kind of thing that is looked at, by name.
pub(super) struct Looks<K, T> {
    /// Calls on their way that nobody waits for now.
    asked: Mutex<BTreeMap<K, Asked<T>>>,
    woken: Arc<Notify>,
}

/// A call on its way.
struct Asked<T> {
    task: JoinHandle<Result<T, String>>,
    since: Instant,
    /// It was given up: what it says is thrown away.
    late: bool,
    /// Nobody waits for it, so that its end is a reason to look.
    left: Arc<AtomicBool>,
}

/// What a look came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<T> {
    View(View<T>),
    /// It is being asked, and may still answer in time.
    Pending,
}

impl<K: Ord + Clone, T: Send + 'static> Looks<K, T> {
    pub fn new(woken: Arc<Notify>) -> Self {
        Self { asked: Mutex::default(), woken }
    }

    /// Waits for `call`, at most `wait`, and then for `patience` altogether. One that is pending
    /// or was given up isn't waited for again, unless somebody has all patience.
    pub async fn look(
        &self,
        name: &K,
        wait: Duration,
        patience: Duration,
        call: impl Future<Output = Result<T, String>> + Send + 'static,
    ) -> Answer<T> {
        let given_up = || {
            let reason = format!("no answer within {patience:?}");
            Answer::View(View::Unseen { reason })
        };
        let (mut asked, wait) = match self.earlier(name) {
            Some(asked) if asked.late => {
                self.asked().insert(name.clone(), asked);
                return given_up();
            }
            Some(asked) if wait < patience => (asked, Duration::ZERO),
            Some(asked) => (asked, wait),
            None => (self.ask(call), wait),
        };
        asked.left.store(false, Ordering::SeqCst);
        let end = (Instant::now() + wait).min(asked.since + patience);
        if let Ok(answer) = tokio::time::timeout_at(end, &mut asked.task).await {
            return Answer::View(match answer {
                Ok(Ok(state)) => View::Seen(state),
                Ok(Err(reason)) => View::Unseen { reason },
                Err(broken) => View::Unseen { reason: format!("the look at it failed: {broken}") },
            });
        }
        asked.left.store(true, Ordering::SeqCst);
        if asked.task.is_finished() {
            self.woken.notify_one();
        }
        asked.late = Instant::now() >= asked.since + patience;
        let late = asked.late;
        self.asked().entry(name.clone()).or_insert(asked);
        if late { given_up() } else { Answer::Pending }
    }

    /// True while a call is on its way that nobody waits for.
    pub fn is_pending(&self, name: &K) -> bool {
        self.asked().contains_key(name)
    }

    fn ask(&self, call: impl Future<Output = Result<T, String>> + Send + 'static) -> Asked<T> {
        let left = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let (left, woken) = (left.clone(), self.woken.clone());
            async move {
                let answer = call.await;
                if left.load(Ordering::SeqCst) {
                    woken.notify_one();
                }
                answer
            }
        });
        Asked { task, since: Instant::now(), late: false, left }
    }

    /// The call that is on its way. One that was given up and has ended shows that the thing
    /// answers again; its answer may be older than what was done since, and is thrown away.
    fn earlier(&self, name: &K) -> Option<Asked<T>> {
        self.asked().remove(name).filter(|asked| !asked.late || !asked.task.is_finished())
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, BTreeMap<K, Asked<T>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn seen<T>(answer: &Answer<T>) -> Option<&T> {
        match answer {
            Answer::View(view) => view.seen(),
            Answer::Pending => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_is_waited_for_once_and_wakes_when_it_answers() {
        let woken = Arc::new(Notify::new());
        let looks: Looks<&str, u8> = Looks::new(woken.clone());
        let (answer, answered) = tokio::sync::oneshot::channel();
        let hangs = async { answered.await.map_err(|_| String::from("it went away")) };
        let begin = Instant::now();
        assert!(seen(&looks.look(&"alpha", PATIENCE, PATIENCE, hangs).await).is_none());
        assert_eq!(begin.elapsed(), PATIENCE);

        // While that call is on its way there is neither a wait nor a second call.
        let never = async { panic!("a second call") };
        assert!(seen(&looks.look(&"alpha", PATIENCE, PATIENCE, never).await).is_none());
        assert_eq!(begin.elapsed(), PATIENCE);

        answer.send(1).unwrap();
        woken.notified().await;
        // The late answer is thrown away, and a new call made.
        tokio::task::yield_now().await;
        let answer = looks.look(&"alpha", PATIENCE, PATIENCE, async { Ok(2) }).await;
        assert_eq!(seen(&answer), Some(&2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_wait_leaves_it_pending_until_patience_ends() {
        let woken = Arc::new(Notify::new());
        let looks: Looks<&str, u8> = Looks::new(woken.clone());
        let wait = Duration::from_secs(1);
        let (answer, answered) = tokio::sync::oneshot::channel();
        let slow = async { answered.await.map_err(|_| String::from("it went away")) };
        assert_eq!(looks.look(&"alpha", wait, PATIENCE, slow).await, Answer::Pending);
        answer.send(1).unwrap();
        woken.notified().await;
        let never = async { panic!("a second call") };
        let answer = looks.look(&"alpha", wait, PATIENCE, never).await;
        assert_eq!(seen(&answer), Some(&1));

        let hangs = async { std::future::pending().await };
        assert_eq!(looks.look(&"alpha", wait, PATIENCE, hangs).await, Answer::Pending);
        let begin = Instant::now();
        for _ in 0..3 {
            let never = async { panic!("a second call") };
            assert_eq!(looks.look(&"alpha", wait, PATIENCE, never).await, Answer::Pending);
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
        tokio::time::advance(PATIENCE - wait).await;
        let never = async { panic!("a second call") };
        let reason = "no answer within 5s".into();
        let given_up = Answer::View(View::Unseen { reason });
        assert_eq!(looks.look(&"alpha", wait, PATIENCE, never).await, given_up);
    }

    #[tokio::test]
    async fn an_error_is_the_reason() {
        let looks: Looks<&str, u8> = Looks::new(Arc::default());
        let call = async { Err("refused".into()) };
        let answer = looks.look(&"alpha", PATIENCE, PATIENCE, call).await;
        assert_eq!(answer, Answer::View(View::Unseen { reason: "refused".into() }));
    }
}
