//! What one change costs, by the controller's own counters and by what the engines were asked:
//! it is that of the change, whatever the size of the fleet.
//!
//! The counters are taken from a controller that is converged and quiet, before the change and
//! after it. What passes by itself meanwhile is known: looks at HAProxy once a second, and a list
//! of each host every 30 s. The rest has to be the change's.
//!
//! How often the loop wakes for one change depends on how busy the machine is, and so do the
//! looks and plans. What one look or plan costs doesn't: that is what is held here, and what is
//! done at most once for each step or container.

#[path = "faults/b_engine.rs"]
mod engine;
#[path = "harness/engine_proxy.rs"]
mod engine_proxy;
mod harness;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::BrokenEngine;
use harness::{
    Controller, Fleet, Installation, Status, app, document, environment, set, wait_until,
};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Between two lists of a host that nothing asks for.
const FRESH: Duration = Duration::from_secs(30);

/// How often one look asks a balancer: its master, and its worker.
const CALLS_OF_A_LOOK: u64 = 2;

/// A fleet, its controller, and the ways to its engines, which note what is asked for.
struct Fixture<'a> {
    shop: &'a Installation,
    controller: Controller<'a>,
    alpha: &'a BrokenEngine,
    beta: &'a BrokenEngine,
    /// How often each host was listed while costs were taken.
    lists: (u64, u64),
}

/// What a change cost.
#[derive(Debug)]
struct Cost {
    counters: BTreeMap<String, u64>,
    /// Lists and other calls that each host's engine was asked.
    alpha: Asked,
    beta: Asked,
    /// The apps whose objects aren't as they were.
    apps: BTreeSet<String>,
    took: Duration,
}

#[derive(Debug, Default)]
struct Asked {
    lists: u64,
    others: Vec<String>,
}

impl Asked {
    fn new(lines: Vec<String>) -> Self {
        let is_list = |line: &String| line.contains("/containers/json");
        let (lists, others): (Vec<_>, Vec<_>) = lines.into_iter().partition(is_list);
        Self { lists: lists.len() as u64, others }
    }
}

/// What a change may cost at most, or exactly.
#[derive(Default)]
struct Expected<'a> {
    /// Blobs that are read and files that are parsed, exactly.
    files: u64,
    /// The apps that it touches; the objects of all others stay as they are.
    apps: &'a [&'a str],
    /// Exactly, but for removals of what goes by itself.
    steps: u64,
    removals: u64,
    /// Calls that make, start, stop or remove a container, exactly, at each host.
    alpha: usize,
    beta: usize,
}

impl Cost {
    #[track_caller]
    fn of(&self, counter: &str) -> u64 {
        *self.counters.get(counter).unwrap_or_else(|| panic!("no {counter}: {self:?}"))
    }

    /// Calls to HAProxy beside those of the looks. A look that had begun when the counters were
    /// taken makes this one fewer or more, at both ends.
    #[track_caller]
    fn haproxy_calls_of_steps(&self) -> u64 {
        (self.of("haproxyCalls") + 1).saturating_sub(CALLS_OF_A_LOOK * self.of("looks"))
    }

    #[track_caller]
    fn expect(&self, what: &str, expected: &Expected<'_>) {
        let seconds = self.took.as_secs() + 1;
        let steps = expected.steps;
        let check = |name: &str, count: u64, least: u64, most: u64| {
            assert!(
                (least..=most).contains(&count),
                "{what}: {count} {name} instead of {least} to {most}: {self:#?}"
            );
        };
        check("blobsRead", self.of("blobsRead"), expected.files, expected.files);
        check("filesParsed", self.of("filesParsed"), expected.files, expected.files);
        // What a slow host kept from one plan is waited for once more by the next.
        let again = if self.of("slowHosts") == 0 { 0 } else { steps };
        check("steps", self.of("steps"), steps, steps + expected.removals + again);

        // Each step, each event of a container and the commit may be a reason to plan.
        let changes = (expected.alpha + expected.beta) as u64;
        let plans = self.of("plans");
        check("plans", plans, 0, steps + changes + 4);
        let apps = expected.apps.len() as u64;
        let touched: BTreeSet<String> = expected.apps.iter().map(|app| (*app).to_owned()).collect();
        let others: Vec<_> = self.apps.difference(&touched).collect();
        // All apps of a host that is slow to answer, as those of a busy machine are, are left alone
        // until it has, and that is written.
        if self.of("slowHosts") == 0 {
            assert!(others.is_empty(), "{what}: {others:?} were written: {self:#?}");
            check("appsPlanned", self.of("appsPlanned"), 0, apps * plans);
            // An App and its container at each plan, and once what works.
            check("objectsWritten", self.of("objectsWritten"), 0, (2 * plans + 2) * apps);
        }

        // Two looks a second without a reason, and one for each plan; those that turn out to have
        // had none are as many again.
        check("looks", self.of("looks"), 0, 3 * seconds + 2 * plans + changes);
        // A step at HAProxy asks it six times at most, but for waits, which ask while they wait.
        let polls = if changes > 0 { 25 * seconds * apps } else { 0 };
        check("calls of steps to HAProxy", self.haproxy_calls_of_steps(), 0, 2 + 6 * steps + polls);

        let mut seen = 0;
        for (host, asked, changes) in
            [("alpha", &self.alpha, expected.alpha), ("beta", &self.beta, expected.beta)]
        {
            let done = asked.others.iter().filter(|line| !line.starts_with("GET ")).count();
            check(
                &format!("changing calls to {host}"),
                done as u64,
                changes as u64,
                changes as u64,
            );
            // A container is looked at before and after each change, at each event, and while it
            // is waited for; a host on which nothing changes is left alone.
            let most = if changes > 0 { 6 * changes + 25 * seconds as usize } else { 0 };
            check(&format!("calls to {host}"), asked.others.len() as u64, 0, most as u64);
            let lists = 1 + self.took.as_secs() / FRESH.as_secs();
            check(&format!("lists of {host}"), asked.lists, 0, lists);
            seen += asked.others.len() as u64;
        }
        // The counter says what the engines saw; lists may come between the two looks at it.
        let lists = 2 * (1 + self.took.as_secs() / FRESH.as_secs());
        check("engineCalls", self.of("engineCalls"), seen, seen + lists);
    }
}

impl Fixture<'_> {
    /// Waits until the controller has reached the commit and then does nothing but look.
    #[track_caller]
    fn quiet(&mut self) -> Status {
        const DOINGS: [&str; 5] =
            ["plans", "steps", "objectsWritten", "appsPlanned", "filesParsed"];
        let commit = self.shop.repository.head();
        let before: RefCell<Option<Status>> = RefCell::default();
        self.controller.wait_for_status("converged and quiet", |status| {
            let count = |status: &Status, name: &str| status.counters[name];
            let mut before = before.borrow_mut();
            let quiet = before.as_ref().filter(|before| {
                status.is_converged_at(&commit)
                    && DOINGS.iter().all(|name| count(before, name) == count(status, name))
            });
            match quiet {
                Some(before) => count(before, "looks") + 2 <= count(status, "looks"),
                None => {
                    *before = Some(status.clone());
                    false
                }
            }
        })
    }

    /// The version of each App's object.
    #[track_caller]
    fn versions(&self) -> BTreeMap<String, u64> {
        let apps: Vec<Value> = {
            let all: Value = self.shop.plimsoll(["get", "apps", "-o", "json"]).expect(0).json();
            all.as_array().or(all["items"].as_array()).expect("a list").clone()
        };
        let version = |app: &Value| {
            let metadata = &app["metadata"];
            let version = metadata["resourceVersion"].as_u64().expect("a number");
            (metadata["name"].as_str().expect("a name").to_owned(), version)
        };
        apps.iter().map(version).collect()
    }

    /// Makes a change, and tells what it cost until all is quiet again. `done` tells that it was
    /// noticed, where no commit does.
    #[track_caller]
    fn cost(
        &mut self,
        what: &str,
        change: impl FnOnce(&Installation),
        done: impl Fn(&Installation) -> bool,
    ) -> Cost {
        let before = self.quiet();
        let versions = self.versions();
        self.alpha.seen();
        self.beta.seen();
        let begin = Instant::now();
        change(self.shop);
        wait_until(Controller::DEADLINE, what, || done(self.shop));
        let after = self.quiet();
        let counters = after.counters.iter();
        let counters = counters.map(|(name, count)| (name.clone(), count - before.counters[name]));
        let now = self.versions();
        let names: BTreeSet<_> = versions.keys().chain(now.keys()).cloned().collect();
        let cost = Cost {
            counters: counters.collect(),
            alpha: Asked::new(self.alpha.seen()),
            beta: Asked::new(self.beta.seen()),
            apps: names.into_iter().filter(|name| versions.get(name) != now.get(name)).collect(),
            took: begin.elapsed(),
        };
        self.lists.0 += cost.alpha.lists;
        self.lists.1 += cost.beta.lists;
        eprintln!("{what}: {:?}, {:?} in {:?}", cost.counters, cost.apps, cost.took);
        cost
    }

    #[track_caller]
    fn commit(
        &mut self,
        what: &str,
        change: impl FnOnce(&Installation),
        expected: Expected<'_>,
    ) -> Cost {
        let change = |shop: &Installation| {
            change(shop);
            shop.repository.push(what);
        };
        let cost = self.cost(what, change, |_| true);
        cost.expect(what, &expected);
        cost
    }
}

/// An app with a route, with one container on that host. A check has time enough on a machine
/// that is busy: one that fails would be a change.
fn web(name: &str, host: &str) -> Value {
    let patient =
        json!({"path": "/_status", "interval": "1s", "timeout": "10s", "deadline": "60s"});
    set(set(set(app(name), "/replicas", 1), "/hosts", json!([host])), "/health", patient)
}

/// The same, with a container on each host.
fn on_both(name: &str) -> Value {
    set(web(name, "alpha"), "/hosts", json!(["alpha", "beta"]))
}

/// An app without port and routes.
fn worker(name: &str, host: &str) -> Value {
    let mut worker = web(name, host);
    for field in ["port", "routes", "drain"] {
        worker["spec"].as_object_mut().unwrap().remove(field);
    }
    set(worker, "/health", json!({"settle": "500ms"}))
}

fn staged(mut app: Value) -> Value {
    app["metadata"]["environment"] = json!("staging");
    app
}

/// With the fields of a base.
fn based(mut app: Value) -> Value {
    for field in ["health", "drain", "stop"] {
        app["spec"].as_object_mut().unwrap().remove(field);
    }
    set(app, "/base", "../base/web.yaml")
}

fn base() -> String {
    let spec = &web("base", "alpha")["spec"];
    let shared = json!({"health": spec["health"], "drain": spec["drain"], "stop": spec["stop"]});
    serde_yaml::to_string(&shared).unwrap()
}

/// The number of the app that has a secret.
const WITH_SECRET: usize = 6;

fn with_secret(app: Value) -> Value {
    set(app, "/env", json!({"TOKEN": {"secret": "app-06/token"}}))
}

/// So many apps: of each five two with routes, one of which has a container on both hosts; a
/// worker; one with a base; one in another environment.
fn declare(shop: &Installation, count: usize) {
    shop.write("environments/staging.yaml", &environment("staging"));
    shop.repository.write("base/web.yaml", &base());
    shop.write_secret("app-06/token", "first");
    for number in 0..count {
        let name = format!("app-{number:02}");
        let host = ["alpha", "beta"][number % 2];
        shop.write_app(&match number % 5 {
            0 => on_both(&name),
            _ if number == WITH_SECRET => with_secret(web(&name, host)),
            1 => web(&name, host),
            2 => worker(&name, host),
            3 => based(web(&name, host)),
            _ => staged(web(&name, host)),
        });
    }
}

/// A converged fleet of so many apps under a controller. There is one at a time: what another
/// one's start does to the machine would be seen as changes of this one.
fn with_fleet(name: &str, count: usize, test: impl FnOnce(&mut Fixture<'_>)) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let fleet = Fleet::shared();
    let shop = Installation::new(name);
    let (alpha, beta) = (BrokenEngine::before(&fleet.alpha), BrokenEngine::before(&fleet.beta));
    shop.write("hosts/alpha.yaml", &alpha.host(&shop, "alpha", "127.0.0.1"));
    shop.write("hosts/beta.yaml", &beta.host(&shop, "beta", "127.0.0.2"));
    declare(&shop, count);
    shop.repository.push("The fleet");
    let controller = shop.start();
    let (alpha, beta) = (&alpha, &beta);
    let mut fleet = Fixture { shop: &shop, controller, alpha, beta, lists: (0, 0) };
    fleet.quiet();
    test(&mut fleet);
}

/// The id of the only container of an app.
#[track_caller]
fn container_of(shop: &Installation, app: &str) -> String {
    let containers = shop.containers_of(app);
    assert_eq!(containers.len(), 1, "{containers:?}");
    containers.into_values().next().unwrap()
}

/// True where the app has one container that runs, and it is another one.
fn is_replaced(shop: &Installation, app: &str, old: &str) -> bool {
    let (all, running) = (shop.containers_of(app), shop.running());
    all.len() == 1 && all.iter().all(|(name, id)| id != old && running.contains_key(name))
}

#[test]
fn a_commit_costs_what_it_touches() {
    with_fleet("commits", 12, |fleet| {
        let begin = Instant::now();
        let readme = |shop: &Installation| shop.repository.write("README.md", "Our fleet.\n");
        let cost = fleet.commit("what is no manifest", readme, Expected::default());
        assert_eq!((cost.of("appsPlanned"), cost.of("objectsWritten")), (0, 0), "{cost:#?}");

        // Create, start, stop and remove are the four calls of a container that is replaced.
        let app = ["production/app-02"];
        let expected = Expected { files: 1, apps: &app, steps: 5, alpha: 4, ..Expected::default() };
        let worker_02 = set(worker("app-02", "alpha"), "/env/A", "1");
        fleet.commit("the env of a worker", |shop| shop.write_app(&worker_02), expected);

        let app = ["production/app-01"];
        let expected = Expected { files: 1, apps: &app, steps: 11, beta: 4, ..Expected::default() };
        let web_01 = set(web("app-01", "beta"), "/env/A", "1");
        fleet.commit("the env of an app with a route", |shop| shop.write_app(&web_01), expected);

        let apps = ["production/app-03", "production/app-08"];
        let both =
            |apps| Expected { files: 1, apps, steps: 22, alpha: 4, beta: 4, ..Expected::default() };
        let base = format!("{}env: {{B: x}}\n", base());
        let change = |shop: &Installation| shop.repository.write("base/web.yaml", &base);
        fleet.commit("a base of two apps", change, both(&apps));

        let apps = ["staging/app-04", "staging/app-09"];
        let staging = document("Environment", "staging", &json!({"env": {"C": "x"}}));
        let change = |shop: &Installation| shop.write("environments/staging.yaml", &staging);
        fleet.commit("an Environment of two apps", change, both(&apps));

        let app = ["production/app-00"];
        let expected = Expected { files: 1, apps: &app, steps: 2, ..Expected::default() };
        let weights = set(on_both("app-00"), "/weights", json!({"alpha": 10, "beta": 50}));
        fleet.commit("weights", |shop| shop.write_app(&weights), expected);

        let app = ["production/app-01"];
        let expected = Expected { files: 1, apps: &app, steps: 1, ..Expected::default() };
        let route = json!([{"balancer": "edge", "listener": "web", "host": "other.example.com"}]);
        let moved = set(web_01, "/routes", route);
        fleet.commit("a route", |shop| shop.write_app(&moved), expected);

        let app = ["production/new-worker"];
        let expected = Expected { files: 1, apps: &app, steps: 3, beta: 2, ..Expected::default() };
        let new = worker("new-worker", "beta");
        fleet.commit("a new worker", |shop| shop.write_app(&new), expected);

        let expected = Expected { apps: &app, steps: 2, beta: 2, ..Expected::default() };
        fleet.commit("a worker less", |shop| shop.remove_app("new-worker"), expected);

        let app = ["production/new"];
        let new = Expected { files: 1, apps: &app, steps: 8, beta: 2, ..Expected::default() };
        fleet.commit("a new app with a route", |shop| shop.write_app(&web("new", "beta")), new);

        let gone = Expected { apps: &app, steps: 7, beta: 2, ..Expected::default() };
        fleet.commit("an app with a route less", |shop| shop.remove_app("new"), gone);

        // No change was a reason to list a host.
        let most = 2 + begin.elapsed().as_secs() / FRESH.as_secs();
        let (alpha, beta) = fleet.lists;
        assert!(alpha <= most && beta <= most, "{alpha} and {beta} lists, at most {most}");
    });
}

#[test]
fn what_happens_on_a_host_costs_what_it_touches() {
    with_fleet("events", 7, |fleet| {
        let (begin, alpha) = (Instant::now(), &Fleet::shared().alpha);
        let app = ["production/app-02"];
        // Where it is seen before it is gone, it is removed once more.
        let old = container_of(fleet.shop, "app-02");
        let remove = |_: &Installation| alpha.remove(&old);
        let cost = fleet.cost("removed", remove, |shop| is_replaced(shop, "app-02", &old));
        let expected =
            Expected { apps: &app, steps: 3, removals: 1, alpha: 2, ..Expected::default() };
        cost.expect("a removed container", &expected);

        let old = container_of(fleet.shop, "app-02");
        let kill = |_: &Installation| drop(alpha.docker(["kill", &old]).expect(0));
        let cost = fleet.cost("killed", kill, |shop| is_replaced(shop, "app-02", &old));
        let expected = Expected { apps: &app, steps: 4, alpha: 3, ..Expected::default() };
        cost.expect("a killed container", &expected);

        // An event after which all is as it was: one container is looked at, once.
        let id = container_of(fleet.shop, "app-02");
        alpha.docker(["kill", "-s", "CONT", &id]).expect(0);
        let signal = |_: &Installation| drop(alpha.docker(["kill", "-s", "CONT", &id]).expect(0));
        let cost = fleet.cost("a signal", signal, |_| true);
        for counter in ["plans", "appsPlanned", "objectsWritten", "steps"] {
            assert_eq!(cost.of(counter), 0, "{counter}: {cost:#?}");
        }
        assert_eq!(cost.beta.others.len(), 0, "{cost:#?}");
        let [looked] = &cost.alpha.others[..] else { panic!("one call: {cost:#?}") };
        assert!(looked.starts_with("GET ") && looked.contains(&id), "{looked}");

        let app = ["production/app-01"];
        let server = fleet.shop.balancer().weights("production.app-01").into_keys().next().unwrap();
        let command = format!("set weight production.app-01/{server} 7");
        let change = |shop: &Installation| drop(shop.balancer().runtime(&command).unwrap());
        let is_back = |shop: &Installation| {
            shop.balancer().weights("production.app-01").values().all(|weight| *weight == 100)
        };
        let cost = fleet.cost("a weight", change, is_back);
        cost.expect("a weight", &Expected { apps: &app, steps: 1, ..Expected::default() });

        let app = ["production/app-06"];
        let old = container_of(fleet.shop, "app-06");
        let rotate = |shop: &Installation| shop.write_secret("app-06/token", "second");
        let cost = fleet.cost("a secret", rotate, |shop| is_replaced(shop, "app-06", &old));
        let expected = Expected { apps: &app, steps: 11, alpha: 4, ..Expected::default() };
        cost.expect("a secret", &expected);

        let most = 2 + begin.elapsed().as_secs() / FRESH.as_secs();
        let (alpha, beta) = fleet.lists;
        assert!(alpha <= most && beta <= most, "{alpha} and {beta} lists, at most {most}");
    });
}

/// What doesn't depend on how often the loop woke.
fn fixed_costs(cost: &Cost) -> Vec<u64> {
    let counters = ["blobsRead", "filesParsed", "steps"].map(|counter| cost.of(counter));
    let changing = |asked: &Asked| asked.others.iter().filter(|l| !l.starts_with("GET ")).count();
    let changes = [&cost.alpha, &cost.beta].map(|asked| changing(asked) as u64);
    counters.into_iter().chain(changes).collect()
}

#[test]
fn the_size_of_the_fleet_is_in_no_cost() {
    let mut calls = Vec::new();
    let costs = [4, 16].map(|count| {
        let mut costs = Vec::new();
        with_fleet(&format!("size-{count}"), count, |fleet| {
            // At rest nothing is planned and nothing is written.
            let begin = Instant::now();
            let rest = |_: &Installation| begin.elapsed() >= Duration::from_secs(10);
            let idle = fleet.cost("nothing", |_| (), rest);
            idle.expect("nothing", &Expected::default());
            for counter in ["plans", "appsPlanned", "objectsWritten"] {
                assert_eq!(idle.of(counter), 0, "{counter}: {idle:#?}");
            }
            // With a look at the remote each second, as here: one when it is asked, one when it
            // has answered, and one for HAProxy, which has no events.
            let looks = idle.of("looks") as f64 / idle.took.as_secs_f64();
            assert!(looks <= 3.5, "{looks} looks a second: {idle:#?}");
            assert!(idle.haproxy_calls_of_steps() <= 2, "{idle:#?}");

            let app = ["production/app-00"];
            let expected = Expected { files: 1, apps: &app, steps: 2, ..Expected::default() };
            let weights = set(on_both("app-00"), "/weights", json!({"alpha": 10, "beta": 50}));
            let cost = fleet.commit("weights", |shop| shop.write_app(&weights), expected);
            costs.push(fixed_costs(&cost));
            calls.push(cost.haproxy_calls_of_steps());

            let app = ["production/app-02"];
            let expected =
                Expected { files: 1, apps: &app, steps: 5, alpha: 4, ..Expected::default() };
            let changed = set(worker("app-02", "alpha"), "/env/A", "1");
            let cost = fleet.commit("a worker", |shop| shop.write_app(&changed), expected);
            costs.push(fixed_costs(&cost));

            let app = ["production/app-01"];
            let expected =
                Expected { files: 1, apps: &app, steps: 11, beta: 4, ..Expected::default() };
            let changed = set(web("app-01", "beta"), "/env/A", "1");
            let cost = fleet.commit("an app", |shop| shop.write_app(&changed), expected);
            costs.push(fixed_costs(&cost));
        });
        costs
    });
    assert_eq!(costs[0], costs[1]);
    assert!(calls[0].abs_diff(calls[1]) <= 2, "calls to HAProxy for weights: {calls:?}");
}
