//! Making a container: what the engine is told of it, and what a name that is taken means. The
//! values of secrets go into the container's environment here, and nowhere else.

use std::collections::BTreeMap;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, Mount, MountType, MountVolumeOptions,
    PortBinding, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use secrecy::{ExposeSecret, SecretString};

use super::containers::Found;
use super::error::{Failure, within};
use super::lifecycle::whole_seconds;
use super::scrub::Scrub;
use super::{DockerEngine, EngineError};
use crate::model::{
    Birth, ContainerId, ContainerSpec, ContainerState, EnvValue, HealthCommand, NewContainer,
    Owner, SecretName, Span, Volume, VolumeSource, engine_volume_name, label,
};

/// How often creation is tried where what held the name was ours and went away.
const TRIES: usize = 3;

impl DockerEngine {
    /// Makes the container. Done at once where it is there already, ours and of that birth: the
    /// reply to an earlier call may have been lost.
    pub(super) async fn create_container(
        &self,
        container: &NewContainer,
        secrets: &BTreeMap<SecretName, SecretString>,
    ) -> Result<ContainerId, EngineError> {
        let body = body(container, secrets)?;
        let scrub = Scrub::of_secrets(secrets);
        let name = container.birth.container_name();
        let doing = format!("create {name}");
        for _ in 0..TRIES {
            match self.try_create(&name, body.clone()).await {
                Ok(id) => return Ok(id),
                Err(failure) if is_name_conflict(&failure) => {
                    if let Some(id) = self.clear_name(container, &name, &doing).await? {
                        return Ok(id);
                    }
                }
                Err(failure) => {
                    let failure = failure.map_text(|text| scrub.clean(text));
                    return Err(image_missing(&container.birth, &failure)
                        .unwrap_or_else(|| self.error(&doing, failure)));
                }
            }
        }
        let cause = "its name is taken again and again by containers that then go away".into();
        Err(EngineError::Transient { doing, cause })
    }

    async fn try_create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<ContainerId, Failure> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let docker = self.docker()?;
        let call = docker.create_container(Some(options), body);
        Ok(ContainerId(within(self.deadlines().change, call).await?.id))
    }

    /// Looks at what holds the name: the very container that was to be made gives its id; what
    /// is ours and never ran makes room, and none is the answer.
    async fn clear_name(
        &self,
        wanted: &NewContainer,
        name: &str,
        doing: &str,
    ) -> Result<Option<ContainerId>, EngineError> {
        let birth = &wanted.birth;
        let owner = Owner { installation: birth.installation.clone(), uid: birth.uid.clone() };
        let found = self.find(&owner, name).await.map_err(|failure| self.error(doing, failure))?;
        let holder = match found {
            Found::Gone => return Ok(None),
            Found::Foreign { id } => {
                return Err(EngineError::NameTaken { name: name.to_owned(), id });
            }
            Found::Ours(ours) => ours.container,
        };
        match holder.state {
            ContainerState::Removing => {
                self.wait_until_gone(&owner, &holder.id, doing).await?;
                Ok(None)
            }
            ContainerState::Dead => {
                self.remove_container(&owner, &holder.id).await?;
                Ok(None)
            }
            _ if holder.birth == *birth => Ok(Some(holder.id)),
            ContainerState::Created => {
                self.remove_container(&owner, &holder.id).await?;
                Ok(None)
            }
            _ => Err(EngineError::Refused {
                doing: doing.to_owned(),
                cause: format!(
                    "its name is in use by our container {}, which differs from it in {} and has \
                     run; it has to be stopped and removed first",
                    holder.id.short(),
                    difference(&holder.birth, birth)
                ),
            }),
        }
    }
}

fn is_name_conflict(failure: &Failure) -> bool {
    failure.status() == Some(409) && failure.text().contains("is already in use")
}

fn image_missing(birth: &Birth, failure: &Failure) -> Option<EngineError> {
    let missing = failure.status() == Some(404)
        && failure.text().to_ascii_lowercase().contains("no such image");
    missing.then(|| EngineError::ImageMissing {
        image: birth.pin.reference.to_string(),
        cause: format!("it isn't on the host: {}", failure.text()),
    })
}

/// The facts of birth that differ, by the names of their labels.
fn difference(one: &Birth, other: &Birth) -> String {
    let (one, other) = (one.labels(), other.labels());
    let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
    let differ: Vec<_> =
        keys.filter(|key| one.get(*key) != other.get(*key)).map(String::as_str).collect();
    differ.join(", ")
}

/// Everything that the engine is told of a new container.
///
/// # Errors
/// A secret without a value, or with one that no environment can hold.
fn body(
    container: &NewContainer,
    secrets: &BTreeMap<SecretName, SecretString>,
) -> Result<ContainerCreateBody, EngineError> {
    let NewContainer { birth, spec, host: _, publish: _ } = container;
    let mut labels = spec.labels.clone();
    labels.extend(birth.labels());
    Ok(ContainerCreateBody {
        image: Some(birth.pin.engine_name()),
        entrypoint: spec.command.clone(),
        cmd: spec.args.clone(),
        env: Some(env(container, secrets)?),
        user: spec.user.clone(),
        working_dir: spec.workdir.clone(),
        labels: Some(labels.into_iter().collect()),
        exposed_ports: spec.port.map(|port| vec![port_key(port)]),
        healthcheck: spec.health.as_ref().map(health),
        stop_signal: spec.stop.signal.clone(),
        stop_timeout: Some(whole_seconds(spec.stop.grace).into()),
        host_config: Some(host_config(container)),
        ..ContainerCreateBody::default()
    })
}

/// `KEY=VALUE` of the spec, and of what Plimsoll tells each container about itself.
fn env(
    container: &NewContainer,
    secrets: &BTreeMap<SecretName, SecretString>,
) -> Result<Vec<String>, EngineError> {
    let NewContainer { birth, spec, host, .. } = container;
    let mut env = Vec::with_capacity(spec.env.len() + 6);
    for (key, value) in &spec.env {
        let value = match value {
            EnvValue::Plain(text) => text.as_str(),
            EnvValue::Secret { name, .. } => match secrets.get(name) {
                Some(secret) => secret.expose_secret(),
                None => return Err(EngineError::SecretMissing(name.clone())),
            },
        };
        if key.contains(['\0', '=']) || value.contains('\0') {
            return Err(EngineError::Refused {
                doing: format!("create {}", birth.container_name()),
                cause: format!(
                    "the environment can't hold {key}: a name has neither '=' nor a NUL byte in \
                     it, and a value no NUL byte"
                ),
            });
        }
        env.push(format!("{key}={value}"));
    }
    let ours = [
        ("PLIMSOLL_REVISION", birth.revision.short12()),
        ("PLIMSOLL_SLOT", birth.slot.to_string()),
        ("PLIMSOLL_HOST", host.to_string()),
        ("PLIMSOLL_ENVIRONMENT", birth.app.environment.to_string()),
        ("PLIMSOLL_APP", birth.app.name.to_string()),
        ("PLIMSOLL_COMMIT", birth.commit.to_string()),
    ];
    env.retain(|entry| !ours.iter().any(|(key, _)| entry.split('=').next() == Some(*key)));
    env.extend(ours.map(|(key, value)| format!("{key}={value}")));
    Ok(env)
}

fn port_key(port: u16) -> String {
    format!("{port}/tcp")
}

/// Interval and timeout as declared; three failures in a row make it unhealthy.
fn health(health: &HealthCommand) -> HealthConfig {
    let HealthCommand { command, interval, timeout } = health;
    let test = std::iter::once("CMD".to_owned()).chain(command.iter().cloned());
    HealthConfig {
        test: Some(test.collect()),
        interval: Some(nanoseconds(*interval)),
        timeout: Some(nanoseconds(*timeout)),
        retries: Some(3),
        ..HealthConfig::default()
    }
}

fn nanoseconds(span: Span) -> i64 {
    i64::try_from(span.duration().as_nanos()).unwrap_or(i64::MAX)
}

fn host_config(container: &NewContainer) -> HostConfig {
    let NewContainer { birth, spec, host: _, publish } = container;
    let ContainerSpec { capabilities, limits, .. } = spec;
    let memory = limits.memory.map(|memory| i64::try_from(memory.bytes()).unwrap_or(i64::MAX));
    let bindings = spec.port.zip(*publish).map(|(port, publish)| {
        let binding = PortBinding {
            host_ip: Some(publish.ip().to_string()),
            host_port: Some(publish.port().to_string()),
        };
        std::iter::once((port_key(port), Some(vec![binding]))).collect()
    });
    let names = |set: &std::collections::BTreeSet<String>| {
        (!set.is_empty()).then(|| set.iter().cloned().collect())
    };
    HostConfig {
        port_bindings: bindings,
        // It comes back with its host, and stays down when it was stopped.
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
            maximum_retry_count: None,
        }),
        mounts: Some(spec.volumes.iter().map(|volume| mount(birth, volume)).collect()),
        tmpfs: Some(spec.tmpfs.iter().map(|at| (at.clone(), String::new())).collect()),
        readonly_rootfs: Some(spec.read_only),
        privileged: Some(spec.privileged),
        cap_add: names(&capabilities.add),
        cap_drop: names(&capabilities.drop),
        ulimits: Some(ulimits(spec)),
        network_mode: spec.network.clone(),
        memory,
        // As much swap as memory means: none beside it.
        memory_swap: memory,
        nano_cpus: limits.cpus.map(|cpus| i64::from(cpus.0) * 1_000_000),
        pids_limit: limits.pids.map(i64::from),
        init: Some(false),
        ..HostConfig::default()
    }
}

fn ulimits(spec: &ContainerSpec) -> Vec<ResourcesUlimits> {
    let one = |(name, limit): (&String, &crate::model::Ulimit)| ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    };
    spec.ulimits.iter().map(one).collect()
}

/// A named volume is made by the engine when it isn't there, with labels that say whose it is;
/// a folder of the host has to be there.
fn mount(birth: &Birth, volume: &Volume) -> Mount {
    let Volume { source, at, read_only } = volume;
    let mount = Mount { target: Some(at.clone()), read_only: Some(*read_only), ..Mount::default() };
    match source {
        VolumeSource::Host(folder) => {
            Mount { typ: Some(MountType::BIND), source: Some(folder.clone()), ..mount }
        }
        VolumeSource::Named(name) => Mount {
            typ: Some(MountType::VOLUME),
            source: Some(engine_volume_name(&birth.installation, &birth.app, name)),
            volume_options: Some(MountVolumeOptions {
                labels: Some(volume_labels(birth).into_iter().collect()),
                ..MountVolumeOptions::default()
            }),
            ..mount
        },
    }
}

fn volume_labels(birth: &Birth) -> BTreeMap<String, String> {
    let kept = ["installation", "uid", "environment", "app"].map(label);
    birth.labels().into_iter().filter(|(key, _)| kept.contains(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        AppId, CommitId, HostName, ImageContent, Limits, Memory, MilliCpus, Pin, SecretDigest,
        Sha256, Slot,
    };
    use std::collections::BTreeSet;

    fn container(json: serde_json::Value) -> NewContainer {
        let mut spec = serde_json::json!({"image": {"digest": Sha256::of(b"i").to_string()}});
        spec.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        let spec: ContainerSpec = serde_json::from_value(spec).unwrap();
        NewContainer {
            birth: Birth {
                installation: "shop".parse().unwrap(),
                uid: "8f14e45f".parse().unwrap(),
                app: AppId::new("production", "web").unwrap(),
                revision: spec.revision(),
                slot: Slot(1),
                port: Some(20000),
                commit: CommitId("c".repeat(40)),
                pin: Pin {
                    reference: "localhost:5000/web:1".parse().unwrap(),
                    content: ImageContent::Digest(Sha256::of(b"i")),
                },
            },
            spec,
            host: HostName::new("alpha").unwrap(),
            publish: Some("127.0.0.2:20000".parse().unwrap()),
        }
    }

    #[test]
    fn labels_of_ours_win() {
        let new = container(serde_json::json!({"labels": {"plimsoll.app": "x", "team": "a"}}));
        let labels = body(&new, &BTreeMap::new()).unwrap().labels.unwrap();
        assert_eq!(labels["plimsoll.app"], "web");
        assert_eq!(labels["team"], "a");
        assert_eq!(Birth::from_labels(&labels.into_iter().collect()), Some(new.birth));
    }

    #[test]
    fn secrets_are_in_the_environment_and_nowhere_else() {
        let name = SecretName::new("web/password").unwrap();
        let digest = SecretDigest(Sha256::of(b"keyed"));
        let mut new = container(serde_json::json!({"env": {
            "A": {"plain": "1"},
            "PLIMSOLL_SLOT": {"plain": "9"},
        }}));
        new.spec.env.insert("B".into(), EnvValue::Secret { name: name.clone(), digest });
        let missing = body(&new, &BTreeMap::new()).unwrap_err();
        assert!(matches!(missing, EngineError::SecretMissing(missing) if missing == name));
        let secrets = |value: &str| [(name.clone(), SecretString::from(value))].into();
        assert!(matches!(body(&new, &secrets("a\0b")), Err(EngineError::Refused { .. })));
        let body = body(&new, &secrets("hunter2")).unwrap();
        let revision = new.birth.revision.short12();
        assert_eq!(
            body.env.as_deref().unwrap(),
            [
                "A=1",
                "B=hunter2",
                &format!("PLIMSOLL_REVISION={revision}"),
                "PLIMSOLL_SLOT=1",
                "PLIMSOLL_HOST=alpha",
                "PLIMSOLL_ENVIRONMENT=production",
                "PLIMSOLL_APP=web",
                &format!("PLIMSOLL_COMMIT={}", "c".repeat(40)),
            ]
        );
        let rest = ContainerCreateBody { env: None, ..body };
        assert!(!format!("{rest:?}").contains("hunter2"));
    }

    #[test]
    fn ports_limits_and_mounts_are_told() {
        let mut new = container(serde_json::json!({
            "port": 8080,
            "volumes": [
                {"source": {"named": "data"}, "at": "/data"},
                {"source": {"host": "/srv/x"}, "at": "/x", "readOnly": true},
            ],
            "health": {"command": ["/check", "-q"], "interval": "1s", "timeout": "500ms"},
            "stop": {"grace": "1500ms"},
        }));
        new.spec.limits = Limits {
            memory: Some(Memory::from_bytes(1 << 20)),
            cpus: Some(MilliCpus(1500)),
            pids: Some(10),
        };
        new.spec.tmpfs = BTreeSet::from(["/tmp".to_owned()]);
        let body = body(&new, &BTreeMap::new()).unwrap();
        assert_eq!(body.stop_timeout, Some(2));
        let health = body.healthcheck.unwrap();
        assert_eq!(health.test.unwrap(), ["CMD", "/check", "-q"]);
        assert_eq!((health.interval, health.timeout), (Some(1_000_000_000), Some(500_000_000)));
        let host = body.host_config.unwrap();
        let binding = host.port_bindings.unwrap()["8080/tcp"].clone().unwrap().remove(0);
        assert_eq!(binding.host_ip.as_deref(), Some("127.0.0.2"));
        assert_eq!(binding.host_port.as_deref(), Some("20000"));
        assert_eq!((host.memory, host.memory_swap), (Some(1 << 20), Some(1 << 20)));
        assert_eq!((host.nano_cpus, host.pids_limit), (Some(1_500_000_000), Some(10)));
        let mounts = host.mounts.unwrap();
        assert_eq!(mounts[0].source.as_deref(), Some("shop.production.web.data"));
        let labels = mounts[0].volume_options.clone().unwrap().labels.unwrap();
        let keys: BTreeSet<_> = labels.keys().map(String::as_str).collect();
        let kept =
            ["plimsoll.app", "plimsoll.environment", "plimsoll.installation", "plimsoll.uid"];
        assert_eq!(keys, BTreeSet::from(kept));
        assert_eq!(mounts[1].typ, Some(MountType::BIND));
        assert_eq!(mounts[1].read_only, Some(true));
    }

    #[test]
    fn what_differs_is_named() {
        let one = container(serde_json::json!({})).birth;
        let other = Birth { port: None, commit: CommitId("d".repeat(40)), ..one.clone() };
        assert_eq!(difference(&one, &other), "plimsoll.commit, plimsoll.port");
    }
}
