//! The command reference of the book, made from the very definitions that the program parses
//! its arguments with.

use clap::{Arg, ArgAction, Command, CommandFactory};

use super::Arguments;

/// The page `book/src/reference/commands.md`.
pub fn reference_markdown() -> String {
    let mut program = Arguments::command();
    program.build();
    let mut page = String::from(
        "# Commands\n\n<!-- Generated: UPDATE_GOLDEN=1 cargo test --test cli reference -->\n\n",
    );
    page += &format!("{}\n\n", paragraphs(&program));
    if let Some(notes) = program.get_after_help() {
        page += &format!("{}\n\n", escape(&notes.to_string()));
    }
    page += "Exit codes are 0 where it is done and 1 or more where it is not. `validate`, `diff` \
             and `apply` answer with 0 or 1, and tell errors by 2. What is wrong on the command \
             line itself is 2 for all of them.\n\n";
    page += "Colour and moving lines are for terminals only, and `NO_COLOR` turns colour off. \
             `PLIMSOLL_LOG` says what is logged to stderr, such as `debug`.\n\n";
    page += "## Options of all commands\n\nA flag beats its environment variable, which beats \
             the configuration file, which beats the default.\n\n";
    let globals: Vec<&Arg> = program.get_arguments().filter(|arg| arg.is_global_set()).collect();
    page += &option_table(&globals);
    for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
        page += &section(command);
    }
    page.trim_end().to_owned() + "\n"
}

fn section(command: &Command) -> String {
    let name = command.get_name();
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_global_set() && !arg.is_hide_set())
        .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
        .collect();
    let mut text = format!("\n## plimsoll {name}\n\n{}\n\n", paragraphs(command));
    text += &format!("```text\n{}\n```\n", usage(name, &own));
    if !own.is_empty() {
        text += &format!("\n{}", option_table(&own));
    }
    text
}

fn usage(name: &str, arguments: &[&Arg]) -> String {
    let mut words = vec!["plimsoll".to_owned(), name.to_owned()];
    if arguments.iter().any(|arg| !arg.is_positional()) {
        words.push("[OPTIONS]".into());
    }
    for argument in arguments.iter().filter(|arg| arg.is_positional()) {
        let value = value_name(argument).unwrap_or_default();
        words.push(if argument.is_required_set() { value } else { format!("[{value}]") });
    }
    words.join(" ")
}

fn paragraphs(command: &Command) -> String {
    let about = command.get_long_about().or(command.get_about());
    escape(&about.map(ToString::to_string).unwrap_or_default())
}

fn option_table(arguments: &[&Arg]) -> String {
    let mut table = String::from("| argument | environment | meaning |\n| --- | --- | --- |\n");
    for argument in arguments {
        let variable = argument.get_env().map(|name| format!("`{}`", name.to_string_lossy()));
        let meaning = argument.get_help().map(ToString::to_string).unwrap_or_default();
        table += &format!(
            "| `{}` | {} | {}{} |\n",
            spelling(argument),
            variable.unwrap_or_default(),
            escape(&meaning).replace('|', "\\|"),
            choices(argument)
        );
    }
    table
}

/// `-o, --output FORM`.
fn spelling(argument: &Arg) -> String {
    let value = value_name(argument);
    if argument.is_positional() {
        return value.unwrap_or_default();
    }
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let names: Vec<_> = short.into_iter().chain(long).collect();
    match value {
        Some(value) => format!("{} {value}", names.join(", ")),
        None => names.join(", "),
    }
}

fn value_name(argument: &Arg) -> Option<String> {
    let takes_a_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    if !takes_a_value {
        return None;
    }
    let names = argument.get_value_names()?;
    Some(names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

/// What may be given, and what is taken where nothing is.
fn choices(argument: &Arg) -> String {
    let mut notes = String::new();
    let values: Vec<_> = argument
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    let takes_a_value = value_name(argument).is_some();
    if takes_a_value && !values.is_empty() {
        notes += &format!("; one of {}", values.join(", "));
    }
    let defaults: Vec<_> =
        argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if takes_a_value && !defaults.is_empty() {
        notes += &format!(" \\[default: {}\\]", defaults.join(" "));
    }
    notes
}

/// Markdown takes these for its own.
fn escape(text: &str) -> String {
    text.replace('[', "\\[").replace(']', "\\]").replace('<', "&lt;").replace('~', "\\~")
}
