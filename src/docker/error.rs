//! What a failed call means. The engine's own words are kept, bounded; what bollard says of a
//! reply that it couldn't read isn't, since it may quote the reply.

use std::future::Future;
use std::time::Duration;

use bollard::errors::Error;

use super::EngineError;

/// The longest text of an engine that is passed on, in characters.
const LONGEST_TEXT: usize = 1000;

/// How a call failed, before it is known what that means for the thing that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// A reply with a status of 400 or above, in the engine's words.
    Answer { status: u16, text: String },
    /// An error that came inside a stream which had begun well.
    Stream { text: String },
    /// No reply, or none that makes sense. It isn't known whether it was done.
    Silence { cause: String },
}

impl Failure {
    /// The status of the reply, if there was one.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Answer { status, .. } => Some(*status),
            Self::Stream { .. } | Self::Silence { .. } => None,
        }
    }

    /// The engine's words, or what kept it from having any.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Answer { text, .. } | Self::Stream { text } => text,
            Self::Silence { cause } => cause,
        }
    }

    /// The same failure with another text.
    pub(super) fn map_text(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Answer { status, text } => Self::Answer { status, text: change(text) },
            Self::Stream { text } => Self::Stream { text: change(text) },
            Self::Silence { cause } => Self::Silence { cause: change(cause) },
        }
    }

    /// What it means where nothing more is known about the call: 4xx will be refused again,
    /// 5xx and the two statuses that ask to come back later may pass.
    ///
    /// `doing` is fit to follow "failed to"; `engine` is the engine's address.
    pub(super) fn into_error(self, doing: &str, engine: &str) -> EngineError {
        let doing = doing.to_owned();
        match self {
            Self::Answer { status: 408 | 429 | 500.., text } => {
                EngineError::Transient { doing, cause: text }
            }
            Self::Answer { text, .. } => EngineError::Refused { doing, cause: text },
            Self::Stream { text } => EngineError::Transient { doing, cause: text },
            Self::Silence { cause } => {
                EngineError::Unreachable { doing, engine: engine.to_owned(), cause }
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } if status_code >= 400 => {
                let text = match message.trim() {
                    "" => format!("the engine answered with status {status_code}"),
                    text => bounded(text),
                };
                Self::Answer { status: status_code, text }
            }
            Error::DockerStreamError { error } => Self::Stream { text: bounded(error.trim()) },
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => {
                Self::Silence { cause: "its reply is cut short or can't be understood".into() }
            }
            Error::RequestTimeoutError => Self::Silence { cause: "no reply came in time".into() },
            other => Self::Silence { cause: bounded(&with_sources(&other)) },
        }
    }
}

/// An error and what caused it, without saying a thing twice.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let cause = source.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = source.source();
    }
    text
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Waits for a call to the engine, but no longer than `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result.map_err(Failure::from),
        Err(_) => Err(no_reply(limit)),
    }
}

/// What a deadline that passed is.
pub(super) fn no_reply(limit: Duration) -> Failure {
    Failure::Silence { cause: format!("no reply came within {} s", limit.as_secs_f64()) }
}

/// An error of a connection, in these words.
pub(super) fn io_error(text: impl Into<String>) -> Error {
    Error::IOError { err: std::io::Error::other(text.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> Error {
        Error::DockerResponseServerError { status_code, message: message.into() }
    }

    #[test]
    fn a_status_says_whether_it_may_pass() {
        for (status, may_pass) in
            [(400, false), (404, false), (409, false), (408, true), (429, true), (500, true)]
        {
            let error = Failure::from(answer(status, "x")).into_error("look", "unix:///s");
            assert_eq!(error.may_pass(), may_pass, "{status}");
            assert!(!matches!(error, EngineError::Unreachable { .. }), "{status}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_unreachable() {
        let json = serde_json::from_str::<u8>("hunter2").unwrap_err();
        for error in [
            Error::JsonSerdeError { err: json },
            Error::JsonDataError { message: "hunter2".into(), column: 1 },
            Error::RequestTimeoutError,
            Error::IOError { err: std::io::Error::other("closed") },
            answer(302, "elsewhere"),
        ] {
            let error = Failure::from(error).into_error("look", "unix:///s");
            assert!(matches!(error, EngineError::Unreachable { .. }), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        let Failure::Answer { text, .. } = Failure::from(answer(500, &"é".repeat(5000))) else {
            panic!("no answer");
        };
        assert_eq!(text.chars().count(), LONGEST_TEXT + 3);
        let Failure::Answer { text, .. } = Failure::from(answer(500, " ")) else {
            panic!("no answer");
        };
        assert_eq!(text, "the engine answered with status 500");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_at_its_deadline() {
        let failure = within::<()>(Duration::from_secs(3), std::future::pending()).await;
        assert_eq!(failure, Err(no_reply(Duration::from_secs(3))));
    }

    /// Bollard writes requests and replies, secret values among them, as debug lines of `log`.
    #[test]
    fn debug_lines_of_bollard_are_compiled_out() {
        assert!(log::STATIC_MAX_LEVEL <= log::LevelFilter::Info);
    }
}
