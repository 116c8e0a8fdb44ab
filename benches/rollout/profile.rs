//! Where the time of a rollout goes: the path of steps of which each could begin only when the
//! one before it had ended, from the last weight back to the push.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::Roll;
use super::table::{median, millis};

/// The parts of a time, in the order in which they come, each with its share.
#[derive(Debug, Default)]
pub struct Profile {
    parts: Vec<(String, Duration)>,
    /// How many steps follow one another on the critical path.
    steps: usize,
}

impl Profile {
    /// Adds to a part, which is put at the end where it is new.
    pub fn add(&mut self, part: &str, time: Duration) {
        match self.parts.iter_mut().find(|(name, _)| name == part) {
            Some((_, sum)) => *sum += time,
            None => self.parts.push((part.to_owned(), time)),
        }
    }

    /// What a part took; nothing where there is no such part.
    pub fn part(&self, name: &str) -> Duration {
        self.parts.iter().find(|(part, _)| part == name).map_or(Duration::ZERO, |(_, time)| *time)
    }
}

/// The wait for the next look at the remote: a setting's share, and nobody's work.
pub const POLL: &str = "until the remote is looked at";

/// Something that took time, as a line of the log tells of it.
struct Span {
    what: String,
    begin: Duration,
    end: Duration,
}

/// The parts of a rollout by Plimsoll: `begin` and `end` are the times of the push and of the
/// last weight, `log` is what the controller wrote meanwhile.
pub fn of_log(begin: Duration, end: Duration, commit: &str, log: &str) -> Profile {
    let lines: Vec<Value> =
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let steps = steps(&lines);
    let path = path(&steps, &lines);
    let first = path.first().map_or(end, |id| steps[*id].begin);
    let mut profile = before_the_first(begin, first, commit, &lines);
    let mut at = first;
    for id in &path {
        let span = &steps[*id];
        profile.add("between steps", span.begin.saturating_sub(at));
        profile.add(&format!("step {}", span.what), span.end.saturating_sub(span.begin));
        at = span.end;
    }
    profile.add("until it was seen", end.saturating_sub(at));
    profile.steps = path.len();
    profile
}

/// From the push to the first step: the fetch that saw it, and the last look before the step.
fn before_the_first(begin: Duration, first: Duration, commit: &str, lines: &[Value]) -> Profile {
    let mut profile = Profile::default();
    let said = |text: &'static str| {
        let lines = lines.iter().filter(move |line| line["message"] == text);
        lines.filter_map(|line| Some((line, span(line)?)))
    };
    let mut fetches = said("the remote was looked at");
    let fetch = fetches.find(|(line, _)| line["tip"] == commit).map(|(_, span)| span);
    let Some(fetch) = fetch else { return profile };
    profile.add(POLL, fetch.begin.saturating_sub(begin));
    profile.add("fetch", fetch.end.saturating_sub(fetch.begin.max(begin)));
    let looks = said("the containers were listed").chain(said("the balancer was looked at"));
    let looks = looks.map(|(_, span)| span);
    let looks: Vec<_> = looks.filter(|l| l.begin >= fetch.end && l.end <= first).collect();
    let look_begin = looks.iter().map(|look| look.begin).min().unwrap_or(fetch.end);
    let look_end = looks.iter().map(|look| look.end).max().unwrap_or(fetch.end);
    profile.add("until the look begins (gathering wakes, reading)", look_begin - fetch.end);
    profile.add("look at engines and HAProxy", look_end - look_begin);
    profile.add("until the first step (resolving, planning, notes)", first - look_end);
    profile
}

/// The ids of the steps on the critical path, the first first.
fn path<'a>(steps: &'a BTreeMap<String, Span>, lines: &'a [Value]) -> Vec<&'a str> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    for line in lines.iter().filter(|line| line["message"] == "begins") {
        if let (Some(step), Some(after)) = (line["step"].as_str(), line["after"].as_str()) {
            before.insert(step, after);
        }
    }
    let weights = steps.iter().filter(|(_, span)| span.what.starts_with("setWeight"));
    let mut next = weights.max_by_key(|(_, span)| span.end).map(|(id, _)| id.as_str());
    let mut path = Vec::new();
    while let Some(id) = next {
        path.push(id);
        let after = before.get(id).copied().unwrap_or_default().split(' ');
        next = after.filter(|id| steps.contains_key(*id)).max_by_key(|id| steps[*id].end);
    }
    path.reverse();
    path
}

fn steps(lines: &[Value]) -> BTreeMap<String, Span> {
    let step = |line: &Value| Some((line["step"].as_str()?.to_owned(), span(line)?));
    lines.iter().filter_map(step).collect()
}

/// A line that says how long something took.
fn span(line: &Value) -> Option<Span> {
    let time: jiff::Timestamp = line["timestamp"].as_str()?.parse().ok()?;
    let end = Duration::from_nanos(u64::try_from(time.as_nanosecond()).ok()?);
    let begin = end.saturating_sub(Duration::from_secs_f64(line["seconds"].as_f64()?));
    let falls = line["message"].as_str().is_some_and(|text| text.ends_with(" to 0"));
    let what = line["kind"].as_str().unwrap_or_default();
    Some(Span { what: format!("{what}{}", if falls { " to 0" } else { "" }), begin, end })
}

/// Prints the median of each part over the rounds.
pub fn tell(what: &str, rolls: &[Roll]) {
    println!("\n{what} (medians of each part, ms)");
    let steps = median(rolls.iter().map(|roll| roll.profile.steps as f64));
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rolls.iter().flat_map(|roll| &roll.profile.parts) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    for name in names {
        let part = median(rolls.iter().map(|roll| millis(roll.profile.part(name))));
        println!("  {name:<52} {part:>8.1}");
    }
    if steps > 0.0 {
        println!("  {:<52} {steps:>6}", "(steps that follow one another)");
    }
}
