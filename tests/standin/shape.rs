//! The shape of an answer: a stand-in may say less than an engine, never something else.

use serde_json::Value;

/// Where the stand-in says something that the engine doesn't, or says in another type. Of lists
/// the first items are compared. Below the names of `open` are words of people: keys and values
/// there are what was asked for.
pub fn differences(at: &str, standin: &Value, real: &Value, open: &[&str]) -> Vec<String> {
    match (standin, real) {
        (Value::Object(said), Value::Object(real)) => {
            let of = |(key, value): (&String, &Value)| match real.get(key) {
                None => vec![format!("{at}/{key}: only the stand-in says it")],
                Some(_) if open.contains(&key.as_str()) => Vec::new(),
                Some(real) => differences(&format!("{at}/{key}"), value, real, open),
            };
            said.iter().flat_map(of).collect()
        }
        (Value::Array(said), Value::Array(real)) => match (said.first(), real.first()) {
            (Some(said), Some(real)) => differences(&format!("{at}[]"), said, real, open),
            (None, None) => Vec::new(),
            _ => vec![format!("{at}: one list is empty: {standin} and {real:?}")],
        },
        _ if kind(standin) == kind(real) => Vec::new(),
        _ => vec![format!("{at}: {standin} where the engine says {real}")],
    }
}

/// Where the stand-in says so much less that reading it would be no work to compare.
pub fn shortness(standin: &Value, real: &Value) -> Option<String> {
    let (said, real) = (standin.to_string().len(), real.to_string().len());
    (said * 2 < real).then(|| format!("{said} bytes where the engine says {real}"))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}
