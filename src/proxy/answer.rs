//! What HAProxy answers, read strictly: an answer that has another shape than the manual's is an
//! error, never a guess. Servers and routes that aren't named as ours are are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::render::{DESCRIPTION, FULL_HEALTH};
use super::routes::{Routes, route_of};
use crate::model::{AdminState, BackendName, CheckState, RuntimeServer, ServerName, Sha256};

pub type RuntimeServers = BTreeMap<BackendName, BTreeMap<ServerName, RuntimeServer>>;

/// The answers of `count` commands that were sent on one line: each ends with an empty line.
///
/// # Errors
/// Where there are more or fewer.
pub fn split(text: &str, count: usize) -> Result<Vec<&str>, String> {
    let mut answers = Vec::with_capacity(count);
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        if line == "\n" {
            answers.push(text[start..at].trim_end_matches('\n'));
            start = at + line.len();
        }
        at += line.len();
    }
    if answers.len() == count && start == text.len() {
        Ok(answers)
    } else {
        Err(format!("{} answers to {count} commands: {}", answers.len(), excerpt(text)))
    }
}

/// The beginning of a text, in one line, for an error.
pub fn excerpt(text: &str) -> String {
    let line: String = text.trim().chars().take(200).collect();
    line.replace('\n', " / ")
}

/// Digest of the structure that the worker's `description` names; none where it is foreign.
pub fn structure(info: &str) -> Option<Sha256> {
    let description = info.lines().find_map(|line| line.strip_prefix("description: "))?;
    format!("sha256:{}", description.strip_prefix(DESCRIPTION)?).parse().ok()
}

/// Servers with a weight that their worker hasn't checked since it began. HAProxy sends requests
/// to them.
pub type Unchecked = BTreeSet<(BackendName, ServerName)>;

/// `show servers state`, format 1.
///
/// # Errors
/// Where it isn't that, or a field of one of our servers can't be read.
pub fn servers(text: &str) -> Result<RuntimeServers, String> {
    servers_and_unchecked(text).map(|(servers, _)| servers)
}

/// As [`servers`], with those that weren't checked yet.
///
/// # Errors
/// As [`servers`].
pub fn servers_and_unchecked(text: &str) -> Result<(RuntimeServers, Unchecked), String> {
    let mut lines = text.lines();
    if lines.next() != Some("1") {
        return Err(format!("not the states of servers: {}", excerpt(text)));
    }
    let header = lines.next().and_then(|line| line.strip_prefix("# "));
    let header: Vec<&str> =
        header.ok_or("states of servers without a header")?.split(' ').collect();
    let (mut servers, mut unchecked) = (RuntimeServers::new(), Unchecked::new());
    for line in lines {
        let cells: Vec<&str> = line.split(' ').collect();
        if cells.len() != header.len() {
            return Err(format!("a state of a server that is cut: {line}"));
        }
        let row = Row { header: &header, cells: &cells };
        let (Ok(backend), Ok(name)) = (row.text("be_name")?.parse(), row.text("srv_name")?.parse())
        else {
            continue;
        };
        let server = server(&row)?;
        if server.check == CheckState::Unknown
            && server.admin == AdminState::Ready
            && server.weight > 0
            && row.text("srv_check_status")? == NEVER_CHECKED
        {
            unchecked.insert((BackendName::clone(&backend), ServerName::clone(&name)));
        }
        let of_backend: &mut BTreeMap<_, _> = servers.entry(backend).or_default();
        of_backend.insert(name, server);
    }
    Ok((servers, unchecked))
}

/// `srv_check_status` of a server whose first check hasn't ended: INI.
const NEVER_CHECKED: &str = "1";

fn server(row: &Row) -> Result<RuntimeServer, String> {
    let address: IpAddr = row.parse("srv_addr")?;
    // Bits of srv_admin_state in HAProxy's management guide, section 9.3.
    const MAINTENANCE: u32 = 0x01 | 0x02 | 0x04 | 0x20 | 0x40;
    const DRAIN: u32 = 0x08 | 0x10;
    let admin: u32 = row.parse("srv_admin_state")?;
    let state: u32 = row.parse("srv_op_state")?;
    let health: u64 = row.parse("srv_check_health")?;
    Ok(RuntimeServer {
        address: SocketAddr::new(address, row.parse("srv_port")?),
        weight: row.parse("srv_uweight")?,
        admin: match admin {
            bits if bits & MAINTENANCE != 0 => AdminState::Maintenance,
            bits if bits & DRAIN != 0 => AdminState::Drain,
            _ => AdminState::Ready,
        },
        // 0 stopped, 1 starting, 2 running, 3 stopping. A server begins as running with the
        // health `rise`, and only a check that passed makes it full.
        check: match state {
            2 if health >= FULL_HEALTH => CheckState::Up,
            1 | 2 => CheckState::Unknown,
            _ => CheckState::Down,
        },
    })
}

/// A row of a table, with the names of its columns.
struct Row<'a> {
    header: &'a [&'a str],
    cells: &'a [&'a str],
}

impl Row<'_> {
    fn text(&self, column: &str) -> Result<&str, String> {
        let index = self.header.iter().position(|name| *name == column);
        index
            .and_then(|index| self.cells.get(index).copied())
            .ok_or_else(|| format!("an answer without the column {column}"))
    }

    fn parse<T: std::str::FromStr>(&self, column: &str) -> Result<T, String> {
        let text = self.text(column)?;
        text.parse().map_err(|_| format!("{text:?} in the column {column} can't be read"))
    }
}

/// Requests and tunnels on one server, from `show stat`; 0 where it isn't there. Idle
/// connections aren't counted in `scur`.
///
/// # Errors
/// Where it isn't such a table.
pub fn sessions(statistics: &str, server: &ServerName) -> Result<u64, String> {
    let mut lines = statistics.lines();
    let header = lines.next().and_then(|line| line.strip_prefix("# "));
    let header: Vec<&str> = header
        .ok_or_else(|| format!("not statistics: {}", excerpt(statistics)))?
        .split(',')
        .collect();
    let name = server.to_string();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let row = Row { header: &header, cells: &cells };
        if row.text("svname")? == name {
            return row.parse("scur");
        }
    }
    Ok(0)
}

/// `show map`: the routes in a worker.
///
/// # Errors
/// Where it isn't a map.
pub fn routes(text: &str) -> Result<Routes, String> {
    let mut routes = Routes::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [address, key, backend] = words[..] else {
            return Err(format!("not a line of a map: {line}"));
        };
        if !address.starts_with("0x") {
            return Err(format!("not a line of a map: {line}"));
        }
        if let (Some(key), Ok(backend)) = (route_of(key), backend.parse()) {
            routes.insert(key, backend);
        }
    }
    Ok(routes)
}

/// `prepare map`: the number of the new version.
///
/// # Errors
/// The answer, where it is none.
pub fn map_version(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix("New version created: ").and_then(|text| text.parse().ok());
    number.ok_or_else(|| text.to_owned())
}

/// What a master knows of its processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processes {
    /// Reloads that failed, one after the other.
    pub failed_reloads: u32,
    /// The newest worker; none where it died.
    pub worker: Option<u32>,
    /// Workers of earlier generations, which finish what they began.
    pub old_workers: Vec<u32>,
}

/// `show proc`.
///
/// # Errors
/// Where it isn't that.
pub fn processes(text: &str) -> Result<Processes, String> {
    let mut processes = Processes { failed_reloads: 0, worker: None, old_workers: Vec::new() };
    let mut has_master = false;
    let mut section = "";
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("# ") {
            section = title;
            continue;
        }
        let bad = || format!("not a process: {line}");
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] => {}
            ["#<PID>", ..] => {}
            [_, "master", _, "[failed:", failed, ..] => {
                has_master = true;
                processes.failed_reloads =
                    failed.trim_end_matches(']').parse().map_err(|_| bad())?;
            }
            [pid, "worker", ..] => {
                let pid = pid.parse().map_err(|_| bad())?;
                match section {
                    "workers" => processes.worker = Some(pid),
                    "old workers" => processes.old_workers.push(pid),
                    _ => return Err(bad()),
                }
            }
            // Programs that a master of somebody else runs beside HAProxy.
            _ if section.ends_with("programs") => {}
            _ => return Err(bad()),
        }
    }
    if has_master { Ok(processes) } else { Err(format!("not a master: {}", excerpt(text))) }
}

/// The numbers of the sessions that are on a server, out of `show sess`.
pub fn sessions_on(text: &str, backend: &BackendName, server: &ServerName) -> Vec<u64> {
    let (backend, server) = (format!("be={backend}"), format!("srv={server}"));
    let of_server = text.lines().filter_map(|line| {
        let (number, rest) = line.split_once(": ")?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let is_on = words.contains(&backend.as_str()) && words.contains(&server.as_str());
        is_on.then(|| u64::from_str_radix(number.strip_prefix("0x")?, 16).ok())?
    });
    of_server.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_on_one_line_are_told_apart() {
        assert_eq!(split("a: 1\nb: 2\n\n\n1\n# x\n\n", 3), Ok(vec!["a: 1\nb: 2", "", "1\n# x"]));
        assert_eq!(split("\n", 1), Ok(vec![""]));
        for (cut, count) in [("a\n", 1), ("", 1), ("a\n\n", 2), ("a\n\nb", 1), ("a\n\n\n", 1)] {
            assert!(split(cut, count).is_err(), "{cut:?}");
        }
    }

    #[test]
    fn processes_are_read() {
        let text = "#<PID>          <type>          <reloads>       <uptime>        <version>      \n\
            20826           master          2 [failed: 1]   0d00h00m09s     2.6.12-1+deb12u4\n\
            # workers\n\
            22077           worker          0               0d00h00m00s     2.6.12-1+deb12u4\n\
            # old workers\n\
            20827           worker          1               0d00h00m09s     2.6.12-1+deb12u4\n\
            # programs\n";
        let expected =
            Processes { failed_reloads: 1, worker: Some(22077), old_workers: vec![20827] };
        assert_eq!(processes(text), Ok(expected));
        assert!(processes("").is_err());
        assert!(processes("Unknown command\n").is_err());
    }

    const HEADER: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state \
        srv_admin_state srv_uweight srv_check_status srv_check_health srv_port\n";

    #[test]
    fn a_server_is_up_only_without_a_fraction() {
        for (state, admin, health, check, expected_admin) in [
            (2, 0, 3, CheckState::Up, AdminState::Ready),
            (2, 0, 2, CheckState::Unknown, AdminState::Ready),
            (2, 8, 3, CheckState::Up, AdminState::Drain),
            (0, 0, 0, CheckState::Down, AdminState::Ready),
            (0, 1, 0, CheckState::Down, AdminState::Maintenance),
            (3, 0, 3, CheckState::Down, AdminState::Ready),
        ] {
            let text = format!(
                "{HEADER}4 production.web 1 alpha:f753afc24d79:3f2a91bc-0 127.0.0.1 {state} \
                 {admin} 100 6 {health} 20000\n4 foreign 1 b 127.0.0.1 2 0 1 6 3 1\n"
            );
            let servers = servers(&text).unwrap();
            let server = *servers.values().next().unwrap().values().next().unwrap();
            let address = "127.0.0.1:20000".parse().unwrap();
            let expected = RuntimeServer { address, weight: 100, admin: expected_admin, check };
            assert_eq!(server, expected);
            assert_eq!(servers.len(), 1);
        }
        for bad in ["", "No such backend.", "1\n", &format!("{HEADER}4 production.web 1 x\n")] {
            assert!(servers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_is_unchecked_until_its_first_check_has_ended() {
        for (admin, weight, status, health, is_unchecked) in [
            (0, 100, 1, 1, true),
            (0, 0, 1, 1, false),
            (8, 100, 1, 1, false),
            (0, 100, 6, 1, false),
            (0, 100, 6, 3, false),
        ] {
            let text = format!(
                "{HEADER}4 production.web 1 alpha:f753afc24d79:3f2a91bc-0 127.0.0.1 2 {admin} \
                 {weight} {status} {health} 20000\n"
            );
            let (_, unchecked) = servers_and_unchecked(&text).unwrap();
            assert_eq!(!unchecked.is_empty(), is_unchecked, "{text}");
        }
    }

    #[test]
    fn the_description_names_the_structure() {
        let digest = Sha256::of(b"structure");
        let info = format!("Name: HAProxy\ndescription: plimsoll-structure-{}\n", digest.hex());
        assert_eq!(structure(&info), Some(digest));
        assert_eq!(structure("Name: HAProxy\ndescription: mine\n"), None);
    }

    #[test]
    fn routes_are_read_and_foreign_ones_left_out() {
        let text = "0x55 web/www.example.com/a/ production.web\n0x56 other mine\n";
        let routes = routes(text).unwrap();
        assert_eq!(routes.len(), 1);
        assert!(super::routes("Unknown map identifier. Please use #<id> or <file>.\n").is_err());
    }

    #[test]
    fn sessions_are_found_by_their_server() {
        let text = "0x55b2f7e43130: proto=tcpv4 src=127.0.0.1:50640 fe=web be=production.web \
                    srv=alpha:3be7271f1d5b:2a341350-0 ts=00 epoch=0\n\
                    0x55b2f7e43131: proto=tcpv4 src=x fe=web be=production.web \
                    srv=alpha:3be7271f1d5b:2a341350-1 ts=00\n\
                    0x55b2f7f607c0: proto=sockpair src=unix:2 fe=GLOBAL be=<NONE> srv=<none>\n";
        let backend = "production.web".parse().unwrap();
        let server = "alpha:3be7271f1d5b:2a341350-0".parse().unwrap();
        assert_eq!(sessions_on(text, &backend, &server), [0x55b2_f7e4_3130]);
    }
}
