//! The app that Plimsoll is shown and tested with: a web server that tells who it is, and that
//! misbehaves when its environment asks for it. It knows nothing of Plimsoll but the
//! environment variables that every container gets, and it never writes a file.
//!
//! | path | answers |
//! | --- | --- |
//! | `/` | who serves: app, version, revision, slot, host, environment, commit |
//! | `/_status` | 200 once it is ready, 503 before that and with `FAIL_STATUS=1` |
//! | `/echo` | the body of a POST |
//! | `/slow?ms=N` | the same as `/`, N milliseconds later, at most 60,000 |
//!
//! The variables that it reads are described in `settings.rs`.

mod pages;
mod settings;
mod shutdown;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;

use settings::Settings;

/// How long requests that are under way may take to end once the server was told to stop.
const GRACE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    match Settings::from_environment() {
        Ok(settings) => run(Arc::new(settings)).await,
        Err(reason) => fail(&reason),
    }
}

async fn run(settings: Arc<Settings>) -> ExitCode {
    let started = Instant::now();
    let ballast = settings.ballast();
    if let Some((delay, code)) = settings.exit {
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            std::process::exit(code);
        });
    }
    let stop = match shutdown::Stop::listen(settings.ignore_sigterm) {
        Ok(stop) => stop,
        Err(error) => return fail(&format!("signals can't be received: {error}")),
    };
    let code = if settings.never_listen {
        stop.requested().await;
        ExitCode::SUCCESS
    } else {
        serve(&settings, started, stop).await
    };
    drop(ballast);
    code
}

/// Serves until it is told to stop, and then for at most [`GRACE`]. Requests that are under way
/// are finished, with `Connection: close`; idle connections are closed.
async fn serve(settings: &Arc<Settings>, started: Instant, stop: shutdown::Stop) -> ExitCode {
    let address = ("0.0.0.0", settings.port);
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => return fail(&format!("port {} can't be bound: {error}", settings.port)),
    };
    pages::line(&[("event", "listening"), ("port", &settings.port.to_string())]);
    let router = pages::router(Arc::clone(settings), started);
    let stop_twice = stop.clone();
    let server = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.requested().await })
        .into_future();
    let out_of_time = async move {
        stop_twice.requested().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! { biased;
        result = server => match result {
            Ok(()) => {
                pages::line(&[("event", "stopped")]);
                ExitCode::SUCCESS
            }
            Err(error) => fail(&format!("serving failed: {error}")),
        },
        () = out_of_time => {
            pages::line(&[("event", "stopped"), ("reason", "requests took too long to end")]);
            ExitCode::SUCCESS
        }
    }
}

fn fail(reason: &str) -> ExitCode {
    eprintln!("web: {reason}");
    ExitCode::FAILURE
}
