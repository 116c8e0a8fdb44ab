//! Holds the arrows of the design: which module of the library may import which, who may name
//! which crate, and who may not wait. A broken arrow is reported with file and line.
//!
//! The sources are read as tokens, so that a name in a comment or in a text is no import. Code
//! under `#[cfg(test)]` isn't held to the arrows: a test may take from anywhere.

#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/tokens.rs"]
mod tokens;

use std::path::{Path, PathBuf};

use rules::broken_rules;

#[test]
fn the_arrows_of_the_design_hold() {
    let files = sources();
    assert!(files.len() > 20, "the sources weren't found: {files:?}");
    let broken = broken_rules(&files);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// All files below `src`, by path in the repository.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src")];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let name = |path: &PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// What one file breaks.
fn check(path: &str, text: &str) -> Vec<String> {
    broken_rules(&[(path.to_owned(), text.to_owned())])
}

#[test]
fn a_broken_arrow_is_found() {
    for (path, text, expected) in [
        (
            "src/model/a.rs",
            "//! Words.\nuse crate::plan::Step;",
            "src/model/a.rs:2: model may not import plan",
        ),
        (
            "src/plan/mod.rs",
            "use crate::{\n    model::{AppId, Host},\n    docker::Engine,\n};",
            "src/plan/mod.rs:3: plan may not import docker",
        ),
        (
            "src/plan/a.rs",
            "fn f() { super::super::store::open() }",
            "src/plan/a.rs:1: plan may not import store",
        ),
        (
            "src/plan/a.rs",
            "mod b { use super::super::super::store; }",
            "src/plan/a.rs:1: plan may not import store",
        ),
        ("src/plan/mod.rs", "use super::cli;", "src/plan/mod.rs:1: plan may not import cli"),
        ("src/check/mod.rs", "use crate::*;", "src/check/mod.rs:1: check may not import *"),
        (
            "src/cli/run.rs",
            "fn f(e: crate :: docker :: Engine) {}",
            "src/cli/run.rs:1: cli may not import docker",
        ),
        (
            "src/proxy/a.rs",
            "pub use crate::store as memory;",
            "src/proxy/a.rs:1: proxy may not import store",
        ),
        (
            "src/main.rs",
            "fn main() { plimsoll::plan::x() }",
            "src/main.rs:1: main may not import plan",
        ),
        (
            "src/observe/mod.rs",
            "use bollard::Docker;",
            "src/observe/mod.rs:1: only docker may name bollard, not observe",
        ),
        (
            "src/cli/mod.rs",
            "fn f() -> sled::Db {}",
            "src/cli/mod.rs:1: only store may name sled, not cli",
        ),
        (
            "src/plan/mod.rs",
            "fn a() {}\npub async fn f() {}",
            "src/plan/mod.rs:2: plan may not wait: it names async",
        ),
        (
            "src/check/a.rs",
            "use tokio::time::Instant;",
            "src/check/a.rs:1: check may not wait: it names tokio",
        ),
        (
            "src/helpers/mod.rs",
            "//! This and that.",
            "src/helpers/mod.rs:1: the design has no module helpers",
        ),
        ("src/extra.rs", "", "src/extra.rs:1: the design has no module extra"),
    ] {
        assert_eq!(check(path, text), [expected], "{text}");
    }
}

#[test]
fn what_the_design_allows_is_found_fine() {
    for (path, text) in [
        ("src/plan/mod.rs", "use crate::model::{App, Host};\nmod ports;\nuse self::ports::choose;"),
        ("src/plan/a.rs", "use super::ports; use crate::plan::step::Step;"),
        ("src/plan/a.rs", "mod b { use super::super::store; }"),
        ("src/plan/a.rs", "//! Not crate::docker, nor bollard.\n/* use /* nested */ sled; */"),
        ("src/plan/a.rs", r##"const A: &str = "crate::docker"; const B: &str = r#"use " sled"#;"##),
        ("src/plan/a.rs", "fn f<'a>(x: &'a str) -> char { let q = '\"'; let e = '\\''; 'a' }"),
        ("src/plan/a.rs", "#[cfg(test)]\nmod tests { use crate::manifest::read; async fn f() {} }"),
        ("src/plan/a.rs", "#[cfg(test)] use crate::store; use crate::model::App;"),
        ("src/docker/connect.rs", "use bollard::Docker; use crate::{clock, model::Host};"),
        ("src/cli/run.rs", "let x = r#async; use crate::{reconcile::Cycle, cli::Exit};"),
        ("src/main.rs", "fn main() { plimsoll::cli::main() }"),
        ("src/lib.rs", "pub mod api;"),
    ] {
        assert_eq!(check(path, text), [""; 0], "{text}");
    }
}
