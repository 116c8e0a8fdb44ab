//! Who listens to events, and to which: one line of JSON for each.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

use super::texts::quoted;

/// What somebody wants to hear of: by key, values of which one has to fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// As clients write them: `{"KEY": ["VALUE"]}`, or as older ones did `{"KEY": {"VALUE": true}}`.
    pub fn parse(text: &str) -> Option<Self> {
        let map: BTreeMap<String, Value> = serde_json::from_str(text).ok()?;
        let values = |value: &Value| match value {
            Value::Array(list) => {
                list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Value::Object(map) => map.keys().cloned().collect(),
            _ => BTreeSet::new(),
        };
        Some(Self(map.iter().map(|(key, value)| (key.clone(), values(value))).collect()))
    }

    /// True where nothing is asked under that key, or one of its values fits.
    pub fn admits(&self, key: &str, fits: impl Fn(&str) -> bool) -> bool {
        self.0.get(key).is_none_or(|values| values.iter().any(|value| fits(value)))
    }

    /// True where every label that is asked for is there: `KEY` or `KEY=VALUE`.
    pub fn admits_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|is| is == value),
            None => labels.contains_key(wanted),
        };
        self.0.get("label").is_none_or(|wanted| wanted.iter().all(has))
    }
}

/// Something that happened to a container.
pub struct Event<'a> {
    pub action: &'a str,
    pub id: &'a str,
    pub name: &'a str,
    pub image: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    /// Attributes beside the labels: `exitCode`, `signal`.
    pub more: &'a [(&'a str, String)],
    pub nanoseconds: i128,
}

impl Event<'_> {
    fn text(&self) -> String {
        let Self { action, id, name, image, labels, more, nanoseconds } = self;
        let labels = labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let ours = [("image", *image), ("name", *name)];
        let more = more.iter().map(|(key, value)| (*key, value.as_str()));
        let attributes: BTreeMap<&str, &str> = labels.chain(ours).chain(more).collect();
        let attributes = serde_json::to_string(&attributes).unwrap_or_default();
        let (action, image) = (quoted(action), quoted(image));
        format!(
            "{{\"status\":{action},\"id\":\"{id}\",\"from\":{image},\"Type\":\"container\",\
             \"Action\":{action},\"Actor\":{{\"ID\":\"{id}\",\"Attributes\":{attributes}}},\
             \"scope\":\"local\",\"time\":{},\"timeNano\":{nanoseconds}}}\n",
            nanoseconds / 1_000_000_000,
        )
    }

    fn concerns(&self, filters: &Filters) -> bool {
        filters.admits("type", |wanted| wanted == "container")
            && filters.admits("event", |wanted| {
                wanted == self.action || self.action.starts_with(&format!("{wanted}:"))
            })
            && filters.admits("container", |wanted| wanted == self.id || wanted == self.name)
            && filters.admits_labels(self.labels)
    }
}

/// Everybody who listens.
#[derive(Default)]
pub struct Listeners {
    all: Vec<(Filters, mpsc::UnboundedSender<Bytes>)>,
    /// What happens isn't told while the engine hangs.
    silent: bool,
}

impl Listeners {
    pub fn add(&mut self, filters: Filters) -> mpsc::UnboundedReceiver<Bytes> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.all.push((filters, sender));
        receiver
    }

    pub fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    /// Tells those whom it concerns; forgets those who have gone.
    pub fn tell(&mut self, event: &Event<'_>) {
        if self.silent || self.all.is_empty() {
            return;
        }
        let text = Bytes::from(event.text());
        self.all.retain(|(filters, sender)| {
            !sender.is_closed() && (!event.concerns(filters) || sender.send(text.clone()).is_ok())
        });
    }
}
