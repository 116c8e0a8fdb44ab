//! What containers an engine has: one list, and a closer look only where the list doesn't tell
//! enough. Whether a container is ours is read from its labels alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum as Inspected, ContainerSummary,
    ContainerSummaryStateEnum as Listed, HealthStatusEnum, PortMap,
};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use futures_util::StreamExt;

use super::DockerEngine;
use super::connect::locked;
use super::error::{Failure, no_reply, within};
use super::scrub::Scrub;
use crate::model::{
    Birth, Container, ContainerId, ContainerState, Ended, EngineHealth, HostState, Owner,
};

/// How many containers are inspected at a time.
const INSPECTED_AT_ONCE: usize = 8;

/// What was found under an id or a name.
pub(super) enum Found {
    Gone,
    Foreign { id: ContainerId },
    Ours(Box<Ours>),
}

pub(super) struct Ours {
    pub(super) container: Container,
    /// Hides the values of its environment.
    pub(super) scrub: Scrub,
}

impl Found {
    pub(super) fn ours(self) -> Option<Container> {
        match self {
            Self::Ours(ours) => Some(ours.container),
            Self::Gone | Self::Foreign { .. } => None,
        }
    }
}

impl DockerEngine {
    /// A complete look at the host.
    pub(super) async fn look(&self, owner: &Owner) -> Result<HostState, Failure> {
        let limit = self.deadlines().observe;
        let look = async {
            let listed = self.list().await?;
            let mut state = HostState::default();
            let mut unclear = Vec::new();
            for listed in listed {
                match listed.container(owner) {
                    Ok(container) => state.containers.push(Arc::new(container)),
                    Err(open) => unclear.push((listed, open)),
                }
            }
            self.clear_up(owner, unclear, &mut state).await?;
            state.containers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
            Ok(state)
        };
        tokio::time::timeout(limit, look).await.unwrap_or_else(|_| Err(no_reply(limit)))
    }

    async fn list(&self) -> Result<Vec<Summary>, Failure> {
        let options = ListContainersOptionsBuilder::new().all(true).size(false).build();
        let docker = self.docker()?;
        let call = docker.list_containers(Some(options));
        let listed = within(self.deadlines().look, call).await?;
        listed.into_iter().map(Summary::new).collect()
    }

    /// Inspects what the list left open.
    async fn clear_up(
        &self,
        owner: &Owner,
        unclear: Vec<(Summary, Open)>,
        state: &mut HostState,
    ) -> Result<(), Failure> {
        let stopped: BTreeSet<ContainerId> =
            unclear.iter().map(|(summary, _)| summary.id.clone()).collect();
        let prefix = format!("{}.", owner.installation);
        let mut asked = Vec::new();
        for (summary, open) in unclear {
            match open {
                Open::State(birth) => asked.push((summary, Some(birth))),
                Open::Foreign => {
                    if summary.name.starts_with(&prefix) {
                        state.foreign_names.insert(summary.name.clone(), summary.id.clone());
                    }
                    state.foreign_ports.extend(&summary.ports);
                    let known = locked(&self.foreign_ports).get(&summary.id).cloned();
                    match known {
                        _ if summary.lists_ports() => {}
                        Some(ports) => state.foreign_ports.extend(ports),
                        None => asked.push((summary, None)),
                    }
                }
            }
        }
        locked(&self.foreign_ports).retain(|id, _| stopped.contains(id));
        let answers = asked.into_iter().map(|(summary, birth)| async move {
            let answer = self.inspect_raw(&summary.id.0).await;
            (summary, birth, answer)
        });
        let mut answers = futures_util::stream::iter(answers).buffer_unordered(INSPECTED_AT_ONCE);
        while let Some((summary, birth, answer)) = answers.next().await {
            match birth {
                Some(birth) => {
                    let container = summary.with_answer(*birth, answer)?;
                    state.containers.extend(container.map(Arc::new));
                }
                None => state.foreign_ports.extend(self.ports_of_foreign(summary.id, answer)?),
            }
        }
        Ok(())
    }

    /// The ports that a stopped container of others will publish when it is started. One that
    /// the engine itself can't inspect will hardly be started. One that it doesn't find is gone or
    /// is being created, as the list has it a moment earlier than inspection: only an answer is
    /// remembered.
    fn ports_of_foreign(
        &self,
        id: ContainerId,
        answer: Result<Option<ContainerInspectResponse>, Failure>,
    ) -> Result<BTreeSet<u16>, Failure> {
        match answer {
            Ok(Some(answer)) => {
                let bindings = answer.host_config.and_then(|config| config.port_bindings);
                let ports = bindings.as_ref().map(bound_ports).unwrap_or_default();
                locked(&self.foreign_ports).insert(id, ports.clone());
                Ok(ports)
            }
            Ok(None) => Ok(BTreeSet::new()),
            Err(Failure::Answer { status, text }) => {
                tracing::debug!(container = id.short(), status, text, "can't be inspected");
                Ok(BTreeSet::new())
            }
            Err(failure) => Err(failure),
        }
    }

    /// One container as the engine tells it; none where there is none.
    pub(super) async fn inspect_raw(
        &self,
        id_or_name: &str,
    ) -> Result<Option<ContainerInspectResponse>, Failure> {
        if !is_id_or_name(id_or_name) {
            return Ok(None);
        }
        let docker = self.docker()?;
        let call = docker.inspect_container(id_or_name, None::<InspectContainerOptions>);
        match within(self.deadlines().look, call).await {
            Ok(answer) => Ok(Some(answer)),
            Err(failure) if failure.status() == Some(404) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// One container, and whether it is ours.
    pub(super) async fn find(&self, owner: &Owner, id_or_name: &str) -> Result<Found, Failure> {
        let Some(answer) = self.inspect_raw(id_or_name).await? else {
            return Ok(Found::Gone);
        };
        let Some(id) = answer.id.clone() else {
            return Err(nameless());
        };
        let id = ContainerId(id);
        let config = answer.config.as_ref();
        let labels = config.and_then(|config| config.labels.clone()).unwrap_or_default();
        let Some(birth) = owner.birth_of(&labels.into_iter().collect()) else {
            return Ok(Found::Foreign { id });
        };
        let env = config.and_then(|config| config.env.as_deref()).unwrap_or_default();
        let scrub = Scrub::of_env(env);
        let name = answer.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned();
        let (state, health) = inspected_state(&answer)
            .ok_or_else(|| Failure::Silence { cause: "a container has no state".into() })?;
        let restarts = answer.restart_count.unwrap_or_default().try_into().unwrap_or_default();
        let container = Container { id, name, birth, state, health, restarts };
        Ok(Found::Ours(Box::new(Ours { container, scrub })))
    }
}

/// Ids and names that may stand in the path of a request.
fn is_id_or_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn nameless() -> Failure {
    Failure::Silence { cause: "it lists a container without an id".into() }
}

/// What of a list's entry is of use.
struct Summary {
    id: ContainerId,
    name: String,
    labels: BTreeMap<String, String>,
    ports: BTreeSet<u16>,
    state: Option<Listed>,
    status: String,
}

/// What an entry of the list leaves open.
enum Open {
    /// It is ours, and how it is doing has to be asked.
    State(Box<Birth>),
    Foreign,
}

impl Summary {
    fn new(listed: ContainerSummary) -> Result<Self, Failure> {
        // Links of other containers are names with a second slash.
        let name = listed.names.unwrap_or_default().into_iter().find_map(|name| {
            let name = name.trim_start_matches('/');
            (!name.contains('/')).then(|| name.to_owned())
        });
        let ports = listed.ports.unwrap_or_default();
        Ok(Self {
            id: ContainerId(listed.id.ok_or_else(nameless)?),
            name: name.unwrap_or_default(),
            labels: listed.labels.unwrap_or_default().into_iter().collect(),
            ports: ports.iter().filter_map(|port| port.public_port).collect(),
            state: listed.state,
            status: listed.status.unwrap_or_default(),
        })
    }

    /// True where the list tells all ports: those of a container that runs.
    fn lists_ports(&self) -> bool {
        matches!(self.state, Some(Listed::RUNNING | Listed::PAUSED | Listed::STOPPING))
    }

    fn container(&self, owner: &Owner) -> Result<Container, Open> {
        let birth = owner.birth_of(&self.labels).ok_or(Open::Foreign)?;
        match listed_state(self.state, &self.status) {
            Some((state, health)) => Ok(self.with_state(birth, state, health)),
            None => Err(Open::State(Box::new(birth))),
        }
    }

    fn with_state(
        &self,
        birth: Birth,
        state: ContainerState,
        health: Option<EngineHealth>,
    ) -> Container {
        let (id, name) = (self.id.clone(), self.name.clone());
        Container { id, name, birth, state, health, restarts: 0 }
    }

    /// Ours, with what inspect answered; none where it is gone meanwhile. Where the engine
    /// can't inspect it, as happens with damaged ones, the list has to do.
    fn with_answer(
        &self,
        birth: Birth,
        answer: Result<Option<ContainerInspectResponse>, Failure>,
    ) -> Result<Option<Container>, Failure> {
        let seen = match answer {
            Ok(None) => return Ok(None),
            Ok(Some(answer)) => inspected_state(&answer),
            Err(Failure::Answer { .. }) => None,
            Err(failure) => return Err(failure),
        };
        let (state, health) = seen.unwrap_or_else(|| (self.rough_state(), None));
        Ok(Some(self.with_state(birth, state, health)))
    }

    fn rough_state(&self) -> ContainerState {
        match self.state {
            Some(Listed::PAUSED) => ContainerState::Paused,
            Some(Listed::RESTARTING) => ContainerState::Restarting { ended: None },
            _ => ContainerState::Exited { code: exit_code(&self.status), out_of_memory: false },
        }
    }
}

/// How a container is doing, where the list tells it reliably.
fn listed_state(
    state: Option<Listed>,
    status: &str,
) -> Option<(ContainerState, Option<EngineHealth>)> {
    Some(match state? {
        Listed::RUNNING | Listed::STOPPING => (ContainerState::Running, listed_health(status)),
        Listed::CREATED => (ContainerState::Created, None),
        Listed::REMOVING => (ContainerState::Removing, None),
        Listed::DEAD => (ContainerState::Dead, None),
        // Why it ended, and the health under a pause, are told by inspect only.
        Listed::EXITED | Listed::RESTARTING | Listed::PAUSED | Listed::EMPTY => return None,
    })
}

/// Health as the list's text has it: `Up 5 seconds (healthy)`.
fn listed_health(status: &str) -> Option<EngineHealth> {
    if status.ends_with("(healthy)") {
        Some(EngineHealth::Healthy)
    } else if status.ends_with("(unhealthy)") {
        Some(EngineHealth::Unhealthy)
    } else if status.ends_with("(health: starting)") {
        Some(EngineHealth::Starting)
    } else {
        None
    }
}

/// The code in `Exited (137) 3 seconds ago`; -1 where there is none.
fn exit_code(status: &str) -> i64 {
    let code = status.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    code.and_then(|(code, _)| code.parse().ok()).unwrap_or(-1)
}

fn inspected_state(
    answer: &ContainerInspectResponse,
) -> Option<(ContainerState, Option<EngineHealth>)> {
    let state = answer.state.as_ref()?;
    let code = state.exit_code.unwrap_or(-1);
    let out_of_memory = state.oom_killed.unwrap_or(false);
    let seen = match state.status? {
        Inspected::CREATED => ContainerState::Created,
        Inspected::RUNNING | Inspected::STOPPING => ContainerState::Running,
        Inspected::PAUSED => ContainerState::Paused,
        Inspected::RESTARTING => {
            ContainerState::Restarting { ended: Some(Ended { code, out_of_memory }) }
        }
        Inspected::REMOVING => ContainerState::Removing,
        Inspected::DEAD => ContainerState::Dead,
        Inspected::EXITED => ContainerState::Exited { code, out_of_memory },
        Inspected::EMPTY => return None,
    };
    // The engine keeps the last result of a container that doesn't run any more.
    let lives = matches!(seen, ContainerState::Running | ContainerState::Paused);
    let health = state.health.as_ref().filter(|_| lives).and_then(|health| match health.status? {
        HealthStatusEnum::STARTING => Some(EngineHealth::Starting),
        HealthStatusEnum::HEALTHY => Some(EngineHealth::Healthy),
        HealthStatusEnum::UNHEALTHY => Some(EngineHealth::Unhealthy),
        HealthStatusEnum::NONE | HealthStatusEnum::EMPTY => None,
    });
    Some((seen, health))
}

/// The host's ports in bindings: `8080`, or a range such as `8000-8010`, of which any may be
/// taken. Without a number the engine chooses when it starts the container.
fn bound_ports(bindings: &PortMap) -> BTreeSet<u16> {
    let bindings = bindings.values().flatten().flatten();
    let texts = bindings.filter_map(|binding| binding.host_port.as_deref());
    let ranges = texts.filter_map(|text| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        (first > 0).then_some(first..=last)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::connect::tests::host;
    use super::*;
    use crate::docker::EngineOptions;
    use crate::model::EngineAddress;
    use bollard::models::{HostConfig, PortBinding};

    #[test]
    fn health_is_read_from_the_list() {
        use EngineHealth::{Healthy, Starting, Unhealthy};
        for (status, health) in [
            ("Up 5 seconds", None),
            ("Up 5 seconds (healthy)", Some(Healthy)),
            ("Up 2 minutes (unhealthy)", Some(Unhealthy)),
            ("Up Less than a second (health: starting)", Some(Starting)),
        ] {
            let seen = listed_state(Some(Listed::RUNNING), status);
            assert_eq!(seen, Some((ContainerState::Running, health)), "{status}");
        }
    }

    #[test]
    fn only_what_the_list_leaves_open_is_inspected() {
        for (state, open) in [
            (Some(Listed::RUNNING), false),
            (Some(Listed::CREATED), false),
            (Some(Listed::RESTARTING), true),
            (Some(Listed::REMOVING), false),
            (Some(Listed::DEAD), false),
            (Some(Listed::EXITED), true),
            (Some(Listed::PAUSED), true),
            (None, true),
        ] {
            assert_eq!(listed_state(state, "").is_none(), open, "{state:?}");
        }
    }

    #[test]
    fn exit_codes_are_read_from_the_list() {
        for (status, code) in [
            ("Exited (137) 3 seconds ago", 137),
            ("Exited (0) Less than a second ago", 0),
            ("", -1),
        ] {
            assert_eq!(exit_code(status), code, "{status}");
        }
    }

    #[test]
    fn bindings_are_ports_and_ranges() {
        for (text, ports) in [
            (Some("8080"), vec![8080]),
            (Some("8000-8002"), vec![8000, 8001, 8002]),
            (Some(""), vec![]),
            (Some("0"), vec![]),
            (Some("x"), vec![]),
            (None, vec![]),
        ] {
            let binding = PortBinding { host_port: text.map(str::to_owned), host_ip: None };
            let map = [("80/tcp".to_owned(), Some(vec![binding])), ("81/tcp".to_owned(), None)];
            assert_eq!(bound_ports(&map.into()), BTreeSet::from_iter(ports), "{text:?}");
        }
    }

    /// dockerd 20.10 lists a container a moment before inspection finds it: its `create` writes
    /// what lists are made of in `setHostConfig`, and registers the container after that.
    #[test]
    fn ports_of_a_foreign_container_that_was_not_found_are_asked_for_again() {
        let engine = host(EngineAddress::Unix { path: "/nowhere".into() });
        let engine = DockerEngine::connect(&engine, EngineOptions::default());
        let id = ContainerId("1f".repeat(32));
        let known = || locked(&engine.foreign_ports).get(&id).cloned();
        assert_eq!(engine.ports_of_foreign(id.clone(), Ok(None)).unwrap(), [].into());
        assert_eq!(known(), None, "it is remembered as one without ports");

        let binding = PortBinding { host_port: Some("8080".into()), host_ip: None };
        let port_bindings = Some([("80/tcp".to_owned(), Some(vec![binding]))].into());
        let host_config = Some(HostConfig { port_bindings, ..HostConfig::default() });
        let answer = ContainerInspectResponse { host_config, ..Default::default() };
        let ports = engine.ports_of_foreign(id.clone(), Ok(Some(answer))).unwrap();
        assert_eq!((ports, known()), ([8080].into(), Some([8080].into())));
    }

    #[test]
    fn only_an_id_or_a_name_reaches_a_path() {
        for good in ["a1", "shop.production.web.0123456789ab.0", "my_app-1"] {
            assert!(is_id_or_name(good), "{good}");
        }
        for bad in ["", "..", "a/b", "a?b", "a b", "a%2f", "../images/x", "é"] {
            assert!(!is_id_or_name(bad), "{bad}");
        }
    }
}
