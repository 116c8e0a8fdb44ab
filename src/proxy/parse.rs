//! From HAProxy's file back to the typed configuration. Only what [`super::render`] wrote is
//! read: whatever was parsed is rendered again, and has to give the very bytes. So nothing that
//! a person added, and no line that was lost, can slip through.

use std::collections::BTreeMap;

use super::file::unseal;
use super::render::{Places, render};
use super::routes::parse_routes;
use crate::model::{
    Backend, BackendName, Check, Listener, ListenerName, ProxyConfig, ProxyStructure, Server,
    ServerName, Span,
};

/// The configuration that these two files hold.
///
/// # Errors
/// Which of them is damaged, and how, for people.
pub fn parse(config: &str, routes: &str, places: &Places) -> Result<ProxyConfig, String> {
    let body = unseal(config).map_err(|why| format!("the configuration is damaged: {why}"))?;
    let mut reader = Reader::default();
    for (number, line) in body.lines().enumerate() {
        reader.line(line).ok_or_else(|| {
            format!("line {} of the configuration isn't ours: {line}", number + 1)
        })?;
    }
    let mut parsed = reader.finish();
    parsed.routes = parse_routes(routes).map_err(|why| format!("the map of routes: {why}"))?;
    match render(&parsed, places) {
        Ok(again) if again.config == config => Ok(parsed),
        Ok(_) => Err("the configuration was written by another version of Plimsoll, or for \
                      another folder"
            .into()),
        Err(cause) => Err(cause.to_string()),
    }
}

/// The section that the lines belong to.
#[derive(Default)]
enum Section {
    #[default]
    Other,
    Stats,
    Frontend(ListenerName),
    Backend(BackendName),
}

#[derive(Default)]
struct Reader {
    section: Section,
    structure: ProxyStructure,
    servers: BTreeMap<BackendName, BTreeMap<ServerName, Server>>,
}

impl Reader {
    /// Takes what a line says; none where it says what no line of ours does. Lines that are the
    /// same in every file say nothing, and are compared by rendering.
    fn line(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        if !line.starts_with(' ') {
            return self.header(&words);
        }
        match &self.section {
            Section::Other => Some(()),
            Section::Stats => self.stats_line(&words),
            Section::Frontend(name) => self.frontend_line(&name.clone(), &words),
            Section::Backend(name) => self.backend_line(&name.clone(), &words),
        }
    }

    fn header(&mut self, words: &[&str]) -> Option<()> {
        self.section = match words {
            ["frontend", "_stats"] => Section::Stats,
            ["frontend", name] => Section::Frontend(name.parse().ok()?),
            ["backend", name] => {
                let name: BackendName = name.parse().ok()?;
                self.structure.backends.insert(name.clone(), UNREAD_BACKEND);
                self.servers.insert(name.clone(), BTreeMap::new());
                Section::Backend(name)
            }
            ["global"] | ["defaults"] | [] | ["#", ..] => Section::Other,
            _ => return None,
        };
        Some(())
    }

    fn stats_line(&mut self, words: &[&str]) -> Option<()> {
        if let ["bind", address] = words {
            self.structure.stats = Some(address.parse().ok()?);
        }
        Some(())
    }

    fn frontend_line(&mut self, name: &ListenerName, words: &[&str]) -> Option<()> {
        match words {
            ["bind", address, rest @ ..] => {
                let certificates = match rest {
                    ["ssl", "crt", folder, ..] => Some(folder.parse().ok()?),
                    _ => None,
                };
                let listener = Listener { bind: address.parse().ok()?, certificates };
                self.structure.listeners.insert(name.clone(), listener);
            }
            ["http-after-response", ..] => self.structure.x_host = true,
            _ => {}
        }
        Some(())
    }

    fn backend_line(&mut self, name: &BackendName, words: &[&str]) -> Option<()> {
        let check = &mut self.structure.backends.get_mut(name)?.check;
        match words {
            ["#", "check", "every", interval] => check.interval = millis(interval)?,
            ["timeout", "check", timeout] => check.timeout = millis(timeout)?,
            ["http-check", "send", "meth", "GET", "uri", path, ..] => {
                check.path = Some(path.parse().ok()?);
            }
            ["server", server, address, "weight", weight, ..] => {
                let (address, weight) = (address.parse().ok()?, weight.parse().ok()?);
                let servers = self.servers.get_mut(name)?;
                servers.insert(server.parse().ok()?, Server { address, weight });
            }
            _ => {}
        }
        Some(())
    }

    fn finish(self) -> ProxyConfig {
        let Self { section: _, structure, servers } = self;
        ProxyConfig { structure, routes: BTreeMap::new(), servers }
    }
}

/// What stands for a backend until its lines are read.
const UNREAD_BACKEND: Backend = Backend {
    check: Check { path: None, interval: Span::from_millis(0), timeout: Span::from_millis(0) },
};

fn millis(text: &str) -> Option<Span> {
    text.strip_suffix("ms")?.parse().ok().map(Span::from_millis)
}
