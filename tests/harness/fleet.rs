//! Two Docker Engines for all tests of one process. Each test has an installation of its own on
//! them, and may touch nothing else.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::claim::claim;
use super::command::run;
use super::dockerd::Dockerd;
use super::engine::Engine;
use super::wait::wait_until;
use super::watchdog::{self, Leftover};
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
        Self::start_with([&[], &[]])
    }

    /// The same with more arguments for each dockerd.
    pub fn start_with(arguments: [&[&str]; 2]) -> Self {
        let images = web::images();
        let dockerds: Vec<_> = std::thread::scope(|scope| {
            let start = |arguments| {
                let dockerd = start_dockerd_with(arguments);
                images.load(&Engine::new(&dockerd.socket()));
                dockerd
            };
            let both = arguments.map(|arguments| scope.spawn(move || start(arguments)));
            both.map(|one| one.join().unwrap()).into_iter().collect()
        });
        let (alpha, beta) =
            (Engine::new(&dockerds[0].socket()), Engine::new(&dockerds[1].socket()));
        Self { dockerds, alpha, beta }
    }

    /// Names, engines and addresses.
    pub fn hosts(&self) -> [(&'static str, &Engine, &'static str); 2] {
        [("alpha", &self.alpha, "127.0.0.1"), ("beta", &self.beta, "127.0.0.2")]
    }

    /// Kills the `nth` engine without warning; [`Dockerd::run`] starts it again.
    pub fn kill(&mut self, nth: usize) {
        self.dockerds[nth].kill();
        self.forget_containerd(nth);
    }

    /// Asks the `nth` engine to end; [`Dockerd::run`] starts it again.
    pub fn terminate(&mut self, nth: usize) {
        self.dockerds[nth].terminate();
        self.forget_containerd(nth);
    }

    fn forget_containerd(&self, nth: usize) {
        let dockerd = &self.dockerds[nth];
        // The kernel ends containerd together with dockerd. Until init has taken note, its
        // number is still there, and the next dockerd would wait for it in vain.
        let pid_file = dockerd.folder().join("exec/containerd/containerd.pid");
        let pid = std::fs::read_to_string(&pid_file).unwrap_or_default();
        wait_until(Duration::from_secs(10), "containerd has ended", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()));
            status.is_err() || status.is_ok_and(|status| status.contains("State:\tZ"))
        });
        let _ = std::fs::remove_file(pid_file);
    }
}

/// Starts an engine under a number that no other test run uses.
pub fn start_dockerd() -> Dockerd {
    start_dockerd_with(&[])
}

fn start_dockerd_with(more: &[&str]) -> Dockerd {
    let number = claim("engine", 100..190, |number| {
        !Path::new(&format!("/sys/class/net/plmt{number}")).exists()
    });
    let bridge = format!("plmt{number}");
    watchdog::remember(&Leftover::Engine(&bridge));
    let mut arguments = vec![
        // By its control group the watchdog finds the processes of its containers.
        format!("--cgroup-parent=/{bridge}"),
        // Published ports are on loopback, where docker-proxy serves them: engines side by side
        // need not share the chains of one firewall.
        "--iptables=false".to_owned(),
        "--ip-masq=false".to_owned(),
        "--shutdown-timeout=3".to_owned(),
        // With its five attempts an engine tells after 75 s that a layer can't be had.
        "--max-download-attempts=1".to_owned(),
    ];
    arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    let dockerd = Dockerd::start_with(u8::try_from(number).unwrap(), &arguments);
    watchdog::remember(&Leftover::Folder(dockerd.folder().to_str().unwrap()));
    let mark = watchdog::mark();
    run(Command::new("ip").args(["link", "set", "dev", &bridge, "alias", &mark])).expect(0);
    dockerd
}
