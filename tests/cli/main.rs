//! The real program against a controller that is made up: every command's text and JSON, the
//! exit codes, the settings, and what the socket bears.

mod commands;
mod fake;
mod files;
mod program;
mod socket;
mod terminal;
