//! What a document declares: its envelope, read before its spec, so that a mistake in the spec
//! is tied to the object that it belongs to.

use super::decode::Fields;
use super::mistake::{Mistakes, known_names};
use super::node::{Data, Node};
use super::parse::Parsed;
use super::text::Extent;
use crate::model::{
    API_VERSION, AppId, BalancerName, EnvironmentName, HostName, InstallationName, Location,
};

/// The kinds of manifests.
pub(super) const KINDS: [&str; 5] = ["Installation", "Environment", "Host", "Balancer", "App"];

/// What is known of a document before its spec is read.
#[derive(Debug)]
pub(super) struct Document {
    pub class: Class,
    /// None where the document is empty.
    pub root: Option<Node>,
    pub at: Extent,
    pub location: Location,
    /// Of syntax and envelope.
    pub found: Mistakes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Class {
    Empty,
    Declares(Head),
    /// It has no envelope: a base, if an App names it.
    Fragment,
    /// It isn't known what it declares.
    Unknown,
}

/// A document's kind and metadata, all of them valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub identity: Identity,
    pub name: String,
    pub name_at: Extent,
    /// The word `spec`, or the name where there is none.
    pub spec_at: Extent,
    /// Of an App.
    pub environment_at: Option<Extent>,
    /// Of an Installation.
    pub uid: Option<(String, Extent)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Identity {
    Installation,
    Environment(EnvironmentName),
    Host(HostName),
    Balancer(BalancerName),
    App(AppId),
}

impl Identity {
    /// For people: `Host alpha`.
    pub fn title(&self) -> String {
        match self {
            Self::Installation => "Installation".to_owned(),
            Self::Environment(name) => format!("Environment {name}"),
            Self::Host(name) => format!("Host {name}"),
            Self::Balancer(name) => format!("Balancer {name}"),
            Self::App(id) => format!("App {id}"),
        }
    }
}

impl Document {
    /// Reads the envelope of a parsed document. `at` is its first line.
    pub fn new(parsed: Parsed, at: Extent, location: Location, mut found: Mistakes) -> Self {
        let class = match &parsed.root {
            None if parsed.complete => Class::Empty,
            None => Class::Unknown,
            Some(root) if matches!(root.data, Data::Null) => Class::Empty,
            Some(root) => classify(root, parsed.complete, &mut found),
        };
        Self { class, root: parsed.root, at, location, found }
    }

    /// The mapping under `spec`.
    pub fn spec(&self) -> Option<&Node> {
        self.root.as_ref()?.get("spec").map(|entry| &entry.value)
    }
}

fn classify(root: &Node, is_complete: bool, found: &mut Mistakes) -> Class {
    let Data::Map(entries) = &root.data else {
        if is_complete {
            found
                .error(root.at, format!("a manifest is a mapping, this is {}", root.what()))
                .hint(format!("begin with `apiVersion: {API_VERSION}` and `kind: App`"));
        }
        return Class::Unknown;
    };
    let is_there = |key: &str| entries.iter().any(|entry| entry.key == key);
    if !["apiVersion", "kind", "metadata", "spec"].into_iter().any(is_there) {
        return if is_complete { Class::Fragment } else { Class::Unknown };
    }
    // The rest of a cut document is missing, not forgotten.
    let mut ignored = Mistakes::default();
    let found = if is_complete { found } else { &mut ignored };
    match head(root, found) {
        Some(head) if is_told_apart(root) => Class::Declares(head),
        _ => Class::Unknown,
    }
}

/// False where kind or metadata are there twice, so that either might be meant.
fn is_told_apart(root: &Node) -> bool {
    let once = |node: &Node, keys: &[&str]| {
        let entries = node.entries().unwrap_or_default();
        keys.iter().all(|key| entries.iter().filter(|entry| entry.key == *key).count() <= 1)
    };
    let metadata = root.get("metadata").map(|entry| &entry.value);
    once(root, &["kind", "metadata"])
        && metadata.is_none_or(|metadata| once(metadata, &["name", "environment"]))
}

fn head(root: &Node, found: &mut Mistakes) -> Option<Head> {
    let mut fields = Fields::open(root, "a manifest", found)?;
    if let Some(version) = fields.require("apiVersion", API_VERSION, found)
        && version.text(found).is_some_and(|text| text != API_VERSION)
    {
        found
            .error(version.at(), format!("`apiVersion` is {:?}", version.node.text().unwrap_or("")))
            .hint(format!("this Plimsoll knows `{API_VERSION}`"));
    }
    let kind_field = fields.require("kind", "App", found);
    let metadata = fields.require("metadata", "{name: web, environment: production}", found);
    fields.get("spec");
    fields.finish(found);
    let kind_field = kind_field?;
    let kind = kind_field.text(found)?;
    if !KINDS.contains(&kind) {
        let hint = known_names(kind, "kind", KINDS);
        found.error(kind_field.at(), format!("`kind`: there is no kind {kind:?}")).hint = hint;
        return None;
    }
    let mut metadata = metadata?.fields("`metadata`", found)?;
    let name_field = metadata.require("name", "web", found);
    let is_app = kind == "App";
    let environment =
        if is_app { metadata.require("environment", "production", found) } else { None };
    let environment_at = environment.map(|field| field.at());
    let uid = if kind == "Installation" { metadata.get("uid") } else { None };
    let uid = uid.and_then(|field| Some((field.text(found)?.to_owned(), field.at())));
    metadata.finish(found);
    let name_field = name_field?;
    let identity = match kind {
        "Installation" => {
            name_field.parse::<InstallationName>(found).map(|_| Identity::Installation)
        }
        "Environment" => name_field.parse(found).map(Identity::Environment),
        "Host" => name_field.parse(found).map(Identity::Host),
        "Balancer" => name_field.parse(found).map(Identity::Balancer),
        _ => {
            let name = name_field.parse(found);
            let environment = environment.and_then(|field| field.parse(found));
            name.zip(environment)
                .map(|(name, environment)| Identity::App(AppId { environment, name }))
        }
    };
    let spec_at = root.get("spec").map_or(name_field.at(), |entry| entry.key_at);
    let name = name_field.node.text()?.to_owned();
    Some(Head { identity: identity?, name, name_at: name_field.at(), spec_at, environment_at, uid })
}
