//! The bytes of a record on disk: a format version, a CRC-32 over key and content, and JSON. A
//! bit that flipped is found, whatever the database below thinks of it. Pure.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of records and of the state folder.
pub const FORMAT: u32 = 1;

/// The largest object or event, in bytes of JSON.
pub const LARGEST_OBJECT: usize = 1 << 20;

/// Why a record can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadRecord {
    /// Shorter than a head.
    Short,
    /// Written by a newer Plimsoll.
    Version(u8),
    Checksum,
    Content(String),
}

impl std::fmt::Display for BadRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short => f.write_str("it is cut off"),
            Self::Version(version) => write!(f, "it has format {version}"),
            Self::Checksum => f.write_str("its checksum is wrong"),
            Self::Content(cause) => f.write_str(cause),
        }
    }
}

/// The record of a value under a key.
///
/// # Errors
/// serde's, where the value can't be JSON.
pub fn encode<T: Serialize>(key: &[u8], value: &T) -> serde_json::Result<Vec<u8>> {
    Ok(seal(key, &serde_json::to_vec(value)?))
}

/// The record of a value, under a key, that is JSON already.
pub fn seal(key: &[u8], json: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(json.len() + 5);
    record.push(FORMAT as u8);
    record.extend_from_slice(&checksum(key, json).to_le_bytes());
    record.extend_from_slice(json);
    record
}

/// The value of a record under a key.
///
/// # Errors
/// [`BadRecord`].
pub fn decode<T: DeserializeOwned>(key: &[u8], record: &[u8]) -> Result<T, BadRecord> {
    serde_json::from_slice(open(key, record)?)
        .map_err(|error| BadRecord::Content(error.to_string()))
}

/// The JSON of a record under a key.
///
/// # Errors
/// [`BadRecord`].
pub fn open<'a>(key: &[u8], record: &'a [u8]) -> Result<&'a [u8], BadRecord> {
    let (&[version, a, b, c, d], json) = record.split_first_chunk().ok_or(BadRecord::Short)?;
    if u32::from(version) > FORMAT {
        return Err(BadRecord::Version(version));
    }
    if checksum(key, json) != u32::from_le_bytes([a, b, c, d]) {
        return Err(BadRecord::Checksum);
    }
    Ok(json)
}

/// With the key in it, so that a record that stands under another's key is found.
fn checksum(key: &[u8], json: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&[0]);
    hasher.update(json);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_found() {
        let record = encode(b"key", &"a value").unwrap();
        assert_eq!(decode::<String>(b"key", &record), Ok("a value".into()));
        assert_eq!(decode::<String>(b"kez", &record), Err(BadRecord::Checksum));
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A lower version than ours would be read as ours, with the checksum of ours.
            if flipped[0] != 0 {
                assert!(decode::<String>(b"key", &flipped).is_err(), "bit {bit}");
            }
        }
        for length in 0..record.len() {
            assert!(decode::<String>(b"key", &record[..length]).is_err(), "length {length}");
        }
    }
}
