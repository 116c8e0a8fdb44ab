//! What is measured, from the environment.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// How large a fleet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub apps: usize,
    pub hosts: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (apps, hosts) = text.trim().split_once('/')?;
            let (apps, hosts) = (apps.parse().ok()?, hosts.parse().ok()?);
            (hosts > 0 && apps >= hosts).then_some(Self { apps, hosts })
        };
        read().ok_or_else(|| format!("{text:?} is no size: APPS/HOSTS, with an app on each host"))
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} apps on {} hosts", self.apps, self.hosts)
    }
}

pub struct Options {
    pub sizes: Vec<Size>,
    pub idle: Duration,
    pub deadline: Duration,
    pub interval: String,
    pub delay: Duration,
    pub program: PathBuf,
}

impl Options {
    /// Panics with what is wrong.
    pub fn read() -> Self {
        let text =
            |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let number = |name: &str, default: &str| {
            let text = text(name, default);
            text.parse().unwrap_or_else(|_| panic!("{name}={text} is no whole number"))
        };
        let sizes = text("FLEET", "1000/100,10000/1000");
        let sizes = sizes.split(',').map(str::parse).collect::<Result<_, _>>();
        Self {
            sizes: sizes.unwrap_or_else(|error| panic!("FLEET: {error}")),
            idle: Duration::from_secs(number("FLEET_IDLE", "60")),
            deadline: Duration::from_secs(number("FLEET_DEADLINE", "900")),
            interval: text("FLEET_INTERVAL", "1s"),
            delay: Duration::from_millis(number("FLEET_DELAY", "0")),
            program: text("FLEET_PROGRAM", env!("CARGO_BIN_EXE_plimsoll")).into(),
        }
    }
}
