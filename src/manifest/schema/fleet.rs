//! The kinds that Apps stand on, as people write them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{EnvValue, Name, Word};

/// One manifest repository and everything that it owns. There is exactly one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstallationDocument {
    /// The version of the manifests' format.
    #[schemars(extend("const" = "plimsoll/v1alpha1"))]
    pub api_version: String,
    /// What the document declares.
    #[schemars(extend("const" = "Installation"))]
    pub kind: String,
    pub metadata: InstallationMetadata,
    pub spec: Option<InstallationSpec>,
}

/// What the Installation is called.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstallationMetadata {
    /// Its name, the first part of the names of all its containers.
    #[schemars(extend("examples" = ["shop"]))]
    pub name: Name,
    /// Random text that tells two installations of one name apart. `plimsoll init` writes it;
    /// never change it, or all containers become foreign.
    #[schemars(extend("examples" = ["8f14e45f"], "default" = "derived from the name, with a warning"))]
    pub uid: Option<Word>,
}

/// What waits for a person.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstallationSpec {
    /// Limits beyond which a change waits for approval.
    pub guards: Option<GuardsSpec>,
}

/// Limits beyond which a change waits for `plimsoll approve`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuardsSpec {
    /// Removing more than this share of the apps' containers (and more than 10), or the last
    /// App, waits. A replacement is no removal.
    #[schemars(regex(pattern = r"^(100|[0-9]{1,2})%$"), extend("default" = "50%", "examples" = ["30%"]))]
    pub prune: Option<String>,
}

/// What the apps of one stage share. An App belongs to exactly one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvironmentDocument {
    /// The version of the manifests' format.
    #[schemars(extend("const" = "plimsoll/v1alpha1"))]
    pub api_version: String,
    /// What the document declares.
    #[schemars(extend("const" = "Environment"))]
    pub kind: String,
    pub metadata: NameMetadata,
    pub spec: Option<EnvironmentSpec>,
}

/// What an object is called.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NameMetadata {
    /// Its name, by which others refer to it.
    #[schemars(extend("examples" = ["alpha"]))]
    pub name: Name,
}

/// What its apps share.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvironmentSpec {
    /// Variables of all its apps, below their own: an App's variable of the same name wins.
    #[schemars(extend("examples" = [{"REGION": "eu", "TOKEN": {"secret": "shared/token"}}]))]
    pub env: Option<BTreeMap<String, EnvValue>>,
}

/// One Docker Engine, and the address at which balancers reach its published ports.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostDocument {
    /// The version of the manifests' format.
    #[schemars(extend("const" = "plimsoll/v1alpha1"))]
    pub api_version: String,
    /// What the document declares.
    #[schemars(extend("const" = "Host"))]
    pub kind: String,
    pub metadata: NameMetadata,
    pub spec: HostSpec,
}

/// The engine, where its ports are reached, and what its apps may ask for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSpec {
    /// The engine: `unix:///PATH`, `tcp://HOST:PORT` with `tls` beside, or
    /// `ssh://[USER@]HOST[:PORT][/PATH]` with `key` beside; the path is the engine's socket on
    /// that machine, `/var/run/docker.sock` where none is given.
    #[schemars(regex(pattern = r"^(unix|tcp|ssh)://."), extend("examples" = ["unix:///var/run/docker.sock", "ssh://deploy@10.0.0.5"]))]
    pub engine: String,
    /// Folder on the controller's machine with ca.pem, cert.pem and key.pem, for `tcp://`.
    #[schemars(extend("examples" = ["/etc/plimsoll/tls/alpha"]))]
    pub tls: Option<String>,
    /// File on the controller's machine with a private key, for `ssh://`; the agent otherwise.
    #[schemars(extend("examples" = ["/etc/plimsoll/keys/alpha"], "default" = "the agent's keys"))]
    pub key: Option<String>,
    /// The IP address at which balancers reach its published ports.
    #[schemars(extend("examples" = ["10.0.0.5"]))]
    pub address: String,
    /// The IP address that ports are published on.
    #[schemars(extend("examples" = ["0.0.0.0"], "default" = "the same as address"))]
    pub publish: Option<String>,
    /// The range that published ports come from, both ends in it.
    #[schemars(extend("default" = "20000-20999", "examples" = ["20000-20999"]))]
    pub ports: Option<PortsSpec>,
    /// True: it is emptied. Apps with other Hosts go on there with the replicas that those have;
    /// an app with none but drained ones stays, and waits.
    #[schemars(extend("default" = false))]
    pub drain: Option<bool>,
    /// What apps may ask of this host beyond the safe default.
    pub allow: Option<AllowSpec>,
}

/// `FIRST-LAST`, or one port.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(untagged)]
pub enum PortsSpec {
    One(u16),
    Range(#[schemars(regex(pattern = r"^[0-9]{1,5}( *- *[0-9]{1,5})?$"))] String),
}

/// What apps may ask of a host beyond the safe default.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowSpec {
    /// Folders that may be mounted, with all below them. Folders of the machine itself (`/`,
    /// `/etc`, `/proc`, `/sys`, `/dev`, `/boot`, `/run`, the engine's own) are allowed only by
    /// their own name, never by that of a folder above.
    #[schemars(extend("default" = [], "examples" = [["/srv"]]))]
    pub folders: Option<Vec<String>>,
    /// Privileged containers, and capabilities with which a process can leave its container.
    #[schemars(extend("default" = false))]
    pub privileged: Option<bool>,
    /// Containers in the host's own network.
    #[schemars(extend("default" = false))]
    pub host_network: Option<bool>,
    /// Containers that reach the engine, and with it all of the host.
    #[schemars(extend("default" = false))]
    pub engine_socket: Option<bool>,
}

/// One HAProxy, and its listeners.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BalancerDocument {
    /// The version of the manifests' format.
    #[schemars(extend("const" = "plimsoll/v1alpha1"))]
    pub api_version: String,
    /// What the document declares.
    #[schemars(extend("const" = "Balancer"))]
    pub kind: String,
    pub metadata: NameMetadata,
    pub spec: BalancerSpec,
}

/// The listeners, and how the HAProxy is run: by Plimsoll, unless `external` is there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BalancerSpec {
    /// Where requests come in. Routes name these.
    #[schemars(length(min = 1), extend("examples" = [[{"name": "web", "bind": "127.0.0.1:8080"}]]))]
    pub listen: Vec<ListenerSpec>,
    /// `IP:PORT` of the page of statistics.
    #[schemars(extend("default" = "no page", "examples" = ["127.0.0.1:8404"]))]
    pub stats: Option<String>,
    /// Adds the response header `X-Host` with the name of the server that answered.
    #[schemars(extend("default" = false))]
    pub x_host: Option<bool>,
    /// A HAProxy that somebody else runs.
    pub external: Option<ExternalSpec>,
}

/// An address at which requests come in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerSpec {
    /// Its name in this balancer.
    #[schemars(extend("examples" = ["web"]))]
    pub name: Name,
    /// `IP:PORT`; `*:PORT` or `:PORT` for every IPv4 address, `[::]:PORT` for every address.
    #[schemars(regex(pattern = r":[0-9]{1,5}$"), extend("examples" = ["*:443"]))]
    pub bind: String,
    /// Where it speaks TLS.
    pub tls: Option<ListenerTlsSpec>,
}

/// Certificates of a listener.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerTlsSpec {
    /// Folder, where HAProxy runs, with certificates and keys in PEM.
    #[schemars(extend("examples" = ["/etc/haproxy/certs"]))]
    pub certificates: String,
}

/// A HAProxy that somebody else runs, and how to reach it. The paths are those of its machine.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalSpec {
    /// Its configuration file, which Plimsoll writes.
    #[schemars(extend("examples" = ["/etc/haproxy/haproxy.cfg"]))]
    pub config: String,
    /// The socket of its master process (`-S`).
    #[schemars(extend("examples" = ["/run/haproxy-master.sock"]))]
    pub master_socket: String,
    /// The worker's own socket (`stats socket`), at level admin.
    #[schemars(extend("examples" = ["/run/haproxy/admin.sock"]))]
    pub runtime_socket: String,
    /// Its machine, `ssh://[USER@]HOST[:PORT]`.
    #[schemars(regex(pattern = "^ssh://."), extend("default" = "the controller's machine", "examples" = ["ssh://deploy@10.0.0.9"]))]
    pub ssh: Option<String>,
    /// File on the controller's machine with a private key for `ssh`.
    #[schemars(extend("default" = "the agent's keys", "examples" = ["/etc/plimsoll/keys/edge"]))]
    pub key: Option<String>,
    /// File on the controller's machine with the known hosts for `ssh`.
    #[schemars(extend("default" = "ssh's own", "examples" = ["/etc/plimsoll/known_hosts"]))]
    pub known_hosts: Option<String>,
}
