//! A secret's bytes are in the container's environment and nowhere else: in no output, file,
//! label, or command line.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::harness::{Fleet, Installation, Output, app, set};

const SECRET: &str = "kanarienvogel-7f3a9b1c";
const ROTATED: &str = "nachtigall-55c0ffee";
const IN_URL: &str = "zaunkoenig-90210";

fn holds_one(bytes: &[u8]) -> Option<&'static str> {
    let holds = |secret: &&str| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
    [SECRET, ROTATED, IN_URL].into_iter().find(holds)
}

fn expect_none_in(output: &Output) {
    for text in [&output.stdout, &output.stderr] {
        assert!(holds_one(text.as_bytes()).is_none(), "a secret is told: {output}");
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(files_below(&entry.path())),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

/// Everything that can be asked, in every form.
fn ask_everything(shop: &Installation) {
    expect_none_in(&shop.validate([]));
    shop.every_answer("production/web").iter().for_each(expect_none_in);
}

#[test]
fn a_secret_is_in_the_container_and_nowhere_else() {
    let shop = Installation::new("secrets");
    shop.write_secret("web/token", SECRET);
    let web = set(app("web"), "/replicas", 1);
    let web = set(web, "/env", json!({"TOKEN": {"secret": "web/token"}}));
    shop.write_app(&web);
    shop.repository.push("An app with a secret");

    expect_none_in(&shop.plimsoll(["diff", "-o", "json"]));
    let mut command = shop.command(["apply", "-o", "json"]);
    let applied = crate::harness::run(command.env("PLIMSOLL_LOG", "trace")).expect(0);
    assert!(applied.stderr.contains(" plimsoll"), "the log isn't told: {applied}");
    expect_none_in(&applied);
    let first = shop.containers();
    for (name, id) in &first {
        let found = crate::drift::engine_of(name).inspect(id).unwrap();
        let env = found["Config"]["Env"].to_string();
        assert!(env.contains(&format!("TOKEN={SECRET}")), "{env}");
        assert!(holds_one(found["Config"]["Labels"].to_string().as_bytes()).is_none());
        assert!(holds_one(found["Name"].to_string().as_bytes()).is_none());
    }
    ask_everything(&shop);

    // A secret that changes is a new revision.
    shop.write_secret("web/token", ROTATED);
    assert!(!shop.diff().steps.is_empty(), "a changed secret is seen");
    shop.converge();
    assert!(shop.containers().keys().all(|name| !first.contains_key(name)));

    // With a controller, and a version that fails.
    let mut controller = shop.start();
    controller.wait_for_commit(&shop.repository.head());
    shop.write_app(&set(set(web, "/env/FAIL_STATUS", "1"), "/health/deadline", "2s"));
    shop.repository.push("A version that fails");
    controller.wait_for_status("it failed", |status| {
        ["RolledBack", "Degraded"].contains(&status.app("production/web").health.as_str())
    });
    ask_everything(&shop);
    assert!(holds_one(controller.log().as_bytes()).is_none(), "{}", controller.log());
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(line) = std::fs::read(process.path().join("cmdline")) {
            assert!(holds_one(&line).is_none(), "{}", String::from_utf8_lossy(&line));
        }
    }
    controller.stop();
    for file in files_below(&shop.state()) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(holds_one(&bytes).is_none(), "a secret is in {}", file.display());
    }
}

#[test]
fn a_missing_secret_blocks_its_app_only_and_is_named() {
    let shop = Installation::new("no-secret");
    let web = set(app("web"), "/replicas", 1);
    shop.write_app(&set(web.clone(), "/env", json!({"TOKEN": {"secret": "web/token"}})));
    shop.write_app(&set(app("other"), "/replicas", 1));
    shop.repository.push("An app whose secret isn't there");
    let (code, plan) = shop.apply();
    assert_eq!(code, 1, "{plan:?}");
    let reasons = plan.blocked.iter().map(|blocked| &blocked.reason);
    let reasons: Vec<_> =
        reasons.chain(plan.waiting.iter().map(|waiting| &waiting.reason)).collect();
    assert!(reasons.iter().any(|reason| reason.contains("web/token")), "{plan:?}");
    assert_eq!(shop.get("other").unwrap().status, 200);
    assert_eq!(shop.containers_of("web").len(), 0);

    shop.write_secret("web/token", SECRET);
    shop.converge();
    assert_eq!(shop.get("web").unwrap().status, 200);
    assert!(Fleet::shared().alpha.running(&shop.name).len() == 2);
}

#[test]
fn a_password_in_the_repository_s_url_is_never_told() {
    let shop = Installation::new("url");
    let port = crate::harness::free_port();
    let url = format!("http://person:{IN_URL}@127.0.0.1:{port}/shop.git");
    for words in [&["diff"][..], &["apply"], &["diff", "-o", "json"], &["status"]] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        command.args(words).args(["--repo", &url]).arg("--state").arg(shop.state());
        let output = crate::harness::run(command.env("PLIMSOLL_LOG", "trace"));
        assert!(output.stderr.contains("TRACE "), "the log isn't told: {output}");
        let told = Output { command: String::new(), ..output };
        expect_none_in(&told);
        if words[0] != "status" {
            told.expect_error();
        }
    }
    for file in files_below(&shop.state()) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(holds_one(&bytes).is_none(), "the password is in {}", file.display());
    }
}
