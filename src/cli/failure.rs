//! What a person reads when a command failed: what, because of what, and what to type next.

use std::io::Write;

use super::output::{Output, Paint};
use super::{code, joints, text};
use crate::api::OperationError;

/// An error on its way to the edge, with the code that the process exits with.
#[derive(Debug)]
pub struct Failure {
    error: OperationError,
    code: u8,
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Self {
        Self { error, code: code::NO }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        OperationError::because("the output could not be written", &error).into()
    }
}

impl Failure {
    /// Where 1 is an answer, an error is more than that.
    pub fn above_one(self) -> Self {
        Self { code: code::ERROR, ..self }
    }

    /// Prints it on stderr and returns the code. A stderr that is closed is no further error.
    pub fn report(&self, output: &Output) -> u8 {
        let text = render(&self.error, output.error_paint());
        let _nobody_reads = std::io::stderr().lock().write_all(text.as_bytes());
        self.code
    }
}

/// The error as text, with the mistakes in manifests before it, as compilers do.
pub fn render(error: &OperationError, paint: Paint) -> String {
    let OperationError { message, causes, hint, diagnostics } = error;
    let mut lines = String::new();
    if !diagnostics.is_empty() {
        lines += &joints::render_diagnostics(diagnostics, paint.is_on());
        lines.push('\n');
    }
    lines += &format!("{} {}\n", paint.bad("error:"), indented(message));
    for cause in causes {
        lines += &format!("  because: {}\n", indented(cause));
    }
    if let Some(hint) = hint {
        lines += &format!("{} {}\n", paint.strong("help:"), indented(hint));
    }
    lines
}

/// Several lines of an answer, such as haproxy's, stay below their first one.
fn indented(message: &str) -> String {
    let lines: Vec<_> = message.trim_end().lines().map(text::plain).collect();
    lines.join("\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_why_and_what_next() {
        let error = OperationError {
            causes: vec!["fetch failed".into(), "line one\nline two \u{1b}[31m".into()],
            ..OperationError::new("the plan could not be made").hint("plimsoll doctor")
        };
        assert_eq!(
            render(&error, Paint::off()),
            "error: the plan could not be made\n  because: fetch failed\n  because: line one\n    \
             line two \\u{1b}[31m\nhelp: plimsoll doctor\n"
        );
    }
}
