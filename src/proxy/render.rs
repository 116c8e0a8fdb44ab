//! From the typed configuration to the text of HAProxy's file and of its map of routes. Nothing
//! but checked types of [`crate::model`] reaches the template; the same input gives the same
//! bytes.

use std::sync::LazyLock;

use handlebars::Handlebars;
use serde::Serialize;

use super::ProxyError;
use super::file::seal;
use super::routes::render_routes;
use crate::model::{Backend, BackendName, Check, FilePath, ProxyConfig, Server, ServerName};

/// Where the things lie that the configuration names, on the machine where HAProxy runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Socket of the runtime API.
    pub runtime_socket: FilePath,
    /// File of the map of routes.
    pub routes: FilePath,
}

/// The two files, each with its trailer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub config: String,
    pub routes: String,
}

/// The files of `config`.
///
/// # Errors
/// [`ProxyError::Lint`] where the template doesn't fit: a mistake of ours.
pub fn render(config: &ProxyConfig, places: &Places) -> Result<Rendered, ProxyError> {
    let template = TEMPLATE.as_ref().map_err(|cause| ProxyError::Lint(cause.clone()))?;
    let text = template
        .render("haproxy.cfg", &view(config, places))
        .map_err(|cause| ProxyError::Lint(cause.to_string()))?;
    Ok(Rendered { config: seal(text), routes: render_routes(&config.routes) })
}

/// The words of a server's line after its weight, as `add server` takes them too: it doesn't
/// look at `default-server`, so every keyword is spelled out.
///
/// Until a server is up, and while it goes down, it is checked every 50 ms; one success makes it
/// UP, three failures in a row make it DOWN. Idle connections to it are closed after a second.
pub fn server_keywords(check: &Check) -> String {
    let interval = check.interval.as_millis();
    let quick = interval.min(QUICK_MILLIS);
    format!(
        "check inter {interval}ms fastinter {quick}ms downinter {quick}ms rise {RISE} fall {FALL} pool-purge-delay 1s"
    )
}

const QUICK_MILLIS: u64 = 50;
const RISE: u64 = 1;
const FALL: u64 = 3;

/// The counter of a server that is up without a fraction: HAProxy counts from 0 up, and shows
/// `UP 2/3` below it.
pub const FULL_HEALTH: u64 = RISE + FALL - 1;

/// How a structure's digest is written into `description`.
pub const DESCRIPTION: &str = "plimsoll-structure-";

static TEMPLATE: LazyLock<Result<Handlebars<'static>, String>> = LazyLock::new(|| {
    let mut handlebars = Handlebars::new();
    handlebars.set_strict_mode(true);
    handlebars.register_escape_fn(handlebars::no_escape);
    let text = include_str!("haproxy.cfg.hbs");
    match handlebars.register_template_string("haproxy.cfg", text) {
        Ok(()) => Ok(handlebars),
        Err(cause) => Err(cause.to_string()),
    }
});

/// What the template sees: texts that were written by checked types.
#[derive(Serialize)]
struct View {
    digest: String,
    runtime_socket: String,
    routes: String,
    stats: Option<String>,
    x_host: bool,
    listeners: Vec<ListenerView>,
    backends: Vec<BackendView>,
}

#[derive(Serialize)]
struct ListenerView {
    name: String,
    bind: String,
    certificates: Option<String>,
}

#[derive(Serialize)]
struct BackendView {
    name: String,
    interval: u64,
    timeout: u64,
    path: Option<String>,
    check_host: String,
    server_keywords: String,
    servers: Vec<ServerView>,
}

#[derive(Serialize)]
struct ServerView {
    name: String,
    address: String,
    weight: u16,
}

fn view(config: &ProxyConfig, places: &Places) -> View {
    let ProxyConfig { structure, routes: _, servers: _ } = config;
    let listeners = structure.listeners.iter().map(|(name, listener)| ListenerView {
        name: name.to_string(),
        bind: listener.bind.to_string(),
        certificates: listener.certificates.as_ref().map(ToString::to_string),
    });
    let backends =
        structure.backends.iter().map(|(name, backend)| backend_view(config, name, backend));
    View {
        digest: structure.digest().hex(),
        runtime_socket: places.runtime_socket.to_string(),
        routes: places.routes.to_string(),
        stats: structure.stats.map(|address| address.to_string()),
        x_host: structure.x_host,
        listeners: listeners.collect(),
        backends: backends.collect(),
    }
}

fn backend_view(config: &ProxyConfig, name: &BackendName, backend: &Backend) -> BackendView {
    let Backend { check } = backend;
    let servers = config.servers.get(name).into_iter().flatten();
    BackendView {
        name: name.to_string(),
        interval: check.interval.as_millis(),
        timeout: check.timeout.as_millis(),
        path: check.path.as_ref().map(ToString::to_string),
        check_host: format!("{}.{}", name.app.name, name.app.environment),
        server_keywords: server_keywords(check),
        servers: servers.map(|(name, server)| server_view(name, server)).collect(),
    }
}

fn server_view(name: &ServerName, server: &Server) -> ServerView {
    let Server { address, weight } = server;
    ServerView { name: name.to_string(), address: address.to_string(), weight: *weight }
}
