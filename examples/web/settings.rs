//! What the environment asks for: who the app is, and how it is to misbehave. It is read once,
//! at the start.

use std::collections::BTreeMap;
use std::time::Duration;

/// Everything that the app takes from its environment.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `PORT`, 8080 where it isn't set.
    pub port: u16,
    /// The lines of `/`, in their order.
    pub identity: Vec<(&'static str, String)>,
    /// `START_DELAY_MS`: how long `/_status` answers 503 after the start.
    pub start_delay: Duration,
    /// `EXIT_AFTER_MS`, with `EXIT_CODE` (1 where it isn't set): ends by itself.
    pub exit: Option<(Duration, i32)>,
    /// `IGNORE_SIGTERM=1`: only a kill ends it.
    pub ignore_sigterm: bool,
    /// `NEVER_LISTEN=1`: runs, and never binds its port.
    pub never_listen: bool,
    /// `FAIL_STATUS=1`: `/_status` answers 503 for ever.
    pub fail_status: bool,
    /// `EAT_MEMORY_MB`: how many MiB it holds from its start on.
    pub eat_memory_mib: usize,
}

/// The word that `/` prints, and the variable that its value comes from.
const IDENTITY: [(&str, &str); 7] = [
    ("app", "PLIMSOLL_APP"),
    ("version", "VERSION"),
    ("revision", "PLIMSOLL_REVISION"),
    ("slot", "PLIMSOLL_SLOT"),
    ("host", "PLIMSOLL_HOST"),
    ("environment", "PLIMSOLL_ENVIRONMENT"),
    ("commit", "PLIMSOLL_COMMIT"),
];

impl Settings {
    /// # Errors
    /// The first variable whose value isn't what it has to be, as a sentence.
    pub fn from_environment() -> Result<Self, String> {
        Self::from_variables(&std::env::vars().collect())
    }

    fn from_variables(variables: &BTreeMap<String, String>) -> Result<Self, String> {
        let exit_after: Option<u64> = number(variables, "EXIT_AFTER_MS")?;
        let exit_code = number(variables, "EXIT_CODE")?.unwrap_or(1);
        let start_delay = number(variables, "START_DELAY_MS")?.unwrap_or(0);
        let value = |name: &str| variables.get(name).cloned().unwrap_or_default();
        Ok(Self {
            port: number(variables, "PORT")?.unwrap_or(8080),
            identity: IDENTITY.iter().map(|(word, name)| (*word, value(name))).collect(),
            start_delay: Duration::from_millis(start_delay),
            exit: exit_after.map(|millis| (Duration::from_millis(millis), exit_code)),
            ignore_sigterm: value("IGNORE_SIGTERM") == "1",
            never_listen: value("NEVER_LISTEN") == "1",
            fail_status: value("FAIL_STATUS") == "1",
            eat_memory_mib: number(variables, "EAT_MEMORY_MB")?.unwrap_or(0),
        })
    }

    /// The value behind one word of `/`; empty where there is none.
    pub fn identity(&self, word: &str) -> &str {
        self.identity.iter().find(|(known, _)| *known == word).map_or("", |(_, value)| value)
    }

    /// The memory that it was asked to hold. Every byte is written, so that it counts.
    pub fn ballast(&self) -> Vec<u8> {
        vec![0xa5; self.eat_memory_mib << 20]
    }
}

/// The variable as a number; none where it isn't set or is empty.
fn number<T: std::str::FromStr>(
    variables: &BTreeMap<String, String>,
    name: &str,
) -> Result<Option<T>, String> {
    match variables.get(name).map(String::as_str) {
        None | Some("") => Ok(None),
        Some(text) => {
            text.parse().map(Some).map_err(|_| format!("{name} has to be a number, not {text:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let owned = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::from_variables(&owned)
    }

    #[test]
    fn nothing_is_asked_for_by_default() {
        let settings = settings(&[]).unwrap();
        assert_eq!((settings.port, settings.exit, settings.eat_memory_mib), (8080, None, 0));
        assert!(!settings.ignore_sigterm && !settings.never_listen && !settings.fail_status);
    }

    #[test]
    fn every_knob_is_read() {
        let settings = settings(&[
            ("PORT", "9000"),
            ("VERSION", "2"),
            ("START_DELAY_MS", "20"),
            ("EXIT_AFTER_MS", "30"),
            ("EXIT_CODE", "3"),
            ("IGNORE_SIGTERM", "1"),
            ("NEVER_LISTEN", "1"),
            ("FAIL_STATUS", "1"),
            ("EAT_MEMORY_MB", "2"),
        ])
        .unwrap();
        assert_eq!((settings.port, settings.identity("version")), (9000, "2"));
        assert_eq!(settings.start_delay, Duration::from_millis(20));
        assert_eq!(settings.exit, Some((Duration::from_millis(30), 3)));
        assert!(settings.ignore_sigterm && settings.never_listen && settings.fail_status);
        assert_eq!(settings.ballast().len(), 2 << 20);
    }

    #[test]
    fn a_wrong_number_names_its_variable() {
        for name in ["PORT", "START_DELAY_MS", "EXIT_AFTER_MS", "EXIT_CODE", "EAT_MEMORY_MB"] {
            assert!(settings(&[(name, "x")]).unwrap_err().starts_with(name), "{name}");
        }
    }
}
