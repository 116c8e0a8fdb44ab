//! What changes in an app, field by field, between the commit applied before and this one. It
//! is shown, and decides nothing. Secret values can't be in it: manifests hold their names only.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::App;

use super::FieldChange;

/// The changes from `old` to `new`, in the order of their paths.
pub(super) fn changes(old: Option<&App>, new: Option<&App>) -> Vec<FieldChange> {
    let fields = |app: Option<&App>| app.map(fields).unwrap_or_default();
    let (old, new) = (fields(old), fields(new));
    let mut changes = Vec::new();
    let paths: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for path in paths {
        let path = path.clone();
        match (old.get(&path).cloned(), new.get(&path).cloned()) {
            (Some(from), Some(to)) if from != to => {
                changes.push(FieldChange::Change { path, from, to });
            }
            (None, Some(to)) => changes.push(FieldChange::Add { path, to }),
            (Some(from), None) => changes.push(FieldChange::Remove { path, from }),
            _ => {}
        }
    }
    changes
}

/// An app's fields by their path, as text.
fn fields(app: &App) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let Ok(Value::Object(mut object)) = serde_json::to_value(app) else { return fields };
    object.remove("id");
    object.remove("location");
    if let Some(Value::Object(template)) = object.remove("template") {
        for (key, value) in template {
            // The engine's own check and HAProxy's are one field to people.
            let key = if key == "health" { "health.command".to_owned() } else { key };
            flatten(&key, &value, &mut fields);
        }
    }
    for (key, value) in object {
        flatten(&key, &value, &mut fields);
    }
    fields
}

fn flatten(path: &str, value: &Value, fields: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(object) if path.starts_with("env.") => {
            let text = match (object.get("plain"), object.get("secret")) {
                (Some(Value::String(text)), _) => text.clone(),
                (_, Some(Value::String(name))) => format!("{{secret: {name}}}"),
                _ => value.to_string(),
            };
            fields.insert(path.to_owned(), text);
        }
        Value::Object(object) => {
            for (key, value) in object {
                flatten(&format!("{path}.{key}"), value, fields);
            }
        }
        Value::Array(items) => {
            let scalar = |item: &Value| !item.is_object() && !item.is_array();
            if items.is_empty() {
            } else if items.iter().all(scalar) {
                let words: Vec<String> = items.iter().map(plain).collect();
                fields.insert(path.to_owned(), words.join(" "));
            } else {
                for (index, item) in items.iter().enumerate() {
                    flatten(&format!("{path}[{index}]"), item, fields);
                }
            }
        }
        scalar => {
            fields.insert(path.to_owned(), plain(scalar));
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
