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
    Birth, Container, ContainerId, ContainerState, Host, HostName, HostState, ImageContent,
    ImageRef, NewContainer, Owner, Pin, SecretName, Sha256, Span,
};
use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::call::{Caller, Fate};
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

/// Where the answer of a call goes.
struct Reply<T>(oneshot::Sender<Result<T, EngineError>>);

impl<T> Reply<T> {
    fn send(self, answer: Result<T, EngineError>) {
        // Nobody listens any more where the caller was killed.
        let _ = self.0.send(answer);
    }
}

/// What is at the name that a new container is to have.
enum Name {
    Free,
    /// The very container that is to be made.
    There(ContainerId),
    /// It goes away; then it can be tried again.
    Going,
    Refused(EngineError),
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

/// A container as the adapter shows it.
fn shown(unit: &Unit, birth: Birth, inspected: bool) -> Container {
    Container {
        id: unit.id.clone(),
        name: unit.name.clone(),
        birth,
        state: unit.state.clone(),
        health: unit.health,
        restarts: if inspected { unit.restarts } else { 0 },
    }
}

fn list(machine: &Machine, owner: &Owner) -> HostState {
    let mut state = HostState::default();
    let prefix = format!("{}.", owner.installation);
    for unit in machine.units.values() {
        match Machine::ours(unit, owner) {
            Some(birth) => state.containers.push(Arc::new(shown(unit, birth, false))),
            None => {
                if unit.name.starts_with(&prefix) {
                    state.foreign_names.insert(unit.name.clone(), unit.id.clone());
                }
                state.foreign_ports.extend(unit.port);
            }
        }
    }
    state.containers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    state
}

fn foreign(unit: &Unit, owner: &Owner) -> EngineError {
    let Owner { installation, uid } = owner;
    let cause = format!("its labels don't name the installation {installation} {uid}");
    EngineError::NotOurs { id: unit.id.clone(), cause }
}

/// The container, which has to be that owner's; none where there is none.
fn find<'a>(
    machine: &'a Machine,
    owner: &Owner,
    id_or_name: &str,
) -> Result<Option<&'a Unit>, EngineError> {
    match machine.named(id_or_name) {
        None => Ok(None),
        Some(unit) if Machine::ours(unit, owner).is_some() => Ok(Some(unit)),
        Some(unit) => Err(foreign(unit, owner)),
    }
}

fn at_name(world: &mut World, wanted: &NewContainer, name: &str) -> Name {
    let Birth { installation, uid, .. } = &wanted.birth;
    let owner = Owner { installation: installation.clone(), uid: uid.clone() };
    let host = &wanted.host;
    let Some(unit) = world.machine(host).named(name) else { return Name::Free };
    let id = unit.id.clone();
    let Some(birth) = Machine::ours(unit, &owner) else {
        return Name::Refused(EngineError::NameTaken { name: name.to_owned(), id });
    };
    match unit.state {
        ContainerState::Removing => Name::Going,
        _ if birth == wanted.birth && unit.state != ContainerState::Dead => Name::There(id),
        ContainerState::Dead | ContainerState::Created => {
            world.audit.removed(&birth, host);
            world.erase(host, &id);
            Name::Free
        }
        _ => Name::Refused(EngineError::Refused {
            doing: format!("create {name}"),
            cause: format!("its name is in use by our container {}", id.short()),
        }),
    }
}

fn create(world: &mut World, new: &NewContainer, reply: Reply<ContainerId>) {
    let NewContainer { birth, spec, host, publish } = new;
    let name = birth.container_name();
    match at_name(world, new, &name) {
        Name::There(id) => return reply.send(Ok(id)),
        Name::Refused(error) => return reply.send(Err(error)),
        Name::Going => {
            let new = new.clone();
            return world.after(Duration::from_millis(20), move |world| create(world, &new, reply));
        }
        Name::Free => {}
    }
    let machine = world.machine(host);
    let image = birth.pin.reference.to_string();
    if !machine.images.contains(&birth.pin.engine_name()) {
        let cause = format!("it isn't on the host: No such image: {image}");
        return reply.send(Err(EngineError::ImageMissing { image, cause }));
    }
    if machine.is_full {
        let (doing, cause) = (format!("create {name}"), "no space left on device".into());
        return reply.send(Err(EngineError::Transient { doing, cause }));
    }
    let mut labels = spec.labels.clone();
    labels.extend(birth.labels());
    let id = world.place(host, name.clone(), labels, &image, publish.map(|at| at.port()));
    let every = spec.health.as_ref().map(|health| health.interval.duration());
    if let Some(unit) = world.unit(host, &id) {
        unit.checked_every = every;
    }
    world.tell(|| format!("{host} has {name}"));
    world.audit.created(birth, host);
    reply.send(Ok(id));
}

fn start(world: &mut World, host: &HostName, owner: &Owner, name: &str, reply: Reply<()>) {
    let gone =
        || EngineError::NotOurs { id: ContainerId(name.to_owned()), cause: "it is gone".into() };
    let unit = match find(world.machine(host), owner, name) {
        Ok(Some(unit)) => unit,
        Ok(None) => return reply.send(Err(gone())),
        Err(error) => return reply.send(Err(error)),
    };
    let (id, port, nature, doing) =
        (unit.id.clone(), unit.port, unit.nature, format!("start {}", unit.name));
    if unit.runs() {
        return reply.send(Ok(()));
    }
    if nature == Nature::Refused {
        let cause = "unable to find user nobody-at-all: no matching entries in passwd file".into();
        return reply.send(Err(EngineError::Refused { doing, cause }));
    }
    if matches!(unit.state, ContainerState::Removing | ContainerState::Dead) {
        let cause = "container is marked for removal and cannot be started".into();
        return reply.send(Err(EngineError::Refused { doing, cause }));
    }
    match (world.launch(host, &id), port) {
        (Ok(()), _) => reply.send(Ok(())),
        (Err(cause), Some(port)) => {
            world.mark(Mark::PortTaken);
            reply.send(Err(EngineError::PortTaken { port, cause }));
        }
        (Err(cause), None) => reply.send(Err(EngineError::Transient { doing, cause })),
    }
}

fn stop(world: &mut World, host: &HostName, owner: &Owner, id: &ContainerId, reply: Reply<()>) {
    let unit = match find(world.machine(host), owner, &id.0) {
        Ok(Some(unit)) => unit,
        Ok(None) => return reply.send(Ok(())),
        Err(error) => return reply.send(Err(error)),
    };
    let alive = matches!(
        unit.state,
        ContainerState::Running | ContainerState::Restarting { .. } | ContainerState::Paused
    );
    if !alive {
        return reply.send(Ok(()));
    }
    let mut audit = std::mem::take(&mut world.audit);
    audit.before_stop(world, host, id);
    world.audit = audit;
    // The program ends what it has begun.
    let ends = world.chance(20, 200);
    let (host, id) = (host.clone(), id.clone());
    world.after(ends, move |world| {
        if world.machine(&host).up {
            world.halt(&host, &id, 0);
            world.tell(|| format!("{host} stopped {}", id.short()));
        }
        if world.machine(&host).responds() {
            reply.send(Ok(()));
        }
    });
}

fn remove(world: &mut World, host: &HostName, owner: &Owner, id: &ContainerId, reply: Reply<()>) {
    let unit = match find(world.machine(host), owner, &id.0) {
        Ok(Some(unit)) => unit.clone(),
        Ok(None) => return reply.send(Ok(())),
        Err(error) => return reply.send(Err(error)),
    };
    match unit.state {
        ContainerState::Removing => return until_gone(world, host.clone(), id.clone(), reply),
        ContainerState::Running | ContainerState::Restarting { .. } | ContainerState::Paused => {
            let doing = format!("remove container {}", id.short());
            let cause = "it still runs: stop it first".into();
            return reply.send(Err(EngineError::Refused { doing, cause }));
        }
        ContainerState::Created | ContainerState::Exited { .. } | ContainerState::Dead => {}
    }
    let mut audit = std::mem::take(&mut world.audit);
    audit.before_remove(world, host, &unit);
    world.audit = audit;
    if let Some(unit) = world.unit(host, id) {
        unit.state = ContainerState::Removing;
        unit.start += 1;
    }
    world.touch();
    let takes = world.chance(5, 40);
    {
        let (host, id, start) = (host.clone(), id.clone(), unit.start + 1);
        world.after(takes, move |world| {
            let goes_on = world.unit(&host, &id).is_some_and(|u| u.start == start);
            if goes_on {
                if let Some(birth) = &unit.birth {
                    world.audit.removed(birth, &host);
                }
                world.tell(|| format!("{host} removed {}", unit.name));
                world.erase(&host, &id);
            }
        });
    }
    until_gone(world, host.clone(), id.clone(), reply);
}

fn until_gone(world: &mut World, host: HostName, id: ContainerId, reply: Reply<()>) {
    world.after(Duration::from_millis(10), move |world| {
        if !world.machine(&host).responds() {
            // Nobody answers any more.
        } else if world.unit(&host, &id).is_none() {
            reply.send(Ok(()));
        } else {
            until_gone(world, host, id, reply);
        }
    });
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

    async fn stop(&self, owner: &Owner, id: &ContainerId, _: Span) -> Result<(), EngineError> {
        let doing = format!("stop {}", id.short());
        let (host, owner, id) = (self.host.clone(), owner.clone(), id.clone());
        let act = move |world: &mut World, reply: Reply<()>| {
            stop(world, &host, &owner, &id, reply);
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

    async fn events(&self, _owner: &Owner) -> Result<BoxStream<'static, Stir>, EngineError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let host = self.host.clone();
        self.call(Call::Events, "listen".into(), (1, 3), move |world, reply| {
            world.machine(&host).listeners.push(sender);
            reply.send(Ok(()));
        })
        .await?;
        Ok(UnboundedReceiverStream::new(receiver).boxed())
    }

    async fn logs(
        &self,
        _owner: &Owner,
        _id: &ContainerId,
        _tail: Option<u32>,
        _follow: bool,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError> {
        let line = LogLine { is_error: true, text: "simulated".into() };
        Ok(futures_util::stream::iter([Ok(line)]).boxed())
    }

    async fn version(&self) -> Result<String, EngineError> {
        Ok("simulated".into())
    }
}
