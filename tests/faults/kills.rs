//! SIGKILL at random moments of rollouts, under load: of the controller, of engines, of HAProxy's
//! worker and master. Everything comes true in the end, what belongs to others stays, and nobody
//! loses a request unless what was killed is on the request's way.
//!
//! The moments are drawn from a seed. `PLIMSOLL_TEST_SEED=7` draws others, and with
//! `PLIMSOLL_TEST_ROUNDS=20` there are more.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{
    Engine, Fleet, Installation, Load, LowestServing, app, set, signal, wait_for, wait_until,
};
use crate::words::{events, let_users_come};

/// Whole numbers from the environment.
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// Moments, with the seed in the output of a test that fails.
fn moments(test: u64) -> StdRng {
    let seed = number("PLIMSOLL_TEST_SEED", 1);
    println!("PLIMSOLL_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed * 1000 + test)
}

/// Returns at a moment within `most` that is drawn.
fn at_some_moment(moments: &mut StdRng, most: Duration) {
    let moment = most.mul_f64(moments.random());
    let begin = Instant::now();
    wait_until(most * 2, "the moment", || begin.elapsed() >= moment);
}

/// Containers that aren't ours on an engine: one by itself, and one that looks like ours to a
/// careless eye.
fn foreigners(engine: &Engine, shop: &Installation) -> Vec<String> {
    let name = format!("{}.production.web.0123456789ab.0", shop.name);
    let label = format!("plimsoll.installation={}-not", shop.name);
    let plain = engine.run_foreign(["--restart", "unless-stopped", "web:3"]);
    let alike = ["--restart", "unless-stopped", "--name", &name, "--label", &label, "web:3"];
    vec![plain, engine.run_foreign(alike)]
}

/// A version of an app that takes a moment to start.
fn version(of: &Value, number: u64) -> Value {
    set(set(of.clone(), "/env/NUMBER", number.to_string()), "/env/START_DELAY_MS", "300")
}

#[test]
fn c1_a_controller_that_is_killed_at_any_moment_is_continued_by_the_next() {
    let fleet = Fleet::shared();
    let shop = Installation::new("c1-kills");
    shop.deploy(&version(&app("web"), 0));
    let others = foreigners(&fleet.alpha, &shop);
    let facts = |id: &String| {
        let seen = fleet.alpha.inspect(id).expect("it isn't removed");
        (seen["State"].clone(), seen["Name"].clone())
    };
    let before: Vec<_> = others.iter().map(facts).collect();
    let load = Load::start(shop.load_on("web"));
    let lowest = LowestServing::watch(shop.balancer(), "production.web");
    let mut moments = moments(1);
    for round in 1..=number("PLIMSOLL_TEST_ROUNDS", 5) {
        let old = shop.containers();
        shop.write_app(&version(&app("web"), round));
        let commit = shop.repository.push(&format!("Version {round}"));
        for _ in 0..3 {
            let controller = shop.start();
            at_some_moment(&mut moments, Duration::from_millis(1500));
            controller.kill();
        }
        let mut controller = shop.start();
        controller.wait_for_commit(&commit);
        let log = controller.log();
        controller.stop();
        let now = shop.containers();
        assert_eq!(now.len(), 4, "round {round}: {now:#?}\n{log}\n{}", events(&shop));
        assert!(now.keys().all(|name| !old.contains_key(name)), "round {round}: {now:?}");
        assert_eq!(shop.running(), now, "round {round}");
    }
    shop.expect_nothing_to_do();
    assert_eq!(others.iter().map(facts).collect::<Vec<_>>(), before, "what isn't ours");
    others.iter().for_each(|id| fleet.alpha.remove(id));
    assert_eq!(lowest.stop(), 4, "fewer servers than the minimum");
    let_users_come(&load, 50);
    load.stop().expect_none_lost(500);
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Engine(usize),
    Worker,
    Master,
}

/// Sends SIGKILL to HAProxy, which may be changing its processes at this very moment.
fn kill_haproxy(shop: &Installation, victim: Victim) {
    let balancer = shop.balancer();
    let pid = match victim {
        Victim::Worker => wait_for(Duration::from_secs(20), "a worker", || balancer.try_worker()),
        _ => balancer.master(),
    };
    signal(pid, Signal::KILL);
}

#[test]
fn c1_engines_and_haproxies_that_are_killed_at_any_moment_of_a_rollout_are_got_over() {
    let mut fleet = Fleet::start();
    let shop = Installation::on(&fleet, "c1-victims");
    let apps = ["alpha", "beta"].map(|host| {
        let app = set(app(&format!("on-{host}")), "/hosts", json!([host]));
        set(app, "/replicas", 2)
    });
    apps.iter().for_each(|app| shop.write_app(&version(app, 0)));
    let mut commit = shop.repository.push("Two apps");
    shop.converge();
    let others: Vec<_> = fleet
        .hosts()
        .into_iter()
        .map(|(_, engine, _)| (engine.clone(), foreigners(engine, &shop)))
        .collect();
    let mut controller = shop.start();
    controller.wait_for_commit(&commit);
    let mut moments = moments(2);
    let victims = [Victim::Worker, Victim::Engine(0), Victim::Master, Victim::Engine(1)];
    for (round, victim) in (1..=number("PLIMSOLL_TEST_ROUNDS", 4)).zip(victims.iter().cycle()) {
        println!("round {round}: {victim:?}");
        // Those who are served by the other host lose nothing where an engine is killed.
        let other = match victim {
            Victim::Engine(nth) => Some(Load::start(shop.load_on(["on-beta", "on-alpha"][*nth]))),
            _ => None,
        };
        apps.iter().for_each(|app| shop.write_app(&version(app, round)));
        commit = shop.repository.push(&format!("Version {round}"));
        at_some_moment(&mut moments, Duration::from_millis(4000));
        match *victim {
            Victim::Engine(nth) => {
                fleet.kill(nth);
                at_some_moment(&mut moments, Duration::from_millis(2000));
                fleet.dockerds[nth].run();
            }
            victim => kill_haproxy(&shop, victim),
        }
        controller.wait_for_commit(&commit);
        wait_until(Duration::from_secs(60), "all four serve", || {
            let seen = shop.balancer().try_servers();
            seen.is_ok_and(|all| all.len() == 4 && all.iter().all(|server| server.serves()))
        });
        if let Some(load) = other {
            load.stop().expect_none_lost(100);
        }
        wait_until(Duration::from_secs(30), "what was made too much is gone", || {
            shop.containers().len() == 4
        });
        for app in ["on-alpha", "on-beta"] {
            let load = Load::start(shop.load_on(app));
            let_users_come(&load, 50);
            load.stop().expect_none_lost(50);
        }
    }
    controller.wait_for_commit(&commit);
    controller.stop();
    shop.expect_nothing_to_do();
    for (engine, ids) in others {
        for id in ids {
            assert!(engine.inspect(&id).is_some(), "what isn't ours is removed");
        }
    }
}
