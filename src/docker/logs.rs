//! A container's output, line by line. Lines are put together from the pieces that the engine
//! sends, and are bounded; what they say is left as it is.

use std::collections::VecDeque;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::containers::Found;
use super::error::Failure;
use super::{DockerEngine, EngineError, LogLine};
use crate::model::{ContainerId, Owner};

/// The longest line in bytes; a longer one is several.
const LONGEST_LINE: usize = 64 * 1024;

impl DockerEngine {
    /// Its output, from the last `tail` lines on, or all of it; goes on where `follow` says so,
    /// until the container stops.
    ///
    /// # Errors
    /// [`EngineError::NotOurs`] where it is gone or belongs to others.
    pub(super) async fn log_lines(
        &self,
        owner: &Owner,
        id: &ContainerId,
        tail: Option<u32>,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError> {
        let doing = format!("read the output of container {}", id.short());
        let fail = |failure| self.error(&doing, failure);
        let id = match self.find(owner, &id.0).await.map_err(fail)? {
            Found::Ours(ours) => ours.container.id,
            Found::Gone => {
                return Err(EngineError::NotOurs { id: id.clone(), cause: "it is gone".into() });
            }
            Found::Foreign { id } => {
                return Err(EngineError::NotOurs { id, cause: "its labels aren't ours".into() });
            }
        };
        let tail = tail.map_or("all".to_owned(), |lines| lines.to_string());
        let options =
            LogsOptionsBuilder::new().stdout(true).stderr(true).follow(follow).tail(&tail).build();
        let docker = self.docker().map_err(fail)?.with_timeout(self.deadlines().look);
        let pieces = docker.logs(&id.0, Some(options)).boxed();
        let address = self.address().to_owned();
        let lines = lines(pieces).map(move |line| {
            line.map_err(|error| Failure::from(error).into_error(&doing, &address))
        });
        Ok(lines.boxed())
    }
}

/// What has come of the two streams and is no whole line yet.
#[derive(Default)]
struct Pending {
    output: Vec<u8>,
    errors: Vec<u8>,
    ready: VecDeque<Result<LogLine, Error>>,
    ended: bool,
}

impl Pending {
    fn take_in(&mut self, piece: LogOutput) {
        let is_error = matches!(piece, LogOutput::StdErr { .. });
        let pending = if is_error { &mut self.errors } else { &mut self.output };
        for part in piece.as_ref().split_inclusive(|byte| *byte == b'\n') {
            for part in part.chunks(LONGEST_LINE) {
                pending.extend_from_slice(part);
                if pending.ends_with(b"\n") || pending.len() >= LONGEST_LINE {
                    self.ready.push_back(Ok(line(pending, is_error)));
                }
            }
        }
    }

    fn end(&mut self, error: Option<Error>) {
        self.ended = true;
        for (pending, is_error) in [(&mut self.output, false), (&mut self.errors, true)] {
            if !pending.is_empty() {
                self.ready.push_back(Ok(line(pending, is_error)));
            }
        }
        self.ready.extend(error.map(Err));
    }
}

/// Takes the bytes for a line, without the end of it.
fn line(bytes: &mut Vec<u8>, is_error: bool) -> LogLine {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let line = LogLine { is_error, text: text.strip_suffix('\r').unwrap_or(text).to_owned() };
    bytes.clear();
    line
}

fn lines(
    pieces: BoxStream<'static, Result<LogOutput, Error>>,
) -> impl futures_util::Stream<Item = Result<LogLine, Error>> + Send {
    stream::unfold((pieces, Pending::default()), |(mut pieces, mut pending)| async move {
        loop {
            if let Some(line) = pending.ready.pop_front() {
                return Some((line, (pieces, pending)));
            }
            if pending.ended {
                return None;
            }
            match pieces.next().await {
                Some(Ok(piece)) => pending.take_in(piece),
                Some(Err(error)) => pending.end(Some(error)),
                None => pending.end(None),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(pieces: Vec<Result<LogOutput, Error>>) -> Vec<Result<LogLine, String>> {
        let lines = lines(stream::iter(pieces).boxed());
        lines.map(|line| line.map_err(|error| error.to_string())).collect().await
    }

    fn out(text: &'static str) -> Result<LogOutput, Error> {
        Ok(LogOutput::StdOut { message: text.into() })
    }

    fn err(text: &'static str) -> Result<LogOutput, Error> {
        Ok(LogOutput::StdErr { message: text.into() })
    }

    fn texts(lines: Vec<Result<LogLine, String>>) -> Vec<String> {
        lines.into_iter().map(|line| line.map_or_else(|error| error, |line| line.text)).collect()
    }

    #[tokio::test]
    async fn pieces_become_lines() {
        let lines = read(vec![out("a"), err("x\n"), out("b\nc\r\n\nd")]).await;
        let is_error: Vec<_> = lines.iter().map(|line| line.as_ref().unwrap().is_error).collect();
        assert_eq!(is_error, [true, false, false, false, false]);
        assert_eq!(texts(lines), ["x", "ab", "c", "", "d"]);
    }

    #[tokio::test]
    async fn an_error_comes_after_what_was_read() {
        let lines = read(vec![out("a"), Err(Error::RequestTimeoutError), out("b")]).await;
        assert_eq!(texts(lines), ["a", "Timeout error"]);
    }

    #[tokio::test]
    async fn a_line_is_bounded() {
        let long: &'static str = "x".repeat(LONGEST_LINE * 2 + 1).leak();
        let lines = texts(read(vec![out(long)]).await);
        assert_eq!(
            lines.iter().map(String::len).collect::<Vec<_>>(),
            [LONGEST_LINE, LONGEST_LINE, 1]
        );
    }
}
