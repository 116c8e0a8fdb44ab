//! The simulated Docker Engine: what [`plimsoll::docker::DockerEngine`] makes of a real one. It
//! asks the crate whose a container is. What was sent to an engine is done there also when the
//! caller is no more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use plimsoll::docker::{Engine, EngineError, Engines, ImageInfo, LogLine, Stir};
use plimsoll::model::{
    Container, ContainerId, Host, HostName, HostState, ImageContent, ImageRef, NewContainer, Owner,
    Pin, SecretName, Sha256, Span,
};
use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::call::{Caller, Fate};
use super::containers::{Reply, create, find, gone, list, remove, shown, start, stop};
use super::fault::Call;
use super::machine::{Machine, Nature, Unit};
use super::mark::Mark;
use super::world::{Sim, World};

/// How long nobody answers for a host that is down until a caller gives up.
const SILENCE: Duration = Duration::from_secs(10);

/// The engine of one host.
#[derive(Clone)]
pub struct SimEngine {
    caller: Caller,
    host: HostName,
}

/// The engines of all hosts, for one controller.
pub struct SimEngines {
    caller: Caller,
    calls: AtomicU64,
}

impl SimEngines {
    pub fn new(caller: Caller) -> Self {
        Self { caller, calls: AtomicU64::new(0) }
    }
}

impl Engines for SimEngines {
    fn engine(&self, host: &Host) -> Arc<dyn Engine> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Arc::new(SimEngine { caller: self.caller.clone(), host: host.name.clone() })
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl SimEngine {
    /// The engine of a host of this world, for whoever wants to call it.
    pub fn new(sim: &Sim, host: HostName) -> Self {
        Self { caller: Caller::new(sim), host }
    }

    fn unreachable(&self, doing: &str, cause: &str) -> EngineError {
        EngineError::Unreachable {
            doing: doing.to_owned(),
            engine: format!("sim://{}", self.host),
            cause: cause.to_owned(),
        }
    }

    /// Sends a request. `act` is done by the engine, and answers now or later.
    async fn call<T: Send + 'static>(
        &self,
        call: Call,
        doing: String,
        takes: (u64, u64),
        act: impl FnOnce(&mut World, Reply<T>) + Send + 'static,
    ) -> Result<T, EngineError> {
        let fate = self.caller.enter(call, || format!("{} {doing}", self.host)).await;
        let answer = self.send(fate, &doing, takes, act).await;
        self.caller.leave(fate).await;
        if fate.reply_lost {
            return Err(self.unreachable(&doing, "the connection was reset"));
        }
        answer
    }

    async fn send<T: Send + 'static>(
        &self,
        fate: Fate,
        doing: &str,
        takes: (u64, u64),
        act: impl FnOnce(&mut World, Reply<T>) + Send + 'static,
    ) -> Result<T, EngineError> {
        if fate.fails {
            tokio::time::sleep(Duration::from_millis(5)).await;
            return Err(self.unreachable(doing, "connection refused"));
        }
        let (up, engine) = self.caller.sim.with(|world| {
            let machine = world.machine(&self.host);
            (machine.up, machine.engine)
        });
        if !up {
            tokio::time::sleep(SILENCE).await;
            return Err(self.unreachable(doing, "no reply came in time"));
        }
        if !engine {
            return Err(self.unreachable(doing, "connection refused"));
        }
        let (sender, answer) = oneshot::channel();
        let (caller, host) = (self.caller.clone(), self.host.clone());
        self.caller.sim.with(|world| {
            let takes = world.chance(takes.0, takes.1);
            world.after(fate.delay + takes / 2, move |world| {
                // A request that lies about for long isn't done when its sender is gone.
                let forgotten = !fate.delay.is_zero() && caller.is_dead(world);
                if world.machine(&host).responds() && !forgotten {
                    act(world, Reply(sender));
                }
            });
        });
        let answer = answer.await;
        answer.unwrap_or_else(|_| Err(self.unreachable(doing, "the connection was closed")))
    }

    async fn twice<T: Send + 'static>(
        &self,
        call: Call,
        doing: String,
        takes: (u64, u64),
        act: impl Fn(&mut World, Reply<T>) + Clone + Send + 'static,
    ) -> Result<T, EngineError> {
        let fate = self.caller.enter(call, || format!("{} {doing}", self.host)).await;
        let mut answer = self.send(fate, &doing, takes, act.clone()).await;
        if fate.twice {
            answer = self.send(Fate::default(), &doing, takes, act).await;
        }
        self.caller.leave(fate).await;
        if fate.reply_lost {
            return Err(self.unreachable(&doing, "the connection was reset"));
        }
        answer
    }
}

/// What the simulated registries have for a reference.
pub fn digest_of(image: &ImageRef) -> Sha256 {
    image.digest().unwrap_or_else(|| Sha256::of(image.to_string().as_bytes()))
}

fn registries_are_down(world: &World) -> bool {
    world.registries_down_until.is_some_and(|until| until > world.now())
}

#[async_trait]
impl Engine for SimEngine {
    async fn observe(&self, owner: &Owner) -> Result<HostState, EngineError> {
        let doing = String::from("list the containers");
        let fate = self.caller.enter(Call::Observe, || self.host.to_string()).await;
        let (host, owner) = (self.host.clone(), owner.clone());
        let answer = self
            .send(fate, &doing, (1, 6), move |world, reply| {
                reply.send(Ok(list(world.machine(&host), &owner)));
            })
            .await;
        // It was true when the engine made the list.
        tokio::time::sleep(fate.stale).await;
        self.caller.leave(fate).await;
        if fate.reply_lost {
            return Err(self.unreachable(&doing, "the connection was reset"));
        }
        answer
    }

    async fn inspect(
        &self,
        owner: &Owner,
        id_or_name: &str,
    ) -> Result<Option<Container>, EngineError> {
        let doing = format!("inspect {id_or_name}");
        let (host, owner, wanted) = (self.host.clone(), owner.clone(), id_or_name.to_owned());
        self.call(Call::Inspect, doing, (1, 3), move |world, reply| {
            let found = world.machine(&host).named(&wanted);
            let ours = found.and_then(|unit| Some(shown(unit, Machine::ours(unit, &owner)?, true)));
            reply.send(Ok(ours));
        })
        .await
    }

    async fn image(&self, name: &str) -> Result<Option<ImageInfo>, EngineError> {
        let doing = format!("look for the image {name}");
        let (host, name) = (self.host.clone(), name.to_owned());
        self.call(Call::Image, doing, (1, 3), move |world, reply| {
            let has = world.machine(&host).images.contains(&name);
            let info = || ImageInfo {
                id: Sha256::of(format!("image {name}").as_bytes()),
                repository_digests: vec![name.clone()],
            };
            reply.send(Ok(has.then(info)));
        })
        .await
    }

    async fn resolve(&self, image: &ImageRef) -> Result<Sha256, EngineError> {
        let doing = format!("resolve {image}");
        let image = image.clone();
        self.call(Call::Resolve, doing.clone(), (20, 100), move |world, reply| {
            if registries_are_down(world) {
                let cause = "the registry can't be asked: connection refused".into();
                return reply.send(Err(EngineError::Transient { doing, cause }));
            }
            reply.send(Ok(digest_of(&image)));
        })
        .await
    }

    async fn pull(&self, pin: &Pin) -> Result<(), EngineError> {
        let doing = format!("pull {}", pin.reference);
        let (host, pin) = (self.host.clone(), pin.clone());
        let act = move |world: &mut World, reply: Reply<()>| {
            let name = pin.engine_name();
            if world.machine(&host).images.contains(&name) {
                return reply.send(Ok(()));
            }
            let image = pin.reference.to_string();
            let doing = format!("pull {image}");
            let is_local = matches!(pin.content, ImageContent::Id(_));
            if Nature::of(&image) == Nature::Unpullable || is_local {
                world.mark(Mark::PullFailed);
                let cause = "the registry says: manifest unknown".into();
                return reply.send(Err(EngineError::ImageMissing { image, cause }));
            }
            let takes = world.chance(100, 800);
            let host = host.clone();
            world.after(takes, move |world| {
                let down = registries_are_down(world);
                let machine = world.machine(&host);
                if machine.is_full || down {
                    world.mark(Mark::PullFailed);
                    let cause = "there is no room on the host, or nobody to ask".into();
                    return reply.send(Err(EngineError::Transient { doing, cause }));
                }
                if machine.responds() {
                    machine.images.insert(name);
                    reply.send(Ok(()));
                }
            });
        };
        self.twice(Call::Pull, doing, (2, 4), act).await
    }

    async fn create(
        &self,
        container: &NewContainer,
        _secrets: &BTreeMap<SecretName, SecretString>,
    ) -> Result<ContainerId, EngineError> {
        let doing = format!("create {}", container.birth.container_name());
        let container = container.clone();
        let act = move |world: &mut World, reply: Reply<ContainerId>| {
            create(world, &container, reply);
        };
        self.twice(Call::Create, doing, (10, 60), act).await
    }

    async fn start(&self, owner: &Owner, id_or_name: &str) -> Result<(), EngineError> {
        let doing = format!("start {id_or_name}");
        let (host, owner, name) = (self.host.clone(), owner.clone(), id_or_name.to_owned());
        let act = move |world: &mut World, reply: Reply<()>| {
            start(world, &host, &owner, &name, reply);
        };
        self.twice(Call::Start, doing, (20, 120), act).await
    }

    async fn stop(&self, owner: &Owner, id: &ContainerId, grace: Span) -> Result<(), EngineError> {
        let doing = format!("stop {}", id.short());
        let (host, owner, id) = (self.host.clone(), owner.clone(), id.clone());
        let act = move |world: &mut World, reply: Reply<()>| {
            stop(world, &host, &owner, (&id, grace), reply);
        };
        self.twice(Call::Stop, doing, (2, 10), act).await
    }

    async fn remove(&self, owner: &Owner, id: &ContainerId) -> Result<(), EngineError> {
        let doing = format!("remove {}", id.short());
        let (host, owner, id) = (self.host.clone(), owner.clone(), id.clone());
        let act = move |world: &mut World, reply: Reply<()>| {
            remove(world, &host, &owner, &id, reply);
        };
        self.twice(Call::Remove, doing, (2, 10), act).await
    }

    async fn events(&self, owner: &Owner) -> Result<BoxStream<'static, Stir>, EngineError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (host, installation) = (self.host.clone(), owner.installation.clone());
        self.call(Call::Events, "listen".into(), (1, 3), move |world, reply| {
            world.machine(&host).listeners.push((installation, sender));
            reply.send(Ok(()));
        })
        .await?;
        Ok(UnboundedReceiverStream::new(receiver).boxed())
    }

    async fn logs(
        &self,
        owner: &Owner,
        id: &ContainerId,
        tail: Option<u32>,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError> {
        let doing = format!("read the output of {}", id.short());
        let (host, owner, wanted) = (self.host.clone(), owner.clone(), id.clone());
        let act = move |world: &mut World, reply: Reply<(usize, u32)>| {
            reply.send(match find(world.machine(&host), &owner, &wanted.0) {
                Ok(Some(unit)) => Ok((unit.begun, unit.start)),
                Ok(None) => Err(gone(&wanted.0)),
                Err(error) => Err(error),
            });
        };
        let (begun, start) = self.send(Fate::default(), &doing, (1, 3), act).await?;
        let count = tail.map_or(begun, |tail| begun.min(tail as usize));
        let line = Ok(LogLine { is_error: true, text: "begun".into() });
        let said = futures_util::stream::iter(vec![line; count]);
        let (sim, host, id) = (self.caller.sim.clone(), self.host.clone(), id.clone());
        let runs = move || {
            let same = |unit: &mut Unit| unit.start == start && unit.runs();
            sim.with(|world| world.unit(&host, &id).is_some_and(same))
        };
        let until_it_ends = async move {
            while follow && runs() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let end = futures_util::stream::once(until_it_ends).filter_map(async |()| None);
        Ok(said.chain(end).boxed())
    }

    async fn version(&self) -> Result<String, EngineError> {
        let answer = |_: &mut World, reply: Reply<String>| reply.send(Ok("simulated".into()));
        self.send(Fate::default(), "ask for the version", (1, 3), answer).await
    }
}
