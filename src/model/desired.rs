//! All manifests of one commit, parsed and validated.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{
    AppId, BalancerName, Capabilities, Check, CommitId, ContainerSpec, EnvValue, EnvironmentName,
    HealthCommand, HostName, HostPattern, ImageRef, InstallationName, InstallationUid, Limits,
    Listener, ListenerName, PathPrefix, Pin, SecretDigest, SecretName, Span, Stop, Ulimit, Volume,
    VolumeSource,
};

/// What one commit declares. What couldn't be read is here too, so that the planner can tell
/// what is absent from what is unknown. What grows with the fleet is in maps that share with those
/// of the commit before whatever didn't change: two of them are compared by what differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Desired {
    pub commit: CommitId,
    pub installation: Installation,
    pub environments: BTreeMap<EnvironmentName, BTreeMap<String, EnvSource>>,
    pub hosts: OrdMap<HostName, Arc<Host>>,
    pub balancers: BTreeMap<BalancerName, Balancer>,
    pub apps: OrdMap<AppId, Arc<App>>,
    /// Apps that are declared, but by a document with mistakes, or that need a broken one.
    /// They are in neither `apps` nor gone: nothing of theirs is touched.
    pub blocked: BTreeMap<AppId, Blocked>,
    /// Files of which it isn't known which apps they declare. While there are any, no app is
    /// taken for deleted.
    pub unreadable: Vec<Blocked>,
    /// Hosts and balancers whose documents have mistakes: they are left as they are.
    pub broken_hosts: BTreeMap<HostName, Blocked>,
    pub broken_balancers: BTreeMap<BalancerName, Blocked>,
}

/// Where a manifest document, or a mistake in it, lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Location {
    /// Path in the repository.
    pub file: String,
    /// From 1.
    pub line: u32,
}

/// Why something that is declared can't be applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocked {
    pub location: Location,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Installation {
    pub name: InstallationName,
    pub uid: InstallationUid,
    pub guards: Guards,
}

/// What waits for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Guards {
    /// Removing more than this share of the apps' containers, in percent, waits.
    pub prune_percent: u8,
}

impl Default for Guards {
    fn default() -> Self {
        Self { prune_percent: 50 }
    }
}

/// One Docker Engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    pub name: HostName,
    pub engine: EngineAddress,
    /// Where balancers reach its published ports.
    pub address: IpAddr,
    /// The address that ports are published on; `address` where none is given.
    pub publish: IpAddr,
    pub ports: PortRange,
    /// True: its apps move elsewhere, or wait if they can't.
    pub drain: bool,
    pub allow: Allow,
    pub location: Location,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum EngineAddress {
    /// Absolute path of the engine's socket.
    Unix { path: String },
    /// `tls`: folder on the controller's machine with ca.pem, cert.pem and key.pem.
    Tcp { host: String, port: u16, tls: Option<String> },
    /// `socket`: the engine's socket on that machine.
    Ssh {
        user: Option<String>,
        host: String,
        port: Option<u16>,
        key: Option<String>,
        socket: String,
    },
}

/// An inclusive range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// What apps may ask of a host beyond the safe default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allow {
    /// Folders that may be mounted, and everything below them.
    pub folders: BTreeSet<String>,
    pub privileged: bool,
    pub host_network: bool,
    pub engine_socket: bool,
}

/// One HAProxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Balancer {
    pub name: BalancerName,
    pub listeners: BTreeMap<ListenerName, Listener>,
    /// Address of the page of statistics.
    pub stats: Option<std::net::SocketAddr>,
    /// Adds the response header `X-Host` with the server's name.
    pub x_host: bool,
    pub run: BalancerRun,
    pub location: Location,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum BalancerRun {
    /// Plimsoll starts HAProxy, and brings it back when it dies.
    Managed,
    /// Somebody else runs it. `config` is its file, `master_socket` its master CLI,
    /// `runtime_socket` the worker's own, all on the machine that `ssh` reaches.
    External {
        config: String,
        master_socket: String,
        runtime_socket: String,
        ssh: Option<SshAddress>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SshAddress {
    pub user: Option<String>,
    pub host: String,
    pub port: Option<u16>,
    /// Path of a private key on the controller's machine; the agent otherwise.
    pub key: Option<String>,
    /// Path of a known_hosts file; ssh's own otherwise.
    pub known_hosts: Option<String>,
}

/// One service in one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    pub id: AppId,
    pub template: ContainerTemplate,
    pub placement: BTreeMap<HostName, Placement>,
    pub routes: Vec<Route>,
    pub health: Health,
    /// How long sessions may go on when a server is taken out.
    pub drain: Span,
    pub rollout: Rollout,
    pub location: Location,
}

impl App {
    /// How balancers check its servers.
    pub fn check(&self) -> Check {
        Check {
            path: self.health.path.as_deref().and_then(|path| path.parse().ok()),
            interval: self.health.interval,
            timeout: self.health.timeout,
        }
    }
}

/// A [`ContainerSpec`] whose image isn't resolved and whose secrets are only named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerTemplate {
    pub image: ImageRef,
    pub command: Option<Vec<String>>,
    pub args: Option<Vec<String>>,
    pub env: BTreeMap<String, EnvSource>,
    pub user: Option<String>,
    pub workdir: Option<String>,
    pub volumes: Vec<Volume>,
    pub tmpfs: BTreeSet<String>,
    pub read_only: bool,
    pub privileged: bool,
    pub capabilities: Capabilities,
    pub ulimits: BTreeMap<String, Ulimit>,
    pub network: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub limits: Limits,
    pub stop: Stop,
    pub port: Option<u16>,
    pub health: Option<HealthCommand>,
}

impl ContainerTemplate {
    /// The names of the secrets that it needs.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        self.env.values().filter_map(|value| match value {
            EnvSource::Secret(name) => Some(name),
            EnvSource::Plain(_) => None,
        })
    }

    /// The spec with this image and these secrets.
    ///
    /// # Errors
    /// The first secret that has no digest.
    pub fn resolve(
        &self,
        pin: &Pin,
        secrets: &BTreeMap<SecretName, SecretDigest>,
    ) -> Result<ContainerSpec, SecretName> {
        let Self {
            image: _,
            command,
            args,
            env,
            user,
            workdir,
            volumes,
            tmpfs,
            read_only,
            privileged,
            capabilities,
            ulimits,
            network,
            labels,
            limits,
            stop,
            port,
            health,
        } = self.clone();
        let resolve = |(key, value)| {
            let value = match value {
                EnvSource::Plain(text) => EnvValue::Plain(text),
                EnvSource::Secret(name) => match secrets.get(&name) {
                    Some(digest) => EnvValue::Secret { digest: *digest, name },
                    None => return Err(name),
                },
            };
            Ok((key, value))
        };
        Ok(ContainerSpec {
            image: pin.content,
            command,
            args,
            env: env.into_iter().map(resolve).collect::<Result<_, _>>()?,
            user,
            workdir,
            volumes,
            tmpfs,
            read_only,
            privileged,
            capabilities,
            ulimits,
            network,
            labels,
            limits,
            stop,
            port,
            health,
        })
    }

    /// True where two containers of it can't run side by side: they would write one volume.
    pub fn writes_a_volume(&self) -> bool {
        self.volumes.iter().any(|volume| {
            let (VolumeSource::Named(_) | VolumeSource::Host(_)) = &volume.source;
            !volume.read_only
        })
    }
}

/// A value of the environment as it is declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EnvSource {
    Plain(String),
    Secret(SecretName),
}

/// What an app has on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    pub replicas: u32,
    /// HAProxy's weight of each of its servers there, 0 to 256.
    pub weight: u16,
}

/// The weight of a server where none is declared.
pub const DEFAULT_WEIGHT: u16 = 100;

/// Requests that reach an app.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    pub balancer: BalancerName,
    pub listener: ListenerName,
    pub host: HostPattern,
    pub path: PathPrefix,
}

impl Route {
    /// What its balancer looks requests up by.
    pub fn key(&self) -> super::RouteKey {
        let Self { balancer: _, listener, host, path } = self;
        let (listener, host, path) = (listener.clone(), host.clone(), path.clone());
        super::RouteKey { listener, host, path }
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}{}", self.balancer, self.listener, self.host, self.path)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Path of the HTTP check; a TCP check serves without.
    pub path: Option<String>,
    pub interval: Span,
    pub timeout: Span,
    /// How long a new container may take to become healthy.
    pub deadline: Span,
    /// How long a container without any check must have run before it counts.
    pub settle: Span,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: None,
            interval: Span::from_secs(1),
            timeout: Span::from_secs(1),
            deadline: Span::from_secs(60),
            settle: Span::from_secs(3),
        }
    }
}

/// How one revision takes the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "strategy")]
pub enum Rollout {
    /// A few at a time on each host: `surge` more than declared, `unavailable` fewer.
    Rolling { surge: u32, unavailable: u32 },
}

impl Default for Rollout {
    fn default() -> Self {
        Self::Rolling { surge: 1, unavailable: 0 }
    }
}
