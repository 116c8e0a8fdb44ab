//! The situations that every step of is interrupted in: what people do with a fleet, one by one.

use std::collections::BTreeMap;

use super::walk::{Fleet, Kind, Service};

/// A name, and the sets of manifests that are declared one after the other. The last is the one
/// that matters.
pub struct Scenario {
    pub name: &'static str,
    pub walk: Vec<Fleet>,
}

fn service(replicas: &[(&str, u32, u16)]) -> Service {
    Service {
        version: 1,
        nature: String::new(),
        env: 0,
        kind: Kind::Routed,
        hosts: replicas.iter().map(|(host, n, weight)| ((*host).into(), (*n, *weight))).collect(),
        routes: BTreeMap::from([("edge".into(), "web.example".into())]),
        surge: 1,
        unavailable: 0,
        interval: 1,
    }
}

fn fleet(apps: &[(&str, Service)]) -> Fleet {
    Fleet {
        hosts: ["alpha", "beta"].map(|host| (host.to_owned(), false)).into(),
        balancers: 1,
        apps: apps.iter().map(|(name, service)| ((*name).to_owned(), service.clone())).collect(),
        broken: Default::default(),
    }
}

fn web(service: Service) -> Fleet {
    fleet(&[("web", service)])
}

/// All of them.
pub fn all() -> Vec<Scenario> {
    let base = service(&[("alpha", 1, 100), ("beta", 1, 100)]);
    let with = |change: &dyn Fn(&mut Service)| {
        let mut service = base.clone();
        change(&mut service);
        service
    };
    let api = with(&|api| {
        api.routes = BTreeMap::from([("edge".into(), "api.example".into())]);
        api.hosts = BTreeMap::from([("alpha".into(), (1, 100))]);
    });
    let volume = with(&|web| {
        (web.kind, web.surge, web.unavailable) = (Kind::Volume, 0, 1);
        web.hosts = BTreeMap::from([("alpha".into(), (1, 100))]);
    });
    let worker = with(&|web| {
        web.kind = Kind::Worker;
        web.routes.clear();
        web.hosts = BTreeMap::from([("alpha".into(), (1, 100))]);
    });
    let next = |mut service: Service| {
        service.version = 2;
        service
    };
    let of = |name, walk: &[Fleet]| Scenario { name, walk: walk.to_vec() };
    let nature = |nature: &str| {
        let mut service = next(base.clone());
        nature.clone_into(&mut service.nature);
        service
    };
    vec![
        of("first-deploy", &[web(base.clone())]),
        of("rolling-update", &[web(base.clone()), web(next(base.clone()))]),
        of("failing-update", &[web(base.clone()), web(nature("sick"))]),
        of("crashing-update", &[web(base.clone()), web(nature("crash"))]),
        of("scale-up", &[web(base.clone()), web(service(&[("alpha", 2, 100), ("beta", 1, 100)]))]),
        of(
            "scale-down",
            &[web(service(&[("alpha", 2, 100), ("beta", 1, 100)])), web(base.clone())],
        ),
        of("move", &[web(service(&[("alpha", 1, 100)])), web(service(&[("beta", 1, 100)]))]),
        of("removal", &[fleet(&[("web", base.clone()), ("api", api)]), web(base.clone())]),
        of(
            "route-change",
            &[
                web(base.clone()),
                web(with(&|web| {
                    web.routes = BTreeMap::from([("edge".into(), "www.example".into())]);
                })),
            ],
        ),
        of(
            "weight-change",
            &[web(base.clone()), web(service(&[("alpha", 1, 50), ("beta", 1, 0)]))],
        ),
        of("reload", &[web(base.clone()), web(with(&|web| web.interval = 2))]),
        of("renaming", &[web(base.clone()), fleet(&[("shop", base.clone())])]),
        of("stop-first", &[web(volume.clone()), web(next(volume))]),
        of("worker", &[web(worker.clone()), web(next(worker))]),
    ]
}
