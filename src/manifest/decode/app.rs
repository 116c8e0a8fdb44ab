//! An App: what its containers are made from, where they run, how they are reached, checked
//! and replaced.

use std::collections::BTreeMap;

use super::super::mistake::Mistakes;
use super::super::node::Node;
use super::super::text::Extent;
use super::container::{self, Needs, arguments};
use super::{Field, Fields, by_host, integer};
use crate::model::{
    BalancerName, ContainerTemplate, DEFAULT_WEIGHT, Health, HealthCommand, HostName, HostPattern,
    LARGEST_WEIGHT, ListenerName, PathPrefix, Rollout, Route, Span, UrlPath,
};

/// The most containers of an app on one host.
const MOST_REPLICAS: i64 = 1000;
/// How long sessions may go on where an app doesn't say.
const DEFAULT_DRAIN: Span = Span::from_secs(30);
/// Nothing is checked more often than that.
const SHORTEST_INTERVAL: Span = Span::from_millis(10);

/// The fields of an App's spec, and so of a base.
pub const APP_FIELDS: [&str; 25] = [
    "args",
    "base",
    "capabilities",
    "command",
    "drain",
    "env",
    "health",
    "hosts",
    "image",
    "labels",
    "limits",
    "network",
    "port",
    "privileged",
    "readOnly",
    "replicas",
    "rollout",
    "routes",
    "stop",
    "tmpfs",
    "ulimits",
    "user",
    "volumes",
    "weights",
    "workdir",
];

/// What one App document says, before it is held against Hosts, Balancers and other Apps. With
/// mistakes it is incomplete, but its routes and hosts still count where things are compared.
#[derive(Debug, Clone)]
pub struct AppDraft {
    /// None where there is no image to be read.
    pub template: Option<ContainerTemplate>,
    pub hosts: Vec<(HostName, Extent)>,
    pub replicas: Replicas,
    pub weights: BTreeMap<String, (u16, Extent)>,
    pub routes: Vec<RouteDraft>,
    pub health: Health,
    pub drain: Span,
    pub rollout: Rollout,
    pub needs: Needs,
}

#[derive(Debug, Clone)]
pub enum Replicas {
    OnEach(u32),
    ByHost(BTreeMap<String, (u32, Extent)>),
}

impl Replicas {
    /// How many there are on a host; 1 where nothing is said.
    pub fn on(&self, host: &str) -> u32 {
        match self {
            Self::OnEach(number) => *number,
            Self::ByHost(numbers) => numbers.get(host).map_or(1, |(number, _)| *number),
        }
    }
}

#[derive(Debug, Clone)]
pub struct RouteDraft {
    pub route: Route,
    pub at: Extent,
    pub balancer_at: Extent,
    pub listener_at: Extent,
}

impl AppDraft {
    /// HAProxy's weight of the servers on a host.
    pub fn weight_on(&self, host: &str) -> u16 {
        self.weights.get(host).map_or(DEFAULT_WEIGHT, |(weight, _)| *weight)
    }
}

/// Reads a spec, its bases merged in; what is missing is shown `at`.
pub fn decode(spec: &Node, at: Extent, found: &mut Mistakes) -> Option<AppDraft> {
    let mut fields = Fields::open(spec, "the spec of an App", found)?.shown_at(at);
    fields.get("base");
    let mut needs = Needs::new();
    let template = container::decode(&mut fields, &mut needs, found);
    let hosts = fields
        .require("hosts", "[alpha, beta]", found)
        .map(|field| hosts(&field, found))
        .unwrap_or_default();
    let replicas = fields.get("replicas").and_then(|field| replicas(&field, found));
    let weights = fields.get("weights").map(|field| weights(&field, found)).unwrap_or_default();
    let routes = fields.get("routes").map(|field| routes(&field, found)).unwrap_or_default();
    let (health, command) =
        fields.get("health").map(|field| health(&field, found)).unwrap_or_default();
    let drain = fields.get("drain").and_then(|field| field.span(Span::from_millis(0), found));
    let rollout_field = fields.get("rollout");
    let rollout = rollout_field.map(|field| rollout(&field, found)).unwrap_or_default();
    fields.finish(found);
    let template = template.map(|template| ContainerTemplate { health: command, ..template });
    let draft = AppDraft {
        template,
        hosts,
        replicas: replicas.unwrap_or(Replicas::OnEach(1)),
        weights,
        routes,
        health,
        drain: drain.unwrap_or(DEFAULT_DRAIN),
        rollout,
        needs,
    };
    check_port(spec, &draft, found);
    check_volumes(rollout_field.map_or(at, |field| field.at()), &draft, found);
    Some(draft)
}

fn hosts(field: &Field<'_>, found: &mut Mistakes) -> Vec<(HostName, Extent)> {
    let mut hosts: Vec<(HostName, Extent)> = Vec::new();
    let texts = field.texts(found);
    if texts.is_empty() && field.node.what() == "a list" {
        found
            .error(field.at(), "`hosts` is empty, so the app would run nowhere")
            .hint("name a Host, or write `replicas: 0` to stop the app");
    }
    let mut seen = std::collections::BTreeSet::new();
    for (text, at) in texts {
        match text.parse::<HostName>() {
            Ok(_) if !seen.insert(text) => {
                found
                    .error(at, format!("`hosts` names {text} twice"))
                    .hint("use `replicas` for more than one container on a host");
            }
            Ok(host) => hosts.push((host, at)),
            Err(error) => {
                found.error(at, format!("`hosts`: {error}"));
            }
        }
    }
    hosts
}

fn replicas(field: &Field<'_>, found: &mut Mistakes) -> Option<Replicas> {
    let number = |node: &Node, what: &str, found: &mut Mistakes| {
        integer(node, what, 0..=MOST_REPLICAS, found).and_then(|number| u32::try_from(number).ok())
    };
    if field.node.entries().is_some() {
        return Some(Replicas::ByHost(by_host(field, found, number)));
    }
    number(field.node, "`replicas`", found).map(Replicas::OnEach)
}

fn weights(field: &Field<'_>, found: &mut Mistakes) -> BTreeMap<String, (u16, Extent)> {
    if field.node.entries().is_none() {
        found
            .error(
                field.at(),
                format!("`weights` has to be a mapping by host, this is {}", field.node.what()),
            )
            .hint("such as `weights: {alpha: 100, beta: 50}`");
        return BTreeMap::new();
    }
    by_host(field, found, |node, what, found| {
        let before = found.errors.len();
        let weight = integer(node, what, 0..=i64::from(LARGEST_WEIGHT), found);
        let text = node.text().unwrap_or_default();
        if text.ends_with('%')
            && let Some(last) = found.errors.get_mut(before)
        {
            last.hint("weights are HAProxy's own, relative to each other: 100 and 50 send twice as much to the first");
        }
        weight.and_then(|weight| u16::try_from(weight).ok())
    })
}

fn routes(field: &Field<'_>, found: &mut Mistakes) -> Vec<RouteDraft> {
    let items = field.list(found);
    items.iter().filter_map(|item| route(item, found)).collect()
}

fn route(item: &Node, found: &mut Mistakes) -> Option<RouteDraft> {
    let mut fields = Fields::open(item, "a route", found)?;
    let balancer_field = fields.require("balancer", "edge", found);
    let balancer = balancer_field.and_then(|field| field.parse::<BalancerName>(found));
    let listener_field = fields.require("listener", "web", found);
    let listener = listener_field.and_then(|field| field.parse::<ListenerName>(found));
    let host = match fields.get("host") {
        Some(field) => host_pattern(&field, found),
        None => "*".parse().ok(),
    };
    let path = match fields.get("path") {
        Some(field) => path_prefix(&field, found),
        None => "/".parse().ok(),
    };
    fields.finish(found);
    Some(RouteDraft {
        route: Route { balancer: balancer?, listener: listener?, host: host?, path: path? },
        at: item.at,
        balancer_at: balancer_field?.at(),
        listener_at: listener_field?.at(),
    })
}

fn host_pattern(field: &Field<'_>, found: &mut Mistakes) -> Option<HostPattern> {
    let text = field.text(found)?;
    text.parse()
        .map_err(|error| {
            let mistake = found.error(field.at(), format!("`host`: {error}"));
            if !text.is_ascii() {
                mistake.hint("write an international name in punycode: xn--...");
            } else if text.contains("://") {
                mistake.hint("leave the scheme out; the listener decides it");
            } else if let Some((host, port)) = text.rsplit_once(':')
                && port.bytes().all(|b| b.is_ascii_digit())
            {
                mistake
                    .hint(format!("leave the port out: `host: {host}`; the listener decides it"));
            } else if text.contains('/') {
                mistake.hint("what follows the name belongs into `path`");
            } else if text.contains('*') {
                mistake
                    .hint("`*.example.com` stands for exactly one label, `*` alone for every host");
            } else if text.contains('_') {
                mistake.hint("browsers refuse such names; use a hyphen");
            }
        })
        .ok()
}

fn path_prefix(field: &Field<'_>, found: &mut Mistakes) -> Option<PathPrefix> {
    let text = field.text(found)?;
    text.parse()
        .map_err(|error| {
            let mistake = found.error(field.at(), format!("`path`: {error}"));
            if text.contains('?') {
                mistake.hint("requests are told apart by host and path only: leave the query out");
            } else if text.contains('*') || text.ends_with('$') || text.contains('^') {
                mistake.hint(
                    "a path matches whole segments from its beginning; there are no patterns",
                );
            } else if !text.starts_with('/') {
                mistake.hint(format!("did you mean `/{text}`?"));
            }
        })
        .ok()
}

fn health(field: &Field<'_>, found: &mut Mistakes) -> (Health, Option<HealthCommand>) {
    let mut health = Health::default();
    let Some(mut fields) = field.fields("`health`", found) else { return (health, None) };
    health.path = fields
        .get("path")
        .and_then(|field| field.parse::<UrlPath>(found))
        .map(|path| path.as_str().to_owned());
    let command = fields.get("command").map(|field| arguments(&field, found));
    let one = Span::from_millis(1);
    let mut span = |name, shortest, default| {
        fields.get(name).and_then(|field| field.span(shortest, found)).unwrap_or(default)
    };
    health.interval = span("interval", SHORTEST_INTERVAL, health.interval);
    health.timeout = span("timeout", SHORTEST_INTERVAL, health.timeout);
    health.deadline = span("deadline", one, health.deadline);
    health.settle = span("settle", Span::from_millis(0), health.settle);
    fields.finish(found);
    let (interval, timeout) = (health.interval, health.timeout);
    let command = command.map(|command| HealthCommand { command, interval, timeout });
    (health, command)
}

fn rollout(field: &Field<'_>, found: &mut Mistakes) -> Rollout {
    let Rollout::Rolling { mut surge, mut unavailable } = Rollout::default();
    let Some(mut fields) = field.fields("`rollout`", found) else { return Rollout::default() };
    if let Some(strategy) = fields.get("strategy") {
        check_strategy(&strategy, found);
    }
    let mut count = |name, default| {
        let number = fields.get(name).and_then(|field| count(&field, found));
        number.unwrap_or(default)
    };
    surge = count("surge", surge);
    unavailable = count("unavailable", unavailable);
    fields.finish(found);
    if surge == 0 && unavailable == 0 {
        found
            .error(
                field.at(),
                "`surge` and `unavailable` can't both be 0: nothing could ever be replaced",
            )
            .hint(
                "`surge: 1, unavailable: 0` starts first; `surge: 0, unavailable: 1` stops first",
            );
    }
    Rollout::Rolling { surge, unavailable }
}

fn count(field: &Field<'_>, found: &mut Mistakes) -> Option<u32> {
    let before = found.errors.len();
    let number = field.integer(0..=MOST_REPLICAS, found);
    if field.node.text().is_some_and(|text| text.ends_with('%'))
        && let Some(last) = found.errors.get_mut(before)
    {
        last.hint("it counts containers on each host, no share of them");
    }
    number.and_then(|number| u32::try_from(number).ok())
}

fn check_strategy(field: &Field<'_>, found: &mut Mistakes) {
    let Some(text) = field.text(found) else { return };
    match text {
        "rolling" => {}
        "canary" | "blueGreen" => {
            found
                .error(field.at(), format!("the strategy {text} isn't known yet"))
                .hint("write `strategy: rolling`");
        }
        _ => {
            let hint = container::choice(text, &["rolling"]);
            found.error(field.at(), format!("`strategy`: {text:?} is no strategy")).hint(hint);
        }
    }
}

/// Routes and an HTTP check need a port, and the host's own network publishes none.
fn check_port(spec: &Node, draft: &AppDraft, found: &mut Mistakes) {
    let key_at = |key: &str| spec.get(key).map_or(spec.at, |entry| entry.key_at);
    if spec.get("port").is_none() {
        if spec.get("routes").is_some() && !draft.routes.is_empty() {
            found
                .error(key_at("routes"), "an app with routes needs `port`")
                .hint("add `port: 8080`, the port that the app listens on in its container");
        }
        if let Some(path) = spec.get("health").and_then(|health| health.value.get("path")) {
            found
                .error(path.key_at, "an app that is checked by `health.path` needs `port`")
                .hint("add `port: 8080`, or check by `health: {command: [...]}`");
        }
    }
    let Some(template) = &draft.template else { return };
    let network = template.network.as_deref();
    if template.port.is_some() && matches!(network, Some("host" | "none")) {
        let network = network.unwrap_or_default();
        found
            .error(
                key_at("network"),
                format!("`port` can't be published with `network: {network}`"),
            )
            .hint("remove one of the two");
    }
}

/// A volume that is written can't have two containers on it at once.
fn check_volumes(at: Extent, draft: &AppDraft, found: &mut Mistakes) {
    if !draft.template.as_ref().is_some_and(ContainerTemplate::writes_a_volume) {
        return;
    }
    let stop_first = "write `rollout: {surge: 0, unavailable: 1}`, which stops the old container first, with `replicas: 1`; or mount the volume with `readOnly: true`";
    let Rollout::Rolling { surge, unavailable } = draft.rollout;
    if surge != 0 || unavailable == 0 {
        found
            .error(at, "two containers would write one volume while this app is replaced")
            .hint(stop_first);
    }
    let most = draft.hosts.iter().map(|(host, _)| draft.replicas.on(host.as_str())).max();
    if let Some(most) = most.filter(|most| *most > 1) {
        found
            .error(at, format!("{most} containers on one host would write one volume"))
            .hint(stop_first);
    }
}
