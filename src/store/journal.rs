//! What can't be seen anywhere else, a line each, in a file that outlives the database: pins,
//! holds, approvals, the applied commit, hosts that were taken out of git. Every line has a
//! checksum; a line that was torn or damaged is skipped and said, never guessed at. Of several
//! lines about one object, the one with the highest version counts, whatever their order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::mirror::Key;
use super::stored::Stored;
use crate::model::Kind;

/// The journal is written anew, with what lives, when it is longer than this, in bytes.
const ROTATE_AT: u64 = 1 << 20;

/// Whether objects of that kind are journalled.
pub fn is_journalled(kind: Kind) -> bool {
    use Kind::{Approval, Hold, Host, Pin, Source};
    matches!(kind, Pin | Hold | Approval | Source | Host)
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Put(Key, Stored),
    /// With the version of the deletion.
    Delete(Key, u64),
}

impl Entry {
    /// Which object it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Delete(key, _) => key,
        }
    }

    /// The version that the store gave it.
    pub fn version(&self) -> u64 {
        match self {
            Self::Put(_, object) => object.version(),
            Self::Delete(_, version) => *version,
        }
    }
}

/// The JSON of a line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line<'a> {
    #[serde(borrow)]
    Put(&'a RawValue),
    Delete {
        kind: Kind,
        name: Box<str>,
        version: u64,
    },
}

/// What a journal says: the last entry about each object.
#[derive(Debug, Default)]
pub struct Replay {
    pub entries: BTreeMap<Key, Entry>,
    /// Damaged lines, for people.
    pub notes: Vec<String>,
}

/// The file, open at its end.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    /// The length at which it is written anew.
    rotate_at: u64,
}

impl Journal {
    /// Reads the journal. It is complete in itself, so the two before it are looked at only
    /// where it is damaged or missing.
    ///
    /// # Errors
    /// That of the file system. A file that isn't there is empty.
    pub fn replay(path: &Path) -> io::Result<Replay> {
        let mut replay = Replay::default();
        let is_there = read_file(path, &mut replay)?;
        if !is_there || !replay.notes.is_empty() {
            read_file(&numbered(path, 1), &mut replay)?;
            read_file(&numbered(path, 2), &mut replay)?;
        }
        Ok(replay)
    }

    /// Opens a journal that is sound, to append to it.
    ///
    /// # Errors
    /// That of the file system, also where there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().append(true).open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, length, rotate_at: ROTATE_AT.max(2 * length) })
    }

    /// Writes a new journal of these objects, keeps the two before it, and opens it.
    ///
    /// # Errors
    /// That of the file system; the old journal is then still there.
    pub fn rewrite<'a>(path: &Path, living: impl Iterator<Item = &'a Stored>) -> io::Result<Self> {
        let mut text = Vec::new();
        for object in living {
            text.extend(put_line(object)?);
        }
        let new = path.with_extension("log.new");
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        keep_old(path)?;
        std::fs::rename(&new, path)?;
        sync_folder_of(path)?;
        let length = text.len() as u64;
        // Where what lives is long already, there has to be room for more.
        Ok(Self { path: path.to_owned(), file, length, rotate_at: ROTATE_AT.max(2 * length) })
    }

    /// Appends entries; when it returns, the disk has them.
    ///
    /// # Errors
    /// That of the file system. A part may have been written: the journal has to be written
    /// anew before it is used again.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut text = Vec::new();
        for entry in entries {
            text.extend(line(entry)?);
        }
        self.file.write_all(&text)?;
        self.length += text.len() as u64;
        self.file.sync_data()
    }

    /// True when it is so long that it is to be written anew.
    pub fn is_long(&self) -> bool {
        self.length > self.rotate_at
    }

    /// True where the file was removed or replaced by somebody.
    pub fn is_gone(&self) -> bool {
        let ours = self.file.metadata();
        let there = std::fs::metadata(&self.path);
        !matches!((ours, there), (Ok(a), Ok(b)) if a.ino() == b.ino() && a.dev() == b.dev())
    }
}

fn line(entry: &Entry) -> io::Result<Vec<u8>> {
    match entry {
        Entry::Put(_, object) => put_line(object),
        Entry::Delete((kind, name), version) => {
            checked(&Line::Delete { kind: *kind, name: name.clone(), version: *version })
        }
    }
}

fn put_line(object: &Stored) -> io::Result<Vec<u8>> {
    checked(&Line::Put(serde_json::from_slice(object.json())?))
}

/// `CRC32 JSON`, the checksum in hexadecimal, over the JSON.
fn checked(line: &Line<'_>) -> io::Result<Vec<u8>> {
    let json = serde_json::to_string(line)?;
    Ok(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes())
}

fn read_line(line: &[u8]) -> Option<Entry> {
    let (checksum, json) = (line.get(..8)?, line.get(9..)?);
    let checksum = u32::from_str_radix(std::str::from_utf8(checksum).ok()?, 16).ok()?;
    if line.get(8) != Some(&b' ') || crc32fast::hash(json) != checksum {
        return None;
    }
    Some(match serde_json::from_slice(json).ok()? {
        Line::Put(object) => {
            let (key, object) = Stored::read(object.get().as_bytes()).ok()?;
            Entry::Put(key, object)
        }
        Line::Delete { kind, name, version } => Entry::Delete((kind, name), version),
    })
}

fn read_file(path: &Path, replay: &mut Replay) -> io::Result<bool> {
    match std::fs::read(path) {
        Ok(bytes) => {
            read_lines(path, &bytes, replay);
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn read_lines(path: &Path, bytes: &[u8], replay: &mut Replay) {
    let ends_whole = bytes.is_empty() || bytes.ends_with(b"\n");
    let count = bytes.split(|byte| *byte == b'\n').count();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let Some(entry) = read_line(line) else {
            let what = match index + 1 == count && !ends_whole {
                true => "the last line is torn: it was being written when the process ended",
                false => "it is damaged",
            };
            let note = format!("{} line {}: skipped, {what}", path.display(), index + 1);
            replay.notes.push(note);
            continue;
        };
        let key = entry.key();
        if replay.entries.get(key).is_none_or(|known| known.version() <= entry.version()) {
            replay.entries.insert(key.clone(), entry);
        }
    }
}

/// `journal.log` also becomes `journal.log.1`, and that one `.2`. The journal itself is there
/// at every moment.
fn keep_old(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let (first, second) = (numbered(path, 1), numbered(path, 2));
    if first.exists() {
        std::fs::rename(&first, &second)?;
    }
    // Not every file system has links.
    std::fs::hard_link(path, &first).or_else(|_| std::fs::copy(path, &first).map(drop))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    path.with_extension(format!("log.{number}"))
}

/// Makes renames in the folder durable.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
