//! The simulated git remote: commits in a line, or several after a rewrite, and a mirror that may
//! be old or down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plimsoll::model::{CommitId, Files};
use plimsoll::source::{Head, Source, SourceError};

use super::call::Caller;
use super::fault::Call;

/// One commit.
#[derive(Debug, Clone)]
pub struct Commit {
    pub parent: Option<CommitId>,
    pub files: Arc<Files>,
    /// The step of the walk that it declares.
    pub step: usize,
}

/// The repository as the remote shows it.
#[derive(Debug, Default)]
pub struct Remote {
    pub commits: BTreeMap<CommitId, Commit>,
    pub tip: Option<CommitId>,
    /// What an old mirror shows instead of the tip.
    pub mirror: Option<CommitId>,
    pub is_down: bool,
}

impl Remote {
    /// True where `older` is `newer` or comes before it.
    pub fn is_ancestor(&self, older: &CommitId, newer: &CommitId) -> bool {
        let mut at = Some(newer);
        while let Some(commit) = at {
            if commit == older {
                return true;
            }
            at = self.commits.get(commit).and_then(|commit| commit.parent.as_ref());
        }
        false
    }

    fn head(&self, applied: Option<&CommitId>) -> Option<Head> {
        let tip = self.mirror.as_ref().or(self.tip.as_ref())?.clone();
        let Some(applied) = applied.filter(|it| self.commits.contains_key(it)).cloned() else {
            return Some(Head::At(tip));
        };
        Some(if self.is_ancestor(&applied, &tip) {
            Head::At(tip)
        } else if self.is_ancestor(&tip, &applied) {
            Head::Behind { applied, tip }
        } else {
            Head::Rewritten { applied, tip }
        })
    }
}

/// The controller's way to it.
pub struct SimSource {
    pub caller: Caller,
}

impl SimSource {
    fn failed(cause: &str) -> SourceError {
        SourceError::Fetch { remote: "sim://fleet".into(), cause: cause.into() }
    }
}

#[async_trait]
impl Source for SimSource {
    async fn fetch(&self, applied: Option<&CommitId>) -> Result<Head, SourceError> {
        let fate = self.caller.enter(Call::Fetch, || "the remote".into()).await;
        tokio::time::sleep(fate.delay + Duration::from_millis(20)).await;
        let head = self.caller.sim.with(|world| match world.remote.is_down || fate.fails {
            true => Err(Self::failed("connection refused")),
            false => world.remote.head(applied).ok_or_else(|| Self::failed("it is empty")),
        });
        // What was true when the remote was asked.
        tokio::time::sleep(fate.stale).await;
        self.caller.leave(fate).await;
        if fate.reply_lost { Err(Self::failed("the connection was reset")) } else { head }
    }

    async fn resolve(&self, revision: &str) -> Result<CommitId, SourceError> {
        Err(SourceError::NoRevision(revision.to_owned()))
    }

    async fn files(&self, commit: &CommitId) -> Result<Files, SourceError> {
        let fate = self.caller.enter(Call::Files, || commit.short().to_owned()).await;
        let files = self.caller.sim.with(|world| {
            let commit = world.remote.commits.get(commit);
            commit.map(|commit| Files::clone(&commit.files))
        });
        self.caller.leave(fate).await;
        match files {
            _ if fate.fails || fate.reply_lost => Err(Self::failed("an object can't be read")),
            Some(files) => Ok(files),
            None => Err(SourceError::NoRevision(commit.to_string())),
        }
    }

    async fn describe(&self, commit: &CommitId) -> Result<String, SourceError> {
        Ok(format!("commit {}", commit.short()))
    }

    async fn changed(&self) {
        std::future::pending().await
    }

    fn name(&self) -> String {
        "sim://fleet".into()
    }

    fn blobs_read(&self) -> u64 {
        0
    }
}
