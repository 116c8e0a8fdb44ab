//! Plans in files, between `diff --out` and `apply --plan`: the JSON of the diff with the
//! version of its format. Only the user who wrote one can read it, since a plan shows the
//! environment of containers.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::api::{BODY_LIMIT, Diff, OperationError};

/// The format that this version writes and reads.
const FORMAT: u32 = 1;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    plan_format: u32,
    #[serde(flatten)]
    diff: &'a Diff,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    plan_format: u32,
}

/// Writes the plan, whole or not at all.
///
/// # Errors
/// The file can't be written there; what was there before stays.
pub fn write(path: &Path, diff: &Diff) -> Result<(), OperationError> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        OperationError::because(format!("the plan could not be kept in {}", path.display()), error)
            .hint("name a file in a folder that can be written: plimsoll diff --out FILE")
    };
    let mut json = serde_json::to_vec_pretty(&Written { plan_format: FORMAT, diff })
        .map_err(|error| failed(&error))?;
    json.push(b'\n');
    let beside = beside(path);
    let written = write_beside(&beside, &json).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        // What is left of the attempt is of no use; that it can't be removed is no news.
        let _left_over = std::fs::remove_file(&beside);
        failed(&error)
    })
}

fn write_beside(beside: &Path, json: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    file.write_all(json)?;
    file.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

/// Reads a plan that [`write`] wrote.
///
/// # Errors
/// It isn't there, is over 16 MiB, or is no plan of a format that this version knows.
pub fn read(path: &Path) -> Result<Diff, OperationError> {
    let shown = path.display();
    let failed = |error: &(dyn std::error::Error + 'static)| {
        OperationError::because(format!("the plan in {shown} can't be read"), error)
            .hint(format!("make it anew: plimsoll diff --out {shown}"))
    };
    let mut json = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BODY_LIMIT as u64 + 1).read_to_end(&mut json))
        .map_err(|error| failed(&error))?;
    if json.len() > BODY_LIMIT {
        return Err(OperationError::new(format!("{shown} is over {} MiB", BODY_LIMIT >> 20)));
    }
    let Head { plan_format } = serde_json::from_slice(&json).map_err(|error| failed(&error))?;
    if plan_format != FORMAT {
        let message = format!(
            "the plan in {shown} has format {plan_format}, this Plimsoll reads format {FORMAT}"
        );
        return Err(
            OperationError::new(message).hint(format!("make it anew: plimsoll diff --out {shown}"))
        );
    }
    serde_json::from_slice(&json).map_err(|error| failed(&error))
}
