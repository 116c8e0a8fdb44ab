//! Simulated hosts: what an engine does with its containers by itself. Names are unique, ports
//! are taken when a container starts, programs need a while until they answer, and what ends is
//! started again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use plimsoll::docker::Stir;
use plimsoll::model::{
    Birth, ContainerId, ContainerState, Ended, EngineHealth, HostName, InstallationName, Owner,
    Sha256, label,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::mark::Mark;
use super::world::World;

/// How a program behaves. The image's tag says it: `NAME:VERSION-NATURE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nature {
    /// It answers after some tenths of a second.
    Good,
    /// It answers after some seconds.
    Slow,
    /// It runs, and never answers.
    Sick,
    /// It ends right after each start.
    Crashing,
    /// It answers, and dies some seconds later, each time.
    Late,
    /// No registry has it.
    Unpullable,
    /// Whoever starts it is refused for good.
    Refused,
    /// It answers, and doesn't end when it is told to.
    Deaf,
}

impl Nature {
    pub fn of(image: &str) -> Self {
        match image.rsplit_once('-').map(|(_, nature)| nature) {
            Some("slow") => Self::Slow,
            Some("sick") => Self::Sick,
            Some("crash") => Self::Crashing,
            Some("late") => Self::Late,
            Some("nopull") => Self::Unpullable,
            Some("refused") => Self::Refused,
            Some("deaf") => Self::Deaf,
            _ => Self::Good,
        }
    }

    /// A rollout to it succeeds.
    pub fn works(self) -> bool {
        matches!(self, Self::Good | Self::Slow | Self::Deaf)
    }
}

/// A container, ours or not.
#[derive(Debug, Clone)]
pub struct Unit {
    pub id: ContainerId,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub birth: Option<Birth>,
    pub nature: Nature,
    pub state: ContainerState,
    pub health: Option<EngineHealth>,
    /// Between two of the engine's own checks, where there are any.
    pub checked_every: Option<Duration>,
    pub restarts: u32,
    /// The port on the host.
    pub port: Option<u16>,
    /// Its program answers at its port.
    pub answers: bool,
    /// Somebody stopped it: the engine doesn't start it again.
    pub stopped: bool,
    /// Counts its starts: what was to happen to an earlier one doesn't.
    pub start: u32,
    /// How often its program said that it has begun, which is all that programs say.
    pub begun: usize,
}

/// One host with its engine.
#[derive(Debug)]
pub struct Machine {
    pub name: HostName,
    pub address: IpAddr,
    /// The host runs.
    pub up: bool,
    /// Its engine answers.
    pub engine: bool,
    pub units: BTreeMap<ContainerId, Unit>,
    pub images: BTreeSet<String>,
    /// Ports that programs outside of containers have.
    pub busy_ports: BTreeSet<u16>,
    pub is_full: bool,
    /// Events are lost.
    pub is_mute: bool,
    /// Until then nobody may know of what no event told.
    pub unheard_until: Option<Instant>,
    /// Each hears of the containers of one installation.
    pub listeners: Vec<(InstallationName, mpsc::UnboundedSender<Stir>)>,
    /// What others have here, as it was made.
    pub foreign: BTreeMap<ContainerId, String>,
}

impl Machine {
    pub fn new(name: HostName, address: IpAddr) -> Self {
        Self {
            name,
            address,
            up: true,
            engine: true,
            units: BTreeMap::new(),
            images: BTreeSet::new(),
            busy_ports: BTreeSet::new(),
            is_full: false,
            is_mute: false,
            unheard_until: None,
            listeners: Vec::new(),
            foreign: BTreeMap::new(),
        }
    }

    /// Calls are answered.
    pub fn responds(&self) -> bool {
        self.up && self.engine
    }

    pub fn named(&self, id_or_name: &str) -> Option<&Unit> {
        self.units.values().find(|unit| unit.id.0 == id_or_name || unit.name == id_or_name)
    }

    /// The birth of a container, where it is that owner's.
    pub fn ours(unit: &Unit, owner: &Owner) -> Option<Birth> {
        owner.birth_of(&unit.labels)
    }

    /// What has that port now.
    fn holder_of(&self, port: u16) -> Option<String> {
        if self.busy_ports.contains(&port) {
            return Some("a program".into());
        }
        let holds = |unit: &&Unit| unit.port == Some(port) && unit.has_port();
        self.units.values().find(holds).map(|unit| unit.name.clone())
    }

    /// Some of what happened here was in no event, and no list has shown it yet.
    pub fn is_unheard(&self, now: Instant) -> bool {
        self.unheard_until.is_some_and(|until| until > now)
    }

    pub fn stir(&mut self, id: &ContainerId) {
        if self.is_mute || !self.engine {
            return;
        }
        let labels = self.units.get(id).map(|unit| &unit.labels);
        let installation = labels.and_then(|labels| labels.get(&label("installation")));
        self.listeners.retain(|(name, to)| {
            let concerns = installation.is_some_and(|of| *of == name.as_str());
            !concerns || to.send(Stir::Container(id.clone())).is_ok()
        });
    }
}

impl Unit {
    /// The engine publishes its port: not that of one that waits for its restart.
    fn has_port(&self) -> bool {
        matches!(self.state, ContainerState::Running | ContainerState::Paused)
    }

    pub fn runs(&self) -> bool {
        self.state == ContainerState::Running
    }
}

impl World {
    pub fn machine(&mut self, host: &HostName) -> &mut Machine {
        self.machines.get_mut(host).expect("a host of this world")
    }

    pub fn unit(&mut self, host: &HostName, id: &ContainerId) -> Option<&mut Unit> {
        self.machines.get_mut(host)?.units.get_mut(id)
    }

    /// Puts a container on a host. It doesn't run yet.
    pub fn place(
        &mut self,
        host: &HostName,
        name: String,
        labels: BTreeMap<String, String>,
        image: &str,
        port: Option<u16>,
    ) -> ContainerId {
        let number = self.number();
        let id = ContainerId(Sha256::of(format!("container {number}").as_bytes()).hex());
        let unit = Unit {
            id: id.clone(),
            name,
            birth: Birth::from_labels(&labels),
            labels,
            nature: Nature::of(image),
            state: ContainerState::Created,
            health: None,
            checked_every: None,
            restarts: 0,
            port,
            answers: false,
            stopped: false,
            start: 0,
            begun: 0,
        };
        let machine = self.machine(host);
        machine.units.insert(id.clone(), unit);
        machine.stir(&id);
        self.touch();
        id
    }

    /// A container of somebody else, which runs and is to be left alone.
    pub fn place_foreign(
        &mut self,
        host: &HostName,
        name: &str,
        labels: BTreeMap<String, String>,
        port: Option<u16>,
    ) {
        let id = self.place(host, name.to_owned(), labels, "foreign", port);
        let _ = self.launch(host, &id);
        self.machine(host).foreign.insert(id, name.to_owned());
    }

    /// Starts a container, or starts it again. An error names what has its port.
    pub fn launch(&mut self, host: &HostName, id: &ContainerId) -> Result<(), String> {
        let machine = self.machine(host);
        let Some(unit) = machine.units.get(id) else { return Ok(()) };
        if unit.runs() {
            return Ok(());
        }
        if let Some(port) = unit.port
            && !unit.has_port()
            && let Some(holder) = machine.holder_of(port)
        {
            return Err(format!(
                "Bind for 0.0.0.0:{port} failed: port is already allocated ({holder})"
            ));
        }
        let unit = machine.units.get_mut(id).expect("it is there");
        unit.state = ContainerState::Running;
        unit.health = unit.checked_every.map(|_| EngineHealth::Starting);
        unit.stopped = false;
        unit.start += 1;
        unit.begun += 1;
        let (start, nature, checked_every) = (unit.start, unit.nature, unit.checked_every);
        machine.stir(id);
        self.touch();
        let ready = match nature {
            Nature::Good | Nature::Deaf | Nature::Late | Nature::Unpullable | Nature::Refused => {
                Some(self.chance(50, 400))
            }
            Nature::Slow => Some(self.chance(1500, 3000)),
            Nature::Sick | Nature::Crashing => None,
        };
        let ends = match nature {
            Nature::Crashing => Some(self.chance(30, 150)),
            Nature::Late => Some(self.chance(4000, 6000)),
            _ => None,
        };
        if let Some(ready) = ready {
            let (host, id) = (host.clone(), id.clone());
            self.after(ready, move |world| world.set_answering(&host, &id, start, true));
        }
        if let Some(ends) = ends {
            let (host, id) = (host.clone(), id.clone());
            self.after(ends, move |world| world.end(&host, &id, start, 1));
        }
        if let Some(every) = checked_every {
            self.check_health(host.clone(), id.clone(), start, every, 3);
        }
        Ok(())
    }

    /// The engine's own checks: the first that passes makes it healthy, the third that fails in
    /// a row unhealthy.
    fn check_health(
        &mut self,
        host: HostName,
        id: ContainerId,
        start: u32,
        every: Duration,
        left: u32,
    ) {
        self.after(every, move |world| {
            let Some(unit) = world.unit(&host, &id).filter(|u| u.start == start && u.runs()) else {
                return;
            };
            let health = match (unit.nature, left) {
                (Nature::Sick, 1) => EngineHealth::Unhealthy,
                (Nature::Sick, _) => {
                    return world.check_health(host, id, start, every, left - 1);
                }
                _ => EngineHealth::Healthy,
            };
            unit.health = Some(health);
            world.machine(&host).stir(&id);
            world.touch();
        });
    }

    fn set_answering(&mut self, host: &HostName, id: &ContainerId, start: u32, answers: bool) {
        let Some(unit) = self.unit(host, id).filter(|unit| unit.start == start && unit.runs())
        else {
            return;
        };
        unit.answers = answers;
        self.notice(host, id);
    }

    /// HAProxies find out when something begins or ceases to answer.
    fn notice(&mut self, host: &HostName, id: &ContainerId) {
        self.touch();
        let machine = &self.machines[host];
        let Some(port) = machine.units.get(id).and_then(|unit| unit.port) else { return };
        let address = SocketAddr::new(machine.address, port);
        self.check_servers_at(address);
    }

    /// The program of that start ends by itself; the engine starts it again, later each time.
    fn end(&mut self, host: &HostName, id: &ContainerId, start: u32, code: i64) {
        let Some(unit) = self.unit(host, id).filter(|unit| unit.start == start && unit.runs())
        else {
            return;
        };
        unit.answers = false;
        unit.health = None;
        unit.state =
            ContainerState::Restarting { ended: Some(Ended { code, out_of_memory: false }) };
        unit.restarts += 1;
        let pause = Duration::from_millis(100) * 2u32.pow(unit.restarts.min(9) - 1);
        self.machine(host).stir(id);
        self.notice(host, id);
        let (host, id) = (host.clone(), id.clone());
        self.after(pause, move |world| {
            let waits = world.unit(&host, &id).is_some_and(|unit| {
                unit.start == start && matches!(unit.state, ContainerState::Restarting { .. })
            });
            if waits && world.machine(&host).up && world.launch(&host, &id).is_err() {
                world.give_up(&host, &id, code);
            }
        });
    }

    /// A restart that fails is the last: it has ended as it ended before.
    fn give_up(&mut self, host: &HostName, id: &ContainerId, code: i64) {
        let Some(unit) = self.unit(host, id) else { return };
        unit.state = ContainerState::Exited { code, out_of_memory: false };
        self.machine(host).stir(id);
        self.touch();
    }

    /// Its program dies as if it had been killed.
    pub fn kill(&mut self, host: &HostName, id: &ContainerId) {
        if let Some(start) = self.unit(host, id).map(|unit| unit.start) {
            self.end(host, id, start, 137);
        }
    }

    /// Ends it for good: the engine doesn't start it again.
    pub fn halt(&mut self, host: &HostName, id: &ContainerId, code: i64) {
        let Some(unit) = self.unit(host, id) else { return };
        // Nothing runs there that could be stopped, and the removal goes on.
        if unit.state == ContainerState::Removing {
            return;
        }
        unit.answers = false;
        unit.health = None;
        unit.stopped = true;
        unit.start += 1;
        unit.state = ContainerState::Exited { code, out_of_memory: false };
        self.machine(host).stir(id);
        self.notice(host, id);
    }

    pub fn erase(&mut self, host: &HostName, id: &ContainerId) {
        let Some(unit) = self.unit(host, id) else { return };
        unit.answers = false;
        unit.start += 1;
        self.notice(host, id);
        let machine = self.machine(host);
        machine.stir(id);
        machine.units.remove(id);
    }

    /// Power goes; nothing answers.
    pub fn take_down(&mut self, host: &HostName) {
        let machine = self.machine(host);
        machine.up = false;
        machine.listeners.clear();
        let ids: Vec<ContainerId> = machine.units.keys().cloned().collect();
        for id in ids {
            let Some(unit) = self.unit(host, &id) else { continue };
            unit.start += 1;
            unit.answers = false;
            unit.health = None;
            if unit.runs() || matches!(unit.state, ContainerState::Restarting { .. }) {
                unit.state = ContainerState::Exited { code: 255, out_of_memory: false };
            }
            if unit.state == ContainerState::Removing {
                unit.state = ContainerState::Dead;
            }
            self.notice(host, &id);
        }
    }

    /// Power comes back; the engine starts what nobody had stopped.
    pub fn bring_up(&mut self, host: &HostName) {
        let machine = self.machine(host);
        machine.up = true;
        let exited = |unit: &&Unit| {
            !unit.stopped && matches!(unit.state, ContainerState::Exited { code: 255, .. })
        };
        let ids: Vec<ContainerId> =
            machine.units.values().filter(exited).map(|unit| unit.id.clone()).collect();
        for id in ids {
            let _ = self.launch(host, &id);
        }
        self.touch();
    }

    /// The engine's process ends; containers go on, removals don't.
    pub fn stop_engine(&mut self, host: &HostName) {
        let machine = self.machine(host);
        let mut left = false;
        machine.engine = false;
        machine.listeners.clear();
        for unit in machine.units.values_mut() {
            if unit.state == ContainerState::Removing {
                unit.state = ContainerState::Dead;
                unit.start += 1;
                left = true;
            }
        }
        if left {
            self.mark(Mark::DeadContainer);
        }
        self.touch();
    }
}
