//! Faults as data: what happens, and when. They print, replay and shrink.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub when: When,
    pub what: What,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Fault {
    type Err = serde_json::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// The n-th call of that kind, from 0, counted over the whole run.
    Call(Call, u32),
    /// The n-th call that changes something, of whatever kind.
    Change(u32),
    /// So many milliseconds after the beginning.
    At(u64),
}

/// The kinds of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Call {
    Observe,
    Inspect,
    Image,
    Resolve,
    Pull,
    Create,
    Start,
    Stop,
    Remove,
    Events,
    ObserveBalancer,
    Server,
    Sessions,
    /// HAProxy's file is replaced.
    File,
    /// Commands to HAProxy's process.
    Runtime,
    /// HAProxy gets a new worker, or is started.
    Reload,
    Fetch,
    Files,
    /// Something is written to the disk.
    Store,
}

impl Call {
    pub fn changes(self) -> bool {
        matches!(
            self,
            Self::Pull
                | Self::Create
                | Self::Start
                | Self::Stop
                | Self::Remove
                | Self::File
                | Self::Runtime
                | Self::Reload
                | Self::Store
        )
    }
}

/// What happens. Containers, servers and machines are picked by number, round and round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// The call isn't done, and fails.
    FailBefore,
    /// It is done, and its answer is lost.
    LoseReply,
    /// It is done after so many milliseconds.
    Delay(u64),
    /// What it tells is so many milliseconds old.
    Stale(u64),
    /// It is done twice.
    Twice,
    /// The controller is killed before the call is sent, or when it was done and before its
    /// answer came.
    CrashBefore,
    CrashAfter,
    /// The controller is killed now.
    Crash,
    /// The engine loses events for so long.
    DropEvents {
        host: usize,
        millis: u64,
    },
    HostDown {
        host: usize,
        millis: u64,
    },
    /// The engine ends; its containers go on.
    EngineDown {
        host: usize,
        millis: u64,
    },
    /// The disk of a host is full for so long.
    HostFull {
        host: usize,
        millis: u64,
    },
    /// A program takes the lowest free port of the host's range.
    PortTaken {
        host: usize,
    },
    RegistriesDown {
        millis: u64,
    },
    /// HAProxy is killed: nothing brings it back but Plimsoll.
    BalancerKilled {
        balancer: usize,
    },
    /// Its sockets don't answer for so long.
    BalancerFrozen {
        balancer: usize,
        millis: u64,
    },
    /// The next reload isn't taken.
    ReloadRefused {
        balancer: usize,
    },
    GitDown {
        millis: u64,
    },
    /// The remote shows its first commit again for so long.
    GitMirror {
        millis: u64,
    },
    /// The last commit is replaced by another of the same content.
    GitRewritten,
    /// What isn't journalled is gone: the controller is killed, and sled's files are deleted.
    StoreLost,
    /// The disk of the controller is full for so long.
    StoreFull {
        millis: u64,
    },
    /// `docker stop`, `docker rm -f`, a kill of its program.
    PersonStops {
        nth: usize,
    },
    PersonRemoves {
        nth: usize,
    },
    ProgramKilled {
        nth: usize,
    },
    /// `set server weight`, `set server state drain`, `del server`, by hand.
    PersonWeighs {
        nth: usize,
        weight: u16,
    },
    PersonDrains {
        nth: usize,
    },
    PersonDeletesServer {
        nth: usize,
    },
    /// A line is added to HAProxy's file.
    PersonEdits {
        balancer: usize,
    },
    /// SIGUSR2 to HAProxy's master.
    PersonReloads {
        balancer: usize,
    },
}

impl What {
    /// It is about the call that it comes with; others happen to the world.
    pub fn is_of_call(&self) -> bool {
        matches!(
            self,
            Self::FailBefore
                | Self::LoseReply
                | Self::Delay(_)
                | Self::Stale(_)
                | Self::Twice
                | Self::CrashBefore
                | Self::CrashAfter
        )
    }

    /// How long it lasts, in milliseconds.
    pub fn lasts(&self) -> u64 {
        match self {
            Self::Delay(millis)
            | Self::DropEvents { millis, .. }
            | Self::HostDown { millis, .. }
            | Self::EngineDown { millis, .. }
            | Self::HostFull { millis, .. }
            | Self::RegistriesDown { millis }
            | Self::BalancerFrozen { millis, .. }
            | Self::GitDown { millis }
            | Self::GitMirror { millis }
            | Self::StoreFull { millis } => *millis,
            _ => 0,
        }
    }

    /// Somebody changes HAProxy by hand.
    pub fn is_of_a_person(&self) -> bool {
        matches!(
            self,
            Self::PersonWeighs { .. }
                | Self::PersonDrains { .. }
                | Self::PersonDeletesServer { .. }
                | Self::PersonEdits { .. }
                | Self::PersonReloads { .. }
                | Self::BalancerKilled { .. }
        )
    }

    /// The fault itself makes containers come or go that an undisturbed run doesn't touch.
    pub fn forces_containers(&self) -> bool {
        matches!(
            self,
            Self::PersonStops { .. }
                | Self::PersonRemoves { .. }
                | Self::ProgramKilled { .. }
                | Self::PortTaken { .. }
                | Self::HostDown { .. }
                | Self::EngineDown { .. }
        )
    }
}

/// Counts the calls, and knows which of them meet a fault.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    faults: Vec<Fault>,
    /// How many calls there were of each kind.
    pub counts: BTreeMap<Call, u32>,
    pub changes: u32,
    /// The faults that came to pass.
    pub met: u32,
}

impl Gate {
    pub fn new(faults: &[Fault]) -> Self {
        let of_calls = faults.iter().filter(|fault| !matches!(fault.when, When::At(_)));
        Self { faults: of_calls.cloned().collect(), ..Self::default() }
    }

    /// A call begins: what happens to it.
    pub fn enter(&mut self, call: Call) -> Vec<What> {
        let count = self.counts.entry(call).or_default();
        let (nth, change) = (*count, self.changes);
        *count += 1;
        if call.changes() {
            self.changes += 1;
        }
        let meets = |fault: &Fault| match fault.when {
            When::Call(kind, number) => kind == call && number == nth,
            When::Change(number) => call.changes() && number == change,
            When::At(_) => false,
        };
        if !self.faults.iter().any(meets) {
            return Vec::new();
        }
        let (met, left): (Vec<Fault>, Vec<Fault>) =
            std::mem::take(&mut self.faults).into_iter().partition(meets);
        self.faults = left;
        self.met += met.len() as u32;
        met.into_iter().map(|fault| fault.what).collect()
    }
}
