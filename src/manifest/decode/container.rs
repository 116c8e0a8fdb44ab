//! The part of an App that its containers are made from.

use std::collections::BTreeMap;

use super::super::mistake::{Mistakes, nearest};
use super::super::node::{Data, Entry};
use super::super::text::Extent;
use super::{Field, Fields, absolute_path, security, volumes, without_nul};
use crate::model::{
    ContainerTemplate, EnvSource, ImageRef, Limits, Memory, MilliCpus, SecretName, Span, Stop,
};

/// Something that every Host of the app has to allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    Privileged,
    Capability(String),
    HostNetwork,
    Folder(String),
}

/// What is needed, and where it is asked for.
pub type Needs = Vec<(Need, Extent)>;

/// The least memory that the engine accepts.
const LEAST_MEMORY: Memory = Memory::from_bytes(6 << 20);

/// Reads the container's fields off an App's spec. None where there is no image.
pub fn decode(
    fields: &mut Fields<'_>,
    needs: &mut Needs,
    found: &mut Mistakes,
) -> Option<ContainerTemplate> {
    let image = fields.require("image", "registry.example.com/web:1.5.0", found);
    let image = image.and_then(|field| image_ref(&field, found));
    let command = fields.get("command").map(|field| arguments(&field, found));
    let args = fields.get("args").map(|field| arguments(&field, found));
    let env = fields.get("env").map(|field| env(&field, found)).unwrap_or_default();
    let user = fields.get("user").and_then(|field| user(&field, found));
    let workdir = fields
        .get("workdir")
        .and_then(|field| absolute_path(field.text(found)?, "`workdir`", field.at(), found));
    let mut mounts = volumes::Mounts::new();
    let volumes = fields
        .get("volumes")
        .map(|field| volumes::volumes(&field, &mut mounts, needs, found))
        .unwrap_or_default();
    let tmpfs = fields
        .get("tmpfs")
        .map(|field| volumes::tmpfs(&field, &mut mounts, found))
        .unwrap_or_default();
    let read_only = fields.get("readOnly").and_then(|field| field.boolean(found));
    let privileged_field = fields.get("privileged");
    let privileged = privileged_field.and_then(|field| field.boolean(found)).unwrap_or(false);
    if let Some(field) = privileged_field.filter(|_| privileged) {
        needs.push((Need::Privileged, field.at()));
    }
    let capabilities = fields
        .get("capabilities")
        .map(|field| security::capabilities(&field, needs, found))
        .unwrap_or_default();
    let ulimits =
        fields.get("ulimits").map(|field| security::ulimits(&field, found)).unwrap_or_default();
    let network = fields.get("network").and_then(|field| network(&field, needs, found));
    let labels = fields.get("labels").map(|field| labels(&field, found)).unwrap_or_default();
    let limits = fields.get("limits").map(|field| limits(&field, found)).unwrap_or_default();
    let stop = fields.get("stop").map(|field| stop(&field, found)).unwrap_or_default();
    let port = fields
        .get("port")
        .and_then(|field| field.integer(1..=65535, found))
        .and_then(|port| u16::try_from(port).ok());
    Some(ContainerTemplate {
        image: image?,
        command,
        args,
        env,
        user,
        workdir,
        volumes,
        tmpfs,
        read_only: read_only.unwrap_or(false),
        privileged,
        capabilities,
        ulimits,
        network,
        labels,
        limits,
        stop,
        port,
        health: None,
    })
}

fn image_ref(field: &Field<'_>, found: &mut Mistakes) -> Option<ImageRef> {
    let text = field.text(found)?;
    text.parse()
        .map_err(|error| {
            let mistake = found.error(field.at(), format!("`image`: {error}"));
            if text.chars().any(char::is_whitespace) {
                mistake.hint("remove the spaces");
            } else if text.chars().any(|c| c.is_ascii_uppercase()) {
                mistake.hint(format!("did you mean `{}`?", text.to_ascii_lowercase()));
            } else if text.contains("://") {
                mistake.hint("leave the scheme out: it begins with the registry's name");
            } else if text.ends_with(':') {
                mistake.hint("add a tag after the colon, such as 1.5.0");
            }
        })
        .ok()
}

/// A list of words; the first of a command is its program.
pub fn arguments(field: &Field<'_>, found: &mut Mistakes) -> Vec<String> {
    if let Some(text) = field.node.text() {
        let name = field.name;
        let words: Vec<_> = text.split_whitespace().map(|word| format!("{word:?}")).collect();
        found
            .error(field.at(), format!("`{name}` has to be a list of words, no shell splits it"))
            .hint(format!("write `{name}: [{}]`", words.join(", ")));
        return Vec::new();
    }
    let what = format!("`{}`", field.name);
    let words = field.texts(found);
    if field.name == "command" && words.is_empty() && field.node.what() == "a list" {
        found
            .error(field.at(), "`command` is empty")
            .hint("leave it out to use the image's own command");
    }
    words.into_iter().map(|(text, at)| without_nul(text, &what, at, found)).collect()
}

/// The variables of an App or of an Environment.
pub fn env(field: &Field<'_>, found: &mut Mistakes) -> BTreeMap<String, EnvSource> {
    if matches!(field.node.data, Data::List(_)) {
        found
            .error(field.key_at, "`env` has to be a mapping, this is a list")
            .hint("write `env: {NAME: value}`");
        return BTreeMap::new();
    }
    let mut env = BTreeMap::new();
    for entry in field.map(found) {
        check_variable(entry, found);
        if let Some(value) = variable(entry, found) {
            env.insert(entry.key.to_string(), value);
        }
    }
    env
}

fn check_variable(entry: &Entry, found: &mut Mistakes) {
    let Entry { key, key_at, .. } = entry;
    let begins_well = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !begins_well || !key.chars().all(fine) {
        let mistake = found.error(*key_at, format!("{key:?} is no name of a variable"));
        mistake.hint("letters, digits and _ only, no digit in front");
    } else if key.starts_with("PLIMSOLL_") {
        found
            .error(
                *key_at,
                format!("`{key}`: variables that begin with PLIMSOLL_ are set by Plimsoll"),
            )
            .hint("choose another name");
    }
}

fn variable(entry: &Entry, found: &mut Mistakes) -> Option<EnvSource> {
    let Entry { key, key_at, value } = entry;
    match &value.data {
        Data::Scalar(scalar) => {
            Some(EnvSource::Plain(without_nul(&scalar.text, &format!("`{key}`"), value.at, found)))
        }
        Data::Broken => None,
        Data::Null => {
            found
                .error(*key_at, format!("`{key}` has no value"))
                .hint(format!("write `{key}: \"\"` for an empty one"));
            None
        }
        Data::List(_) => {
            found.error(
                value.at,
                format!("`{key}` has to be a text or {{secret: NAME}}, this is a list"),
            );
            None
        }
        Data::Map(_) => {
            let mut fields = Fields::open(value, "a value of `env`", found)?;
            let secret = fields.require("secret", "web/database-url", found);
            fields.finish(found);
            let secret = secret?;
            let text = secret.text(found)?;
            SecretName::new(text)
                .map_err(|error| found.error(secret.at(), format!("`secret`: {error}")))
                .map(EnvSource::Secret)
                .ok()
        }
    }
}

/// `USER` or `USER:GROUP`, names or numbers.
fn user(field: &Field<'_>, found: &mut Mistakes) -> Option<String> {
    let text = field.text(found)?;
    let is_fine = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    };
    let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
    if !is_fine(user) || !group.is_none_or(is_fine) {
        found
            .error(field.at(), format!("`user` is no USER or USER:GROUP: {text:?}"))
            .hint("such as `user: app`, or `user: \"1000:1000\"`");
        return None;
    }
    Some(text.to_owned())
}

fn network(field: &Field<'_>, needs: &mut Needs, found: &mut Mistakes) -> Option<String> {
    let text = field.text(found)?;
    if text.starts_with("container:") {
        found
            .error(field.at(), "`network` can't be that of another container")
            .hint("containers are replaced at any time: use a network of the engine by its name");
        return None;
    }
    let fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.chars().all(fine) {
        found
            .error(field.at(), format!("{text:?} is no name of a network"))
            .hint("it begins with a letter or digit and has letters, digits, `_`, `.` and `-`");
        return None;
    }
    if text == "host" {
        needs.push((Need::HostNetwork, field.at()));
    }
    Some(text.to_owned())
}

fn labels(field: &Field<'_>, found: &mut Mistakes) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for Entry { key, key_at, value } in field.map(found) {
        if key.starts_with("plimsoll.") {
            found
                .error(
                    *key_at,
                    format!("{key:?}: labels that begin with `plimsoll.` are Plimsoll's own"),
                )
                .hint("choose another prefix, such as your domain");
        } else if key.is_empty() || key.chars().any(char::is_control) {
            found.error(*key_at, format!("{key:?} is no name of a label"));
        }
        match value.text() {
            Some(text) => {
                let text = without_nul(text, &format!("the label {key}"), value.at, found);
                labels.insert(key.to_string(), text);
            }
            None => {
                let what = value.what();
                let at = if matches!(value.data, Data::Null) { *key_at } else { value.at };
                found.error(at, format!("the label {key} has to be a text, this is {what}"));
            }
        }
    }
    labels
}

fn limits(field: &Field<'_>, found: &mut Mistakes) -> Limits {
    let mut limits = Limits::default();
    let Some(mut fields) = field.fields("`limits`", found) else { return limits };
    if let Some(memory) = fields.get("memory") {
        limits.memory = memory.parse(found);
        if limits.memory.is_some_and(|bytes| bytes < LEAST_MEMORY) {
            found
                .error(memory.at(), format!("`memory` has to be at least {LEAST_MEMORY}"))
                .hint("the engine refuses less");
        }
    }
    limits.cpus = fields.get("cpus").and_then(|field| cpus(&field, found));
    limits.pids = fields
        .get("pids")
        .and_then(|field| field.integer(1..=4_194_304, found))
        .and_then(|pids| u32::try_from(pids).ok());
    fields.finish(found);
    limits
}

/// A number above 0 with up to three decimals.
fn cpus(field: &Field<'_>, found: &mut Mistakes) -> Option<MilliCpus> {
    let text = field.text(found)?;
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let millis = (is_digits(whole) && is_digits(decimals) && decimals.len() <= 3)
        .then(|| {
            let thousandths = format!("{decimals:0<3}").parse::<u32>().ok()?;
            whole.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(thousandths)
        })
        .flatten()
        .filter(|millis| (1..=1_000_000).contains(millis));
    if millis.is_none() {
        let mistake = found.error(
            field.at(),
            format!("`cpus` has to be a number above 0, up to 1000, with at most 3 decimals, this is {text:?}"),
        );
        let thousandths = text.strip_suffix('m').and_then(|digits| digits.parse::<u32>().ok());
        match thousandths {
            Some(millis) => mistake.hint(format!("write `cpus: {}`", MilliCpus(millis))),
            None => mistake.hint("such as `cpus: 1.5`"),
        }
    }
    millis.map(MilliCpus)
}

fn stop(field: &Field<'_>, found: &mut Mistakes) -> Stop {
    let mut stop = Stop::default();
    let Some(mut fields) = field.fields("`stop`", found) else { return stop };
    stop.signal = fields.get("signal").and_then(|field| security::signal(&field, found));
    if let Some(grace) =
        fields.get("grace").and_then(|field| field.span(Span::from_millis(0), found))
    {
        stop.grace = grace;
    }
    fields.finish(found);
    stop
}

/// The names of `known` for a hint about `text`, nearest first.
pub fn choice(text: &str, known: &[&'static str]) -> String {
    match nearest(text, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write {}", known.join(" or ")),
    }
}
