//! The way of a call from the controller into the world, with what may happen to it on the way.

use std::time::Duration;

use super::fault::{Call, What};
use super::mark::Mark;
use super::world::{Sim, World};

/// How a caller is known: the calls of a controller that was killed are never answered.
#[derive(Clone)]
pub struct Caller {
    pub sim: Sim,
    /// The controller that it belongs to; none for calls that no controller makes.
    pub life: Option<u64>,
}

/// What is to become of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fate {
    pub fails: bool,
    pub reply_lost: bool,
    pub delay: Duration,
    pub stale: Duration,
    pub twice: bool,
    crash_after: bool,
}

impl Caller {
    pub fn new(sim: &Sim) -> Self {
        Self { sim: sim.clone(), life: None }
    }

    pub fn is_dead(&self, world: &World) -> bool {
        self.life.is_some_and(|life| life != world.life || !world.alive)
    }

    /// A call begins. It never returns to a controller that was killed.
    pub async fn enter(&self, call: Call, about: impl FnOnce() -> String) -> Fate {
        match self.sim.with(|world| self.fate(world, call, about)) {
            Some(fate) => fate,
            None => std::future::pending().await,
        }
    }

    /// What becomes of a call; none where the controller is no more.
    pub fn fate(
        &self,
        world: &mut World,
        call: Call,
        about: impl FnOnce() -> String,
    ) -> Option<Fate> {
        if self.is_dead(world) {
            return None;
        }
        let mut fate = Fate::default();
        if self.life.is_none() {
            return Some(fate);
        }
        let whats = world.gate.enter(call);
        if call.changes() || !whats.is_empty() {
            world.tell(|| match whats.is_empty() {
                true => format!("{call:?} {}", about()),
                false => format!("{call:?} {} meets {whats:?}", about()),
            });
        }
        world.audit.last_call = Some(call);
        for what in whats {
            match what {
                What::FailBefore => fate.fails = true,
                What::LoseReply => {
                    fate.reply_lost = true;
                    world.mark(Mark::ReplyLost);
                    if call == Call::Create {
                        world.mark(Mark::ReplyOfCreateLost);
                    }
                }
                What::Delay(millis) => {
                    fate.delay += Duration::from_millis(millis);
                    if matches!(call, Call::Stop | Call::Remove) {
                        world.audit.late_until = Some(world.now() + fate.delay);
                    }
                }
                What::Stale(millis) => {
                    fate.stale += Duration::from_millis(millis);
                    world.mark(Mark::StaleRead);
                }
                What::Twice => fate.twice = true,
                What::CrashBefore => {
                    world.crash();
                    return None;
                }
                What::CrashAfter => fate.crash_after = true,
                other => world.befall(&other),
            }
        }
        if self.is_dead(world) { None } else { Some(fate) }
    }

    /// A call was done, and its answer is on its way.
    pub async fn leave(&self, fate: Fate) {
        let lives = self.sim.with(|world| self.end(world, fate));
        if !lives {
            std::future::pending::<()>().await;
        }
    }

    /// False where the controller is no more.
    pub fn end(&self, world: &mut World, fate: Fate) -> bool {
        if fate.crash_after && !self.is_dead(world) {
            world.crash();
        }
        !self.is_dead(world)
    }
}
