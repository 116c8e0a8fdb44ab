//! A rollout as a user starts it: a push to the remote that a running controller looks at again
//! and again. A hook of the remote notes the time right before the branch moves: a look at the
//! remote may see the commit before any later hook has run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::clock::{now, wait_for};
use super::harness::{Controller, Installation, app, set};
use super::{Roll, profile};

/// The backend of the app of [`app`].
const BACKEND: &str = "production.web";

/// How often HAProxy is asked who serves.
const LOOK: Duration = Duration::from_millis(5);

/// What the controller is started with: nothing wakes it at a push, so it looks often.
const RUN: [&str; 3] = ["run", "--interval", "100ms"];

/// The parts of its log that tell where time goes.
const LOG: &str = "info,plimsoll::source=debug,plimsoll::docker=debug,plimsoll::proxy=debug,\
                   plimsoll::execute=debug";

/// Pushes to one installation, one after the other.
pub struct Pushes<'a> {
    shop: &'a Installation,
    controller: Controller<'a>,
}

impl<'a> Pushes<'a> {
    /// Puts the hook into the remote, and starts the controller.
    pub fn begin(shop: &'a Installation) -> Self {
        let mut command = shop.command(RUN);
        let controller = Controller::spawn(shop, command.env("PLIMSOLL_LOG", LOG));
        let pushes = Self { shop, controller };
        let script = format!("#!/bin/sh\ndate +%s%N >{}\n", pushes.note().display());
        let hook = shop.repository.remote().join("hooks/update");
        fs::create_dir_all(hook.parent().expect("it is in a folder")).unwrap();
        fs::write(&hook, script).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        pushes
    }

    /// Where the hook notes the time.
    fn note(&self) -> PathBuf {
        self.shop.folder().join("pushed")
    }

    /// Pushes a new revision; returns when everything has come to rest.
    pub fn roll(&mut self, round: u32) -> Roll {
        let old = self.serving();
        let log_before = self.controller.log().len();
        let web = set(app("web"), "/image", format!("web:{}", 1 + (round + 1) % 3));
        self.shop.write_app(&set(web, "/env/DEPLOY", round.to_string()));
        let commit = self.shop.repository.push(&format!("Revision {round}"));
        let end = wait_for("all traffic is on the new revision", LOOK, || {
            let serving = self.serving();
            let is_new = serving.len() == 4 && serving.iter().all(|name| !old.contains(name));
            is_new.then(now)
        });
        self.controller.wait_for_commit(&commit);
        let pushed = fs::read_to_string(self.note()).unwrap();
        let begin = Duration::from_nanos(pushed.trim().parse().unwrap());
        let log = self.controller.log();
        let profile = profile::of_log(begin, end, &commit, &log[log_before..]);
        Roll { total: end - begin, profile }
    }

    /// The servers that requests are sent to.
    fn serving(&self) -> Vec<String> {
        let servers = self.shop.balancer().try_servers().unwrap_or_default();
        let of_app = servers.into_iter().filter(|server| server.backend == BACKEND);
        of_app.filter(|server| server.weight > 0).map(|server| server.name).collect()
    }

    /// The controller, which goes on.
    pub fn end(self) -> Controller<'a> {
        self.controller
    }
}
