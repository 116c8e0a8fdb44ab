//! `plimsoll describe`: all that is known about one object, and what happened to it lately.

use clap::Args;
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::Value;

use super::failure::Failure;
use super::output::{Output, Paint};
use super::settings::GlobalArguments;
use super::{code, connect, events, get, text};
use crate::api::Operations;
use crate::model::{Condition, Event, Kind, Object};

/// Events that are looked through for those of the object, and shown at most.
const SEARCHED: usize = 1000;
const SHOWN: usize = 20;

/// Show all about one object: what is declared, how it is, what happened lately
#[derive(Debug, Args)]
pub struct Describe {
    /// Kind of the object, such as app or host
    #[arg(value_name = "KIND")]
    kind: Kind,

    /// Its name; an app is named ENVIRONMENT/NAME
    #[arg(value_name = "NAME")]
    name: String,
}

/// The shape for scripts.
#[derive(Serialize)]
struct Described {
    object: Object,
    /// Of an App, as the hosts were last seen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Object>,
    events: Vec<Event>,
}

impl Describe {
    pub async fn run(self, global: &GlobalArguments, output: &mut Output) -> Result<u8, Failure> {
        let operations = connect::operations(global).await?;
        let object = get::one(&*operations, self.kind, &self.name).await?;
        let events = events_of(&*operations, &object).await?;
        let containers = containers_of(&*operations, &object).await?;
        let described = Described { object, containers, events };
        if output.is_text() {
            output.text(&render(&described, output.paint()))?;
        } else {
            output.value(&described)?;
        }
        Ok(code::DONE)
    }
}

/// The containers of an App; none of any other kind.
async fn containers_of(
    operations: &dyn Operations,
    object: &Object,
) -> Result<Vec<Object>, Failure> {
    if object.kind != Kind::App {
        return Ok(Vec::new());
    }
    let app = get::full_name(object);
    let mut containers = operations.get(Kind::Container, None).await?;
    containers.retain(|container| {
        container.spec.get("app").and_then(Value::as_str).is_some_and(|of| of == app)
    });
    Ok(containers)
}

async fn events_of(operations: &dyn Operations, object: &Object) -> Result<Vec<Event>, Failure> {
    let about = format!("{}/{}", object.kind, get::full_name(object));
    let all = operations.events(SEARCHED, false).await?;
    let mut events: Vec<Event> =
        all.filter(|event| std::future::ready(event.object == about)).collect().await;
    let surplus = events.len().saturating_sub(SHOWN);
    events.drain(..surplus);
    Ok(events)
}

fn render(described: &Described, paint: Paint) -> String {
    let Described { object, containers, events } = described;
    let mut status = object.status.clone();
    let conditions = take_conditions(&mut status);
    leave_out(&mut status);
    let mut sections = vec![head(object, paint)];
    let mut spec = object.spec.clone();
    drop_empty(&mut spec);
    sections.extend(section("Spec", &spec, paint));
    sections.extend(section("Status", &status, paint));
    if !conditions.is_empty() {
        let title = paint.strong("Conditions");
        sections.push(format!("{title}\n{}", condition_lines(&conditions)));
    }
    if !containers.is_empty() {
        let table = get::render(Kind::Container, containers, paint);
        let lines: String = table.lines().map(|line| format!("  {line}\n")).collect();
        sections.push(format!("{}\n{lines}", paint.strong("Containers")));
    }
    let title = paint.strong("Events");
    sections.push(if events.is_empty() {
        format!("{title}\n  none\n")
    } else {
        let lines = events.iter().map(|event| format!("  {}\n", events::line(event, paint)));
        format!("{title}\n{}", lines.collect::<String>())
    });
    sections.join("\n")
}

fn head(object: &Object, paint: Paint) -> String {
    let name = paint.strong(&text::plain(&get::full_name(object)));
    let metadata = &object.metadata;
    format!(
        "{} {name}\n  generation       {}\n  resourceVersion  {}\n",
        object.kind, metadata.generation, metadata.resource_version
    )
}

/// The conditions, out of the status: they have a section of their own.
fn take_conditions(status: &mut Value) -> Vec<Condition> {
    let Some(fields) = status.as_object_mut() else { return Vec::new() };
    let Some(conditions) = fields.get("conditions").cloned() else { return Vec::new() };
    match serde_json::from_value(conditions) {
        Ok(conditions) => {
            fields.remove("conditions");
            conditions
        }
        // In a shape that isn't known they stay where they are.
        Err(_unknown) => Vec::new(),
    }
}

/// Takes out what is for the planner only, and says nothing that the sections don't: what would
/// run instead if the declared revision failed.
fn leave_out(status: &mut Value) {
    if let Some(fields) = status.as_object_mut() {
        fields.remove("fallback");
    }
    drop_empty(status);
}

/// Takes out fields that say nothing; `get -o yaml` shows them.
fn drop_empty(value: &mut Value) {
    let Some(fields) = value.as_object_mut() else { return };
    fields.values_mut().for_each(drop_empty);
    fields.retain(|_, value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    });
}

fn condition_lines(conditions: &[Condition]) -> String {
    let line = |condition: &Condition| {
        let Condition { kind, status, reason, message, last_transition_time } = condition;
        let since =
            last_transition_time.map(|time| format!(" since {time:.0}")).unwrap_or_default();
        let message = if message.is_empty() { String::new() } else { format!(": {message}") };
        let line = format!("{kind} {status} ({reason}){since}{message}");
        format!("  {}\n", text::plain(&line))
    };
    conditions.iter().map(line).collect()
}

/// A value as indented YAML below its title; none where it is empty.
fn section(title: &str, value: &Value, paint: Paint) -> Option<String> {
    let is_empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    if is_empty {
        return None;
    }
    // A JSON value can always be written as YAML; as JSON it can be read as well.
    let yaml = serde_yaml::to_string(value).unwrap_or_else(|_| value.to_string());
    let lines: String = yaml.lines().map(|line| format!("  {}\n", text::plain(line))).collect();
    Some(format!("{}\n{lines}", paint.strong(title)))
}
