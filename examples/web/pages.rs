//! The pages, and the line on stdout that each request leaves.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::time::Instant;

use crate::settings::Settings;

/// The longest that `/slow` waits, in milliseconds.
const SLOWEST_MS: u64 = 60_000;

#[derive(Clone)]
struct App {
    settings: Arc<Settings>,
    started: Instant,
}

/// All pages of an app that started at that moment.
pub fn router(settings: Arc<Settings>, started: Instant) -> Router {
    let app = App { settings, started };
    Router::new()
        .route("/", get(identity))
        .route("/_status", get(status))
        .route("/echo", post(echo))
        .route("/slow", get(slow))
        .layer(middleware::from_fn_with_state(app.clone(), log))
        .with_state(app)
}

async fn identity(State(app): State<App>) -> String {
    app.settings.identity.iter().fold(String::new(), |mut text, (word, value)| {
        let _ = writeln!(text, "{word}={value}");
        text
    })
}

async fn status(State(app): State<App>) -> (StatusCode, &'static str) {
    if app.settings.fail_status {
        (StatusCode::SERVICE_UNAVAILABLE, "failing, as FAIL_STATUS asks\n")
    } else if app.started.elapsed() < app.settings.start_delay {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn echo(body: Bytes) -> Bytes {
    body
}

#[derive(Deserialize)]
struct Slow {
    #[serde(default)]
    ms: u64,
}

async fn slow(app: State<App>, Query(Slow { ms }): Query<Slow>) -> String {
    tokio::time::sleep(Duration::from_millis(ms.min(SLOWEST_MS))).await;
    identity(app).await
}

async fn log(State(app): State<App>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().to_string();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    line(&[
        ("method", &method),
        ("path", &path),
        ("status", response.status().as_str()),
        ("ms", &begun.elapsed().as_millis().to_string()),
        ("revision", app.settings.identity("revision")),
        ("slot", app.settings.identity("slot")),
    ]);
    response
}

/// Writes one line of `key=value` pairs, the time first, to stdout. Where nobody reads it any
/// more it is lost: an app doesn't stop serving for that.
pub fn line(pairs: &[(&str, &str)]) {
    #[allow(clippy::disallowed_methods, reason = "the demo app is no part of the loop")]
    let now = jiff::Timestamp::now();
    let mut text = format!("ts={now:.3}");
    for (key, value) in pairs {
        let _ = write!(text, " {key}={}", quoted(value));
    }
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// The value as it is where that is one plain word, in quotes and escaped otherwise.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
    if value.is_empty() || value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("\"{}\"", value.escape_default())
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_value_forges_no_field_and_no_line() {
        for (value, written) in [
            ("/echo", "/echo"),
            ("", ""),
            ("a b", "\"a b\""),
            ("a=b", "\"a=b\""),
            ("a\nb", "\"a\\nb\""),
            ("\"", "\"\\\"\""),
        ] {
            assert_eq!(quoted(value), written);
        }
    }
}
