//! What a container is given of the kernel: capabilities, limits of its processes, signals.
//! The lists are those of Linux 6 (capabilities(7), getrlimit(2), signal(7)).

use std::collections::{BTreeMap, BTreeSet};

use super::super::mistake::{Mistakes, known_names, nearest};
use super::super::node::{Data, Node};
use super::container::{Need, Needs};
use super::{Field, Fields, integer};
use crate::model::{Capabilities, Ulimit};

const CAPABILITIES: [&str; 42] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// Those with which a process can leave its container, or change the machine.
const DANGEROUS: [&str; 13] = [
    "ALL",
    "BPF",
    "DAC_READ_SEARCH",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "PERFMON",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_TIME",
];

const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

const SIGNALS: [&str; 32] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
    "SIGRTMIN",
];

pub fn capabilities(field: &Field<'_>, needs: &mut Needs, found: &mut Mistakes) -> Capabilities {
    let mut capabilities = Capabilities::default();
    let Some(mut fields) = field.fields("`capabilities`", found) else { return capabilities };
    if let Some(add) = fields.get("add") {
        capabilities.add = names(&add, found, |name, at| {
            if DANGEROUS.contains(&name) {
                needs.push((Need::Capability(name.to_owned()), at));
            }
        });
    }
    if let Some(drop) = fields.get("drop") {
        capabilities.drop = names(&drop, found, |_, _| ());
    }
    fields.finish(found);
    capabilities
}

fn names(
    field: &Field<'_>,
    found: &mut Mistakes,
    mut each: impl FnMut(&str, super::Extent),
) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (text, at) in field.texts(found) {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if CAPABILITIES.contains(&name) {
            each(name, at);
            names.insert(name.to_owned());
            continue;
        }
        let mistake = found.error(at, format!("{text:?} is no capability of Linux"));
        match nearest(name, CAPABILITIES) {
            Some(near) => mistake.hint(format!("did you mean `{near}`?")),
            None => mistake.hint("such as NET_BIND_SERVICE; see capabilities(7)"),
        }
    }
    names
}

pub fn ulimits(field: &Field<'_>, found: &mut Mistakes) -> BTreeMap<String, Ulimit> {
    let mut ulimits = BTreeMap::new();
    for entry in field.map(found) {
        if !ULIMITS.contains(&&*entry.key) {
            let hint = known_names(&entry.key, "limit", ULIMITS);
            found.error(entry.key_at, format!("`{}` is no limit of a process", entry.key)).hint =
                hint;
        } else if let Some(ulimit) = ulimit(&entry.key, &entry.value, found) {
            ulimits.insert(entry.key.to_string(), ulimit);
        }
    }
    ulimits
}

fn ulimit(name: &str, node: &Node, found: &mut Mistakes) -> Option<Ulimit> {
    // -1 stands for "unlimited".
    let range = -1..=i64::MAX;
    let Data::Map(_) = node.data else {
        let limit = integer(node, &format!("`{name}`"), range, found)?;
        return Some(Ulimit { soft: limit, hard: limit });
    };
    let mut fields = Fields::open(node, "a limit", found)?;
    let soft_field = fields.require("soft", "1024", found);
    let soft = soft_field.and_then(|field| field.integer(range.clone(), found));
    let hard_field = fields.require("hard", "4096", found);
    let hard = hard_field.and_then(|field| field.integer(range, found));
    fields.finish(found);
    let ulimit = Ulimit { soft: soft?, hard: hard? };
    let is_above = ulimit.hard != -1 && (ulimit.soft == -1 || ulimit.soft > ulimit.hard);
    if is_above {
        found
            .error(soft_field?.at(), format!("the soft limit of `{name}` is above the hard one"))
            .hint("a process may raise its soft limit up to the hard one, never beyond");
        return None;
    }
    Some(ulimit)
}

/// A signal by its name.
pub fn signal(field: &Field<'_>, found: &mut Mistakes) -> Option<String> {
    let text = field.text(found)?;
    if SIGNALS.contains(&text) || is_real_time(text) {
        return Some(text.to_owned());
    }
    let mistake = found.error(field.at(), format!("{text:?} is no name of a signal"));
    let upper = format!("SIG{}", text.to_ascii_uppercase().trim_start_matches("SIG"));
    match nearest(&upper, SIGNALS) {
        Some(near) => mistake.hint(format!("did you mean `{near}`?")),
        None => mistake.hint("such as SIGTERM, SIGINT or SIGQUIT"),
    }
    None
}

/// `SIGRTMIN+1` to `SIGRTMIN+15`, `SIGRTMAX-14` to `SIGRTMAX`.
fn is_real_time(text: &str) -> bool {
    let number = |digits: &str, last: u8| {
        !digits.starts_with('0') && digits.parse::<u8>().is_ok_and(|n| n <= last)
    };
    text == "SIGRTMAX"
        || text.strip_prefix("SIGRTMIN+").is_some_and(|digits| number(digits, 15))
        || text.strip_prefix("SIGRTMAX-").is_some_and(|digits| number(digits, 14))
}
