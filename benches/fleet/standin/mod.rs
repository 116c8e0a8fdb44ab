//! Docker Engines that are none: each answers the real HTTP API on a Unix socket of its own, and
//! keeps its containers in memory. Thousands of them live in one thread, so that a controller can
//! be measured on a fleet that no machine could hold.
//!
//! They know the calls that Plimsoll makes, and answer them as Docker 20.10 does: the same
//! status codes, texts and fields (`tests/standin_engine.rs` compares the two). Containers are
//! created, running, restarting or exited; none is ever paused or dead. What isn't modelled is
//! refused as a page that isn't there, never answered with something made up.

#![allow(dead_code, unused_imports, reason = "the benchmark and the contract use a part each")]

mod calls;
mod container;
mod events;
mod image;
mod program;
mod question;
mod server;
mod state;
mod texts;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::watch;

pub use calls::{Call, Counts};
pub use image::Image;

use calls::{Counters, Gauge};
use state::State;

/// One stand-in, by what can be done to it from outside its API.
#[derive(Clone)]
pub struct StandIn {
    inner: Arc<Inner>,
    socket: PathBuf,
}

/// What its connections share.
struct Inner {
    state: Mutex<State>,
    counters: Counters,
    connections: Gauge,
    /// How long each call takes, in microseconds.
    delay: AtomicU64,
    hangs: watch::Sender<bool>,
    /// How many containers run, here and on the engines beside it.
    running: Arc<AtomicI64>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as calls take here; for ever while the engine hangs.
    async fn take_time(&self) {
        let mut hangs = self.hangs.subscribe();
        // The sender lives as long as the engine does.
        let _ = hangs.wait_for(|hangs| !hangs).await;
        let delay = self.delay.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_micros(delay)).await;
        }
    }
}

impl StandIn {
    /// Where it is reached.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The engine has this image from now on.
    pub fn add_image(&self, image: &Image) {
        self.inner.state().add_image(image.clone());
    }

    /// A registry has this image from now on: the engine can resolve and pull it.
    pub fn offer_image(&self, image: &Image) {
        self.inner.state().offer_image(image.clone());
    }

    /// Each call takes that long from now on.
    pub fn set_delay(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.inner.delay.store(micros, Ordering::Relaxed);
    }

    /// From now on it accepts connections and reads requests, but answers none of them and tells
    /// no events; or it does again, also those that came meanwhile.
    pub fn set_hanging(&self, hangs: bool) {
        self.inner.state().set_silent(hangs);
        self.inner.hangs.send_replace(hangs);
    }

    /// How often it was asked what.
    pub fn counts(&self) -> Counts {
        self.inner.counters.counts()
    }

    /// How many connections it had at one time at most; one of them is for its events.
    pub fn most_connections(&self) -> u64 {
        self.inner.connections.most()
    }

    /// How many of its containers fit.
    pub fn count(&self, fits: impl Fn(Seen<'_>) -> bool) -> usize {
        self.inner.state().seen().filter(|seen| fits(*seen)).count()
    }
}

/// A container as the driver of a measurement sees it, without a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<'a> {
    pub name: &'a str,
    pub labels: &'a std::collections::BTreeMap<String, String>,
    pub running: bool,
}

/// Stand-ins that live together.
pub struct Fleet {
    engines: Vec<StandIn>,
    running: Arc<AtomicI64>,
}

impl Fleet {
    /// `count` engines with sockets in `folder`. Has to be called in the runtime that they will
    /// live in, and they end with it.
    ///
    /// # Errors
    /// A socket can't be bound.
    pub fn start(folder: &Path, count: usize) -> io::Result<Self> {
        let running = Arc::new(AtomicI64::new(0));
        let start = |number| start(folder.join(format!("{number}.sock")), number, &running);
        let engines = (0..count).map(start).collect::<io::Result<_>>()?;
        Ok(Self { engines, running })
    }

    pub fn engines(&self) -> &[StandIn] {
        &self.engines
    }

    /// How many containers run on all engines.
    pub fn running(&self) -> usize {
        usize::try_from(self.running.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// How often all engines were asked what.
    pub fn counts(&self) -> Counts {
        self.engines.iter().map(StandIn::counts).sum()
    }
}

fn start(socket: PathBuf, number: usize, running: &Arc<AtomicI64>) -> io::Result<StandIn> {
    let listener = UnixListener::bind(&socket)?;
    let inner = Arc::new(Inner {
        state: Mutex::new(State::new(number, running.clone())),
        counters: Counters::default(),
        connections: Gauge::default(),
        delay: AtomicU64::new(0),
        hangs: watch::Sender::new(false),
        running: running.clone(),
    });
    tokio::spawn(server::serve(listener, inner.clone()));
    Ok(StandIn { inner, socket })
}
