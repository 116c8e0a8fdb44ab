//! Finds who answers: a controller that runs with the same state folder, or else this process.

use std::io::ErrorKind;
use std::sync::Arc;

use super::failure::Failure;
use super::settings::GlobalArguments;
use super::{joints, settings};
use crate::api::{Client, OperationError, Operations};

/// Who answers the questions of this command.
///
/// # Errors
/// A controller is there but not for us, or this process can't do its work.
pub async fn operations(global: &GlobalArguments) -> Result<Arc<dyn Operations>, Failure> {
    let options = global.settings(None)?;
    let socket = settings::socket(&options);
    match Client::try_connect(&socket).await {
        Ok(client) => {
            if global.worktree {
                eprintln!(
                    "note: the controller on {} answers, from its own source, not from --worktree",
                    socket.display()
                );
            }
            Ok(Arc::new(client))
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let message = format!("the controller on {} is another user's", socket.display());
            Err(OperationError::because(message, &error)
                .hint("ask as that user (sudo), or name your own state with --state FOLDER")
                .into())
        }
        // Where a controller holds the store but doesn't answer, opening it says who holds it.
        Err(_nobody_listens) => Ok(joints::open_controller(options).await?),
    }
}
