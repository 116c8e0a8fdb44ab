//! Texts that engines write: JSON strings, points in time, and how long ago something was.

use jiff::Timestamp;
use serde_json::Value;

/// A JSON string.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[allow(clippy::disallowed_methods, reason = "an engine has a clock of its own")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// As Go writes a point in time; the zero of Go where there is none.
pub fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |time| time.to_string())
}

/// How long something has been so, as `docker ps` shows it.
pub fn span(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ => format!("{} days", hours / 24),
    }
}

/// How long it has been so since then.
pub fn since(then: Option<Timestamp>) -> String {
    let then = then.unwrap_or_default();
    span(now().as_second() - then.as_second())
}

/// A command line as lists of containers show it.
pub fn command_line(path: &str, arguments: &[String]) -> String {
    let mut line = path.to_owned();
    for argument in arguments {
        line.push(' ');
        match argument.contains(' ') {
            true => line.push_str(&format!("'{argument}'")),
            false => line.push_str(argument),
        }
    }
    line
}
