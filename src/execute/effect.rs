//! Each kind of step, and the call that does it.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::docker::{Engine, EngineError};
use crate::model::{NewContainer, Revision, Server};
use crate::mutant::{self, Mutant};
use crate::plan::{Action, Place, Step};
use crate::proxy::Proxy;

use super::wait::{Patience, Waiter};
use super::{Executor, Failure};

impl Action {
    /// True for a step that only waits: it has no effect, and can be given up at any time.
    pub(super) fn is_wait(&self) -> bool {
        matches!(self, Self::WaitReady { .. } | Self::WaitUp { .. } | Self::WaitDrained { .. })
    }

    /// The revision that it brings up, for the log.
    pub(super) fn revision(&self) -> Option<Revision> {
        match self {
            Self::Create { container } => Some(container.birth.revision),
            Self::WaitReady { revision, .. } | Self::WaitUp { revision, .. } => Some(*revision),
            _ => None,
        }
    }
}

impl Executor {
    /// Does a step once.
    pub(super) async fn effect(
        &self,
        step: &Step,
        deadline: Instant,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        match &step.place {
            Place::Host(host) => {
                let engine = self
                    .engines
                    .get(host)
                    .ok_or_else(|| Failure::UnknownPlace(format!("host {host}")))?;
                let waiter = Waiter { executor: self, patience: Patience::new(deadline, cancel) };
                self.on_host(step, engine.as_ref(), &waiter).await
            }
            Place::Balancer(balancer) => {
                let proxy = self
                    .proxies
                    .get(balancer)
                    .ok_or_else(|| Failure::UnknownPlace(format!("balancer {balancer}")))?;
                let waiter = Waiter { executor: self, patience: Patience::new(deadline, cancel) };
                if let Action::SetWeight { backend, .. } | Action::RemoveServer { backend, .. } =
                    &step.action
                {
                    for need in &step.needs {
                        waiter.still_up(proxy.as_ref(), backend, need).await?;
                    }
                }
                on_balancer(step, proxy.as_ref(), &waiter).await
            }
        }
    }

    async fn on_host(
        &self,
        step: &Step,
        engine: &dyn Engine,
        waiter: &Waiter<'_>,
    ) -> Result<(), Failure> {
        match &step.action {
            Action::Pull { pin } => {
                let pull = async { engine.pull(pin).await.map_err(Failure::from) };
                waiter.unless_cancelled(pull).await
            }
            Action::Create { container } => self.create(engine, container).await,
            Action::Start { name } => self.start(step, engine, name).await,
            Action::WaitReady { name, revision, probe } => {
                waiter.ready(engine, name, *revision, probe).await
            }
            Action::Stop { id, grace, .. } => Ok(engine.stop(&self.owner, id, *grace).await?),
            Action::Remove { id, .. } => Ok(engine.remove(&self.owner, id).await?),
            _ => Err(Failure::UnknownPlace(format!("{} on a host", step.action.kind()))),
        }
    }

    async fn create(&self, engine: &dyn Engine, container: &NewContainer) -> Result<(), Failure> {
        let created = engine.create(container, &self.secrets).await;
        created.map(drop).map_err(|error| refused(error, container.birth.revision))
    }

    async fn start(&self, step: &Step, engine: &dyn Engine, name: &str) -> Result<(), Failure> {
        let Place::Host(host) = &step.place else {
            return Err(Failure::UnknownPlace(step.place.to_string()));
        };
        match engine.start(&self.owner, name).await {
            Ok(()) => Ok(()),
            Err(EngineError::PortTaken { port, cause }) => {
                // It would keep the port's number in its configuration for ever.
                if let Ok(Some(container)) = engine.inspect(&self.owner, name).await {
                    engine.remove(&self.owner, &container.id).await?;
                }
                Err(Failure::PortTaken { host: host.clone(), port, cause })
            }
            Err(error) => match engine.inspect(&self.owner, name).await {
                Ok(Some(container)) => Err(refused(error, container.birth.revision)),
                _ => Err(error.into()),
            },
        }
    }
}

/// What an engine refuses for good is the revision's own fault.
fn refused(error: EngineError, revision: Revision) -> Failure {
    match error {
        EngineError::Refused { doing, cause } => {
            Failure::Revision { revision, reason: format!("{doing}: {cause}") }
        }
        other => other.into(),
    }
}

async fn on_balancer(step: &Step, proxy: &dyn Proxy, waiter: &Waiter<'_>) -> Result<(), Failure> {
    match &step.action {
        Action::AddServer { backend, server, address } => {
            let joining = Server { address: *address, weight: 0 };
            Ok(proxy.add_server(backend, server, &joining).await?)
        }
        Action::WaitUp { .. } if mutant::is(Mutant::SkipWaitUp) => Ok(()),
        Action::WaitUp { backend, server, revision } => {
            waiter.up(proxy, backend, server, *revision).await
        }
        Action::SetWeight { backend, server, weight } => {
            Ok(proxy.set_weight(backend, server, *weight).await?)
        }
        Action::WaitDrained { backend, server } => {
            waiter.drained(proxy, backend, server, &step.needs).await
        }
        Action::RemoveServer { backend, server } => {
            Ok(proxy.remove_server(backend, server).await?)
        }
        Action::SetRoutes { changes } => Ok(proxy.set_routes(changes).await?),
        Action::Restructure { structure } => Ok(proxy.restructure(structure).await?),
        _ => Err(Failure::UnknownPlace(format!("{} at a balancer", step.action.kind()))),
    }
}
