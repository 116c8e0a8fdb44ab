//! Where log lines of this process go: to stderr, for people on a terminal, as JSON elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::failure::Failure;
use crate::api::OperationError;

/// The variable that says what is logged, such as `debug` or `plimsoll::plan=trace`.
const VARIABLE: &str = "PLIMSOLL_LOG";

/// For the controller: `info` and above unless the environment says otherwise.
pub fn controller() -> Result<(), Failure> {
    let filter = filter("info")?;
    let is_terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A subscriber that is there already was set up by a test; it serves as well.
    let _is_there = if is_terminal {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        lines.with_target(false).with_ansi(!plain).try_init()
    } else {
        lines.json().flatten_event(true).try_init()
    };
    Ok(())
}

/// For all other commands: nothing but errors, which they print themselves as well, unless the
/// environment asks for more.
pub fn quietly() -> Result<(), Failure> {
    let filter = filter("off")?;
    let _is_there = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .try_init();
    Ok(())
}

fn filter(default: &str) -> Result<EnvFilter, Failure> {
    let wanted = std::env::var(VARIABLE).ok().filter(|wanted| !wanted.trim().is_empty());
    let wanted = wanted.unwrap_or_else(|| default.to_owned());
    EnvFilter::try_new(&wanted).map_err(|error| {
        let message = format!("{VARIABLE}={wanted:?} can't be read");
        let error = OperationError::because(message, &error)
            .hint(format!("{VARIABLE}=info, or {VARIABLE}=info,plimsoll::plan=debug"));
        Failure::from(error).above_one()
    })
}
