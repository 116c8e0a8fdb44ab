//! Controllers that live in the world, one after the other: the real one, with the simulated
//! seams.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use plimsoll::clock::{Clock, Random};
use plimsoll::reconcile::{Controller, ControllerOptions, GitOptions, Parts};
use plimsoll::source::SecretFolder;
use tokio_util::sync::CancellationToken;

use super::call::Caller;
use super::engine::SimEngines;
use super::proxy::SimProxies;
use super::remote::SimSource;
use super::store::SimStore;
use super::world::Sim;

/// The world's time of day.
struct SimClock(Sim);

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let millis = self.0.with(|world| world.millis());
        Timestamp::from_millisecond(1_700_000_000_000 + millis as i64).unwrap_or_default()
    }
}

/// A controller, as a process that just started.
pub fn controller(sim: &Sim, seed: u64) -> Arc<Controller> {
    let life = sim.with(|world| {
        world.alive = true;
        world.tell(|| "a controller begins".into());
        world.life
    });
    let caller = Caller { sim: sim.clone(), life: Some(life) };
    let parts = Parts {
        source: Arc::new(SimSource { caller: caller.clone() }),
        secrets: SecretFolder::new("/nonexistent"),
        engines: Arc::new(SimEngines::new(caller.clone())),
        proxies: Arc::new(SimProxies::new(caller.clone())),
        store: Arc::new(SimStore::open(caller)),
        clock: Arc::new(SimClock(sim.clone())),
        randomness: Arc::new(Random::seeded(seed.wrapping_add(life))),
    };
    let options = ControllerOptions {
        repo: "sim://fleet".into(),
        branch: "main".into(),
        path: None,
        worktree: false,
        state: "/nonexistent".into(),
        secrets: "/nonexistent".into(),
        interval: Duration::from_secs(3),
        git: GitOptions::default(),
        docker_config: None,
        haproxy: "haproxy".into(),
    };
    Arc::new(Controller::new(options, parts))
}

/// Keeps a controller running: one that is killed is followed by another. `current` holds the
/// one that runs.
pub async fn keep_alive(
    sim: Sim,
    seed: u64,
    current: Arc<std::sync::Mutex<Option<Arc<Controller>>>>,
) {
    loop {
        let crashed = sim.crashed.clone();
        let controller = controller(&sim, seed);
        *current.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Some(controller.clone());
        let running = tokio::spawn(async move { controller.run(CancellationToken::new()).await });
        crashed.notified().await;
        running.abort();
        let pause = sim.with(|world| world.chance(500, 3000));
        tokio::time::sleep(pause).await;
    }
}
