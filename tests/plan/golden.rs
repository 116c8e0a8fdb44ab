//! Plans that a reviewer can read: `tests/golden/plan/NN-name.script` are scripts, and what each
//! `## plan` of them prints is in `NN-name.txt` beside it. `UPDATE_GOLDEN=1` writes the
//! plans anew; read the difference before it is committed.
//!
//! A script begins with what it is about, and goes on with commands on lines that begin with
//! `## `; see [`Script::command`]. The text below `## manifests` is another commit: the fleet of
//! `fleet.yaml` beside it, with these documents. At the end what is left is run, and nothing may
//! be left then but what waits for a person.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use plimsoll::model::{
    AdminState, AppId, BalancerName, ContainerState, EngineHealth, Hold, HostName, SecretName,
};
use plimsoll::plan::{Fallback, WaitCause, render};

use crate::world::{Fault, Mishap, Order, World, read};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plan")
}

/// A script that is being played.
struct Script {
    fleet: String,
    manifests: String,
    commits: u32,
    world: Option<World>,
    told: String,
}

impl Script {
    fn play(fleet: &str, text: &str) -> String {
        let mut script = Self {
            fleet: fleet.to_owned(),
            manifests: String::new(),
            commits: 0,
            world: None,
            told: String::new(),
        };
        let mut parts = text.split("\n## ");
        let about = parts.next().unwrap_or_default();
        let _ = writeln!(script.told, "{}", about.trim());
        for part in parts {
            let (command, body) = part.split_once('\n').unwrap_or((part, ""));
            let _ = writeln!(script.told, "\n## {}", command.trim());
            let words: Vec<&str> = command.split_whitespace().collect();
            script.command(&words, command, body);
        }
        script.end();
        script.told
    }

    fn world(&mut self) -> &mut World {
        self.world.as_mut().expect("manifests first")
    }

    /// One command. Machines, apps and places are named as in the manifests, apps without their
    /// environment; a number counts the containers of an app on a host, or the servers of all.
    fn command(&mut self, words: &[&str], line: &str, body: &str) {
        match words {
            ["manifests"] => self.declare(body.to_owned(), false),
            ["manifests", "alone"] => self.declare(body.to_owned(), true),
            // The same manifests with another word: `again OLD -> NEW`.
            ["again", ..] => {
                let line = line.trim_start_matches("again ");
                let (old, new) = line.split_once(" -> ").expect("OLD -> NEW");
                let text = format!("{}---\n{}", self.fleet, self.manifests);
                assert!(text.contains(old.trim()), "{old} isn't there");
                self.fleet = self.fleet.replace(old.trim(), new.trim());
                self.declare(self.manifests.replace(old.trim(), new.trim()), false);
            }
            ["plan"] => self.tell(),
            ["converge"] => {
                self.world().converge(Order::Printed, 4);
                self.world().remember();
            }
            // The first so many steps are done, then the controller ends.
            ["run", count] => {
                let world = self.world();
                let plan = world.plan();
                world.run(&plan, Order::Printed, Fault::CrashAfter(count.parse().unwrap()));
                world.pass_time();
            }
            // The whole plan, once, with what fails in it.
            ["run"] => {
                let world = self.world();
                let plan = world.plan();
                world.run(&plan, Order::Printed, Fault::None);
                world.pass_time();
            }
            // The declared image of that app never gets well.
            ["bad", name] => self.hold_or_spoil(name, None),
            ["hold", name, reason @ ..] => self.hold_or_spoil(name, Some(reason.join(" "))),
            ["forget", name] => drop(self.world().known.fallbacks.remove(&app(name))),
            ["fallback", name] => {
                let world = self.world();
                let declared = world.desired.apps[&app(name)].clone();
                let pin = world.known.pins[&app(name)].clone().unwrap();
                let fallback = std::sync::Arc::new(Fallback { app: declared, pin });
                world.known.fallbacks.insert(app(name), fallback);
            }
            ["container", host, name, nth, what @ ..] => self.container(host, name, nth, what),
            ["server", nth, what @ ..] => self.server(nth.parse().unwrap(), what),
            ["balancer", name, what @ ..] => self.balancer(name, what),
            ["host", name, "unseen"] => {
                self.world().unseen_hosts.insert(name.parse().unwrap());
            }
            ["host", name, "seen"] => {
                let name: HostName = name.parse().unwrap();
                self.world().unseen_hosts.remove(&name);
            }
            ["host", name, "foreign", port] => {
                let name: HostName = name.parse().unwrap();
                let state = self.world().hosts.get_mut(&name).unwrap();
                state.foreign_ports.insert(port.parse().unwrap());
            }
            ["points", name, address] => {
                let name: BalancerName = name.parse().unwrap();
                let all = self.world().known.last_pointers.entry(name).or_default();
                std::sync::Arc::make_mut(all).addresses.insert(address.parse().unwrap());
            }
            ["approve"] => {
                let plan = self.world().plan();
                let ids: Vec<_> = plan.waiting.iter().filter_map(|w| w.approval.clone()).collect();
                assert!(!ids.is_empty(), "nothing waits for approval");
                self.world().known.approvals.extend(ids);
            }
            ["secret", name, value] => {
                self.world().set_secret(SecretName::new(*name).unwrap(), value);
            }
            ["unresolved", name, reason @ ..] => {
                let why = Err(reason.join(" "));
                self.world().known.pins.insert(app(name), why);
            }
            ["busy", name] => drop(self.world().known.busy.insert(app(name))),
            other => panic!("no command {other:?}"),
        }
    }

    fn declare(&mut self, manifests: String, alone: bool) {
        self.commits += 1;
        self.manifests = manifests;
        let fleet = if alone { "" } else { self.fleet.as_str() };
        let desired = read(&format!("{fleet}---\n{}", self.manifests), self.commits);
        match &mut self.world {
            Some(world) => world.declare(desired),
            None => self.world = Some(World::new(desired)),
        }
    }

    fn tell(&mut self) {
        let world = self.world();
        world.pass_time();
        let plan = world.plan();
        let findings = world.findings(&plan);
        assert!(findings.is_empty(), "{findings:#?}\n{}", render(&plan, false));
        // The first line has the digest, which changes with every field.
        let text = render(&plan, false);
        let text = text.split_once('\n').map_or(text.as_str(), |(_, rest)| rest);
        self.told.push_str(text);
    }

    fn hold_or_spoil(&mut self, name: &str, reason: Option<String>) {
        let world = self.world();
        let declared = &world.desired.apps[&app(name)];
        let pin = world.known.pins[&app(name)].clone().unwrap();
        let secrets = declared.template.secrets();
        let secrets = secrets.map(|n| (n.clone(), world.known.secrets[n].clone().unwrap()));
        let revision =
            declared.template.resolve(&pin, &secrets.collect()).expect("all secrets").revision();
        match reason {
            Some(reason) => {
                let commit = world.desired.commit.clone();
                let hold = Hold { app: app(name), revision, commit, reason };
                world.known.holds.insert(app(name), hold);
            }
            None => drop(world.bad.insert(revision)),
        }
    }

    fn container(&mut self, host: &str, name: &str, nth: &str, what: &[&str]) {
        let host: HostName = host.parse().unwrap();
        let nth = self.world().place_of(&host, &app(name), nth.parse().unwrap());
        let state = |state| Mishap::ContainerState { nth, state };
        let exited = |code, out_of_memory| ContainerState::Exited { code, out_of_memory };
        self.world().befall(&match what {
            ["gone"] => Mishap::ContainerGone { nth },
            ["doubled"] => Mishap::ContainerDoubled { nth },
            ["renamed"] => Mishap::ContainerRenamed { nth },
            ["unhealthy"] => Mishap::ContainerHealth { nth, health: EngineHealth::Unhealthy },
            ["exited", code] => state(exited(code.parse().unwrap(), false)),
            ["out-of-memory"] => state(exited(137, true)),
            ["dead"] => state(ContainerState::Dead),
            ["paused"] => state(ContainerState::Paused),
            ["created"] => state(ContainerState::Created),
            ["restarting"] => state(ContainerState::Restarting { ended: None }),
            other => panic!("no such state {other:?}"),
        });
    }

    fn server(&mut self, nth: usize, what: &[&str]) {
        let admin = |admin| Mishap::ServerAdmin { nth, admin };
        self.world().befall(&match what {
            ["weight", weight] => Mishap::ServerWeight { nth, weight: weight.parse().unwrap() },
            ["drained"] => admin(AdminState::Drain),
            ["maintenance"] => admin(AdminState::Maintenance),
            ["gone"] => Mishap::ServerGone { nth },
            ["unwritten"] => Mishap::ServerUnwritten { nth },
            other => panic!("no such state {other:?}"),
        });
    }

    fn balancer(&mut self, name: &str, what: &[&str]) {
        let name: BalancerName = name.parse().unwrap();
        let nth = self.world().balancers.keys().position(|other| *other == name).unwrap();
        self.world().befall(&match what {
            ["file", "missing"] => Mishap::FileMissing { nth },
            ["file", "damaged"] => Mishap::FileDamaged { nth },
            ["down"] => Mishap::ProcessDown { nth },
            ["other-structure"] => Mishap::OtherStructure { nth },
            ["route", "gone"] => Mishap::RouteGone { nth },
            ["unseen"] => {
                self.world().unseen_balancers.insert(name);
                return;
            }
            ["seen"] => {
                self.world().unseen_balancers.remove(&name);
                return;
            }
            other => panic!("no such state {other:?}"),
        });
    }

    /// What was planned last is run to the end.
    fn end(&mut self) {
        let world = self.world();
        world.converge(Order::Printed, 4);
        let plan = world.plan();
        assert!(plan.is_empty());
        let waits =
            plan.waiting.iter().any(|waiting| !matches!(waiting.cause, WaitCause::Draining));
        let partial = waits
            || !plan.blocked.is_empty()
            || !world.known.busy.is_empty()
            || !world.unseen_hosts.is_empty()
            || !world.unseen_balancers.is_empty()
            || !world.desired.unreadable.is_empty();
        if partial {
            let _ = writeln!(self.told, "\n## after all of it: {} waiting", plan.waiting.len());
        } else {
            world.assert_as_declared();
            let _ = writeln!(self.told, "\n## after all of it: as declared");
        }
    }
}

fn app(name: &str) -> AppId {
    AppId::new("production", name).unwrap()
}

#[test]
fn plans_are_as_they_were_read() {
    let fleet = std::fs::read_to_string(folder().join("fleet.yaml")).unwrap();
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "script"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 35, "only {} scripts", scripts.len());
    let mut differences = String::new();
    for path in scripts {
        println!("{}", path.display());
        let told = Script::play(&fleet, &std::fs::read_to_string(&path).unwrap());
        let golden = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &told).unwrap();
            continue;
        }
        let was = std::fs::read_to_string(&golden).unwrap_or_default();
        if was != told {
            let _ =
                writeln!(differences, "{}\n--- golden\n{was}\n--- now\n{told}", golden.display());
        }
    }
    assert!(differences.is_empty(), "{differences}");
}
