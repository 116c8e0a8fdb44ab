//! A rollout as a user starts it: a push. The remote's post-receive hook runs `plimsoll apply`,
//! which asks the running controller over its socket: so no look at an interval is waited for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::clock::{now, wait_for};
use super::harness::{Controller, Installation, app, set};
use super::{Roll, profile};

/// The backend of the app of [`app`].
const BACKEND: &str = "production.web";

/// How often HAProxy is asked who serves.
const LOOK: Duration = Duration::from_millis(5);

/// Pushes to one installation, one after the other.
pub struct Pushes<'a> {
    shop: &'a Installation,
    controller: &'a Controller<'a>,
}

impl<'a> Pushes<'a> {
    /// Puts the hook into the remote.
    pub fn begin(shop: &'a Installation, controller: &'a Controller<'a>) -> Self {
        let pushes = Self { shop, controller };
        let apply = shop.command(["apply", "-o", "json"]);
        let words = std::iter::once(apply.get_program()).chain(apply.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.display())).collect();
        let files = ["pushed", "applied", "errors", "ended"].map(|name| pushes.file(name));
        let [pushed, applied, errors, ended] = files;
        let script = format!(
            "#!/bin/sh\ndate +%s%N >{}\n{{ {} >{} 2>{}; echo $? >{}; }} </dev/null >/dev/null 2>&1 &\n",
            pushed.display(),
            words.join(" "),
            applied.display(),
            errors.display(),
            ended.display(),
        );
        let hook = shop.repository.remote().join("hooks/post-receive");
        fs::create_dir_all(hook.parent().expect("it is in a folder")).unwrap();
        fs::write(&hook, script).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        pushes
    }

    fn file(&self, name: &str) -> PathBuf {
        self.shop.folder().join(name)
    }

    /// Pushes a new revision; returns when everything has come to rest.
    pub fn roll(&mut self, round: u32) -> Roll {
        let old = self.serving();
        let log_before = self.controller.log().len();
        let _ = fs::remove_file(self.file("ended"));
        let web = set(app("web"), "/image", format!("web:{}", 1 + (round + 1) % 3));
        self.shop.write_app(&set(web, "/env/DEPLOY", round.to_string()));
        self.shop.repository.push(&format!("Revision {round}"));
        let end = wait_for("all traffic is on the new revision", LOOK, || {
            let serving = self.serving();
            let is_new = serving.len() == 4 && serving.iter().all(|name| !old.contains(name));
            is_new.then(now)
        });
        let code = wait_for("apply ends", LOOK, || {
            let code = fs::read_to_string(self.file("ended")).ok()?;
            code.ends_with('\n').then_some(code)
        });
        let applied = fs::read_to_string(self.file("applied")).unwrap();
        let errors = fs::read_to_string(self.file("errors")).unwrap();
        assert_eq!(code.trim(), "0", "{applied}{errors}");
        let applied: Value = serde_json::from_str(&applied).unwrap();
        let pushed = fs::read_to_string(self.file("pushed")).unwrap();
        let begin = Duration::from_nanos(pushed.trim().parse().unwrap());
        let log = self.controller.log();
        let profile = profile::of_log(begin, end, &applied, &log[log_before..]);
        Roll { total: end - begin, profile }
    }

    /// The servers that requests are sent to.
    fn serving(&self) -> Vec<String> {
        let servers = self.shop.balancer().try_servers().unwrap_or_default();
        let of_app = servers.into_iter().filter(|server| server.backend == BACKEND);
        of_app.filter(|server| server.weight > 0).map(|server| server.name).collect()
    }
}
