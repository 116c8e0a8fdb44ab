//! The client of HAProxy's runtime API and of its master CLI. A call opens a connection, sends
//! its commands on one line, and reads to the end; it has 5 seconds. Nothing that changes
//! something is ever sent twice by itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::answer::{excerpt, split};
use super::command::Command;
use super::machine::{CALL_TIMEOUT, ConnectError, Machine, MachineError};
use crate::model::FilePath;

/// HAProxy takes a line up to its buffer of 16 KiB.
const LONGEST_LINE: usize = 8 * 1024;
/// More than 100,000 servers would say.
const LARGEST_ANSWER: u64 = 64 * 1024 * 1024;
/// How long a read is tried again while a socket is being taken over by a new generation.
const RETRY: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AskError {
    /// No socket, no process behind it, or one that closes without a word.
    #[error("nobody listens on {0}")]
    Nobody(FilePath),
    /// It isn't known whether what was asked was done.
    #[error("{0}")]
    Silent(String),
    /// The answer is another than it should be; for what changes something, a refusal.
    #[error("{0}")]
    Answer(String),
}

/// The process that is to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Who listens on the socket.
    Listener,
    /// A worker of an earlier generation, through its master.
    Worker(u32),
}

/// One socket.
#[derive(Clone, Copy)]
pub struct Cli<'a> {
    pub machine: &'a dyn Machine,
    pub socket: &'a FilePath,
    /// Counts the connections.
    pub calls: &'a AtomicU64,
}

impl Cli<'_> {
    /// The answers to commands that change nothing, one for each; tried again where the
    /// connection is reset or nobody listens, as happens for a moment during a reload.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn read(
        &self,
        target: Target,
        commands: &[Command<'_>],
    ) -> Result<Vec<String>, AskError> {
        let end = Instant::now() + RETRY;
        loop {
            match self.ask(target, commands).await {
                Err(AskError::Nobody(_)) if Instant::now() < end => sleep(PAUSE).await,
                result => return result,
            }
        }
    }

    /// As [`Self::read`], once.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(
        &self,
        target: Target,
        commands: &[Command<'_>],
    ) -> Result<Vec<String>, AskError> {
        let mut answers = Vec::with_capacity(commands.len());
        for (line, count) in lines(target, commands) {
            let text = self.exchange(&line).await?;
            if text.is_empty() {
                return Err(AskError::Nobody(self.socket.clone()));
            }
            if let [Command::DeleteServer(_)] = commands {
                // The only answer that isn't followed by an empty line (2.6).
                return Ok(vec![text.trim().to_owned()]);
            }
            let split = split(&text, count).map_err(AskError::Answer)?;
            answers.extend(split.into_iter().map(str::to_owned));
        }
        Ok(answers)
    }

    /// Does what changes something.
    ///
    /// # Errors
    /// [`AskError::Answer`] with HAProxy's text for the first command that it refused. The
    /// commands after it on the same line were sent too.
    pub async fn change(&self, target: Target, commands: &[Command<'_>]) -> Result<(), AskError> {
        let answers = self.ask(target, commands).await?;
        for (command, answer) in commands.iter().zip(answers) {
            let answer = answer.trim();
            if !command.is_done(answer) {
                return Err(AskError::Answer(answer.to_owned()));
            }
        }
        Ok(())
    }

    /// Sends a command that has no answer.
    ///
    /// # Errors
    /// [`AskError::Nobody`], [`AskError::Silent`].
    pub async fn send(&self, command: Command<'_>) -> Result<(), AskError> {
        self.exchange(&command.to_string()).await.map(drop)
    }

    async fn exchange(&self, line: &str) -> Result<String, AskError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut connection = match self.machine.connect(self.socket).await {
            Ok(connection) => connection,
            Err(ConnectError::Nobody { socket }) => return Err(AskError::Nobody(socket)),
            Err(ConnectError::Machine(cause)) => return Err(silent(&cause)),
        };
        let exchange = async {
            connection.write_all(format!("{line}\n").as_bytes()).await?;
            // The master keeps the connection open after an answer unless this side is closed.
            connection.shutdown().await?;
            let mut answer = Vec::new();
            (&mut connection).take(LARGEST_ANSWER).read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        match timeout(CALL_TIMEOUT, exchange).await {
            Ok(Ok(answer)) => String::from_utf8(answer)
                .map_err(|cause| AskError::Answer(format!("an answer that is no text: {cause}"))),
            // Reset or closed before it was read: a reload, or an end.
            Ok(Err(_)) => Err(AskError::Nobody(self.socket.clone())),
            Err(_) => Err(AskError::Silent(format!(
                "no answer on {} within {CALL_TIMEOUT:?} to: {}",
                self.socket,
                excerpt(line)
            ))),
        }
    }
}

fn silent(cause: &MachineError) -> AskError {
    AskError::Silent(cause.to_string())
}

/// The lines to send, each with the number of its commands.
fn lines(target: Target, commands: &[Command<'_>]) -> Vec<(String, usize)> {
    let mut lines: Vec<(String, usize)> = Vec::new();
    for command in commands {
        let text = match target {
            Target::Listener => command.to_string(),
            Target::Worker(pid) => format!("@!{pid} {command}"),
        };
        match lines.last_mut() {
            Some((line, count)) if line.len() + text.len() < LONGEST_LINE => {
                line.push(';');
                line.push_str(&text);
                *count += 1;
            }
            _ => lines.push((text, 1)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_batches_are_cut_into_lines_that_haproxy_takes() {
        let backend = "production.web".parse().unwrap();
        let commands = vec![Command::Statistics(&backend); 1000];
        let lines = lines(Target::Worker(7), &commands);
        assert_eq!(lines.iter().map(|(_, count)| count).sum::<usize>(), 1000);
        assert!(lines.len() > 1);
        assert!(lines.iter().all(|(line, _)| line.len() <= LONGEST_LINE));
        assert!(lines[0].0.starts_with("@!7 show stat production.web 4 -1;@!7 show stat"));
    }
}
