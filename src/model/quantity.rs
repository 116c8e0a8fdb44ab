//! Durations, memory and processor shares as people write them in manifests.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("{0:?} is no duration: write a number and a unit, such as 500ms, 30s, 5m or 1h")]
    Duration(String),
    #[error("{0:?} is no amount of memory: write a number and a unit, such as 64MiB or 2GiB")]
    Memory(String),
}

/// A whole number of milliseconds, at most 24 hours; written `500ms`, `30s`, `5m`, `1h`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);

impl Span {
    /// The longest span: 24 hours.
    pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

    /// A span of whole milliseconds. What is longer than a day becomes a day.
    pub const fn from_millis(millis: u64) -> Self {
        let longest = Self::LONGEST.as_millis() as u64;
        Self(Duration::from_millis(if millis > longest { longest } else { millis }))
    }

    pub const fn from_secs(seconds: u64) -> Self {
        Self::from_millis(seconds.saturating_mul(1000))
    }

    pub const fn duration(self) -> Duration {
        self.0
    }

    pub fn as_millis(self) -> u64 {
        self.0.as_millis() as u64
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.as_millis();
        let (number, unit) = match millis {
            m if m % 1000 != 0 || m == 0 => (m, "ms"),
            m if m % 3_600_000 == 0 => (m / 3_600_000, "h"),
            m if m % 60_000 == 0 => (m / 60_000, "m"),
            m => (m / 1000, "s"),
        };
        f.pad(&format!("{number}{unit}"))
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Span {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bad = || QuantityError::Duration(text.to_owned());
        let (number, unit) = split_unit(text).ok_or_else(bad)?;
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(bad()),
        };
        let millis = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
        match millis {
            Some(millis) if u128::from(millis) <= Self::LONGEST.as_millis() => {
                Ok(Self::from_millis(millis))
            }
            _ => Err(bad()),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = QuantityError;
    fn try_from(text: String) -> Result<Self, QuantityError> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

/// Bytes of memory; written with a binary unit (`KiB`, `MiB`, `GiB`) or a decimal one (`kB`,
/// `MB`, `GB`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Memory(u64);

impl Memory {
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = match self.0 {
            b if b != 0 && b % (1 << 30) == 0 => (b >> 30, "GiB"),
            b if b != 0 && b % (1 << 20) == 0 => (b >> 20, "MiB"),
            b if b != 0 && b % (1 << 10) == 0 => (b >> 10, "KiB"),
            b => (b, "B"),
        };
        f.pad(&format!("{number}{unit}"))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Memory {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bad = || QuantityError::Memory(text.to_owned());
        let (number, unit) = split_unit(text).ok_or_else(bad)?;
        let factor = match unit {
            "B" => 1,
            "kB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(bad()),
        };
        let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
        bytes.filter(|bytes| i64::try_from(*bytes).is_ok()).map(Self).ok_or_else(bad)
    }
}

impl TryFrom<String> for Memory {
    type Error = QuantityError;
    fn try_from(text: String) -> Result<Self, QuantityError> {
        text.parse()
    }
}

impl From<Memory> for String {
    fn from(memory: Memory) -> String {
        memory.to_string()
    }
}

/// A share of processors in thousandths: 1500 is one and a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MilliCpus(pub u32);

impl fmt::Display for MilliCpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1000.0)
    }
}

fn split_unit(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    (end > 0).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written() {
        for text in ["0ms", "1ms", "500ms", "30s", "90s", "5m", "1h", "24h"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("60s".parse::<Span>().unwrap(), "1m".parse().unwrap());
        for bad in ["", "5", "s", "-1s", "1e99d", "25h", "99999999999999999999s", "1 s", "NaN"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_is_read_and_written() {
        assert_eq!("512MiB".parse::<Memory>().unwrap().bytes(), 512 << 20);
        assert_eq!("1GB".parse::<Memory>().unwrap().bytes(), 1_000_000_000);
        assert_eq!("1024KiB".parse::<Memory>().unwrap().to_string(), "1MiB");
        for bad in ["", "512", "512Mb", "-1MiB", "99999999999GiB"] {
            assert!(bad.parse::<Memory>().is_err(), "{bad}");
        }
    }
}
