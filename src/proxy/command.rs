//! The commands of HAProxy's runtime API and of its master CLI. A command is written from checked
//! types only: on the socket a `;` or a newline in a name would be a second command.

use std::fmt;
use std::net::SocketAddr;

use super::render::server_keywords;
use super::routes::map_key;
use crate::model::{BackendName, Check, FilePath, RouteKey, ServerName};

/// A server in its backend, as commands name it: `BACKEND/SERVER`.
#[derive(Debug, Clone, Copy)]
pub struct ServerPath<'a> {
    pub backend: &'a BackendName,
    pub server: &'a ServerName,
}

impl fmt::Display for ServerPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.server)
    }
}

/// One command.
#[derive(Debug, Clone, Copy)]
pub enum Command<'a> {
    Info,
    /// State of the servers of one backend, or of all.
    Servers(Option<&'a BackendName>),
    /// Statistics of the servers of one backend.
    Statistics(&'a BackendName),
    Map(&'a FilePath),
    PrepareMap(&'a FilePath),
    AddRoute {
        map: &'a FilePath,
        version: u64,
        key: &'a RouteKey,
        backend: &'a BackendName,
    },
    CommitMap {
        map: &'a FilePath,
        version: u64,
    },
    /// Absolute weight.
    Weight {
        server: ServerPath<'a>,
        weight: u16,
    },
    Ready(ServerPath<'a>),
    Maintenance(ServerPath<'a>),
    /// With weight 0, and in maintenance.
    AddServer {
        server: ServerPath<'a>,
        address: SocketAddr,
        check: &'a Check,
    },
    EnableHealth(ServerPath<'a>),
    EnableServer(ServerPath<'a>),
    DeleteServer(ServerPath<'a>),
    /// Ends every session that is on the server. A worker of an earlier generation refuses it:
    /// "Proxy is disabled."
    CutSessions(ServerPath<'a>),
    /// Every session of the process, a line each.
    Sessions,
    /// Ends one session, by the number that [`Command::Sessions`] tells.
    CutSession(u64),
    /// Master CLI: the processes of all generations.
    Processes,
    /// Master CLI: a new generation. It has no answer.
    Reload,
}

impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Info => f.write_str("show info"),
            Self::Servers(None) => f.write_str("show servers state"),
            Self::Servers(Some(backend)) => write!(f, "show servers state {backend}"),
            // 4: servers only; -1: all of them.
            Self::Statistics(backend) => write!(f, "show stat {backend} 4 -1"),
            Self::Map(map) => write!(f, "show map {map}"),
            Self::PrepareMap(map) => write!(f, "prepare map {map}"),
            Self::AddRoute { map, version, key, backend } => {
                write!(f, "add map @{version} {map} {} {backend}", map_key(key))
            }
            Self::CommitMap { map, version } => write!(f, "commit map @{version} {map}"),
            Self::Weight { server, weight } => write!(f, "set server {server} weight {weight}"),
            Self::Ready(server) => write!(f, "set server {server} state ready"),
            Self::Maintenance(server) => write!(f, "set server {server} state maint"),
            Self::AddServer { server, address, check } => {
                write!(f, "add server {server} {address} weight 0 {}", server_keywords(check))
            }
            Self::EnableHealth(server) => write!(f, "enable health {server}"),
            Self::EnableServer(server) => write!(f, "enable server {server}"),
            Self::DeleteServer(server) => write!(f, "del server {server}"),
            Self::CutSessions(server) => write!(f, "shutdown sessions server {server}"),
            Self::Sessions => f.write_str("show sess"),
            Self::CutSession(number) => write!(f, "shutdown session {number:#x}"),
            Self::Processes => f.write_str("show proc"),
            Self::Reload => f.write_str("reload"),
        }
    }
}

impl Command<'_> {
    /// True for an answer that says that the command was done. HAProxy has no status codes: what
    /// changes something answers nothing, or one of these sentences.
    pub fn is_done(&self, answer: &str) -> bool {
        match self {
            Self::AddServer { .. } => answer == "New server registered.",
            Self::DeleteServer(_) => answer == "Server deleted.",
            _ => answer.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_spelled_as_haproxy_takes_them() {
        let backend: BackendName = "production.web".parse().unwrap();
        let name: ServerName = "alpha:f753afc24d79:3f2a91bc-0".parse().unwrap();
        let server = ServerPath { backend: &backend, server: &name };
        let map: FilePath = "/x/routes.map".parse().unwrap();
        let key: RouteKey = "web www.example.com/a".parse().unwrap();
        for (command, text) in [
            (Command::Servers(Some(&backend)), "show servers state production.web"),
            (Command::Statistics(&backend), "show stat production.web 4 -1"),
            (
                Command::Weight { server, weight: 7 },
                "set server production.web/alpha:f753afc24d79:3f2a91bc-0 weight 7",
            ),
            (
                Command::AddRoute { map: &map, version: 3, key: &key, backend: &backend },
                "add map @3 /x/routes.map web/www.example.com/a/ production.web",
            ),
        ] {
            assert_eq!(command.to_string(), text);
        }
    }
}
