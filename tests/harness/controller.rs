//! `plimsoll run` as a process that tests start, ask, stop and kill.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::installation::Installation;
use super::output::Status;
use super::wait::{pause, wait_for};
use super::watchdog;

/// A running controller. Dropped, it is killed, and its log is shown where the test fails.
pub struct Controller<'a> {
    installation: &'a Installation,
    process: Option<Child>,
    log: PathBuf,
    /// How long its status is waited for.
    pub deadline: Duration,
}

impl<'a> Controller<'a> {
    /// How long a controller has to bring a small installation to what is declared.
    pub const DEADLINE: Duration = Duration::from_secs(90);

    /// Starts the controller, which looks at the remote every second.
    pub fn start(installation: &'a Installation) -> Self {
        Self::spawn(installation, &mut installation.command(["run", "--interval", "1s"]))
    }

    /// Starts the controller with this command.
    pub fn spawn(installation: &'a Installation, command: &mut Command) -> Self {
        let log = installation.folder().join("controller.log");
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let process = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { installation, process: Some(process), log, deadline: Self::DEADLINE }
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Everything that it wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the status satisfies `condition`. The controller must stay alive meanwhile.
    #[track_caller]
    pub fn wait_for_status(&mut self, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        let (installation, log) = (self.installation, self.log.clone());
        let process = self.process.as_mut().expect("it runs");
        wait_for(self.deadline, what, || {
            if let Some(status) = process.try_wait().unwrap() {
                panic!("the controller ended with {status}");
            }
            pause(Duration::from_millis(100));
            let output = installation.plimsoll(["status", "-o", "json"]);
            // It may not listen yet.
            let Ok(status) = serde_json::from_str::<Status>(&output.stdout) else {
                return Err(output.to_string());
            };
            if condition(&status) {
                return Ok(status);
            }
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            Err(format!("{status:#?}\n{}", lines[lines.len().saturating_sub(40)..].join("\n")))
        })
    }

    /// Waits until everything is as that commit declares.
    #[track_caller]
    pub fn wait_for_commit(&mut self, commit: &str) -> Status {
        let what = format!("the fleet is at {commit}");
        self.wait_for_status(&what, |status| status.is_converged_at(commit))
    }

    /// Asks it to end, which it has to do in order within 10 s. Returns how long it took.
    #[track_caller]
    pub fn stop(mut self) -> Duration {
        let begin = tokio::time::Instant::now();
        let mut process = self.process.take().expect("it runs");
        watchdog::kill(process.id() as i32, Signal::TERM);
        let status = wait_for(Duration::from_secs(11), "the controller ends on SIGTERM", || {
            process.try_wait().unwrap().ok_or_else(|| "it still runs".to_owned())
        });
        assert!(status.success(), "the controller ended with {status}:\n{}", self.log());
        begin.elapsed()
    }

    /// Kills it at once, as the kernel would when memory ends.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Controller<'_> {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("--- log of the controller of {}\n{}", self.installation.name, self.log());
        }
    }
}
