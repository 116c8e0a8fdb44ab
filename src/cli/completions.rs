//! `plimsoll completions`: what a shell needs to complete our commands.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::failure::Failure;
use super::output::Output;
use super::{Arguments, code};

/// Print the completions of a shell
///
/// For bash: plimsoll completions bash > /etc/bash_completion.d/plimsoll
#[derive(Debug, Args)]
pub struct Completions {
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub fn run(self, output: &mut Output) -> Result<u8, Failure> {
        // Into memory first: the generator gives up in a panic where a pipe is closed.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "plimsoll", &mut script);
        output.text(&String::from_utf8_lossy(&script))?;
        Ok(code::DONE)
    }
}
