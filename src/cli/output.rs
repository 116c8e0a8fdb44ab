//! Data goes to stdout in the form that was asked for; all else goes to stderr. Colour only
//! where a person reads it. A reader that goes away (`| head`) is no error: what would still be
//! printed is dropped, and the exit code stays what it would have been.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Stdout, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::failure::Failure;
use crate::api::OperationError;

/// The form of what is printed to stdout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    Json,
    Yaml,
}

/// Where a command's data goes.
pub struct Output {
    pub format: Format,
    stdout: BufWriter<Stdout>,
    is_terminal: bool,
    paint: Paint,
    error_paint: Paint,
    /// Nobody reads any more.
    is_closed: bool,
    documents: usize,
}

impl Output {
    pub fn standard(format: Format) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        Self {
            format,
            is_terminal,
            paint: Paint::of(is_terminal),
            error_paint: Paint::of(io::stderr().is_terminal()),
            stdout: BufWriter::new(stdout),
            is_closed: false,
            documents: 0,
        }
    }

    /// Colours for stdout.
    pub fn paint(&self) -> Paint {
        self.paint
    }

    /// Colours for stderr.
    pub fn error_paint(&self) -> Paint {
        self.error_paint
    }

    pub fn is_text(&self) -> bool {
        self.format == Format::Text
    }

    /// True where a person sees stdout at once.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// True when nobody reads any more, so that a stream needn't go on.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Prints `text` as it is.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.write(text.as_bytes())
    }

    /// Prints `text` and ends the line.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.write(text.as_bytes())?;
        self.write(b"\n")
    }

    /// Prints the whole answer as JSON or YAML.
    pub fn value(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = match self.format {
            Format::Yaml => yaml(value)?,
            Format::Text | Format::Json => {
                serde_json::to_string_pretty(value).map_err(|error| unwritable(&error))? + "\n"
            }
        };
        self.write(text.as_bytes())
    }

    /// Prints one of many answers that come one after the other: a line of JSON, or a YAML
    /// document. It is to be seen at once.
    pub fn item(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = match self.format {
            Format::Yaml => {
                let divider = if self.documents == 0 { "" } else { "---\n" };
                divider.to_owned() + &yaml(value)?
            }
            Format::Text | Format::Json => {
                serde_json::to_string(value).map_err(|error| unwritable(&error))? + "\n"
            }
        };
        self.documents += 1;
        self.write(text.as_bytes())?;
        self.flush()
    }

    pub fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.stdout.flush();
        self.settle(flushed)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.is_closed {
            return Ok(());
        }
        let written = self.stdout.write_all(bytes);
        self.settle(written)
    }

    fn settle(&mut self, result: io::Result<()>) -> Result<(), Failure> {
        match result {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(())
            }
            other => Ok(other?),
        }
    }
}

fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    // By way of JSON's value, so that both forms always show the same.
    let value = serde_json::to_value(value).map_err(|error| unwritable(&error))?;
    serde_yaml::to_string(&value).map_err(|error| unwritable(&error))
}

fn unwritable(error: &(dyn std::error::Error + 'static)) -> Failure {
    OperationError::because("the answer could not be written", error).into()
}

/// Colours, where a person reads them.
#[derive(Debug, Clone, Copy)]
pub struct Paint(bool);

impl Paint {
    #[cfg(test)]
    pub fn off() -> Self {
        Self(false)
    }

    fn of(is_terminal: bool) -> Self {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self(is_terminal && !is_set("NO_COLOR") && !is_dumb)
    }

    pub fn is_on(self) -> bool {
        self.0
    }

    pub fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub fn caution(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    pub fn strong(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
