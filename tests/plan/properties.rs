//! Properties of the planner over drawn manifests and worlds. The world of `tests/world` panics
//! where a step does what no sound plan does, so that each run is also a test of the order.

use std::collections::BTreeMap;
use std::fmt::Write;

use plimsoll::model::{
    AdminState, AppId, BalancerState, CheckState, ContainerState, EngineHealth, ProxyFile,
    ProxyProcess,
};
use plimsoll::plan::{Action, Place, render};
use plimsoll::proxy::Places;
use proptest::prelude::*;
use proptest::sample::select;

use crate::world::{Fault, Mishap, Order, World, read};

const HOSTS: [&str; 3] = ["alpha", "beta", "gamma"];
const BALANCERS: [&str; 2] = ["edge", "inner"];

/// How many rounds of looking, planning and running any situation may take. A repair that was
/// cut short, a rollout and a rollback take one each.
const ROUNDS: usize = 4;

/// `PROPTEST_CASES` asks for more.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let cases = asked.unwrap_or(cases);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

// ---- what is declared ----

#[derive(Clone)]
struct Fleet {
    drained: Vec<bool>,
    apps: Vec<Option<Service>>,
}

#[derive(Debug, Clone)]
struct Service {
    image: u8,
    kind: Kind,
    /// Replicas and weight on each host; none where it isn't placed.
    hosts: Vec<Option<(u32, u16)>>,
    /// Where it has its route.
    balancers: Vec<bool>,
    rolling: (u32, u32),
    path: bool,
}

/// The order of hosts in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hosts {
    AsDrawn,
    Backwards,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Routed,
    Volume,
    Inner,
    Worker,
    Commanded,
}

fn service() -> impl Strategy<Value = Service> {
    let kinds = [Kind::Routed, Kind::Routed, Kind::Routed, Kind::Volume, Kind::Inner, Kind::Worker];
    let kinds = kinds.into_iter().chain([Kind::Commanded]).collect::<Vec<_>>();
    let placed = proptest::option::weighted(0.7, (1..4u32, select(vec![100u16, 100, 50, 0])));
    (
        1..4u8,
        select(kinds),
        proptest::collection::vec(placed, 3),
        proptest::collection::vec(any::<bool>(), 2),
        select(vec![(1, 0), (0, 1), (2, 0), (1, 1), (0, 2), (3, 1)]),
        any::<bool>(),
    )
        .prop_map(|(image, kind, mut hosts, mut balancers, rolling, path)| {
            if hosts.iter().all(Option::is_none) {
                hosts[0] = Some((1, 100));
            }
            if !balancers.iter().any(|has| *has) {
                balancers[0] = true;
            }
            // Two containers that write one volume are refused on a host.
            let volume = kind == Kind::Volume;
            let rolling = if volume { (0, 1) } else { rolling };
            if volume {
                hosts.iter_mut().flatten().for_each(|(replicas, _)| *replicas = 1);
            }
            Service { image, kind, hosts, balancers, rolling, path }
        })
}

fn fleet() -> impl Strategy<Value = Fleet> {
    let apps = proptest::collection::vec(proptest::option::weighted(0.8, service()), 2);
    let drained = proptest::collection::vec(proptest::bool::weighted(0.15), 3);
    (drained, apps).prop_map(|(drained, mut apps)| {
        // The last App gone would wait for approval.
        if let [None, None] = apps.as_slice() {
            apps[0] = Some(Service {
                image: 1,
                kind: Kind::Routed,
                hosts: vec![Some((2, 100)), None, None],
                balancers: vec![true, false],
                rolling: (1, 0),
                path: false,
            });
        }
        Fleet { drained, apps }
    })
}

/// What failed is read by people: as manifests.
impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "drained {:?}", self.drained)?;
        for document in self.documents().iter().filter(|text| text.contains("kind: App")) {
            writeln!(f, "{}", document.lines().skip(2).collect::<Vec<_>>().join("\n"))?;
        }
        Ok(())
    }
}

impl Fleet {
    fn documents(&self) -> Vec<String> {
        self.documents_with(Hosts::AsDrawn)
    }

    fn documents_with(&self, order: Hosts) -> Vec<String> {
        let head = |kind: &str, name: &str| {
            format!("apiVersion: plimsoll/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n")
        };
        // Guards have their own tests.
        let mut all = vec![
            "apiVersion: plimsoll/v1alpha1\nkind: Installation\n\
             metadata: {name: shop, uid: 8f14e45f}\nspec: {guards: {prune: 100%}}\n"
                .to_owned(),
            head("Environment", "test"),
        ];
        for (index, name) in HOSTS.iter().enumerate() {
            all.push(format!(
                "{}spec: {{engine: \"tcp://10.0.0.{index}:2376\", address: 10.0.0.{index}, \
                 ports: 20000-20015, drain: {}}}\n",
                head("Host", name),
                self.drained[index]
            ));
        }
        for (index, name) in BALANCERS.iter().enumerate() {
            all.push(format!(
                "{}spec: {{listen: [{{name: web, bind: \"127.0.0.1:{}\"}}]}}\n",
                head("Balancer", name),
                8080 + index
            ));
        }
        for (index, service) in self.apps.iter().enumerate() {
            let Some(service) = service else { continue };
            all.push(service.document(["web", "api"][index], order));
        }
        all
    }

    fn desired(&self, commit: u32) -> plimsoll::model::Desired {
        let desired = read(&self.documents().join("---\n"), commit);
        let whole = desired.blocked.is_empty() && desired.unreadable.is_empty();
        assert!(whole, "{:?}\n{}", desired.blocked, self.documents().join("---\n"));
        desired
    }
}

impl Service {
    fn document(&self, name: &str, order: Hosts) -> String {
        let mut text = format!(
            "apiVersion: plimsoll/v1alpha1\nkind: App\n\
             metadata: {{name: {name}, environment: test}}\nspec:\n  image: {name}:{}\n",
            self.image
        );
        let placed = || {
            let placed = HOSTS.iter().zip(&self.hosts).filter_map(|(h, at)| at.map(|at| (h, at)));
            let mut placed: Vec<_> = placed.collect();
            if order == Hosts::Backwards {
                placed.reverse();
            }
            placed.into_iter()
        };
        let map = |of: fn((u32, u16)) -> String| {
            placed().map(|(host, at)| format!("{host}: {}", of(at))).collect::<Vec<_>>().join(", ")
        };
        let hosts: Vec<_> = placed().map(|(host, _)| *host).collect();
        let _ = writeln!(text, "  hosts: [{}]", hosts.join(", "));
        let _ = writeln!(text, "  replicas: {{{}}}", map(|(replicas, _)| replicas.to_string()));
        let (surge, unavailable) = self.rolling;
        let _ = writeln!(text, "  rollout: {{surge: {surge}, unavailable: {unavailable}}}");
        match self.kind {
            Kind::Routed | Kind::Volume => {
                let routes = BALANCERS.iter().zip(&self.balancers).filter(|(_, has)| **has);
                let routes: Vec<_> = routes
                    .map(|(balancer, _)| {
                        format!("{{balancer: {balancer}, listener: web, host: {name}.example}}")
                    })
                    .collect();
                let _ = writeln!(text, "  port: 8080\n  routes: [{}]", routes.join(", "));
                let _ = writeln!(text, "  weights: {{{}}}", map(|(_, weight)| weight.to_string()));
                if self.path {
                    text.push_str("  health: {path: /_status}\n");
                }
            }
            Kind::Inner => text.push_str("  port: 8080\n"),
            Kind::Worker => {}
            Kind::Commanded => text.push_str("  health: {command: [/check]}\n"),
        }
        if self.kind == Kind::Volume {
            text.push_str("  volumes: [{name: data, at: /data}]\n");
        }
        text
    }
}

// ---- what happens ----

fn mishap() -> impl Strategy<Value = Mishap> {
    let nth = 0..24usize;
    let states = vec![
        ContainerState::Created,
        ContainerState::Restarting { ended: None },
        ContainerState::Paused,
        ContainerState::Exited { code: 1, out_of_memory: false },
        ContainerState::Exited { code: 137, out_of_memory: true },
        ContainerState::Dead,
    ];
    let weight = || select(vec![0u16, 1, 100, 256]);
    let admin = select(vec![AdminState::Ready, AdminState::Drain, AdminState::Maintenance]);
    prop_oneof![
        nth.clone().prop_map(|nth| Mishap::ContainerGone { nth }),
        (nth.clone(), select(states))
            .prop_map(|(nth, state)| Mishap::ContainerState { nth, state }),
        nth.clone()
            .prop_map(|nth| Mishap::ContainerHealth { nth, health: EngineHealth::Unhealthy }),
        nth.clone().prop_map(|nth| Mishap::ContainerRenamed { nth }),
        nth.clone().prop_map(|nth| Mishap::ContainerDoubled { nth }),
        (nth.clone(), weight()).prop_map(|(nth, weight)| Mishap::ServerWeight { nth, weight }),
        (nth.clone(), admin).prop_map(|(nth, admin)| Mishap::ServerAdmin { nth, admin }),
        nth.clone().prop_map(|nth| Mishap::ServerGone { nth }),
        nth.clone().prop_map(|nth| Mishap::ServerUnwritten { nth }),
        (nth.clone(), weight())
            .prop_map(|(nth, weight)| Mishap::ServerWeightInFile { nth, weight }),
        nth.clone().prop_map(|nth| Mishap::RouteGone { nth }),
        nth.clone().prop_map(|nth| Mishap::RouteUnwritten { nth }),
        nth.clone().prop_map(|nth| Mishap::FileMissing { nth }),
        nth.clone().prop_map(|nth| Mishap::FileDamaged { nth }),
        nth.clone().prop_map(|nth| Mishap::ProcessDown { nth }),
        nth.clone().prop_map(|nth| Mishap::Reloaded { nth }),
        nth.clone().prop_map(|nth| Mishap::OtherStructure { nth }),
        (nth, 20000..20008u16).prop_map(|(nth, port)| Mishap::ForeignPort { nth, port }),
    ]
}

fn mishaps(most: usize) -> impl Strategy<Value = Vec<Mishap>> {
    proptest::collection::vec(mishap(), 0..=most)
}

/// A world in which one fleet stands, another is declared, and things happened meanwhile.
#[derive(Debug, Clone)]
struct Drawn {
    before: Fleet,
    after: Fleet,
    /// So many steps of the way were done, then the controller ended.
    begun: usize,
    mishaps: Vec<Mishap>,
    seed: u64,
}

fn drawn(most: usize) -> impl Strategy<Value = Drawn> {
    (fleet(), fleet(), any::<bool>(), 0..30usize, mishaps(most), any::<u64>()).prop_map(
        |(before, after, same, begun, mishaps, seed)| {
            let after = if same { before.clone() } else { after };
            Drawn { before, after, begun, mishaps, seed }
        },
    )
}

impl Drawn {
    fn world(&self) -> World {
        let mut world = World::new(self.before.desired(1));
        world.converge(Order::Drawn(self.seed), ROUNDS);
        world.remember();
        world.assert_as_declared();
        world.declare(self.after.desired(2));
        let plan = world.plan();
        world.run(&plan, Order::Drawn(self.seed), Fault::CrashAfter(self.begun));
        self.mishaps.iter().for_each(|mishap| world.befall(mishap));
        world.pass_time();
        world
    }
}

/// Found by `faults_only_delay`: one app goes, another moves to another host, and the file lacks
/// what the process has. The reload that drops the first took down what served of the second.
#[test]
fn a_reload_takes_nothing_down_that_the_file_has_lost() {
    let service = |hosts: [Option<(u32, u16)>; 3]| {
        Some(Service {
            image: 1,
            kind: Kind::Routed,
            hosts: hosts.to_vec(),
            balancers: vec![true, false],
            rolling: (1, 0),
            path: false,
        })
    };
    let fleet = |apps| Fleet { drained: vec![false; 3], apps };
    let one = Some((1, 100));
    let before = fleet(vec![service([one, None, None]), service([one, None, one])]);
    let after = fleet(vec![service([None, None, Some((2, 100))]), None]);
    for nth in 0..6 {
        for mishap in
            [Mishap::ServerWeightInFile { nth, weight: 0 }, Mishap::ServerUnwritten { nth }]
        {
            for seed in 0..8 {
                let (before, after) = (before.clone(), after.clone());
                let drawn = Drawn { before, after, begun: 0, mishaps: vec![mishap.clone()], seed };
                let mut world = drawn.world();
                world.converge(Order::Drawn(seed), ROUNDS);
                world.assert_as_declared();
            }
        }
    }
}

fn app_id(name: &str) -> AppId {
    AppId::new("test", name).unwrap()
}

impl Fleet {
    /// What the routes of apps that were there before have to keep, by app and balancer: the
    /// servers with a weight that the manifest asks for, less those that it lets be unavailable
    /// on each host. Drained hosts have none, unless the app has no others.
    fn promised(&self, before: &Self) -> BTreeMap<(&'static str, &'static str), u32> {
        let mut promised = BTreeMap::new();
        for (name, (old, new)) in ["web", "api"].iter().zip(before.apps.iter().zip(&self.apps)) {
            let (Some(old), Some(new)) = (old, new) else { continue };
            let is_routed = |service: &Service| matches!(service.kind, Kind::Routed | Kind::Volume);
            if !is_routed(old) || !is_routed(new) {
                continue;
            }
            let placed = || new.hosts.iter().zip(&self.drained).filter(|(at, _)| at.is_some());
            let all_drain = placed().all(|(_, drain)| *drain);
            let minimum = placed()
                .filter(|(_, drain)| all_drain || !**drain)
                .filter_map(|(at, _)| *at)
                .filter(|(_, weight)| *weight > 0)
                .map(|(replicas, _)| replicas.saturating_sub(new.rolling.1))
                .sum();
            for (balancer, routed) in BALANCERS.iter().zip(old.balancers.iter().zip(&new.balancers))
            {
                if routed == (&true, &true) {
                    promised.insert((*name, *balancer), minimum);
                }
            }
        }
        promised
    }
}

/// What HAProxy would read at each balancer, byte for byte.
fn files(world: &World) -> Vec<(String, String)> {
    let places = Places {
        runtime_socket: "/x/runtime.sock".parse().unwrap(),
        routes: "/x/routes.map".parse().unwrap(),
    };
    let ours = world.balancers.values().filter_map(|state| match &state.file {
        ProxyFile::Ours(config) => {
            let rendered = plimsoll::proxy::render(config, &places).unwrap();
            Some((rendered.config, rendered.routes))
        }
        _ => None,
    });
    ours.collect()
}

/// Found by `one_plan_is_enough`: a server that joins a second balancer while its weight is
/// declared 0 kept the weight that it had at the first, until the next plan.
#[test]
fn a_weight_falls_to_0_where_the_server_joins_another_balancer_as_well() {
    let service = |hosts: [Option<(u32, u16)>; 3], edge| {
        let hosts = hosts.to_vec();
        let balancers = vec![edge, true];
        let (kind, rolling) = (Kind::Routed, (1, 0));
        Some(Service { image: 2, kind, hosts, balancers, rolling, path: false })
    };
    let fleet = |app| Fleet { drained: vec![false; 3], apps: vec![app, None] };
    let before = fleet(service([None, None, Some((1, 100))], false));
    let after = fleet(service([Some((1, 100)), Some((2, 100)), Some((1, 0))], true));
    let mut world = Drawn { before, after, begun: 0, mishaps: Vec::new(), seed: 0 }.world();
    let plan = world.plan();
    world.run(&plan, Order::Printed, Fault::None);
    world.pass_time();
    assert!(world.plan().is_empty(), "{}", render(&world.plan(), false));
    world.assert_as_declared();
}

/// Found by `unseen_is_untouched`, in the model of the world: a container that was unwell before it
/// was made anew stayed so after its start, which no engine does.
#[test]
fn what_is_started_is_checked_anew() {
    let hosts = vec![Some((2, 100)), None, None];
    let (kind, rolling, balancers) = (Kind::Routed, (1, 0), vec![true, false]);
    let app = Some(Service { image: 1, kind, hosts, balancers, rolling, path: false });
    let before = Fleet { drained: vec![true, false, false], apps: vec![app.clone(), None] };
    let after = Fleet { drained: vec![false; 3], apps: vec![app, None] };
    let mishaps = vec![
        Mishap::ContainerHealth { nth: 2, health: EngineHealth::Unhealthy },
        Mishap::ContainerState { nth: 2, state: ContainerState::Created },
    ];
    let mut world = Drawn { before, after, begun: 0, mishaps, seed: 0 }.world();
    world.converge(Order::Drawn(0), ROUNDS);
    world.assert_as_declared();
}

/// A balancer without what its checks found meanwhile.
fn unchecked(state: &BalancerState) -> BalancerState {
    let mut state = state.clone();
    if let ProxyProcess::Up(runtime) = &mut state.process {
        let runtime = std::sync::Arc::make_mut(runtime);
        let servers = runtime.servers.values_mut().flat_map(|servers| servers.values_mut());
        servers.for_each(|server| server.check = CheckState::Unknown);
    }
    state
}

proptest! {
    #![proptest_config(config(64))]

    /// A plan, in any order that it allows, reaches what is declared; then nothing is left.
    #[test]
    fn every_world_converges(drawn in drawn(4)) {
        let mut world = drawn.world();
        world.converge(Order::Drawn(drawn.seed), ROUNDS);
        world.assert_as_declared();
    }

    /// With any step failed, its answer lost, or a crash, the floors hold and the next rounds
    /// get there. Doing every step twice changes nothing.
    #[test]
    fn faults_only_delay(drawn in drawn(2), at in 0..40usize, kind in 0..4usize) {
        let mut world = drawn.world();
        let fault = [
            Fault::Fails(at), Fault::AnswerLost(at), Fault::CrashAfter(at), Fault::Twice,
        ][kind];
        let plan = world.plan();
        world.run(&plan, Order::Drawn(drawn.seed), fault);
        world.converge(Order::Drawn(drawn.seed), ROUNDS);
        world.assert_as_declared();
    }

    /// A revision that never gets well is held, and the old one serves on or comes back.
    #[test]
    fn a_bad_revision_goes_back(drawn in drawn(1)) {
        let mut world = drawn.world();
        let revisions: Vec<_> = world.plan().steps.iter().filter_map(|step| match &step.action {
            Action::Create { container } => Some(container.birth.clone()),
            _ => None,
        }).collect();
        let known = |app: &AppId| world.known.fallbacks.contains_key(app);
        let Some(bad) = revisions.into_iter().find(|birth| known(&birth.app)) else {
            return Ok(());
        };
        let fallback = world.known.fallbacks[&bad.app].pin.clone();
        prop_assume!(fallback != bad.pin);
        world.bad.insert(bad.revision);
        world.converge(Order::Drawn(drawn.seed), ROUNDS + 2);
        for state in world.hosts.values() {
            for container in &state.containers {
                prop_assert!(container.birth.revision != bad.revision, "{}", container.name);
            }
        }
    }

    /// What can't be seen isn't touched, and when it is seen again, all converges.
    #[test]
    fn unseen_is_untouched(drawn in drawn(2), host in 0..3usize, balancer in 0..2usize, both in 0..3usize) {
        let mut world = drawn.world();
        if both != 1 {
            world.unseen_hosts.insert(HOSTS[host].parse().unwrap());
        }
        if both != 0 {
            world.unseen_balancers.insert(BALANCERS[balancer].parse().unwrap());
        }
        let (hosts, balancers) = (world.hosts.clone(), world.balancers.clone());
        world.converge(Order::Drawn(drawn.seed), ROUNDS);
        for name in &world.unseen_hosts {
            prop_assert_eq!(&world.hosts[name], &hosts[name]);
        }
        for name in &world.unseen_balancers {
            prop_assert_eq!(unchecked(&world.balancers[name]), unchecked(&balancers[name]));
        }
        world.unseen_hosts.clear();
        world.unseen_balancers.clear();
        world.converge(Order::Drawn(drawn.seed), ROUNDS);
        world.assert_as_declared();
    }

    /// The order in which documents and containers were met changes no byte.
    #[test]
    fn order_changes_nothing(drawn in drawn(3), turn in 0..12usize) {
        let world = drawn.world();
        let plan = world.plan();
        let mut turned = world.clone();
        let mut documents = drawn.after.documents_with(Hosts::Backwards);
        let count = documents.len();
        documents.rotate_left(turn % count);
        documents.reverse();
        // Where a document lies in its file is no matter of the planner's.
        let mut desired = read(&documents.join("---\n"), 2);
        for (id, app) in world.desired.apps.iter() {
            if let Some(turned) = desired.apps.get_mut(id) {
                std::sync::Arc::make_mut(turned).location = app.location.clone();
            }
        }
        for (name, host) in world.desired.hosts.iter() {
            if let Some(turned) = desired.hosts.get_mut(name) {
                std::sync::Arc::make_mut(turned).location = host.location.clone();
            }
        }
        for (name, balancer) in &mut desired.balancers {
            balancer.location = world.desired.balancers[name].location.clone();
        }
        turned.desired = desired;
        for state in turned.hosts.values_mut() {
            state.containers.reverse();
        }
        let other = turned.plan();
        prop_assert_eq!(serde_json::to_string(&plan).unwrap(), serde_json::to_string(&other).unwrap());
        prop_assert_eq!(render(&plan, false), render(&other, false));
        prop_assert_eq!(plan.digest, other.digest);
        // Neither now, nor on the way, nor at its end.
        let mut world = world;
        prop_assert_eq!(files(&world), files(&turned));
        for world in [&mut world, &mut turned] {
            world.run(&plan, Order::Drawn(drawn.seed), Fault::CrashAfter(drawn.begun));
        }
        prop_assert_eq!(files(&world), files(&turned));
        for world in [&mut world, &mut turned] {
            world.converge(Order::Printed, ROUNDS);
        }
        prop_assert_eq!(files(&world), files(&turned));
        prop_assert!(files(&world).iter().all(|(config, map)| !config.is_empty() && !map.is_empty()));
    }

    /// One plan is enough: where nothing fails and nothing else happens, there is nothing left to
    /// plan when it is done.
    #[test]
    fn one_plan_is_enough(drawn in drawn(4)) {
        let mut world = drawn.world();
        let plan = world.plan();
        world.run(&plan, Order::Drawn(drawn.seed), Fault::None);
        world.pass_time();
        let next = world.plan();
        prop_assert!(next.is_empty(), "{}\n{}", render(&plan, false), render(&next, false));
    }

    /// Whatever is declared next, and in whatever order its steps run, no route has fewer servers
    /// than its manifest promises, or than it had where that is less. What is promised is counted
    /// here, by the manifest alone, and what serves is counted in the world after every step.
    #[test]
    fn no_route_falls_below_its_declared_minimum(
        before in fleet(),
        after in fleet(),
        seed in any::<u64>(),
        fails in proptest::option::of(0..40usize),
    ) {
        let mut world = World::new(before.desired(1));
        world.converge(Order::Drawn(seed), ROUNDS);
        world.remember();
        world.declare(after.desired(2));
        let plan = world.plan();
        let promised = after.promised(&before);
        let floors: Vec<u32> = promised
            .iter()
            .map(|((app, balancer), minimum)| {
                world.serving(&app_id(app), &balancer.parse().unwrap()).min(*minimum)
            })
            .collect();
        let mut was = Vec::new();
        for end in 0..=plan.steps.len() {
            let mut world = world.clone();
            // A fault is one of many; the end is another.
            match fails.filter(|at| *at < end) {
                Some(at) if end == plan.steps.len() => {
                    world.run(&plan, Order::Drawn(seed), Fault::Fails(at));
                }
                _ => world.run(&plan, Order::Drawn(seed), Fault::CrashAfter(end)),
            }
            was = promised
                .keys()
                .map(|(app, balancer)| world.serving(&app_id(app), &balancer.parse().unwrap()))
                .collect();
            for ((route, floor), serving) in promised.keys().zip(&floors).zip(&was) {
                prop_assert!(
                    serving >= floor,
                    "{route:?}: {serving} of {floor} serve after {end} steps\n{}",
                    render(&plan, false)
                );
            }
        }
        prop_assert_eq!(was.len(), promised.len());
    }

    /// Slots, ports and ids of steps are unique; foreign ports are never taken.
    #[test]
    fn slots_and_ports_are_unique(drawn in drawn(4)) {
        let world = drawn.world();
        let plan = world.plan();
        let mut ids = std::collections::BTreeSet::new();
        let mut ports = std::collections::BTreeSet::new();
        for step in &plan.steps {
            prop_assert!(step.after.iter().all(|id| ids.contains(id)), "{} comes too early", step.id);
            prop_assert!(ids.insert(step.id.clone()), "{} is there twice", step.id);
            if let (Action::Create { container }, Place::Host(host)) = (&step.action, &step.place) {
                let state = &world.hosts[host];
                if let Some(port) = container.birth.port {
                    prop_assert!(ports.insert((host.clone(), port)));
                    prop_assert!(!state.foreign_ports.contains(&port));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(config(16))]

    /// From one declared state to the next and the next, with something happening on the way.
    #[test]
    fn a_walk_always_arrives(
        walk in proptest::collection::vec((fleet(), mishaps(1)), 3..6),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(walk[0].0.desired(1));
        for (commit, (fleet, mishaps)) in walk.iter().enumerate() {
            world.declare(fleet.desired(commit as u32 + 1));
            mishaps.iter().for_each(|mishap| world.befall(mishap));
            world.converge(Order::Drawn(seed), ROUNDS);
            world.assert_as_declared();
            world.remember();
        }
    }
}
