//! Runs the real program in surroundings that are the same everywhere.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The program with no settings but an empty configuration file.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let config = folder.join("none.yaml");
    std::fs::write(&config, "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command
        .env_clear()
        .env("HOME", folder)
        .env("PLIMSOLL_CONFIG", config)
        .current_dir(folder)
        .args(arguments);
    command
}

pub fn run(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().unwrap();
    Ran {
        code: status.code().unwrap(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// The program, asking the controller whose state is in `folder`.
pub fn ask(folder: &Path, arguments: &[&str]) -> Ran {
    run(command(folder, arguments).env("PLIMSOLL_STATE", folder))
}

/// Compares `text` with the file of that name; `UPDATE_GOLDEN=1` writes it.
pub fn golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == text,
        "{name} is stale; UPDATE_GOLDEN=1 cargo test --test cli writes it anew\n\
         --- expected\n{expected}\n--- got\n{text}"
    );
}
