//! Typed names. Every name of an object is a DNS label: 1 to 63 lower-case letters, digits and
//! hyphens, neither beginning nor ending with a hyphen (RFC 1123, section 2.1). There are many of
//! them in memory, and they are compared all the time: a name of up to 24 characters lies in the
//! value itself, not behind a pointer.

use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name can't be empty")]
    Empty,
    #[error("a name has at most 63 characters, this one has {0}")]
    TooLong(usize),
    #[error("{0:?} isn't allowed in a name: use lower-case letters, digits and hyphens")]
    Character(char),
    #[error("a name can't begin or end with a hyphen")]
    Hyphen,
    #[error("an app is named ENVIRONMENT/NAME")]
    NotAnApp,
    #[error("a secret is named by a relative path of letters, digits, '.', '_' and '-'")]
    NotASecret,
}

/// Refuses what isn't a DNS label.
pub fn check_label(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if let Some(bad) =
        text.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-'))
    {
        return Err(NameError::Character(bad));
    }
    if text.len() > 63 {
        return Err(NameError::TooLong(text.len()));
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(NameError::Hyphen);
    }
    Ok(())
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(CompactString);

        impl $name {
            /// The checked name.
            pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
                let text = text.as_ref();
                check_label(text)?;
                Ok(Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.into()
            }
        }
    };
}

label!(
    /// `metadata.name` of the Installation.
    InstallationName
);
label!(
    /// Random text that tells two installations of one name apart.
    InstallationUid
);
label!(EnvironmentName);
label!(
    /// The second half of an [`AppId`].
    AppName
);
label!(HostName);
label!(BalancerName);
label!(ListenerName);

/// An app: `ENVIRONMENT/NAME`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppId {
    pub environment: EnvironmentName,
    pub name: AppName,
}

impl AppId {
    pub fn new(environment: &str, name: &str) -> Result<Self, NameError> {
        Ok(Self { environment: EnvironmentName::new(environment)?, name: AppName::new(name)? })
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.environment, self.name))
    }
}

impl fmt::Debug for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for AppId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (environment, name) = text.split_once('/').ok_or(NameError::NotAnApp)?;
        Self::new(environment, name)
    }
}

impl TryFrom<String> for AppId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<AppId> for String {
    fn from(app: AppId) -> String {
        app.to_string()
    }
}

/// A secret's name: the relative path of its file in the folder of secrets. Its parts are
/// letters, digits, `.`, `_` and `-`, and none of them begins with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

impl SecretName {
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let part_is_fine = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if text.len() > 255 || !text.split('/').all(part_is_fine) {
            return Err(NameError::NotASecret);
        }
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for SecretName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> String {
        name.0
    }
}

/// A git commit, 40 hexadecimal digits; `worktree` for files that are read as they lie.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommitId(pub String);

impl CommitId {
    /// What stands for a commit when the files are read as they lie.
    pub fn worktree() -> Self {
        Self("worktree".into())
    }

    /// The first 12 characters, for people.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label() {
        for good in ["a", "web", "web-2", "0", &"a".repeat(63)] {
            assert!(HostName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "a\n", "a;b", "é", &"a".repeat(64)] {
            assert!(HostName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_stays_in_its_folder() {
        for good in ["a", "web/database-url", "a/b/c.txt"] {
            assert!(SecretName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "/etc/shadow", "../a", "a/../b", "a//b", "a/", ".hidden", "a\0"] {
            assert!(SecretName::new(bad).is_err(), "{bad}");
        }
    }
}
