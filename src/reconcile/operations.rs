//! What people and programs ask: the controller's answers.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{BroadcastStream, UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;

use crate::api::{
    Checkup, Diff, HistoryEntry, LogRecord, OperationError, Operations, Progress, Status,
};
use crate::model::{AppId, ApprovalRequest, CommitId, Event, EventType, Kind, Object};
use crate::plan::{Plan, WaitCause};

use super::Controller;
use super::situation::{LookOptions, Situation, store_failed};

/// The operations of one controller.
pub struct ControllerOperations(pub Arc<Controller>);

impl Controller {
    /// Asks the loop to look at the remote and at everything else now.
    fn wake_for_fetch(&self) {
        self.recollect().fetch_wanted = true;
        self.wake.notify_one();
    }

    /// True once after somebody asked for a look at the remote.
    pub(super) fn take_fetch_wish(&self) -> bool {
        std::mem::take(&mut self.recollect().fetch_wanted)
    }

    /// The last look of the loop, or where none runs here, a new one, which is written down.
    async fn current(&self) -> Result<Arc<Situation>, OperationError> {
        let (looping, last) = {
            let recollection = self.recollect();
            (recollection.looping, recollection.last.clone())
        };
        match last {
            Some(last) if looping => Ok(last),
            _ => self.fresh().await,
        }
    }

    async fn fresh(&self) -> Result<Arc<Situation>, OperationError> {
        let (commit, requests) = match self.tip().await {
            Ok(tip) => (tip.commit, tip.requests),
            Err(error) => {
                let commits = self.memory.commits().map_err(|error| store_failed(&error))?;
                let Some(attempted) = commits.attempted else { return Err(error) };
                self.recollect().source_error = Some(error.to_string());
                (attempted, Vec::new())
            }
        };
        let situation = self.look(&commit, requests, LookOptions::default()).await?;
        // A loop writes what it works on, which may be another commit.
        if !self.recollect().looping {
            self.write_objects(&situation).map_err(|error| store_failed(&error))?;
        }
        Ok(Arc::new(situation))
    }

    /// The plan for a revision; for the branch's tip where none is named.
    async fn plan_for(&self, revision: Option<String>) -> Result<Diff, OperationError> {
        let (commit, requests) = match revision {
            None => {
                let tip = self.tip().await?;
                (tip.commit, tip.requests)
            }
            Some(revision) => (self.commit_of(&revision).await?, Vec::new()),
        };
        Ok(self.look(&commit, requests, LookOptions::default()).await?.diff())
    }

    async fn commit_of(&self, revision: &str) -> Result<CommitId, OperationError> {
        self.parts.source.resolve(revision).await.map_err(|error| {
            OperationError::because(format!("revision {revision} isn't to be found"), &error)
                .hint("name a branch, a tag or a commit of the repository, or HEAD~1")
        })
    }

    /// Lifts a hold, or remembers an approval.
    async fn let_through(&self, id: &str) -> Result<ApprovalRequest, OperationError> {
        let situation = self.fresh().await?;
        let requests = situation.approvals();
        let Some(request) = requests.iter().find(|request| request.id == id).cloned() else {
            let known: Vec<_> =
                requests.iter().map(|r| format!("{} ({})", r.id, r.reason)).collect();
            let what = if known.is_empty() { "nothing waits".into() } else { known.join(", ") };
            return Err(OperationError::new(format!("nothing waits for approval {id}"))
                .hint(format!("`plimsoll status` shows what does: {what}")));
        };
        let held = situation.plan.waiting.iter().find(|waiting| {
            waiting.approval.as_deref() == Some(id)
                && matches!(waiting.cause, WaitCause::Held { .. })
        });
        let done = match held {
            Some(waiting) => self.memory.lift(&waiting.app),
            None => self.memory.approve(&request),
        };
        done.map_err(|error| store_failed(&error))?;
        let message = format!("{} was approved: {}", request.id, request.reason);
        self.event(EventType::Normal, "Approved", "Installation", &message);
        self.wake_for_fetch();
        Ok(request)
    }

    /// The commits in which an app was declared differently than in the one before.
    async fn history_of(
        &self,
        all: Vec<HistoryEntry>,
        app: &AppId,
    ) -> Result<Vec<HistoryEntry>, OperationError> {
        let mut reader = crate::manifest::Reader::new();
        let mut before = None;
        let mut changed = Vec::new();
        for entry in all {
            let Ok(files) = self.parts.source.files(&entry.commit).await else { continue };
            let mut now = reader.read(&files).desired.and_then(|mut d| d.apps.remove(app));
            if let Some(now) = &mut now {
                // A line that moved is no change of the app.
                std::sync::Arc::make_mut(now).location.line = 0;
            }
            if now != before {
                changed.push(entry);
            }
            before = now;
        }
        Ok(changed)
    }

    async fn follow_logs(
        &self,
        app: &AppId,
        tail: Option<u32>,
        follow: bool,
    ) -> Result<BoxStream<'static, LogRecord>, OperationError> {
        let situation = self.current().await?;
        let mut streams = Vec::new();
        for (host, container) in situation.observed.containers_of(app) {
            let Some(engine) = situation.observer.engines.get(host) else { continue };
            let owner = &situation.observer.owner;
            // One container that can't be read hides no other's output.
            let lines = match engine.logs(owner, &container.id, tail, follow).await {
                Ok(lines) => lines,
                Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
            };
            let (host, name) = (host.to_string(), container.name.clone());
            let record = move |line: Result<crate::docker::LogLine, _>| {
                let (is_error, text) = match line {
                    Ok(line) => (line.is_error, line.text),
                    Err(error) => (true, format!("the rest can't be read: {error}")),
                };
                LogRecord { host: host.clone(), container: name.clone(), is_error, text }
            };
            streams.push(lines.map(record).boxed());
        }
        let unseen = situation.unseen();
        if streams.is_empty() && !unseen.is_empty() {
            let message = format!("no container of {app} can be seen");
            let hint =
                "`plimsoll doctor` looks at each host; a container that can't be seen may run";
            return Err(OperationError {
                causes: unseen,
                ..OperationError::new(message).hint(hint)
            });
        }
        if streams.is_empty() {
            return Err(OperationError::new(format!("{app} has no container"))
                .hint("`plimsoll status` lists the apps; an App is named ENVIRONMENT/NAME"));
        }
        Ok(futures_util::stream::select_all(streams).boxed())
    }
}

#[async_trait]
impl Operations for ControllerOperations {
    async fn diff(&self, revision: Option<String>) -> Result<Diff, OperationError> {
        self.0.plan_for(revision).await
    }

    async fn apply(&self, plan: Option<Box<Plan>>) -> BoxStream<'static, Progress> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let controller = self.0.clone();
        // It goes on when nobody listens any more: half a rollout serves nobody.
        tokio::spawn(async move {
            // A loop in this process pauses, and what it has begun ends first.
            let _alone = controller.gate.clone().write_owned().await;
            let cancel = CancellationToken::new();
            let report = |progress| drop(sender.send(progress));
            let applied = match plan {
                None => controller.converge(&cancel, &report).await,
                Some(plan) => controller.apply_plan(&plan, &cancel, &report).await,
            };
            report(match applied {
                Ok(applied) => Progress::Ended { applied: Box::new(applied) },
                Err(error) => Progress::Failed { error },
            });
            controller.wake_for_fetch();
        });
        UnboundedReceiverStream::new(receiver).boxed()
    }

    async fn status(&self) -> Result<Status, OperationError> {
        let situation = self.0.current().await?;
        self.0.status_of(&situation).map_err(|error| store_failed(&error))
    }

    async fn get(&self, kind: Kind, name: Option<String>) -> Result<Vec<Object>, OperationError> {
        if !self.0.recollect().looping {
            self.0.fresh().await?;
        }
        let store = &self.0.parts.store;
        let Some(name) = name else {
            return store.list(kind).map_err(|error| store_failed(&error));
        };
        match store.get(kind, &name).map_err(|error| store_failed(&error))? {
            Some(object) => Ok(vec![object]),
            None => {
                let kind = kind.to_string().to_lowercase();
                Err(OperationError::new(format!("there is no {kind} {name}"))
                    .hint(format!("`plimsoll get {kind}` lists them")))
            }
        }
    }

    async fn events(
        &self,
        limit: usize,
        follow: bool,
    ) -> Result<BoxStream<'static, Event>, OperationError> {
        let coming = self.0.events.subscribe();
        let past = self.0.parts.store.events(limit).map_err(|error| store_failed(&error))?;
        let past = futures_util::stream::iter(past);
        Ok(if follow { past.chain(live(coming)).boxed() } else { past.boxed() })
    }

    async fn history(&self, app: Option<AppId>) -> Result<Vec<HistoryEntry>, OperationError> {
        let commits = self.0.memory.commits().map_err(|error| store_failed(&error))?;
        let mut history = match app {
            None => commits.history,
            Some(app) => self.0.history_of(commits.history, &app).await?,
        };
        history.reverse();
        Ok(history)
    }

    async fn logs(
        &self,
        app: AppId,
        tail: Option<u32>,
        follow: bool,
    ) -> Result<BoxStream<'static, LogRecord>, OperationError> {
        self.0.follow_logs(&app, tail, follow).await
    }

    async fn approve(&self, id: String) -> Result<ApprovalRequest, OperationError> {
        self.0.let_through(&id).await
    }

    async fn doctor(&self) -> Result<Vec<Checkup>, OperationError> {
        Ok(self.0.check_up().await)
    }
}

/// Events as they come; a reader that is too slow misses some.
fn live(coming: broadcast::Receiver<Event>) -> impl futures_util::Stream<Item = Event> {
    BroadcastStream::new(coming).filter_map(|event| async { event.ok() })
}
