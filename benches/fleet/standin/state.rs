//! What one engine holds, and what each call does to it. Every change is done at once; what
//! takes time (a restart, a health check, the grace of a stop) is told to the caller, who waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use plimsoll::model::Sha256;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::Seen;
use super::container::{Container, Health, Life};
use super::events::{Event, Filters, Listeners};
use super::image::Image;
use super::program::Line;
use super::texts;

/// The pause before the first restart of a container that ended by itself; it doubles each time.
const FIRST_RESTART: Duration = Duration::from_millis(100);

/// Why something isn't done, as the engine says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub message: String,
}

impl Refusal {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The same with words before it.
    pub fn behind(self, words: impl std::fmt::Display) -> Self {
        Self { message: format!("{words}: {}", self.message), ..self }
    }

    fn no_container(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("No such container: {id}"))
    }
}

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    Now,
    /// It was so already.
    Already,
}

/// What has to be done later to a container of that era.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Later {
    pub after: Duration,
    pub id: String,
    pub era: u64,
    pub what: Due,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Its program has come to its end.
    End,
    /// It is started again.
    Restart,
    /// Its first health check is content.
    Healthy,
}

pub struct State {
    number: usize,
    images: BTreeMap<String, Arc<Image>>,
    /// What a registry would give.
    offered: BTreeMap<String, Arc<Image>>,
    containers: BTreeMap<String, Container>,
    names: BTreeMap<String, String>,
    listeners: Listeners,
    made: u64,
    running: Arc<AtomicI64>,
}

impl State {
    /// `number` tells engines apart; `running` counts the containers of all that run.
    pub fn new(number: usize, running: Arc<AtomicI64>) -> Self {
        Self {
            number,
            images: BTreeMap::new(),
            offered: BTreeMap::new(),
            containers: BTreeMap::new(),
            names: BTreeMap::new(),
            listeners: Listeners::default(),
            made: 0,
            running,
        }
    }

    pub fn add_image(&mut self, image: Image) {
        let image = Arc::new(image);
        self.images.extend(image.names().into_iter().map(|name| (name, image.clone())));
    }

    pub fn offer_image(&mut self, image: Image) {
        let image = Arc::new(image);
        self.offered.extend(image.names().into_iter().map(|name| (name, image.clone())));
    }

    pub fn set_silent(&mut self, silent: bool) {
        self.listeners.set_silent(silent);
    }

    pub fn listen(&mut self, filters: Filters) -> mpsc::UnboundedReceiver<Bytes> {
        self.listeners.add(filters)
    }

    pub fn seen(&self) -> impl Iterator<Item = Seen<'_>> {
        self.containers.values().map(|container| Seen {
            name: &container.name,
            labels: &container.labels,
            running: container.life == Life::Running,
        })
    }

    // ---- images ----

    /// What it has under that name.
    pub fn image(&self, name: &str) -> Result<Arc<Image>, Refusal> {
        let found = self.images.get(name).or_else(|| self.images.get(&format!("{name}:latest")));
        found.cloned().ok_or_else(|| {
            let whole = if name.contains([':', '@']) { "" } else { ":latest" };
            Refusal::new(StatusCode::NOT_FOUND, format!("No such image: {name}{whole}"))
        })
    }

    /// What a registry has under that name.
    pub fn offered(&self, name: &str) -> Result<Arc<Image>, Refusal> {
        let unknown = || Refusal::new(StatusCode::NOT_FOUND, "manifest unknown: manifest unknown");
        self.offered.get(name).cloned().ok_or_else(unknown)
    }

    // ---- questions ----

    /// The containers that fit, the newest first.
    pub fn list(&self, all: bool, filters: &Filters) -> String {
        let fits = |container: &&Container| {
            (all || container.life == Life::Running)
                && filters.admits_labels(&container.labels)
                && filters.admits("id", |id| container.id.starts_with(id))
                && filters.admits("name", |name| {
                    container.name.contains(name.trim_matches(['^', '$', '/']))
                })
                && filters.admits("status", |status| container.life.word() == status)
        };
        let mut fitting: Vec<_> = self.containers.values().filter(fits).collect();
        fitting.sort_by_key(|container| std::cmp::Reverse(container.made));
        let entries: Vec<_> = fitting.into_iter().map(Container::listed).collect();
        format!("[{}]", entries.join(","))
    }

    pub fn container(&self, id_or_name: &str) -> Result<&Container, Refusal> {
        let id = self.id_of(id_or_name)?;
        self.containers.get(&id).ok_or_else(|| Refusal::no_container(id_or_name))
    }

    /// The id of a container by id, name, or the beginning of an id.
    fn id_of(&self, id_or_name: &str) -> Result<String, Refusal> {
        if self.containers.contains_key(id_or_name) {
            return Ok(id_or_name.to_owned());
        }
        if let Some(id) = self.names.get(id_or_name) {
            return Ok(id.clone());
        }
        let from = self.containers.range(id_or_name.to_owned()..);
        let mut fitting = from.map(|(id, _)| id).take_while(|id| id.starts_with(id_or_name));
        match (fitting.next(), fitting.next()) {
            (Some(id), None) => Ok(id.clone()),
            (Some(_), Some(_)) => {
                let message = format!("Multiple IDs found with provided prefix: {id_or_name}");
                Err(Refusal::new(StatusCode::BAD_REQUEST, message))
            }
            (None, _) => Err(Refusal::no_container(id_or_name)),
        }
    }

    /// The last lines of its output, and where wanted those to come.
    pub fn output(
        &mut self,
        id: &str,
        tail: Option<usize>,
        follow: bool,
    ) -> Result<(Vec<Line>, Option<mpsc::UnboundedReceiver<Bytes>>), Refusal> {
        let id = self.id_of(id)?;
        let Some(container) = self.containers.get_mut(&id) else {
            return Err(Refusal::no_container(&id));
        };
        let skipped = tail.map_or(0, |tail| container.output.len().saturating_sub(tail));
        let lines = container.output[skipped..].to_vec();
        let goes_on = follow && matches!(container.life, Life::Running | Life::Restarting { .. });
        let following = goes_on.then(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            container.followers.push(sender);
            receiver
        });
        Ok((lines, following))
    }

    // ---- changes ----

    /// Makes a container and returns its id.
    pub fn create(
        &mut self,
        name: Option<&str>,
        body: Map<String, Value>,
    ) -> Result<String, Refusal> {
        let named = body.get("Image").and_then(Value::as_str).unwrap_or_default();
        let image = self.image(named)?;
        self.made += 1;
        let id = Sha256::of(format!("{} {}", self.number, self.made).as_bytes()).hex();
        let name = name.map_or_else(|| format!("made_{}", self.made), str::to_owned);
        let fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if !(name.len() > 1
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(fine))
        {
            let message = format!(
                "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            );
            return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
        }
        let container = Container::new(id.clone(), name.clone(), self.made, &image, body);
        let container =
            container.map_err(|message| Refusal::new(StatusCode::BAD_REQUEST, message))?;
        if let Some(holder) = self.names.get(&name) {
            let message = format!(
                "Conflict. The container name \"/{name}\" is already in use by container \
                 \"{holder}\". You have to remove (or rename) that container to be able to reuse \
                 that name."
            );
            return Err(Refusal::new(StatusCode::CONFLICT, message));
        }
        self.names.insert(name, id.clone());
        self.containers.insert(id.clone(), container);
        self.tell(&id, "create", &[]);
        Ok(id)
    }

    /// Starts it; what comes of it later is returned beside.
    pub fn start(&mut self, id: &str) -> Result<(Done, Vec<Later>), Refusal> {
        let container = self.container(id)?;
        if container.life == Life::Running {
            return Ok((Done::Already, Vec::new()));
        }
        if let Some((ip, port)) = self.taken_port(container) {
            let message = format!(
                "driver failed programming external connectivity on endpoint {} ({}): Bind for \
                 {ip}:{port} failed: port is already allocated",
                container.name,
                Sha256::of(container.id.as_bytes()).hex(),
            );
            return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message));
        }
        let id = container.id.clone();
        Ok((Done::Now, self.run(&id)))
    }

    /// A published port of it that another running container has.
    fn taken_port<'a>(&self, wanting: &'a Container) -> Option<&'a (String, String)> {
        let running = self.containers.values().filter(|other| other.life == Life::Running);
        let taken: Vec<_> =
            running.flat_map(|other| &other.ports).filter_map(|p| p.published.as_ref()).collect();
        let wanted = wanting.ports.iter().filter_map(|port| port.published.as_ref());
        wanted.into_iter().find(|wanted| taken.contains(wanted))
    }

    fn run(&mut self, id: &str) -> Vec<Later> {
        let Some(container) = self.containers.get_mut(id) else { return Vec::new() };
        container.era += 1;
        container.life = Life::Running;
        container.started = Some(texts::now());
        container.health = container.check.map(|_| Health::Starting);
        container.output.extend(container.program.lines.clone());
        let (id, era) = (container.id.clone(), container.era);
        let later = |after, what| Later { after, id: id.clone(), era, what };
        let end = container.program.ends.map(|_| later(Duration::ZERO, Due::End));
        let healthy = container.check.map(|interval| later(interval, Due::Healthy));
        let lines = container.program.lines.clone();
        let frames: Vec<_> = lines.iter().map(super::server::frame).collect();
        container.followers.retain(|f| frames.iter().all(|frame| f.send(frame.clone()).is_ok()));
        self.running.fetch_add(1, Ordering::Relaxed);
        self.tell(&id, "start", &[]);
        end.into_iter().chain(healthy).collect()
    }

    /// Does what is due, unless the container was stopped or started since.
    pub fn fall_due(&mut self, later: &Later) -> Vec<Later> {
        let Some(container) = self.containers.get_mut(&later.id) else { return Vec::new() };
        if container.era != later.era {
            return Vec::new();
        }
        match (later.what, container.life) {
            (Due::End, Life::Running) => {
                let code = container.program.ends.unwrap_or_default();
                self.end_by_itself(&later.id, code)
            }
            (Due::Restart, Life::Restarting { .. }) => self.run(&later.id),
            (Due::Healthy, Life::Running) => {
                container.health = Some(Health::Healthy);
                self.tell(&later.id, "health_status: healthy", &[]);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn end_by_itself(&mut self, id: &str, code: i64) -> Vec<Later> {
        self.end(id, code);
        let Some(container) = self.containers.get_mut(id) else { return Vec::new() };
        if !container.restarts_itself {
            container.followers.clear();
            return Vec::new();
        }
        container.life = Life::Restarting { code };
        let after = FIRST_RESTART.saturating_mul(1 << container.restarts.min(9));
        container.restarts += 1;
        vec![Later { after, id: id.to_owned(), era: container.era, what: Due::Restart }]
    }

    /// How long it takes until it has stopped; none where it doesn't run.
    pub fn stop_takes(&self, id: &str, grace: Duration) -> Result<Option<Duration>, Refusal> {
        let container = self.container(id)?;
        Ok(match container.life {
            Life::Running if !container.program.heeds_signals => Some(grace),
            Life::Running | Life::Restarting { .. } => Some(Duration::ZERO),
            Life::Created | Life::Exited { .. } => None,
        })
    }

    /// Ends it, after the time that this takes has passed.
    pub fn stop(&mut self, id: &str) -> Result<(), Refusal> {
        let container = self.container(id)?;
        let code = match (container.life, container.program.heeds_signals) {
            (Life::Running, true) => 0,
            (Life::Running, false) => 137,
            (Life::Restarting { code }, _) => code,
            (Life::Created | Life::Exited { .. }, _) => return Ok(()),
        };
        let id = container.id.clone();
        self.tell(&id, "kill", &[("signal", "15".into())]);
        if code == 137 {
            self.tell(&id, "kill", &[("signal", "9".into())]);
        }
        self.end_for_good(&id, code);
        self.tell(&id, "stop", &[]);
        Ok(())
    }

    pub fn kill(&mut self, id: &str) -> Result<(), Refusal> {
        let container = self
            .container(id)
            .map_err(|refusal| refusal.behind(format!("Cannot kill container: {id}")))?;
        if container.life != Life::Running {
            let message =
                format!("Cannot kill container: {id}: Container {} is not running", container.id);
            return Err(Refusal::new(StatusCode::CONFLICT, message));
        }
        let id = container.id.clone();
        self.tell(&id, "kill", &[("signal", "9".into())]);
        self.end_for_good(&id, 137);
        Ok(())
    }

    pub fn remove(&mut self, id: &str, force: bool) -> Result<(), Refusal> {
        let container = self.container(id)?;
        let id = container.id.clone();
        if matches!(container.life, Life::Running | Life::Restarting { .. }) {
            if !force {
                let message = format!(
                    "You cannot remove a {} container {id}. Stop the container before attempting \
                     removal or force remove",
                    container.life.word()
                );
                return Err(Refusal::new(StatusCode::CONFLICT, message));
            }
            self.tell(&id, "kill", &[("signal", "9".into())]);
            self.end_for_good(&id, 137);
        }
        self.tell(&id, "destroy", &[]);
        if let Some(container) = self.containers.remove(&id) {
            self.names.remove(&container.name);
        }
        Ok(())
    }

    fn end_for_good(&mut self, id: &str, code: i64) {
        self.end(id, code);
        if let Some(container) = self.containers.get_mut(id) {
            container.followers.clear();
        }
    }

    /// Its program has ended.
    fn end(&mut self, id: &str, code: i64) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let ran = container.life == Life::Running;
        container.life = Life::Exited { code };
        container.finished = Some(texts::now());
        container.health = container.health.map(|_| Health::Unhealthy);
        if ran {
            self.running.fetch_sub(1, Ordering::Relaxed);
            self.tell(id, "die", &[("exitCode", code.to_string())]);
        }
    }

    fn tell(&mut self, id: &str, action: &str, more: &[(&str, String)]) {
        let Some(container) = self.containers.get(id) else { return };
        self.listeners.tell(&Event {
            action,
            id,
            name: &container.name,
            image: &container.image,
            labels: &container.labels,
            more,
            nanoseconds: texts::now().as_nanosecond(),
        });
    }
}
