//! Where the command line is joined to the rest: the controller, the reader of manifests, and
//! their texts for people. Each function is a hand-over, and holds no logic of its own.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::api::{OperationError, Operations};
use crate::model::Diagnostic;
use crate::plan::Plan;
use crate::reconcile::ControllerOptions;

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
    let state = options.state.display();
    Err(OperationError::new(format!("no controller answers on {state}/plimsoll.sock"))
        .hint("start one with plimsoll run"))
}

/// Runs a controller, with its socket, until `shutdown`.
pub async fn run_controller(
    options: ControllerOptions,
    _shutdown: CancellationToken,
) -> Result<(), OperationError> {
    let state = options.state.display();
    Err(OperationError::new(format!("a controller on {state} could not be started")))
}

/// Reads the manifests that `options` point to: of `revision`, or, without one, of the folder
/// as it lies. Needs neither state nor engine.
pub async fn read_manifests(
    options: ControllerOptions,
    _revision: Option<String>,
) -> Result<Findings, OperationError> {
    Err(OperationError::new(format!("the manifests of {} could not be read", options.repo)))
}

/// Mistakes as text for people.
pub fn render_diagnostics(diagnostics: &[Diagnostic], _color: bool) -> String {
    let line = |diagnostic: &Diagnostic| {
        let Diagnostic { location, column, length: _, message, hint, source } = diagnostic;
        let mut text = format!("{}:{}:{column}: {message}\n", location.file, location.line);
        if let Some(source) = source {
            text += &format!("  | {source}\n");
        }
        if let Some(hint) = hint {
            text += &format!("  help: {hint}\n");
        }
        text
    };
    diagnostics.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Warnings as text for people.
pub fn render_warnings(warnings: &[Diagnostic], color: bool) -> String {
    render_diagnostics(warnings, color)
}

/// A plan as text for people.
pub fn render_plan(plan: &Plan, _color: bool) -> String {
    plan.steps
        .iter()
        .map(|step| format!("{:<12} {} on {}\n", step.action.kind(), step.summary, step.place))
        .collect()
}

/// The JSON Schema of manifests.
pub fn json_schema() -> serde_json::Value {
    serde_json::Value::Null
}
