//! Manifests from the outside: files in, `Desired` and diagnostics out.
//!
//! `tests/golden/manifest/NN-name.yaml` are wrong manifests, and `NN-name.txt` is what people
//! are told about them. A line `# file: PATH` begins another file. Every case has the fleet of
//! `fleet.yaml` beside it, unless it begins with `# no fleet`. `UPDATE_GOLDEN=1` writes the
//! answers anew; read the difference before it is committed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use plimsoll::manifest::{Reader, Reading, render, render_warnings};
use plimsoll::model::{CommitId, Content, Desired, Files, Sha256};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/manifest")
}

fn content(bytes: impl Into<Vec<u8>>) -> Content {
    let bytes: Vec<u8> = bytes.into();
    Content::Bytes { blob: Sha256::of(&bytes).hex(), bytes: Bytes::from(bytes) }
}

fn files<P: Into<String>, B: Into<Vec<u8>>>(files: impl IntoIterator<Item = (P, B)>) -> Files {
    let files = files.into_iter().map(|(path, bytes)| (path.into(), content(bytes))).collect();
    Files { commit: CommitId("c0ffee".repeat(6) + "c0ff"), files }
}

fn read(all: &Files) -> Reading {
    Reader::new().read(all)
}

/// The files of a case.
fn case(text: &str, fleet: &str) -> Files {
    let mut parts = BTreeMap::new();
    if !text.starts_with("# no fleet\n") {
        parts.insert("fleet.yaml".to_owned(), fleet.to_owned());
    }
    let mut path = "app.yaml".to_owned();
    for line in text.split_inclusive('\n').filter(|line| *line != "# no fleet\n") {
        match line.trim_end().strip_prefix("# file: ") {
            Some(next) => next.clone_into(&mut path),
            None => parts.entry(path.clone()).or_default().push_str(line),
        }
    }
    files(parts)
}

/// Everything that a reading says, for people.
fn tell(reading: &Reading) -> String {
    let mut told = render(&reading.diagnostics, false);
    if !reading.warnings.is_empty() {
        if !told.is_empty() {
            told.push('\n');
        }
        told += &render_warnings(&reading.warnings, false);
    }
    told.push_str("\n== what is left\n");
    let Some(desired) = &reading.desired else {
        told.push_str("nothing: no Installation\n");
        return told;
    };
    let apps: Vec<_> = desired.apps.keys().map(ToString::to_string).collect();
    let _ =
        writeln!(told, "apps: {}", if apps.is_empty() { "none".into() } else { apps.join(", ") });
    for (id, blocked) in &desired.blocked {
        let at = &blocked.location;
        let _ = writeln!(told, "blocked {id}: {}:{}: {}", at.file, at.line, blocked.reason);
    }
    let hosts =
        desired.broken_hosts.iter().map(|(name, blocked)| (format!("Host {name}"), blocked));
    let balancers = desired.broken_balancers.iter();
    let balancers = balancers.map(|(name, blocked)| (format!("Balancer {name}"), blocked));
    for (title, blocked) in hosts.chain(balancers) {
        let at = &blocked.location;
        let _ = writeln!(told, "broken {title}: {}:{}: {}", at.file, at.line, blocked.reason);
    }
    for blocked in &desired.unreadable {
        let at = &blocked.location;
        let _ = writeln!(told, "unreadable {}:{}: {}", at.file, at.line, blocked.reason);
    }
    told
}

/// Compares with a golden file, or writes it.
fn check_golden(path: &Path, told: &str, differences: &mut Vec<String>) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, told).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    if golden != told {
        differences.push(format!("{}\n--- golden\n{golden}\n--- now\n{told}", path.display()));
    }
}

fn cases(folder: &Path) -> Vec<PathBuf> {
    let mut cases: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.ends_with(".yaml") && name.starts_with(|c: char| c.is_ascii_digit())
        })
        .collect();
    cases.sort();
    cases
}

#[test]
fn wrong_manifests_are_told_so() {
    let fleet = std::fs::read_to_string(folder().join("fleet.yaml")).unwrap();
    let cases = cases(&folder());
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let mut differences = Vec::new();
    for path in cases {
        let text = std::fs::read_to_string(&path).unwrap();
        let reading = read(&case(&text, &fleet));
        let problems = reading.diagnostics.len() + reading.warnings.len();
        assert!(problems > 0, "{} is not wrong", path.display());
        check_golden(&path.with_extension("txt"), &tell(&reading), &mut differences);
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The files below `ok`, every field used.
fn fixture() -> Files {
    let root = folder().join("ok");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    files(found)
}

fn fine(reading: &Reading) -> &Desired {
    assert_eq!(render(&reading.diagnostics, false), "");
    reading.desired.as_ref().unwrap()
}

#[test]
fn the_fixture_uses_every_field_and_is_read_as_meant() {
    let reading = read(&fixture());
    assert_eq!(render_warnings(&reading.warnings, false), "");
    let json = serde_json::to_string_pretty(fine(&reading)).unwrap() + "\n";
    let mut differences = Vec::new();
    check_golden(&folder().join("ok.json"), &json, &mut differences);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
