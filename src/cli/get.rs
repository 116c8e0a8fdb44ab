//! `plimsoll get`: objects as the store holds them.

use clap::Args;
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::{Output, Paint};
use super::settings::GlobalArguments;
use super::table::{self, Cell};
use super::{code, connect};
use crate::api::{OperationError, Operations};
use crate::model::{API_VERSION, Kind, Object};

/// List the objects of a kind, or show one
#[derive(Debug, Args)]
pub struct Get {
    /// Kind of the objects, in singular or plural: app, host, balancer, environment,
    /// installation, container, pin, hold, approval, source, execution
    #[arg(value_name = "KIND")]
    kind: Kind,

    /// Name of one; an app is named ENVIRONMENT/NAME
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl Get {
    pub async fn run(self, global: &GlobalArguments, output: &mut Output) -> Result<u8, Failure> {
        let Self { kind, name } = self;
        let operations = connect::operations(global).await?;
        let objects = match &name {
            Some(name) => vec![one(&*operations, kind, name).await?],
            None => operations.get(kind, None).await?,
        };
        if output.is_text() {
            if objects.is_empty() {
                eprintln!("{}", nothing(kind));
            } else {
                output.text(&render(kind, &objects, output.paint()))?;
            }
        } else {
            match (name, objects.as_slice()) {
                (Some(_), [object]) => output.value(object)?,
                _ => output.value(&list(&objects))?,
            }
        }
        Ok(code::DONE)
    }
}

/// What stands in place of an empty table.
fn nothing(kind: Kind) -> String {
    let hint = match kind {
        Kind::Approval => "; what waits for one: plimsoll status",
        Kind::App => "; what the manifests declare: plimsoll validate",
        _ => "",
    };
    format!("there are no objects of kind {kind}{hint}")
}

/// The one object of that name.
///
/// # Errors
/// There is none.
pub async fn one(
    operations: &dyn Operations,
    kind: Kind,
    name: &str,
) -> Result<Object, OperationError> {
    let missing = || OperationError::no_such_object(kind, name);
    if name.is_empty() {
        return Err(missing());
    }
    let found = operations.get(kind, Some(name.to_owned())).await?;
    found.into_iter().next().ok_or_else(missing)
}

fn list(objects: &[Object]) -> Value {
    json!({"apiVersion": API_VERSION, "kind": "List", "items": objects})
}

/// The name by which commands take the object.
pub fn full_name(object: &Object) -> String {
    let name = &object.metadata.name;
    match &object.metadata.environment {
        Some(environment) if !name.contains('/') => format!("{environment}/{name}"),
        _ => name.clone(),
    }
}

/// A heading, and where its value is: the first of these that is there.
type Column = (&'static str, &'static [&'static str]);

/// A host's and a balancer's one condition says whether it can be reached.
const REACHABLE: &[&str] = &["/status/conditions/0/status"];
const REACH_MESSAGE: &[&str] = &["/status/conditions/0/message"];

/// Of a hash or a container's id, as much as tells it from its neighbours.
const SHORT: usize = 12;

/// What a person wants to see first of each kind, beside name and generation.
fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::App => &[
            ("SYNC", &["/status/sync"]),
            ("HEALTH", &["/status/health"]),
            ("READY", &["/status/ready"]),
            ("REPLICAS", &["/status/replicas"]),
            ("IMAGE", &["/status/image", "/spec/image", "/spec/template/image"]),
        ],
        Kind::Host => &[
            ("REACHABLE", REACHABLE),
            ("ADDRESS", &["/spec/address"]),
            ("DRAIN", &["/spec/drain"]),
            ("MESSAGE", REACH_MESSAGE),
        ],
        Kind::Balancer => &[("REACHABLE", REACHABLE), ("MESSAGE", REACH_MESSAGE)],
        Kind::Container => &[
            ("HOST", &["/status/host", "/spec/host"]),
            ("STATE", &["/status/state"]),
            ("HEALTH", &["/status/health"]),
            ("ID", &["/status/id"]),
        ],
        Kind::Revision => {
            &[("IMAGE", &["/spec/pin/reference"]), ("FILE", &["/spec/app/location/file"])]
        }
        Kind::Pin => &[
            ("IMAGE", &["/spec/reference", "/spec/pin/reference"]),
            ("CONTENT", &["/spec/content/digest", "/spec/content/id", "/spec/content"]),
        ],
        Kind::Hold | Kind::Approval => {
            &[("COMMIT", &["/spec/commit"]), ("REASON", &["/spec/reason", "/status/reason"])]
        }
        Kind::Source => &[
            ("APPLIED", &["/status/applied", "/spec/applied"]),
            ("ATTEMPTED", &["/status/attempted", "/spec/attempted"]),
        ],
        Kind::Execution => &[("KIND", &["/spec/kind"]), ("STEP", &["/spec/summary"])],
        Kind::Installation => &[("UID", &["/spec/uid"])],
        Kind::Environment => &[],
    }
}

/// The table; columns of which no object has a value are left out.
pub fn render(kind: Kind, objects: &[Object], paint: Paint) -> String {
    let documents: Vec<Value> = objects
        .iter()
        .map(|object| json!({"spec": object.spec, "status": object.status}))
        .collect();
    let find = |document: &Value, places: &[&str]| {
        places.iter().find_map(|place| document.pointer(place).and_then(show))
    };
    let used: Vec<&Column> = columns(kind)
        .iter()
        .filter(|(_, places)| documents.iter().any(|document| find(document, places).is_some()))
        .collect();
    let mut headings = vec!["NAME"];
    headings.extend(used.iter().map(|(heading, _)| *heading));
    headings.push("GENERATION");
    let row = |(object, document): (&Object, &Value)| {
        let mut row = vec![Cell::new(full_name(object))];
        for (_, places) in &used {
            row.push(Cell::new(shorten(find(document, places).unwrap_or_default())));
        }
        row.push(Cell::new(object.metadata.generation.to_string()));
        row
    };
    let rows: Vec<_> = objects.iter().zip(&documents).map(row).collect();
    table::render(&headings, &rows, paint)
}

/// Long hashes are cut as Docker cuts them; `-o json` has them whole.
fn shorten(text: String) -> String {
    let hash = text.strip_prefix("sha256:").unwrap_or(&text);
    let is_hash = hash.len() >= 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash { hash[..SHORT].to_owned() } else { text }
}

fn show(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
