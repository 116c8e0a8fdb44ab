//! Where the command line is joined to the rest: the controller, the reader of manifests, and
//! their texts for people. Each function is a hand-over, and holds no logic of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{self, OperationError, Operations};
use crate::manifest::{self, Reader};
use crate::model::Diagnostic;
use crate::plan::Plan;
use crate::reconcile::{self, Controller, ControllerOperations, ControllerOptions};

/// What was found in the manifests of a commit or a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    pub errors: Vec<Diagnostic>,
    pub warnings: Vec<Diagnostic>,
}

/// A controller in this process, for one command.
pub async fn open_controller(
    options: ControllerOptions,
) -> Result<Arc<dyn Operations>, OperationError> {
    // Meanwhile the store is opened. Where there is no thread to be had, it is only later.
    let _warm = std::thread::Builder::new().spawn(crate::source::warm_up);
    Ok(Arc::new(ControllerOperations(Controller::open(options)?)))
}

/// Runs a controller, with its socket, until `shutdown`.
pub async fn run_controller(
    options: ControllerOptions,
    shutdown: CancellationToken,
) -> Result<(), OperationError> {
    let socket = options.state.join("plimsoll.sock");
    let controller = open_patiently(options).await?;
    let operations = Arc::new(ControllerOperations(controller.clone()));
    let served = tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            let ended = api::serve(&socket, operations, shutdown.clone()).await;
            // Without its socket nobody could ask it anything.
            shutdown.cancel();
            ended.map_err(|error| {
                OperationError::because(format!("{} can't be served", socket.display()), &error)
            })
        }
    });
    controller.run(shutdown).await?;
    match served.await {
        Ok(ended) => ended,
        Err(error) => Err(OperationError::because("the socket's server ended", &error)),
    }
}

/// A command that is just being answered holds the store for a moment; a controller waits for
/// that, but not for another controller.
async fn open_patiently(options: ControllerOptions) -> Result<Arc<Controller>, OperationError> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let error = match Controller::open(options.clone()) {
            Ok(controller) => return Ok(controller),
            Err(error) => error,
        };
        let held = error.causes.iter().any(|cause| cause.contains("is held by process"));
        if !held || Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Reads the manifests that `options` point to: of `revision`, or, without one, of the folder
/// as it lies. Needs neither state nor engine.
pub async fn read_manifests(
    options: ControllerOptions,
    revision: Option<String>,
) -> Result<Findings, OperationError> {
    // Of its own, so that neither the state folder nor a controller's clone is touched.
    let state = tempfile::tempdir()
        .map_err(|error| OperationError::because("no temporary folder can be made", &error))?;
    let options = ControllerOptions { state: state.path().to_owned(), ..options };
    let source = reconcile::open_source(&options)?;
    let failed = |error| {
        OperationError::because("the manifests can't be read", &error)
            .hint("name their folder: plimsoll validate FOLDER, or --repo REPO --rev REV")
    };
    let commit = source.resolve(revision.as_deref().unwrap_or("HEAD")).await.map_err(failed)?;
    let files = source.files(&commit).await.map_err(failed)?;
    let reading = Reader::new().read(&files);
    Ok(Findings { errors: reading.diagnostics, warnings: reading.warnings })
}

/// Mistakes as text for people.
pub fn render_diagnostics(diagnostics: &[Diagnostic], color: bool) -> String {
    manifest::render(diagnostics, color)
}

/// Warnings as text for people.
pub fn render_warnings(warnings: &[Diagnostic], color: bool) -> String {
    manifest::render_warnings(warnings, color)
}

/// A plan as text for people.
pub fn render_plan(plan: &Plan, color: bool) -> String {
    crate::plan::render(plan, color)
}

/// The JSON Schema of manifests.
pub fn json_schema() -> serde_json::Value {
    manifest::json_schema()
}
