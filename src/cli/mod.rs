//! The command line: one file for each command, which asks [`crate::api::Operations`] and
//! prints what it answers. Whether a running controller answers over its socket or this process
//! by itself makes no difference to what is printed. Nothing in here knows Docker, HAProxy, git
//! or the store.

mod apply;
mod approve;
mod completions;
mod connect;
mod describe;
mod diff;
mod doctor;
mod events;
mod failure;
mod get;
mod history;
mod init;
pub mod joints;
mod logging;
mod logs;
mod output;
mod plan_file;
mod progress;
mod reference;
mod run;
mod schema;
mod settings;
mod status;
mod table;
mod text;
mod uid;
mod validate;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;
use output::Output;
pub use reference::reference_markdown;
use settings::GlobalArguments;

/// Holds plain Docker hosts, and the HAProxies in front of them, at what a git repository
/// declares.
#[derive(Debug, Parser)]
#[command(
    name = "plimsoll",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "While a controller runs (plimsoll run), the other commands ask it over \
                  STATE/plimsoll.sock; else they work on their own."
)]
pub struct Arguments {
    #[command(flatten)]
    global: GlobalArguments,
    #[command(subcommand)]
    command: Command,
}

impl Arguments {
    /// True for the command that goes on until it is told to stop.
    pub fn is_controller(&self) -> bool {
        matches!(self.command, Command::Run(_))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    Validate(validate::Validate),
    Diff(diff::Diff),
    Apply(apply::Apply),
    Run(run::Run),
    Status(status::Status),
    Get(get::Get),
    Describe(describe::Describe),
    Events(events::Events),
    History(history::History),
    Logs(logs::Logs),
    Approve(approve::Approve),
    Doctor(doctor::Doctor),
    Schema(schema::Schema),
    Completions(completions::Completions),
}

/// Exit codes, where they are not those of a command alone.
mod code {
    /// It is done: nothing differs, nothing is wrong.
    pub const DONE: u8 = 0;
    /// The answer is no: mistakes, changes, not converged; for other commands an error.
    pub const NO: u8 = 1;
    /// There is no answer, where 1 is one.
    pub const ERROR: u8 = 2;
}

/// Reads the arguments. What clap has to say (help, version, mistakes) is printed.
///
/// # Errors
/// The code to exit with at once: 0 after help and version, 2 after a mistake.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, ExitCode> {
    Arguments::try_parse_from(arguments).map_err(|error| {
        // A closed pipe is all that can go wrong here, and nobody is left to be told.
        let _nobody_reads = error.print();
        if error.use_stderr() { ExitCode::from(code::ERROR) } else { ExitCode::SUCCESS }
    })
}

/// Runs the command and prints what failed. Returns the code to exit with.
pub async fn run(arguments: Arguments) -> ExitCode {
    let Arguments { global, command } = arguments;
    let mut output = Output::standard(global.output);
    let done = dispatch(command, &global, &mut output).await.and_then(|code| {
        output.flush()?;
        Ok(code)
    });
    ExitCode::from(done.unwrap_or_else(|failure| failure.report(&output)))
}

async fn dispatch(
    command: Command,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<u8, Failure> {
    if !matches!(command, Command::Run(_)) {
        logging::quietly()?;
    }
    match command {
        Command::Init(command) => command.run(output),
        Command::Validate(command) => command.run(global, output).await,
        Command::Diff(command) => command.run(global, output).await,
        Command::Apply(command) => command.run(global, output).await,
        Command::Run(command) => command.run(global).await,
        Command::Status(command) => command.run(global, output).await,
        Command::Get(command) => command.run(global, output).await,
        Command::Describe(command) => command.run(global, output).await,
        Command::Events(command) => command.run(global, output).await,
        Command::History(command) => command.run(global, output).await,
        Command::Logs(command) => command.run(global, output).await,
        Command::Approve(command) => command.run(global, output).await,
        Command::Doctor(command) => command.run(global, output).await,
        Command::Schema(command) => command.run(output),
        Command::Completions(command) => command.run(output),
    }
}

/// The operating system refused what every program needs.
pub fn no_runtime(error: &std::io::Error) -> ExitCode {
    eprintln!("error: the runtime could not be started\n  because: {error}");
    ExitCode::from(code::ERROR)
}
