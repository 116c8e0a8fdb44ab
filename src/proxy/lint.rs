//! What `haproxy -c` lets pass, and Plimsoll doesn't: a route to a backend that isn't there, two
//! listeners on one address, a file without its trailer, a line or a word too many. It looks at
//! a configuration and at its text, and changes nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::ProxyError;
use super::parse::parse;
use super::render::{Places, Rendered};
use crate::model::{BackendName, LARGEST_WEIGHT, ProxyConfig, Span};

/// HAProxy refuses a line of more words.
const MOST_WORDS: usize = 64;
/// HAProxy refuses a line of 2048 bytes and more.
const LONGEST_LINE: usize = 2047;

/// Everything that is unsound about `config` and the files it was rendered to.
///
/// # Errors
/// [`ProxyError::Lint`] with one finding a line.
pub fn lint(config: &ProxyConfig, rendered: &Rendered, places: &Places) -> Result<(), ProxyError> {
    lint_quick(config, rendered)?;
    match parse(&rendered.config, &rendered.routes, places) {
        Ok(again) if again == *config => Ok(()),
        Ok(_) => Err(ProxyError::Lint("the text says something else than what was meant".into())),
        Err(why) => Err(ProxyError::Lint(why)),
    }
}

/// As [`lint`], without reading the text back: for changes of weights, servers and routes, which
/// leave the structure as it was when it was linted.
///
/// # Errors
/// [`ProxyError::Lint`] with one finding a line.
pub fn lint_quick(config: &ProxyConfig, rendered: &Rendered) -> Result<(), ProxyError> {
    let mut findings = Vec::new();
    lint_references(config, &mut findings);
    lint_binds(config, &mut findings);
    lint_backends(config, &mut findings);
    lint_text("the configuration", &rendered.config, &mut findings);
    lint_text("the map of routes", &rendered.routes, &mut findings);
    if findings.is_empty() { Ok(()) } else { Err(ProxyError::Lint(findings.join("\n"))) }
}

fn lint_references(config: &ProxyConfig, findings: &mut Vec<String>) {
    let ProxyConfig { structure, routes, servers } = config;
    for (key, backend) in routes {
        if !structure.backends.contains_key(backend) {
            findings.push(format!("route {key} leads to {backend}, which isn't there"));
        }
        if !structure.listeners.contains_key(&key.listener) {
            findings.push(format!("route {key} is on a listener that isn't there"));
        }
    }
    let with_servers: BTreeSet<&BackendName> = servers.keys().collect();
    let declared: BTreeSet<&BackendName> = structure.backends.keys().collect();
    for name in with_servers.symmetric_difference(&declared) {
        findings.push(format!("backend {name} is only in one of structure and servers"));
    }
}

fn lint_binds(config: &ProxyConfig, findings: &mut Vec<String>) {
    let mut seen: Vec<(String, SocketAddr)> = Vec::new();
    let stats = config.structure.stats.map(|address| ("stats".to_owned(), address));
    let listeners =
        config.structure.listeners.iter().map(|(name, l)| (format!("listener {name}"), l.bind));
    for (name, address) in stats.into_iter().chain(listeners) {
        lint_address(&name, address, findings);
        if let Some((other, _)) = seen.iter().find(|(_, other)| overlap(*other, address)) {
            findings.push(format!("{name} and {other} both listen on {address}"));
        }
        seen.push((name, address));
    }
}

/// True where two sockets can't listen on both side by side.
pub fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

fn lint_address(what: &str, address: SocketAddr, findings: &mut Vec<String>) {
    if address.port() == 0 {
        findings.push(format!("{what} has no port: {address}"));
    }
    if let SocketAddr::V6(v6) = address
        && (v6.scope_id() != 0 || v6.flowinfo() != 0)
    {
        findings.push(format!("{what} has an address with a zone, which isn't supported: {v6}"));
    }
}

fn lint_backends(config: &ProxyConfig, findings: &mut Vec<String>) {
    for (name, backend) in &config.structure.backends {
        for (what, span) in
            [("interval", backend.check.interval), ("timeout", backend.check.timeout)]
        {
            if span < Span::from_millis(1) {
                findings.push(format!("the check of backend {name} has no {what}"));
            }
        }
    }
    for (backend, servers) in &config.servers {
        for (name, server) in servers {
            let what = format!("server {backend}/{name}");
            lint_address(&what, server.address, findings);
            if server.weight > LARGEST_WEIGHT {
                findings.push(format!(
                    "{what} has the weight {}; the largest is {LARGEST_WEIGHT}",
                    server.weight
                ));
            }
        }
    }
}

fn lint_text(what: &str, text: &str, findings: &mut Vec<String>) {
    if !text.ends_with('\n') {
        findings.push(format!("{what} doesn't end with a newline"));
    }
    for (number, line) in text.lines().enumerate() {
        let place = || format!("line {} of {what}", number + 1);
        if let Some(bad) = line.chars().find(|c| !matches!(c, ' '..='~')) {
            findings.push(format!("{} has the character {bad:?}", place()));
        }
        // Between double quotes HAProxy would put in what the environment holds.
        if line.contains('$') {
            findings.push(format!("{} has a dollar sign", place()));
        }
        if line.split_whitespace().count() > MOST_WORDS {
            findings.push(format!("{} has more than {MOST_WORDS} words", place()));
        }
        if line.len() > LONGEST_LINE {
            findings.push(format!("{} has more than {LONGEST_LINE} bytes", place()));
        }
    }
}
