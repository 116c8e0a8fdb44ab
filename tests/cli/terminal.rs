//! What depends on who reads: colour, pipes that close, help.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::fake::{Controller, Mood};
use crate::program::{Ran, command, run};

/// Runs the program on a terminal of its own, by way of script(1).
fn on_a_terminal(controller: &Controller, arguments: &str, variables: &[(&str, &str)]) -> Ran {
    let folder = controller.folder.path();
    let program = env!("CARGO_BIN_EXE_plimsoll");
    let mut script = Command::new("script");
    script
        .args(["-qec", &format!("{program} --state {} {arguments}", folder.display()), "/dev/null"])
        .env_clear()
        .env("HOME", folder)
        .env("TERM", "xterm")
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    run(&mut script)
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let controller = Controller::start(Mood::Busy);
    let colour = "\u{1b}[1;31m";
    assert!(on_a_terminal(&controller, "doctor", &[]).stdout.contains(colour));
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let ran = on_a_terminal(&controller, "doctor", &[variable]);
        assert!(!ran.stdout.contains('\u{1b}'), "{variable:?}: {:?}", ran.stdout);
        assert!(ran.stdout.contains("connection refused"));
    }
    let empty = on_a_terminal(&controller, "doctor", &[("NO_COLOR", "")]);
    assert!(empty.stdout.contains(colour), "an empty NO_COLOR is not set");
}

#[test]
fn a_container_cannot_drive_the_terminal() {
    let controller = Controller::start(Mood::Busy);
    let ran = on_a_terminal(&controller, "logs production/web", &[("NO_COLOR", "1")]);
    assert!(ran.stdout.contains("GET / \\u{1b}[31m500"), "{:?}", ran.stdout);
}

#[test]
fn an_apply_shows_its_steps_on_a_terminal() {
    let controller = Controller::start(Mood::Busy);
    let ran = on_a_terminal(&controller, "apply", &[("NO_COLOR", "1")]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stdout.contains("done      0.3s  production/web  alpha: start"),
        "{:?}",
        ran.stdout
    );
    assert!(ran.stdout.contains("not converged at 1a2b3c4d5e6f"), "{:?}", ran.stdout);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let controller = Controller::start(Mood::Talkative);
    let folder = controller.folder.path();
    for arguments in
        [["events", "-o", "json"], ["events", "-o", "text"], ["completions", "-o", "bash"]]
    {
        let arguments = match arguments {
            ["completions", ..] => vec!["completions", "bash"],
            other => other.to_vec(),
        };
        let mut child = command(folder, &arguments)
            .env("PLIMSOLL_STATE", folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        // The pipe is closed now.
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn help_names_every_command_and_setting() {
    let folder = tempfile::tempdir().unwrap();
    let help = run(&mut command(folder.path(), &["--help"])).stdout;
    for mention in [
        "init",
        "validate",
        "diff",
        "apply",
        "run",
        "status",
        "get",
        "describe",
        "events",
        "history",
        "logs",
        "approve",
        "doctor",
        "schema",
        "completions",
        "--repo",
        "PLIMSOLL_REPO",
        "PLIMSOLL_BRANCH",
        "PLIMSOLL_PATH",
        "--worktree",
        "PLIMSOLL_STATE",
        "PLIMSOLL_SECRETS",
        "PLIMSOLL_CONFIG",
        "PLIMSOLL_GIT_SSH_KEY",
        "PLIMSOLL_GIT_KNOWN_HOSTS",
        "PLIMSOLL_GIT_TOKEN_FILE",
        "PLIMSOLL_GIT_USERNAME",
        "PLIMSOLL_DOCKER_CONFIG",
        "PLIMSOLL_HAPROXY",
        "--output",
        "plimsoll.sock",
    ] {
        assert!(help.contains(mention), "{mention} isn't in the help");
    }
    let version = run(&mut command(folder.path(), &["--version"]));
    assert_eq!(
        (version.code, version.stdout.as_str()),
        (0, concat!("plimsoll ", env!("CARGO_PKG_VERSION"), "\n"))
    );
    // A URL with a password in the environment isn't repeated.
    let secret =
        run(command(folder.path(), &["--help"]).env("PLIMSOLL_REPO", "https://a:hidden@b/c"));
    assert!(!secret.stdout.contains("hidden"));
}
