//! The simulator's engine, in a world that has nothing else.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use plimsoll::docker::Engine;
use plimsoll::model::{ContainerId, ContainerState, HostName, ImageContent, ImageRef, Pin, Sha256};
use tokio::task::JoinHandle;

use crate::engine_lab::{EngineLab, Program};
use crate::sim::engine::SimEngine;
use crate::sim::machine::Machine;
use crate::sim::world::{Sim, World};

pub struct SimulatedEngine {
    sim: Sim,
    host: HostName,
    engine: SimEngine,
    next_port: AtomicU16,
    time: JoinHandle<()>,
}

/// Listens on a port of the host until it is dropped.
struct Holder {
    sim: Sim,
    host: HostName,
    port: u16,
}

impl Drop for Holder {
    fn drop(&mut self) {
        let Self { sim, host, port } = self;
        sim.with(|world| world.machine(host).busy_ports.remove(port));
    }
}

impl Drop for SimulatedEngine {
    fn drop(&mut self) {
        self.time.abort();
    }
}

impl SimulatedEngine {
    /// Has to be called where time is paused.
    pub fn start() -> Self {
        let (sim, host) = (Sim::new(7), HostName::new("alpha").unwrap());
        let mut machine = Machine::new(host.clone(), [127, 0, 0, 1].into());
        for program in [Program::Runs, Program::Deaf, Program::Crashes, Program::Unstartable] {
            machine.images.insert(pin(program).engine_name());
        }
        sim.with(|world| world.machines.insert(host.clone(), machine));
        let engine = SimEngine::new(&sim, host.clone());
        let time = tokio::spawn(sim.clone().keep_time());
        Self { sim, host, engine, next_port: AtomicU16::new(20_000), time }
    }

    fn with<T>(&self, act: impl FnOnce(&mut World, &HostName) -> T) -> T {
        self.sim.with(|world| act(world, &self.host))
    }
}

/// The simulator's programs behave as their image's tag says.
fn pin(program: Program) -> Pin {
    let tag = match program {
        Program::Runs | Program::Well => "1",
        Program::Deaf => "1-deaf",
        Program::Crashes => "1-crash",
        Program::Sick => "1-sick",
        Program::Unstartable => "1-refused",
    };
    let reference = format!("contract:{tag}");
    let content = ImageContent::Id(Sha256::of(reference.as_bytes()));
    Pin { reference: reference.parse().unwrap(), content }
}

impl EngineLab for SimulatedEngine {
    fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    fn image(&self, program: Program) -> Pin {
        let pin = pin(program);
        self.with(|world, host| world.machine(host).images.insert(pin.engine_name()));
        pin
    }

    fn free_port(&self) -> u16 {
        self.next_port.fetch_add(1, Ordering::Relaxed)
    }

    fn hold_port(&self, port: u16) -> Box<dyn Any + Send> {
        self.with(|world, host| world.machine(host).busy_ports.insert(port));
        Box::new(Holder { sim: self.sim.clone(), host: self.host.clone(), port })
    }

    fn foreign(&self, name: &str, port: u16, runs: bool) -> ContainerId {
        self.with(|world, host| {
            let (name, labels) = (name.to_owned(), BTreeMap::new());
            let id = world.place(host, name, labels, "foreign", Some(port));
            if runs {
                world.launch(host, &id).unwrap();
            }
            id
        })
    }

    fn status(&self, id: &ContainerId) -> Option<String> {
        let word = |state: &ContainerState| match state {
            ContainerState::Created => "created",
            ContainerState::Running => "running",
            ContainerState::Restarting { .. } => "restarting",
            ContainerState::Paused => "paused",
            ContainerState::Exited { .. } => "exited",
            ContainerState::Removing => "removing",
            ContainerState::Dead => "dead",
        };
        self.with(|world, host| world.unit(host, id).map(|unit| word(&unit.state).to_owned()))
    }

    fn kill_program(&self, id: &ContainerId) {
        self.with(|world, host| world.kill(host, id));
    }

    fn kill_by_hand(&self, id: &ContainerId) {
        self.with(|world, host| world.halt(host, id, 137));
    }

    fn pause_by_hand(&self, id: &ContainerId) {
        self.with(|world, host| world.unit(host, id).unwrap().state = ContainerState::Paused);
    }

    fn rename_by_hand(&self, id: &ContainerId, name: &str) {
        self.with(|world, host| name.clone_into(&mut world.unit(host, id).unwrap().name));
    }

    fn remove_by_hand(&self, id: &ContainerId) {
        self.with(|world, host| world.erase(host, id));
    }

    fn begin_registry(&self) -> ImageRef {
        "registry.example/web:1".parse().unwrap()
    }

    fn end_registry(&self) {
        self.with(|world, _| {
            let long = Duration::from_secs(86_400);
            world.registries_down_until = Some(world.now() + long);
        });
    }

    fn end_engine(&self) {
        self.with(|world, host| world.stop_engine(host));
    }

    fn begin_engine(&self) {
        self.with(|world, host| world.machine(host).engine = true);
    }
}
