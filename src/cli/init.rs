//! `plimsoll init`: a tree of manifests to begin with. It writes files and does nothing else:
//! no git, no engine, and never over what is there.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::Failure;
use super::output::Output;
use super::{code, uid};
use crate::api::OperationError;
use crate::clock::{Random, Randomness};
use crate::model::InstallationName;

/// Digits of an installation's uid.
const UID_DIGITS: usize = 8;

/// Write a tree of manifests to begin with, or the uid that an Installation lacks
///
/// The tree has one host (the Docker Engine of this machine), one balancer and one environment,
/// and an app as a comment. No file that is there is ever overwritten.
#[derive(Debug, Args)]
pub struct Init {
    /// Folder of the manifests; made where it isn't there
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,

    /// Name of the installation [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    name: Option<InstallationName>,
}

impl Init {
    pub fn run(self, output: &mut Output) -> Result<u8, Failure> {
        let new_uid = Random::from_os().hex(UID_DIGITS);
        if let Some(file) = uid::find_installation(&self.folder)? {
            uid::write(&file, &new_uid)?;
            output.line(&format!("wrote uid {new_uid} into {}", file.display()))?;
            output.flush()?;
            eprintln!(
                "next: git add {0} && git commit -m 'The installation has a uid'",
                file.display()
            );
            return Ok(code::DONE);
        }
        let name = self.installation_name()?;
        let written = write_tree(&self.folder, &starter(&name, &new_uid))?;
        for path in &written {
            output.line(&format!("wrote {}", path.display()))?;
        }
        output.flush()?;
        eprint!("{}", next_steps(&self.folder));
        Ok(code::DONE)
    }

    /// As given, or the folder's own name where it can be one.
    fn installation_name(&self) -> Result<InstallationName, OperationError> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let whole = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let folder = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
        InstallationName::new(folder.as_str()).map_err(|error| {
            let message = format!("the folder's name {folder:?} can't be the installation's name");
            OperationError::because(message, &error)
                .hint("name the installation: plimsoll init --name NAME")
        })
    }
}

/// The files, by their paths below the folder.
fn starter(name: &InstallationName, uid: &str) -> Vec<(&'static str, String)> {
    let installation = format!(
        "\
# The installation: one repository of manifests and everything it owns. Containers carry its
# name and uid, and nothing without both is ever touched. Never change either.
apiVersion: plimsoll/v1alpha1
kind: Installation
metadata: {{name: {name}, uid: \"{uid}\"}}
spec:
  guards: {{prune: 50%}}
"
    );
    let file = |path, text: &str| (path, text.to_owned());
    vec![
        ("installation.yaml", installation),
        file("environments/production.yaml", include_str!("starter/environment.yaml")),
        file("hosts/alpha.yaml", include_str!("starter/host.yaml")),
        file("balancers/edge.yaml", include_str!("starter/balancer.yaml")),
        file("apps/production/web.yaml", include_str!("starter/app.yaml")),
    ]
}

/// Writes all of it, or nothing where one of the files is there.
fn write_tree(
    folder: &Path,
    files: &[(&'static str, String)],
) -> Result<Vec<PathBuf>, OperationError> {
    let paths: Vec<_> = files.iter().map(|(path, _)| folder.join(path)).collect();
    let there: Vec<_> = paths
        .iter()
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|p| p.display().to_string())
        .collect();
    if !there.is_empty() {
        let message = format!("{} would be overwritten; nothing was written", there.join(", "));
        return Err(OperationError::new(message)
            .hint("begin in another folder: plimsoll init FOLDER --name NAME"));
    }
    for (path, (_, text)) in paths.iter().zip(files) {
        write_new(path, text).map_err(|error| {
            OperationError::because(format!("{} could not be written", path.display()), &error)
                .hint("may this folder be written? plimsoll init FOLDER --name NAME")
        })?;
    }
    Ok(paths)
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // Whoever made the file since we looked keeps it.
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// The very commands to type next.
fn next_steps(folder: &Path) -> String {
    let is_here = folder == Path::new(".");
    let enter = if is_here { String::new() } else { format!("  cd {}\n", quote(folder)) };
    let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let is_repository = whole.ancestors().any(|above| above.join(".git").exists());
    let begin = if is_repository { "" } else { "  git init -b main\n" };
    format!(
        "\nnext:\n{enter}{begin}  git add . && git commit -m 'Begin with Plimsoll'\n  \
         plimsoll validate\n  plimsoll diff\n  plimsoll run\n"
    )
}

/// As a shell takes it for one word.
fn quote(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@".contains(c));
    if is_plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
