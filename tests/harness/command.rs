//! Running a program to its end, within a deadline, and keeping what it said.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::wait::wait_until;

/// What a program said, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; below 0 it is a signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Panics with everything that was said unless the exit code is `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert!(self.code == code, "expected exit code {code}\n{self}");
        self
    }

    /// Panics when it succeeded.
    #[track_caller]
    pub fn expect_failure(self) -> Self {
        assert!(self.code != 0, "expected a failure\n{self}");
        self
    }

    /// Panics unless the exit code means an error: above 1, as for `diff` and `apply`.
    #[track_caller]
    pub fn expect_error(self) -> Self {
        assert!(self.code > 1, "expected an exit code above 1\n{self}");
        self
    }

    /// The data that it printed.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout isn't what was expected: {error}\n{self}"))
    }

    /// Standard output without white space around it.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, code, stdout, stderr } = self;
        write!(f, "$ {command}\nexit code {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// Runs a program to its end. Its output goes through files, so that no full pipe can stop it.
///
/// Panics when it can't be started, or hasn't ended within two minutes; it is killed then.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let (out, err) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new());
    let err = err.unwrap();
    let handle = |file: &tempfile::NamedTempFile| Stdio::from(File::create(file.path()).unwrap());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(handle(&out))
        .stderr(handle(&err))
        .spawn()
        .unwrap_or_else(|error| panic!("failed to start `{line}`: {error}"));
    let mut status = None;
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until(Duration::from_secs(120), &format!("`{line}` ends"), || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
    }));
    let read = |file: &tempfile::NamedTempFile| {
        String::from_utf8_lossy(&std::fs::read(file.path()).unwrap_or_default()).into_owned()
    };
    let (stdout, stderr) = (read(&out), read(&err));
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
        panic!("`{line}` didn't end\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
    }
    let code = status.map_or(-1, exit_code);
    Output { command: line, code, stdout, stderr }
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| -status.signal().unwrap_or(1))
}
