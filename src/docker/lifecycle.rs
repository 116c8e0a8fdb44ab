//! Starting, stopping and removing. Each is done to an id that was inspected right before and
//! found to be ours, and to nothing else.

use std::time::Duration;

use bollard::query_parameters::{
    RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use tokio::time::Instant;

use super::containers::{Found, Ours};
use super::error::{Failure, within};
use super::{DockerEngine, EngineError};
use crate::model::{Birth, ContainerId, ContainerState, Owner, Span};

impl DockerEngine {
    /// Starts it. Done at once where it runs.
    pub(super) async fn start_container(
        &self,
        owner: &Owner,
        id_or_name: &str,
    ) -> Result<(), EngineError> {
        let doing = "start the container";
        let Some(ours) = self.find_ours(owner, id_or_name, doing).await? else {
            let cause = "it is gone".to_owned();
            return Err(EngineError::NotOurs { id: ContainerId(id_or_name.to_owned()), cause });
        };
        let Ours { container, scrub } = *ours;
        if container.state == ContainerState::Running {
            return Ok(());
        }
        let docker = self.docker().map_err(|failure| self.error(doing, failure))?;
        let call = docker.start_container(&container.id.0, None::<StartContainerOptions>);
        let started = within(self.deadlines().change, call).await;
        started.map_err(|failure| {
            let failure = failure.map_text(|text| scrub.clean(text));
            let doing = format!("start {}", container.name);
            port_taken(&container.birth, &failure)
                .or_else(|| nobody(&doing, &failure))
                .unwrap_or_else(|| self.error(&doing, failure))
        })
    }

    /// Stops it: its signal, `grace`, kill. Done at once where it is gone or doesn't run.
    pub(super) async fn stop_container(
        &self,
        owner: &Owner,
        id: &ContainerId,
        grace: Span,
    ) -> Result<(), EngineError> {
        let doing = format!("stop container {}", id.short());
        let Some(ours) = self.find_ours(owner, &id.0, &doing).await? else {
            return Ok(());
        };
        if !is_alive(&ours.container.state) {
            return Ok(());
        }
        let docker = self.docker().map_err(|failure| self.error(&doing, failure))?;
        let options = StopContainerOptionsBuilder::new().t(whole_seconds(grace)).build();
        let limit = grace.duration() + self.deadlines().stop;
        let call = docker.stop_container(&ours.container.id.0, Some(options));
        match within(limit, call).await {
            Err(failure) if failure.status() != Some(404) => Err(self.error(&doing, failure)),
            _ => Ok(()),
        }
    }

    /// Removes it with its anonymous volumes. Done at once where it is gone.
    pub(super) async fn remove_container(
        &self,
        owner: &Owner,
        id: &ContainerId,
    ) -> Result<(), EngineError> {
        let doing = format!("remove container {}", id.short());
        let Some(ours) = self.find_ours(owner, &id.0, &doing).await? else {
            return Ok(());
        };
        let id = &ours.container.id;
        match ours.container.state {
            ContainerState::Removing => return self.wait_until_gone(owner, id, &doing).await,
            ref state if is_alive(state) => {
                let cause = "it still runs: stop it first".to_owned();
                return Err(EngineError::Refused { doing, cause });
            }
            _ => {}
        }
        // A dead one is what a removal that failed half way left behind.
        let force = ours.container.state == ContainerState::Dead;
        let options = RemoveContainerOptionsBuilder::new().v(true).force(force).build();
        let docker = self.docker().map_err(|failure| self.error(&doing, failure))?;
        let removed =
            within(self.deadlines().change, docker.remove_container(&id.0, Some(options)));
        match removed.await {
            Ok(()) => Ok(()),
            Err(failure) if failure.status() == Some(404) => Ok(()),
            Err(failure) if is_in_progress(&failure) => {
                self.wait_until_gone(owner, id, &doing).await
            }
            Err(failure) => Err(self.error(&doing, failure)),
        }
    }

    /// Waits until a removal that is under way has come to its end.
    pub(super) async fn wait_until_gone(
        &self,
        owner: &Owner,
        id: &ContainerId,
        doing: &str,
    ) -> Result<(), EngineError> {
        let deadline = Instant::now() + self.deadlines().change;
        let mut pause = Duration::from_millis(20);
        while self.find_ours(owner, &id.0, doing).await?.is_some() {
            if Instant::now() + pause > deadline {
                let cause = "its removal is under way, and doesn't come to an end".to_owned();
                return Err(EngineError::Transient { doing: doing.to_owned(), cause });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Ours, or none where there is none.
    ///
    /// # Errors
    /// [`EngineError::NotOurs`] where it belongs to others.
    async fn find_ours(
        &self,
        owner: &Owner,
        id_or_name: &str,
        doing: &str,
    ) -> Result<Option<Box<Ours>>, EngineError> {
        match self.find(owner, id_or_name).await.map_err(|failure| self.error(doing, failure))? {
            Found::Gone => Ok(None),
            Found::Ours(ours) => Ok(Some(ours)),
            Found::Foreign { id } => {
                let Owner { installation, uid } = owner;
                let cause = format!("its labels don't name the installation {installation} {uid}");
                Err(EngineError::NotOurs { id, cause })
            }
        }
    }
}

/// True where a process of it runs, or soon may again.
fn is_alive(state: &ContainerState) -> bool {
    match state {
        ContainerState::Running | ContainerState::Restarting { .. } | ContainerState::Paused => {
            true
        }
        ContainerState::Created
        | ContainerState::Exited { .. }
        | ContainerState::Removing
        | ContainerState::Dead => false,
    }
}

/// The engine counts whole seconds: a started one is given whole.
pub(super) fn whole_seconds(span: Span) -> i32 {
    i32::try_from(span.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

fn is_in_progress(failure: &Failure) -> bool {
    failure.status() == Some(409) && failure.text().contains("already in progress")
}

fn port_taken(birth: &Birth, failure: &Failure) -> Option<EngineError> {
    let words = ["port is already allocated", "address already in use"];
    let says = failure.status().is_some() && words.iter().any(|it| failure.text().contains(it));
    let port = birth.port.filter(|_| says)?;
    Some(EngineError::PortTaken { port, cause: failure.text().to_owned() })
}

/// The image knows no user or group of that name. The engine says so with a status as of trouble
/// of its own, and yet it would say the same again for ever.
fn nobody(doing: &str, failure: &Failure) -> Option<EngineError> {
    let text = failure.text();
    let says = ["unable to find user ", "unable to find group "].iter().any(|it| text.contains(it))
        && text.contains("no matching entries in ");
    let says = says && failure.status().is_some();
    says.then(|| EngineError::Refused { doing: doing.to_owned(), cause: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_or_group_that_the_image_lacks_is_refused() {
        for (text, is_refused) in [
            ("unable to find user nobody-at-all: no matching entries in passwd file", true),
            ("unable to find group staff-at-all: no matching entries in group file", true),
            ("unable to find user x: open /proc/1/root/etc/passwd: input/output error", false),
            ("failed to create task for container: context deadline exceeded", false),
        ] {
            let failure = Failure::Answer { status: 500, text: text.to_owned() };
            let error = nobody("start web", &failure);
            assert_eq!(error.is_some_and(|error| !error.may_pass()), is_refused, "{text}");
            let silence = Failure::Silence { cause: text.to_owned() };
            assert!(nobody("start web", &silence).is_none(), "an engine's words only: {text}");
        }
    }

    #[test]
    fn a_started_second_is_given_whole() {
        for (span, seconds) in [("0ms", 0), ("1ms", 1), ("1s", 1), ("1500ms", 2), ("24h", 86_400)] {
            assert_eq!(whole_seconds(span.parse().unwrap()), seconds, "{span}");
        }
    }
}
