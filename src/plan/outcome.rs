//! What became of the steps of a plan.

use serde::{Deserialize, Serialize};

use super::StepId;

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepOutcome {
    pub id: StepId,
    pub result: StepResult,
    pub seconds: f64,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StepResult {
    Done,
    Failed,
    /// A step that it waits for failed, or something else took over.
    Skipped,
}
