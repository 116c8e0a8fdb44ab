//! What the program in a container does. Most run until they are told to end. A script of a
//! shell is looked through for the few words that tests use, so that the same container does the
//! same on a real engine: `echo WORDS`, `echo WORDS >&2` and `exit CODE`, and `trap`, without
//! which a shell that is the first process doesn't heed a signal.

/// A line that it prints, and whether to its errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub is_error: bool,
    pub text: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    pub lines: Vec<Line>,
    /// The code with which it ends by itself, at once.
    pub ends: Option<i64>,
    /// False where only a kill ends it.
    pub heeds_signals: bool,
}

impl Program {
    /// The program of that command line.
    pub fn of(arguments: &[String]) -> Self {
        match arguments {
            [shell, flag, script, ..] if shell.ends_with("sh") && flag == "-c" => {
                Self::of_script(script)
            }
            _ => Self { heeds_signals: true, ..Self::default() },
        }
    }

    fn of_script(script: &str) -> Self {
        let mut program = Self { heeds_signals: script.contains("trap"), ..Self::default() };
        for statement in script.split(';').map(str::trim) {
            if let Some(words) = statement.strip_prefix("echo ") {
                let (text, is_error) = match words.strip_suffix(">&2") {
                    Some(text) => (text.trim(), true),
                    None => (words, false),
                };
                program.lines.push(Line { is_error, text: text.to_owned() });
            }
            if let Some(code) = statement.strip_prefix("exit ") {
                program.ends = code.parse().ok();
                break;
            }
        }
        program
    }
}
