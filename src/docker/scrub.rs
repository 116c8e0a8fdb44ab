//! Takes secret values out of texts before anybody sees them. An engine's error may quote what
//! it was given; nothing of that may reach a log, a plan or an API.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use secrecy::{ExposeSecret, SecretString};

use crate::model::SecretName;

/// The shortest line of a secret, and the shortest value of an environment that isn't known to
/// be secret, that is looked for by itself: a shorter one would be found in every text.
const SHORTEST_PART: usize = 6;

/// Texts to hide, the longest first, and what stands in their place.
#[derive(Default)]
pub(super) struct Scrub(Vec<(SecretString, String)>);

impl Scrub {
    /// Hides the values of these secrets, whole, line by line, and as JSON and Go quote them.
    pub(super) fn of_secrets(secrets: &BTreeMap<SecretName, SecretString>) -> Self {
        let mut scrub = Self::default();
        for (name, secret) in secrets {
            let (value, shown) = (secret.expose_secret(), format!("[secret {name}]"));
            scrub.hide(value, &shown);
            for line in value.lines().filter(|line| line.len() >= SHORTEST_PART) {
                scrub.hide(line.trim(), &shown);
            }
        }
        scrub.longest_first()
    }

    /// Hides the values of a container's environment (`KEY=VALUE`), where it can't be known
    /// which of them are secret. What Plimsoll itself put in stays readable.
    pub(super) fn of_env(env: &[String]) -> Self {
        let mut scrub = Self::default();
        for (key, value) in env.iter().filter_map(|entry| entry.split_once('=')) {
            if value.len() >= SHORTEST_PART && key != "PATH" && !key.starts_with("PLIMSOLL_") {
                scrub.hide(value, &format!("[value of {key}]"));
            }
        }
        scrub.longest_first()
    }

    /// Hides the login of a registry: the password and the tokens, and the password as it goes
    /// over the wire.
    pub(super) fn of_login(login: Option<&DockerCredentials>) -> Self {
        const SHOWN: &str = "[login of the registry]";
        let mut scrub = Self::default();
        let Some(login) = login else { return scrub };
        let secrets = [&login.password, &login.identitytoken, &login.registrytoken, &login.auth];
        for secret in secrets.into_iter().flatten() {
            scrub.hide(secret, SHOWN);
        }
        if let (Some(user), Some(password)) = (&login.username, &login.password) {
            let encoded = STANDARD.encode(format!("{user}:{password}"));
            // Some leave the padding out.
            scrub.hide(encoded.trim_end_matches('='), SHOWN);
        }
        scrub.longest_first()
    }

    fn hide(&mut self, value: &str, shown: &str) {
        if value.is_empty() {
            return;
        }
        self.0.push((value.into(), shown.to_owned()));
        // A text in quotes has its special characters escaped.
        let quoted = serde_json::Value::from(value).to_string();
        let quoted = quoted.trim_matches('"');
        if quoted != value {
            self.0.push((quoted.into(), shown.to_owned()));
        }
    }

    fn longest_first(mut self) -> Self {
        self.0.sort_by_key(|(value, _)| std::cmp::Reverse(value.expose_secret().len()));
        self
    }

    /// The text without what is to be hidden.
    pub(super) fn clean(&self, text: String) -> String {
        self.0.iter().fold(text, |text, (value, shown)| {
            match text.contains(value.expose_secret()) {
                true => text.replace(value.expose_secret(), shown),
                false => text,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_however_they_are_quoted() {
        let secrets = [("a", "hunter2"), ("b", "hunter2-and-more"), ("c", "one\"two\nthree-four")]
            .map(|(name, value)| (SecretName::new(name).unwrap(), SecretString::from(value)))
            .into();
        let scrub = Scrub::of_secrets(&secrets);
        for (text, clean) in [
            ("bad value hunter2!", "bad value [secret a]!"),
            ("hunter2-and-more", "[secret b]"),
            ("x one\"two\nthree-four x", "x [secret c] x"),
            (r#"env "one\"two\nthree-four" is bad"#, r#"env "[secret c]" is bad"#),
            ("only three-four here", "only [secret c] here"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(scrub.clean(text.to_owned()), clean);
        }
    }

    #[test]
    fn a_login_is_hidden_also_as_it_goes_over_the_wire() {
        let login = DockerCredentials {
            username: Some("person".into()),
            password: Some("zeisig-4b1d77".into()),
            identitytoken: Some("token-1".into()),
            ..DockerCredentials::default()
        };
        let text = "Basic cGVyc29uOnplaXNpZy00YjFkNzc= of person, zeisig-4b1d77, token-1";
        let shown = "[login of the registry]";
        let clean = format!("Basic {shown}= of person, {shown}, {shown}");
        assert_eq!(Scrub::of_login(Some(&login)).clean(text.to_owned()), clean);
        assert_eq!(Scrub::of_login(None).clean(text.to_owned()), text);
    }

    #[test]
    fn values_of_an_environment_are_hidden() {
        let env = ["PATH=/usr/bin", "PLIMSOLL_APP=web-app", "PASSWORD=hunter2", "A=1", "BAD"]
            .map(str::to_owned);
        let text = "web-app hunter2 /usr/bin 1 BAD".to_owned();
        assert_eq!(Scrub::of_env(&env).clean(text), "web-app [value of PASSWORD] /usr/bin 1 BAD");
    }
}
