//! Situations that a row of runs has to have met: what was never met was never tested.

use std::fmt;

use plimsoll::model::Event;

use super::world::World;

macro_rules! marks {
    ($($name:ident),* $(,)?) => {
        /// A situation that was reached.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mark { $($name),* }

        impl Mark {
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

marks! {
    CrashInDrain,
    CrashInRollout,
    CrashInRecovery,
    ReplyLost,
    ReplyOfCreateLost,
    StaleRead,
    EventsDropped,
    HostLost,
    HostLostInRollout,
    EngineLost,
    DeadContainer,
    HostFull,
    PortTaken,
    PullFailed,
    RegistryLost,
    BalancerKilled,
    BalancerFrozen,
    ReloadFailed,
    FileEdited,
    PersonMeddled,
    PersonReloaded,
    HoldSet,
    HoldLifted,
    RemoteLost,
    OldMirror,
    HistoryRewritten,
    Approved,
    HoldOfAGoodRevision,
    NothingDeclared,
    FileUnreadable,
    StoreLost,
    StoreFull,
    StepInterrupted,
    HostDrained,
    RouteMoved,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}"))
    }
}

/// What a crash interrupts.
pub fn of_crash(world: &mut World) {
    let now = world.now();
    let drains = world.balancers.values().any(|balancer| {
        let seats = balancer.worker.iter().flat_map(|worker| worker.seats.values().flatten());
        seats.into_iter().any(|(_, seat)| seat.weight == 0 && seat.busy_until > now)
    });
    if drains {
        world.mark(Mark::CrashInDrain);
    }
    if rolls_out(world) {
        world.mark(Mark::CrashInRollout);
        if world.life > 0 {
            world.mark(Mark::CrashInRecovery);
        }
    }
}

/// Some app has containers of two revisions.
pub fn rolls_out(world: &World) -> bool {
    let mut seen = std::collections::BTreeMap::new();
    let births = world.machines.values().flat_map(|machine| machine.units.values());
    births
        .filter_map(|unit| unit.birth.as_ref())
        .any(|birth| *seen.entry(&birth.app).or_insert(birth.revision) != birth.revision)
}

/// What the controller says of itself. Nothing is believed of it but that it was met.
pub fn of_event(world: &mut World, event: &Event) {
    match event.reason.as_str() {
        "Held" => world.mark(Mark::HoldSet),
        "Interrupted" => world.mark(Mark::StepInterrupted),
        "ApprovalNeeded" => {
            if let Some(id) = event.message.rsplit(' ').next() {
                world.audit.asked.insert(id.to_owned());
            }
        }
        _ => {}
    }
}
