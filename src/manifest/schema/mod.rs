//! The manifests' schema: what may be written, for editors, for `plimsoll schema` and for the
//! reference page of the book. The types spell the fields as people write them; nothing is read
//! through them. What is read goes through `decode`, which gives better messages; tests hold
//! the two together.

mod app;
mod fleet;

pub use app::*;
pub use fleet::*;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Deserialize;
use serde_json::{Value, json};

/// Where the schema's dialect is defined.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A DNS label: 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Name(#[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))] pub String);

/// A whole number and a unit: `500ms`, `30s`, `5m`, `1h`. At most 24 hours.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Duration(#[schemars(regex(pattern = r"^[0-9]+(ms|s|m|h)$"))] pub String);

/// A text. Numbers and booleans are taken as they are written.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(untagged)]
pub enum Word {
    Boolean(bool),
    Number(f64),
    Text(String),
}

/// The kinds, each with the schema of its documents, in the order of the reference.
fn kinds() -> Vec<(&'static str, schemars::Schema, serde_json::Map<String, Value>)> {
    fn of<T: JsonSchema>(
        kind: &'static str,
    ) -> (&'static str, schemars::Schema, serde_json::Map<String, Value>) {
        let mut generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
        let schema = generator.root_schema_for::<T>();
        (kind, schema, generator.take_definitions(true))
    }
    vec![
        of::<InstallationDocument>("Installation"),
        of::<EnvironmentDocument>("Environment"),
        of::<HostDocument>("Host"),
        of::<BalancerDocument>("Balancer"),
        of::<AppDocument>("App"),
    ]
}

/// JSON Schema (draft 2020-12) of one manifest document of any kind.
pub fn json_schema() -> Value {
    let mut definitions = serde_json::Map::new();
    let mut choices = Vec::new();
    for (kind, schema, parts) in kinds() {
        definitions.extend(parts);
        let mut schema = schema.to_value();
        if let Value::Object(fields) = &mut schema {
            fields.remove("$schema");
            fields.remove("$defs");
        }
        definitions.insert(kind.to_owned(), schema);
        choices.push(json!({"$ref": format!("#/$defs/{kind}")}));
    }
    json!({
        "$schema": DIALECT,
        "$id": "https://plimsoll.invalid/schema/v1alpha1.json",
        "title": "Plimsoll manifest",
        "description": "One document of a manifest repository: an Installation, Environment, Host, Balancer or App.",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata"],
        "oneOf": choices,
        "$defs": definitions,
    })
}
