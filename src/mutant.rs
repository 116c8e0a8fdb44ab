//! Deliberate bugs, for tests alone: a check that never fails checks nothing. With the feature
//! `mutants`, one of them can be switched on in a thread, and the simulator has to find it.
//! Without the feature, which no release has, [`is`] is never true, and nothing is left of it.

macro_rules! mutants {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// One of the bugs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant { $($(#[$doc])* $variant),* }

        impl Mutant {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name under which a command line knows it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

mutants! {
    /// The uid in a container's labels isn't looked at.
    Ownership = "ownership",
    /// A container is stopped without waiting for what has to be done before.
    StopAtOnce = "stop-at-once",
    /// A host that can't be seen is taken for one that is empty.
    UnseenAsEmpty = "unseen-as-empty",
    /// A host's answer is believed that is older than what was done since.
    StaleSnapshot = "stale-snapshot",
    /// Nobody waits until HAProxy finds a server up.
    SkipWaitUp = "skip-wait-up",
    /// A revision that failed isn't remembered.
    ForgetHold = "forget-hold",
    /// What was remembered of holds isn't looked at.
    RetryHeld = "retry-held",
    /// An older commit that a mirror shows is applied.
    OlderCommit = "older-commit",
    /// A rewritten history is followed without asking.
    RewrittenHistory = "rewritten-history",
    /// Whatever is no longer declared is removed without asking.
    MassDeletion = "mass-deletion",
    /// An app whose file can't be read is taken for one that isn't declared.
    UnreadableAsGone = "unreadable-as-gone",
    /// A port that HAProxy still points to is given to another container.
    PortReused = "port-reused",
    /// A port that turned out to be taken is tried again.
    TakenPortForgotten = "taken-port-forgotten",
    /// A reload writes the servers without their weights.
    WeightsLost = "weights-lost",
    /// A balancer that can't be seen keeps nobody from stopping containers.
    UnseenBalancer = "unseen-balancer",
    /// A list of containers is good for ever where no event says otherwise.
    EventsOnly = "events-only",
    /// What an answer that is thrown away would have told isn't asked for again.
    LookForgotten = "look-forgotten",
    /// A commit that is taken up isn't written down.
    SkipJournal = "skip-journal",
    /// Nobody goes on while some host or balancer can't be seen.
    UnseenHoldsUp = "unseen-holds-up",
    /// Nobody goes on while some file can't be read.
    UnreadableHoldsUp = "unreadable-holds-up",
    /// A call that wasn't answered is taken for done.
    UnansweredAsDone = "unanswered-as-done",
}

#[cfg(feature = "mutants")]
std::thread_local! {
    static CURRENT: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Switches a bug on in this thread, or all off.
#[cfg(feature = "mutants")]
pub fn set(mutant: Option<Mutant>) {
    CURRENT.set(mutant);
}

/// The bug that is on in this thread.
#[cfg(feature = "mutants")]
pub fn current() -> Option<Mutant> {
    CURRENT.get()
}

/// True where this bug is on.
#[cfg(feature = "mutants")]
pub fn is(mutant: Mutant) -> bool {
    current() == Some(mutant)
}

/// True where this bug is on: never.
#[cfg(not(feature = "mutants"))]
pub const fn is(_: Mutant) -> bool {
    false
}
