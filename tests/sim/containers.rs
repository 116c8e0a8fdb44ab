//! What a simulated engine does with the containers of its host when it is told to, and what it
//! answers: names are looked at before anything is made, and what is removed takes a moment.

use std::sync::Arc;
use std::time::Duration;

use plimsoll::docker::EngineError;
use plimsoll::model::{
    Birth, Container, ContainerId, ContainerState, Ended, HostName, HostState, NewContainer, Owner,
    Span,
};
use tokio::sync::oneshot;

use super::machine::{Machine, Nature, Unit};
use super::mark::Mark;
use super::world::World;

/// Where the answer of a call goes.
pub struct Reply<T>(pub oneshot::Sender<Result<T, EngineError>>);

impl<T> Reply<T> {
    pub fn send(self, answer: Result<T, EngineError>) {
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

/// A container as the adapter shows it.
pub fn shown(unit: &Unit, birth: Birth, inspected: bool) -> Container {
    Container {
        id: unit.id.clone(),
        name: unit.name.clone(),
        birth,
        state: unit.state.clone(),
        health: unit.health,
        restarts: if inspected { unit.restarts } else { 0 },
    }
}

pub fn list(machine: &Machine, owner: &Owner) -> HostState {
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

pub fn gone(id_or_name: &str) -> EngineError {
    EngineError::NotOurs { id: ContainerId(id_or_name.to_owned()), cause: "it is gone".into() }
}

fn foreign(unit: &Unit, owner: &Owner) -> EngineError {
    let Owner { installation, uid } = owner;
    let cause = format!("its labels don't name the installation {installation} {uid}");
    EngineError::NotOurs { id: unit.id.clone(), cause }
}

/// The container, which has to be that owner's; none where there is none.
pub fn find<'a>(
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

pub fn create(world: &mut World, new: &NewContainer, reply: Reply<ContainerId>) {
    let NewContainer { birth, spec, host, publish } = new;
    let name = birth.container_name();
    let image = birth.pin.reference.to_string();
    if !world.machine(host).images.contains(&birth.pin.engine_name()) {
        let cause = format!("it isn't on the host: No such image: {image}");
        return reply.send(Err(EngineError::ImageMissing { image, cause }));
    }
    match at_name(world, new, &name) {
        Name::There(id) => return reply.send(Ok(id)),
        Name::Refused(error) => return reply.send(Err(error)),
        Name::Going => {
            let new = new.clone();
            return world.after(Duration::from_millis(20), move |world| create(world, &new, reply));
        }
        Name::Free => {}
    }
    if world.machine(host).is_full {
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

pub fn start(world: &mut World, host: &HostName, owner: &Owner, name: &str, reply: Reply<()>) {
    let unit = match find(world.machine(host), owner, name) {
        Ok(Some(unit)) => unit,
        Ok(None) => return reply.send(Err(gone(name))),
        Err(error) => return reply.send(Err(error)),
    };
    let (id, port, nature, doing) =
        (unit.id.clone(), unit.port, unit.nature, format!("start {}", unit.name));
    // To the engine one that waits for its restart runs, and goes on waiting.
    if unit.runs() || matches!(unit.state, ContainerState::Restarting { .. }) {
        return reply.send(Ok(()));
    }
    if unit.state == ContainerState::Paused {
        let cause = "cannot start a paused container, try unpause instead".into();
        return reply.send(Err(EngineError::Refused { doing, cause }));
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
        (Ok(()), _) => {
            if let Some(unit) = world.unit(host, &id) {
                unit.restarts = 0;
            }
            reply.send(Ok(()));
        }
        (Err(cause), Some(port)) => {
            world.mark(Mark::PortTaken);
            // The engine's own code for a start that failed.
            if let Some(Unit { state: ContainerState::Exited { code: code @ 0, .. }, .. }) =
                world.unit(host, &id)
            {
                *code = 128;
            }
            reply.send(Err(EngineError::PortTaken { port, cause }));
        }
        (Err(cause), None) => reply.send(Err(EngineError::Transient { doing, cause })),
    }
}

pub fn stop(
    world: &mut World,
    host: &HostName,
    owner: &Owner,
    (id, grace): (&ContainerId, Span),
    reply: Reply<()>,
) {
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
    let (is_deaf, state) = (unit.nature == Nature::Deaf, unit.state.clone());
    world.with_audit(|audit, world| audit.before_stop(world, host, id));
    // The program ends what it has begun. The engine counts whole seconds of grace.
    let ends = world.chance(20, 200);
    let (ends, code) = match state {
        ContainerState::Restarting { ended: Some(Ended { code, .. }) } => (ends, code),
        _ if is_deaf => (Duration::from_secs(grace.as_millis().div_ceil(1000)), 137),
        _ => (ends, 0),
    };
    let (host, id) = (host.clone(), id.clone());
    world.after(ends, move |world| {
        if world.machine(&host).up {
            world.halt(&host, &id, code);
            world.tell(|| format!("{host} stopped {}", id.short()));
        }
        if world.machine(&host).responds() {
            reply.send(Ok(()));
        }
    });
}

pub fn remove(
    world: &mut World,
    host: &HostName,
    owner: &Owner,
    id: &ContainerId,
    reply: Reply<()>,
) {
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
    world.with_audit(|audit, world| audit.before_remove(world, host, &unit));
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
