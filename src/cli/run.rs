//! `plimsoll run`: the controller, until it is told to stop.

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::settings::GlobalArguments;
use super::{code, joints, logging};
use crate::api::OperationError;
use crate::model::Span;

/// As many files as a controller opens at the most.
const MOST_DESCRIPTORS: u64 = 65_536;

/// Run the controller until SIGTERM or SIGINT
///
/// Watches the repository, the hosts and the balancers, and keeps the second and third at what
/// the first declares. A step in progress is finished, for at most 10 seconds; a second signal
/// ends at once. Neither stops any container or balancer.
#[derive(Debug, Args)]
pub struct Run {
    /// Between looks at the remote; wakes come at once [default: 30s]
    #[arg(long, value_name = "DURATION")]
    interval: Option<Span>,
}

impl Run {
    pub async fn run(self, global: &GlobalArguments) -> Result<u8, Failure> {
        logging::controller()?;
        allow_descriptors();
        let options = global.settings(self.interval)?;
        let shutdown = CancellationToken::new();
        let (terminate, interrupt) =
            (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let listener = tokio::spawn(obey(terminate, interrupt, shutdown.clone()));
        let ended = joints::run_controller(options, shutdown).await;
        listener.abort();
        ended?;
        Ok(code::DONE)
    }
}

/// A controller of 1,000 hosts has 2,000 descriptors open and more, one of each host for its
/// events; where nobody raised it, a process may have 1,024.
fn allow_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(MOST_DESCRIPTORS, |maximum| maximum.min(MOST_DESCRIPTORS));
    if current.is_some_and(|current| current < wanted) {
        let limit = Rlimit { current: Some(wanted), maximum };
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files stays at what it is");
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    let listening = signal(kind);
    Ok(listening
        .map_err(|error| OperationError::because("signals can't be listened to", &error))?)
}

/// The first signal asks the controller to end; the second ends the process at once.
async fn obey(mut terminate: Signal, mut interrupt: Signal, shutdown: CancellationToken) {
    next(&mut terminate, &mut interrupt).await;
    tracing::info!("stopping: a step in progress is finished; a second signal ends at once");
    shutdown.cancel();
    let number = next(&mut terminate, &mut interrupt).await;
    // As shells count: 128 and the signal's number.
    std::process::exit(128 + number);
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        biased;
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}
