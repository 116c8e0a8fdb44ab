//! Something happened on an engine. Events only wake: the engine drops them under load, and of
//! what is in them only the container's id is read, to know which one to ask for.

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{DockerEngine, Engine, EngineError, Stir};
use crate::model::{ContainerId, Owner, label};

/// Events that wait for a slow reader. One that finds so many asks for all there is anyway.
const BACKLOG: usize = 64;

impl DockerEngine {
    /// An item for each time that containers of that installation's name may have changed;
    /// ends when the engine goes away.
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub(super) async fn wakes(
        &self,
        owner: &Owner,
    ) -> Result<BoxStream<'static, Stir>, EngineError> {
        // The stream itself can't tell an engine that is silent from one that isn't there.
        self.version().await?;
        let filters = [
            ("type".to_owned(), vec!["container".to_owned()]),
            ("label".to_owned(), vec![format!("{}={}", label("installation"), owner.installation)]),
        ];
        let options = EventsOptionsBuilder::new().filters(&filters.into()).build();
        let docker = self.docker().map_err(|failure| self.error("listen to events", failure))?;
        let docker = docker.with_timeout(self.deadlines().look);
        let mut events = docker.events(Some(options)).boxed();
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let mut missed = false;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    () = sender.closed() => return,
                    event = events.next() => match event {
                        Some(Ok(event)) if concerns(&event) => {
                            let stir = if missed { Stir::More } else { stir(event) };
                            missed = sender.try_send(stir).is_err();
                        }
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return,
                    }
                }
            }
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }
}

fn stir(event: EventMessage) -> Stir {
    let id = event.actor.and_then(|actor| actor.id).filter(|id| !id.is_empty());
    id.map_or(Stir::More, |id| Stir::Container(ContainerId(id)))
}

/// False for what health checks do inside a container: three events each time, and none of
/// them changes anything.
fn concerns(event: &EventMessage) -> bool {
    let action = event.action.as_deref().unwrap_or_default();
    !["exec_", "top", "attach", "detach", "resize", "copy", "archive", "extract", "export"]
        .iter()
        .any(|ignored| action.starts_with(ignored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_checks_wake_nobody() {
        for (action, wakes) in [
            ("start", true),
            ("die", true),
            ("destroy", true),
            ("oom", true),
            ("health_status: healthy", true),
            ("rename", true),
            ("exec_create: /check", false),
            ("exec_start: /check", false),
            ("exec_die", false),
        ] {
            let event = EventMessage { action: Some(action.into()), ..EventMessage::default() };
            assert_eq!(concerns(&event), wakes, "{action}");
        }
    }
}
