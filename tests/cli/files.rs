//! Files that commands read and write: plans, starter trees, configuration.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::fake::{self, Controller, Mood};
use crate::program::{ask, command, run};

#[test]
fn a_plan_in_a_file_is_run_as_it_was_printed() {
    let controller = Controller::start(Mood::Busy);
    let folder = controller.folder.path();
    let kept = ask(folder, &["diff", "--out", "plan.json"]);
    assert_eq!(kept.code, 1, "{}", kept.stderr);
    assert!(kept.stderr.contains("plimsoll apply --plan plan.json"), "{}", kept.stderr);
    let file = folder.join("plan.json");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let applied = ask(folder, &["apply", "--plan", "plan.json"]);
    assert_eq!(applied.code, 1, "{}", applied.stderr);
    assert_eq!(controller.seen.lock().unwrap().applied, [Some(fake::plan())]);

    // One that is there is replaced as a whole.
    ask(folder, &["diff", "--out", "plan.json"]);
    let left: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".new")), "{left:?}");
}

#[test]
fn a_plan_that_is_not_understood_is_refused() {
    let controller = Controller::start(Mood::Busy);
    let folder = controller.folder.path();
    ask(folder, &["diff", "--out", "plan.json"]);
    let text = std::fs::read_to_string(folder.join("plan.json")).unwrap();
    let mut newer: Value = serde_json::from_str(&text).unwrap();
    newer["planFormat"] = 2.into();
    for (broken, told) in [
        (newer.to_string(), "format 2"),
        (text[..text.len() / 2].to_owned(), "can't be read"),
        ("[]".to_owned(), "can't be read"),
        ("[".repeat(100_000), "can't be read"),
        (" ".repeat(17 << 20), "over 16 MiB"),
    ] {
        std::fs::write(folder.join("plan.json"), broken).unwrap();
        let ran = ask(folder, &["apply", "--plan", "plan.json"]);
        assert_eq!(ran.code, 2);
        assert!(ran.stderr.contains(told), "{}", ran.stderr);
    }
    assert!(controller.seen.lock().unwrap().applied.is_empty());
    let ran = ask(folder, &["diff", "--out", "no/such/folder/plan.json"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

#[test]
fn init_writes_a_tree_once() {
    let folder = tempfile::tempdir().unwrap();
    let init = |arguments: &[&str]| run(&mut command(folder.path(), arguments));
    let first = init(&["init", "infra", "--name", "shop"]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(first.stderr.contains("git init"), "{}", first.stderr);
    let path = folder.path().join("infra/installation.yaml");
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written.contains("name: shop, uid: \""), "{written}");

    let again = init(&["init", "infra", "--name", "shop"]);
    assert_eq!(again.code, 1);
    assert!(
        again.stderr.contains("has a uid") || again.stderr.contains("with uid"),
        "{}",
        again.stderr
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), written);

    // Another file of the tree is in the way: nothing is written.
    std::fs::create_dir_all(folder.path().join("other/hosts")).unwrap();
    std::fs::write(folder.path().join("other/hosts/alpha.yaml"), "mine").unwrap();
    let refused = init(&["init", "other"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("alpha.yaml would be overwritten"), "{}", refused.stderr);
    assert!(!folder.path().join("other/installation.yaml").exists());

    let unnamed = init(&["init", "My_Folder"]);
    assert_eq!(unnamed.code, 1);
    assert!(unnamed.stderr.contains("--name NAME"), "{}", unnamed.stderr);
    assert_eq!(init(&["init", "infra2", "--name", "Not A Name"]).code, 2);
}

#[test]
fn init_adds_the_uid_that_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.yml");
    std::fs::write(&file, "kind: Installation # ours\nmetadata: {name: shop}\n").unwrap();
    let ran = run(&mut command(folder.path(), &["init"]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.starts_with("kind: Installation # ours\nmetadata: {name: shop, uid: \""),
        "{text}"
    );
    assert!(!folder.path().join("hosts").exists());
}

/// Where the state folder is said to be tells which controller answers.
#[test]
fn a_flag_beats_the_environment_beats_the_file() {
    let (flagged, set, filed) = (
        Controller::start(Mood::Busy),
        Controller::start(Mood::Converged),
        Controller::start(Mood::Failing),
    );
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("config.yaml");
    std::fs::write(&config, format!("state: {}\n", filed.folder.path().display())).unwrap();
    let folder = |controller: &Controller| controller.folder.path().display().to_string();
    let diff = |arguments: &[&str], variable: Option<&str>| {
        let mut command = command(home.path(), arguments);
        command.env("PLIMSOLL_CONFIG", &config);
        if let Some(variable) = variable {
            command.env("PLIMSOLL_STATE", variable);
        }
        run(&mut command).code
    };
    assert_eq!(diff(&["diff"], None), 2, "the file");
    assert_eq!(diff(&["diff"], Some("")), 2, "an empty variable is not set");
    assert_eq!(diff(&["diff"], Some(&folder(&set))), 0, "the environment");
    let flag = folder(&flagged);
    assert_eq!(diff(&["diff", "--state", &flag], Some(&folder(&set))), 1, "the flag");
    assert_eq!(diff(&["--state", &flag, "diff"], Some(&folder(&set))), 1, "the flag, before");

    std::fs::write(&config, "stat: /x\n").unwrap();
    let ran = run(command(home.path(), &["diff"]).env("PLIMSOLL_CONFIG", &config));
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("config.yaml"), "{}", ran.stderr);
    assert!(ran.stderr.contains("stat"), "{}", ran.stderr);
}
