//! Two Docker Engines for all tests of one process. Each test has an installation of its own on
//! them, and may touch nothing else.

use std::path::Path;
use std::sync::OnceLock;

use super::claim::claim;
use super::dockerd::Dockerd;
use super::engine::Engine;
use super::web;

/// Engines `alpha` (127.0.0.1) and `beta` (127.0.0.2), with the images of the demo app.
pub struct Fleet {
    pub dockerds: Vec<Dockerd>,
    pub alpha: Engine,
    pub beta: Engine,
}

impl Fleet {
    /// The engines of this process, started when they are first asked for.
    pub fn shared() -> &'static Self {
        static FLEET: OnceLock<Fleet> = OnceLock::new();
        FLEET.get_or_init(Self::start)
    }

    /// Engines of one test's own, for tests that stop them.
    pub fn start() -> Self {
        let images = web::images();
        let dockerds: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                let dockerd = start_dockerd();
                images.load(&Engine::new(&dockerd.socket));
                dockerd
            };
            let both = [scope.spawn(start), scope.spawn(start)];
            both.map(|one| one.join().unwrap()).into_iter().collect()
        });
        let (alpha, beta) = (Engine::new(&dockerds[0].socket), Engine::new(&dockerds[1].socket));
        Self { dockerds, alpha, beta }
    }

    /// Names, engines and addresses.
    pub fn hosts(&self) -> [(&'static str, &Engine, &'static str); 2] {
        [("alpha", &self.alpha, "127.0.0.1"), ("beta", &self.beta, "127.0.0.2")]
    }
}

/// Starts an engine under a number that no other test run uses.
pub fn start_dockerd() -> Dockerd {
    let number = claim("engine", 100..190, |number| {
        !Path::new(&format!("/sys/class/net/plmt{number}")).exists()
    });
    Dockerd::start(u8::try_from(number).unwrap())
}
