//! Where the time of a rollout goes: the path of steps of which each could begin only when the
//! one before it had ended, from the last weight back to the beginning.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::Roll;
use super::table::{median, millis};

/// The parts of a time, in the order in which they come, each with its share.
#[derive(Debug, Default)]
pub struct Profile {
    parts: Vec<(String, Duration)>,
}

impl Profile {
    /// Adds to a part, which is put at the end where it is new.
    pub fn add(&mut self, part: &str, time: Duration) {
        match self.parts.iter_mut().find(|(name, _)| name == part) {
            Some((_, sum)) => *sum += time,
            None => self.parts.push((part.to_owned(), time)),
        }
    }
}

/// One step as the controller's log tells of it.
struct Span {
    kind: String,
    begin: Duration,
    end: Duration,
}

/// The parts of a rollout by Plimsoll: `begin` and `end` are the times of the push and of the
/// last weight, `applied` is what `apply -o json` printed, `log` what the controller wrote.
pub fn of_log(begin: Duration, end: Duration, applied: &Value, log: &str) -> Profile {
    let spans = spans(log);
    let mut path = Vec::new();
    let mut next = last_weight(&spans);
    while let Some(id) = next {
        path.push(id);
        next = before(id, applied)
            .filter(|id| spans.contains_key(*id))
            .max_by_key(|id| spans[*id].end);
    }
    let mut profile = Profile::default();
    let mut at = begin;
    for id in path.iter().rev() {
        let span = &spans[*id];
        let gap = if at == begin { "before the first step" } else { "between steps" };
        profile.add(gap, span.begin.saturating_sub(at));
        profile.add(&format!("step {}", span.kind), span.end.saturating_sub(span.begin));
        at = span.end;
    }
    profile.add("until it was seen", end.saturating_sub(at));
    profile.add("(steps on the path, one ms each)", Duration::from_millis(path.len() as u64));
    profile
}

fn last_weight(spans: &BTreeMap<String, Span>) -> Option<&str> {
    let weights = spans.iter().filter(|(_, span)| span.kind.starts_with("setWeight"));
    weights.max_by_key(|(_, span)| span.end).map(|(id, _)| id.as_str())
}

/// The ids of the steps that a step waited for.
fn before<'a>(id: &str, applied: &'a Value) -> impl Iterator<Item = &'a str> {
    let steps = applied["steps"].as_array().into_iter().flatten();
    let step = steps.filter(move |step| step["id"] == id).flat_map(|step| step["after"].as_array());
    step.flatten().filter_map(Value::as_str)
}

fn spans(log: &str) -> BTreeMap<String, Span> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|line| span(&line)).collect()
}

fn span(line: &Value) -> Option<(String, Span)> {
    let time: jiff::Timestamp = line["timestamp"].as_str()?.parse().ok()?;
    let end = Duration::from_nanos(u64::try_from(time.as_nanosecond()).ok()?);
    let begin = end.saturating_sub(Duration::from_secs_f64(line["seconds"].as_f64()?));
    let falls = line["message"].as_str().is_some_and(|text| text.ends_with(" to 0"));
    let kind = format!("{}{}", line["kind"].as_str()?, if falls { " to 0" } else { "" });
    Some((line["step"].as_str()?.to_owned(), Span { kind, begin, end }))
}

/// Prints the median of each part over the rounds.
pub fn tell(what: &str, rolls: &[Roll]) {
    println!("\n{what} (medians of each part, ms)");
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rolls.iter().flat_map(|roll| &roll.profile.parts) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    for name in names {
        let of = |roll: &Roll| {
            let part = roll.profile.parts.iter().find(|(part, _)| part == name);
            part.map_or(0.0, |(_, time)| millis(*time))
        };
        println!("  {name:<40} {:>8.1}", median(rolls.iter().map(of)));
    }
}
