//! What `create` will use, and the revision that is computed from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{
    AppId, CommitId, HostName, ImageContent, InstallationName, InstallationUid, Memory, MilliCpus,
    Pin, SecretName, ServerName, Sha256, Span,
};

/// Everything that `create` gives the engine, in canonical form: maps are sorted and defaults
/// are left out of the serialized form, so that a field that is added later with its default
/// changes no revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerSpec {
    pub image: ImageContent,
    /// Replaces the image's entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Replaces the image's default arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, EnvValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Folders in memory.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tmpfs: BTreeSet<String>,
    /// The root file system can't be written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub privileged: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub capabilities: Capabilities,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// A network of the engine by name; the default bridge otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Labels beside our own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop: Stop,
    /// The port inside the container that is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// A check that the engine runs inside the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCommand>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl ContainerSpec {
    /// SHA-256 over a format word and the canonical JSON.
    pub fn revision(&self) -> Revision {
        let json = serde_json::to_string(self).unwrap_or_default();
        Revision(Sha256::of(format!("plimsoll revision 1\n{json}").as_bytes()))
    }
}

/// A value of the environment. A secret's own bytes are never here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EnvValue {
    Plain(String),
    Secret { name: SecretName, digest: SecretDigest },
}

/// HMAC-SHA-256 of a secret's bytes under a key that lies beside the secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretDigest(pub Sha256);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    pub source: VolumeSource,
    /// The absolute path in the container.
    pub at: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VolumeSource {
    /// A volume of the engine, as the app names it; on the engine it is
    /// [`engine_volume_name`].
    Named(String),
    /// A folder of the host.
    Host(String),
}

/// The name of an app's volume on the engine: unique for installation and app, so that two
/// apps never share one by accident.
pub fn engine_volume_name(installation: &InstallationName, app: &AppId, volume: &str) -> String {
    format!("{installation}.{}.{}.{volume}", app.environment, app.name)
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub add: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub drop: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub soft: i64,
    pub hard: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<MilliCpus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

/// How a container is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stop {
    /// Such as `SIGQUIT`; the image's own signal, or SIGTERM, otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// How long it has until it is killed.
    pub grace: Span,
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: None, grace: Span::from_secs(10) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCommand {
    pub command: Vec<String>,
    pub interval: Span,
    pub timeout: Span,
}

/// SHA-256 over a canonical [`ContainerSpec`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(Sha256);

impl Revision {
    pub const fn from_sha256(sha: Sha256) -> Self {
        Self(sha)
    }

    pub(super) fn sha256(&self) -> &Sha256 {
        &self.0
    }

    /// The 8 digits of server names.
    pub fn short8(&self) -> String {
        self.0.short(8)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The 12 digits of container names.
    pub fn short12(&self) -> String {
        self.0.short(12)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.hex())
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short12())
    }
}

impl FromStr for Revision {
    type Err = super::ImageError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        format!("sha256:{text}").parse().map(Self)
    }
}

impl Serialize for Revision {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Revision {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Number of a container of one revision of an app on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u32);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The id that an engine gave a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId(pub String);

impl ContainerId {
    /// The 12 characters that `docker ps` shows.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A container that is to be, with everything its creation needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewContainer {
    pub birth: Birth,
    pub spec: ContainerSpec,
    pub host: HostName,
    /// Where `birth.port` is published on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<std::net::SocketAddr>,
}

/// `INSTALLATION.ENVIRONMENT.APP.REVISION12.SLOT`.
pub fn container_name(
    installation: &InstallationName,
    app: &AppId,
    revision: Revision,
    slot: Slot,
) -> String {
    let AppId { environment, name } = app;
    format!("{installation}.{environment}.{name}.{}.{slot}", revision.short12())
}

/// The facts of a container's birth. They are its labels, and never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Birth {
    pub installation: InstallationName,
    pub uid: InstallationUid,
    pub app: AppId,
    pub revision: Revision,
    pub slot: Slot,
    /// The port on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub commit: CommitId,
    pub pin: Pin,
}

impl Birth {
    /// `INSTALLATION.ENVIRONMENT.APP.REVISION12.SLOT`.
    pub fn container_name(&self) -> String {
        container_name(&self.installation, &self.app, self.revision, self.slot)
    }

    /// The name that its server has in every balancer.
    pub fn server_name(&self, host: &HostName) -> ServerName {
        ServerName::new(host.clone(), self.pin.content.sha256(), &self.revision, self.slot)
    }

    /// The labels, by key; [`Birth::from_labels`] reads them back.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let Self { installation, uid, app, revision, slot, port, commit, pin } = self;
        let (kind, sha) = match &pin.content {
            ImageContent::Digest(sha) => ("image-digest", sha),
            ImageContent::Id(sha) => ("image-id", sha),
        };
        let mut labels = BTreeMap::from([
            (label("format"), LABEL_FORMAT.to_owned()),
            (label("installation"), installation.to_string()),
            (label("uid"), uid.to_string()),
            (label("environment"), app.environment.to_string()),
            (label("app"), app.name.to_string()),
            (label("revision"), revision.to_string()),
            (label("slot"), slot.to_string()),
            (label("commit"), commit.to_string()),
            (label("image"), pin.reference.to_string()),
            (label(kind), sha.to_string()),
        ]);
        if let Some(port) = port {
            labels.insert(label("port"), port.to_string());
        }
        labels
    }

    /// The birth that labels tell of; none where they aren't ours or can't be read.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Option<Self> {
        let get = |key: &str| labels.get(&label(key));
        if get("format")? != LABEL_FORMAT {
            return None;
        }
        let content = match (get("image-digest"), get("image-id")) {
            (Some(digest), _) => ImageContent::Digest(digest.parse().ok()?),
            (None, Some(id)) => ImageContent::Id(id.parse().ok()?),
            (None, None) => return None,
        };
        Some(Self {
            installation: get("installation")?.parse().ok()?,
            uid: get("uid")?.parse().ok()?,
            app: AppId::new(get("environment")?, get("app")?).ok()?,
            revision: get("revision")?.parse().ok()?,
            slot: Slot(get("slot")?.parse().ok()?),
            port: match get("port") {
                Some(port) => Some(port.parse().ok()?),
                None => None,
            },
            commit: CommitId(get("commit")?.clone()),
            pin: Pin { reference: get("image")?.parse().ok()?, content },
        })
    }
}

/// Version of the labels' format.
const LABEL_FORMAT: &str = "1";

/// Our label of that key: `plimsoll.KEY`.
pub fn label(key: &str) -> String {
    format!("plimsoll.{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ContainerSpec {
        ContainerSpec {
            image: ImageContent::Digest(Sha256::of(b"image")),
            command: None,
            args: None,
            env: BTreeMap::new(),
            user: None,
            workdir: None,
            volumes: Vec::new(),
            tmpfs: BTreeSet::new(),
            read_only: false,
            privileged: false,
            capabilities: Capabilities::default(),
            ulimits: BTreeMap::new(),
            network: None,
            labels: BTreeMap::new(),
            limits: Limits::default(),
            stop: Stop::default(),
            port: None,
            health: None,
        }
    }

    /// These hashes may never change: an upgrade of Plimsoll restarts nothing.
    #[test]
    fn golden_revisions() {
        assert_eq!(spec().revision().short12(), "0da2c80abe80");
        let mut rich = spec();
        rich.command = Some(vec!["/web".into()]);
        rich.args = Some(vec!["--port".into(), "8080".into()]);
        rich.env.insert("A".into(), EnvValue::Plain("1".into()));
        let digest = SecretDigest(Sha256::of(b"keyed"));
        let name = SecretName::new("web/password").unwrap();
        rich.env.insert("B".into(), EnvValue::Secret { name, digest });
        rich.volumes.push(Volume {
            source: VolumeSource::Named("data".into()),
            at: "/data".into(),
            read_only: false,
        });
        rich.limits.memory = Some(Memory::from_bytes(512 << 20));
        rich.port = Some(8080);
        assert_eq!(rich.revision().short12(), "5cb3e813c219");
    }

    #[test]
    fn labels_are_read_back() {
        let birth = Birth {
            installation: "shop".parse().unwrap(),
            uid: "8f14e45f".parse().unwrap(),
            app: AppId::new("production", "web").unwrap(),
            revision: spec().revision(),
            slot: Slot(1),
            port: Some(20000),
            commit: CommitId("c".repeat(40)),
            pin: Pin { reference: "localhost:5000/web:1".parse().unwrap(), content: spec().image },
        };
        assert_eq!(Birth::from_labels(&birth.labels()), Some(birth.clone()));
        assert_eq!(
            birth.container_name(),
            format!("shop.production.web.{}.1", birth.revision.short12())
        );
        let mut foreign = birth.labels();
        foreign.remove("plimsoll.uid");
        assert_eq!(Birth::from_labels(&foreign), None);
    }
}
