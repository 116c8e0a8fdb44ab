//! The book's reference page of the manifests, written from the schema, so that the two can't
//! differ.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Map, Value};

use super::document::KINDS;
use super::schema::json_schema;

/// Markdown: each kind, each of its fields with type, default, meaning and an example.
pub fn reference_markdown() -> String {
    let schema = json_schema();
    let mut page = Page { schema: &schema, out: String::new() };
    page.out.push_str(
        "# Manifests\n\n\
         <!-- Generated: UPDATE_GOLDEN=1 cargo test --test reference -->\n\n\
         Every document has `apiVersion: plimsoll/v1alpha1`, a `kind`, `metadata` and a `spec`.\n\
         Several documents may share a file, and files may lie in any folder. Unknown fields and\n\
         kinds are errors; a field that is `null` counts as absent.\n\n\
         Names are lower-case letters, digits and hyphens, at most 63. A duration is a whole number\n\
         with a unit: `250ms`, `30s`, `5m`, `1h`.\n",
    );
    for kind in KINDS {
        page.kind(kind);
    }
    page.out
}

struct Page<'s> {
    schema: &'s Value,
    out: String,
}

impl<'s> Page<'s> {
    fn kind(&mut self, kind: &str) {
        let Some(definition) = self.definition(kind) else { return };
        let _ = write!(self.out, "\n## {kind}\n\n{}\n", description(definition));
        let mut waiting = Vec::new();
        for part in ["metadata", "spec"] {
            if let Some(value) = definition.get("properties").and_then(|fields| fields.get(part)) {
                self.parts(value, part, &mut waiting);
            }
        }
        waiting.reverse();
        let mut seen = BTreeSet::new();
        while let Some((path, object)) = waiting.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            let below = self.object(&path, object);
            waiting.extend(below.into_iter().rev());
        }
    }

    /// One table; returns the mappings that its fields hold.
    fn object(
        &mut self,
        path: &str,
        object: &'s Map<String, Value>,
    ) -> Vec<(String, &'s Map<String, Value>)> {
        let Some(fields) = object.get("properties").and_then(Value::as_object) else {
            return Vec::new();
        };
        let required =
            object.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        let _ = write!(self.out, "\n### `{path}`\n\n{}\n\n", description(object));
        self.out.push_str(
            "| field | type | default | meaning | example |\n| --- | --- | --- | --- | --- |\n",
        );
        let mut below = Vec::new();
        for (name, field) in fields {
            let is_required = required.iter().any(|one| one == name.as_str());
            let default = match (is_required, field.get("default")) {
                (true, _) => "required".to_owned(),
                (false, Some(default)) => default_text(default),
                (false, None) => String::new(),
            };
            let example = field.get("examples").and_then(|examples| examples.get(0));
            let example =
                example.map(|value| format!("`{name}: {}`", flow(value))).unwrap_or_default();
            let _ = writeln!(
                self.out,
                "| `{name}` | {} | {} | {} | {} |",
                cell(&self.kind_of(field)),
                cell(&default),
                cell(&self.meaning(field)),
                cell(&example),
            );
            let mut parts = Vec::new();
            self.parts(field, &format!("{path}.{name}"), &mut parts);
            below.extend(parts);
        }
        below
    }

    /// The mappings with fields of their own that a value may be or hold.
    fn parts(
        &self,
        value: &'s Value,
        path: &str,
        parts: &mut Vec<(String, &'s Map<String, Value>)>,
    ) {
        if let Some(target) = self.target(value).filter(|target| target.contains_key("properties"))
        {
            parts.push((path.to_owned(), target));
            return;
        }
        let Some(object) = self.target(value) else { return };
        if let Some(items) = object.get("items") {
            self.parts(items, &format!("{path}[]"), parts);
        }
        if let Some(values) = object.get("additionalProperties").filter(|value| value.is_object()) {
            self.parts(values, &format!("{path}.NAME"), parts);
        }
        for choice in choices(object) {
            self.parts(choice, path, parts);
        }
    }

    fn definition(&self, name: &str) -> Option<&'s Map<String, Value>> {
        self.schema.get("$defs")?.get(name)?.as_object()
    }

    /// What a reference leads to; the value itself where it is none.
    fn target(&self, value: &'s Value) -> Option<&'s Map<String, Value>> {
        let object = value.as_object()?;
        match object.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.definition(reference.rsplit('/').next()?),
            None => Some(object),
        }
    }

    /// What a field means: its own words, or those of what it refers to.
    fn meaning(&self, field: &'s Value) -> String {
        let own = field.as_object().map(description).unwrap_or_default();
        if !own.is_empty() {
            return own;
        }
        let target = self.target(field);
        let choices = target.into_iter().flat_map(choices).filter_map(|choice| self.target(choice));
        let all = target.into_iter().chain(choices).map(description);
        all.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
    }

    fn kind_of(&self, value: &'s Value) -> String {
        let Some(object) = self.target(value) else { return "anything".to_owned() };
        let mut kinds: Vec<String> = Vec::new();
        for choice in choices(object) {
            kinds.push(self.kind_of(choice));
        }
        let types = match object.get("type") {
            Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => vec![one.as_str()],
            _ => Vec::new(),
        };
        let types = if kinds.is_empty() { types } else { Vec::new() };
        for one in types {
            kinds.push(match one {
                "string" => "text".to_owned(),
                "array" => {
                    let items = object.get("items").map(|items| self.kind_of(items));
                    format!("list of {}", items.unwrap_or_default())
                }
                "object" => match object.get("additionalProperties").filter(|v| v.is_object()) {
                    Some(values) => format!("mapping of {}", self.kind_of(values)),
                    None => "mapping".to_owned(),
                },
                "null" => continue,
                other => other.to_owned(),
            });
        }
        if kinds.iter().any(|kind| kind == "text") {
            // Where a text will do, a number or boolean is taken for one.
            kinds.retain(|kind| kind != "boolean" && kind != "number");
        }
        let mut seen = BTreeSet::new();
        kinds.retain(|kind| !kind.is_empty() && seen.insert(kind.clone()));
        kinds.join(" or ")
    }
}

/// The alternatives of a value.
fn choices(object: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let lists = ["anyOf", "oneOf"].into_iter().filter_map(|key| object.get(key)?.as_array());
    let choices = lists.flatten();
    // `required` alone isn't an alternative of the value, but of its fields.
    choices.filter(|choice| choice.get("required").is_none() || choice.get("properties").is_some())
}

fn description(object: &Map<String, Value>) -> String {
    object.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ")
}

/// A value in YAML's flow style.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let is_plain = text
                .starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '.')
                && !text.contains([',', ']', '}', '#'])
                && !text.contains(": ")
                && text.parse::<f64>().is_err();
            if is_plain { text.clone() } else { format!("{text:?}") }
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| format!("{name}: {}", flow(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// A default, as code where it is a value and as words where it is a sentence.
fn default_text(default: &Value) -> String {
    match default {
        Value::String(text) if text.contains(' ') => text.clone(),
        value => format!("`{}`", flow(value).trim_matches('"')),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
