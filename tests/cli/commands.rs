//! Every command's answer, as text and for scripts, and its exit code.

use serde_json::Value;

use crate::fake::{Controller, Mood};
use crate::program::{Ran, ask, golden};

/// What a person sees, with the folder's name taken out.
fn transcript(controller: &Controller, arguments: &[&str]) -> String {
    let Ran { code, stdout, stderr } = ask(controller.folder.path(), arguments);
    let mut text = format!("$ plimsoll {}\n", arguments.join(" "));
    text += &stdout;
    if !stderr.is_empty() {
        text += &format!("--- stderr\n{stderr}");
    }
    text += &format!("--- exit {code}\n");
    text.replace(&controller.folder.path().display().to_string(), "STATE")
}

/// Runs the commands in turn and compares with tests/golden/cli/NAME.txt.
fn check(name: &str, mood: Mood, commands: &[&[&str]]) {
    let controller = Controller::start(mood);
    let texts: Vec<_> = commands.iter().map(|command| transcript(&controller, command)).collect();
    golden(&format!("tests/golden/cli/{name}.txt"), &texts.join("\n"));
}

#[test]
fn status() {
    check("status", Mood::Busy, &[&["status"]]);
    check("status-empty", Mood::Empty, &[&["status"]]);
}

#[test]
fn diff() {
    check("diff", Mood::Busy, &[&["diff"]]);
    check("diff-converged", Mood::Converged, &[&["diff"]]);
}

#[test]
fn apply() {
    check("apply", Mood::Busy, &[&["apply"]]);
    check("apply-converged", Mood::Converged, &[&["apply"]]);
}

#[test]
fn objects() {
    let commands: &[&[&str]] = &[
        &["get", "apps"],
        &["get", "App", "production/web"],
        &["get", "app", "production/web", "-o", "json"],
        &["get", "hosts", "-o", "yaml"],
        &["get", "host", "beta"],
        &["get", "host", "../x?y#z"],
        &["get", "pins"],
        &["get", "pins", "-o", "json"],
        &["describe", "app", "production/web"],
        &["describe", "host", "beta"],
    ];
    check("objects", Mood::Busy, commands);
}

#[test]
fn what_happened() {
    let commands: &[&[&str]] = &[
        &["events"],
        &["events", "--limit", "1", "-o", "json"],
        &["events", "--limit", "2", "-o", "yaml"],
        &["history"],
        &["history", "production/web", "-o", "json"],
        &["history", "web"],
        &["logs", "production/web"],
        &["logs", "production/web", "-o", "json"],
    ];
    check("what-happened", Mood::Busy, commands);
}

#[test]
fn persons() {
    let commands: &[&[&str]] = &[
        &["approve", "77aa11"],
        &["approve", "none/../x"],
        &["doctor"],
        &["doctor", "-o", "json"],
    ];
    check("persons", Mood::Busy, commands);
    check("persons-converged", Mood::Converged, &[&["doctor"]]);
}

#[test]
fn failures_say_what_why_and_what_next() {
    let commands: &[&[&str]] = &[
        &["status"],
        &["diff"],
        &["apply"],
        &["apply", "-o", "json"],
        &["apply", "--plan", "none.json"],
        &["get", "apps"],
        &["events", "-f"],
        &["logs", "production/web"],
        &["doctor"],
    ];
    check("failures", Mood::Failing, commands);
}

#[test]
fn usage_errors_are_above_one() {
    let controller = Controller::start(Mood::Busy);
    let mistakes: &[&[&str]] = &[
        &[],
        &["nonsense"],
        &["get", "nonsense"],
        &["logs", "web"],
        &["diff", "-o", "xml"],
        &["run", "--interval", "30"],
        &["status", "--interval", "30s"],
    ];
    for mistake in mistakes {
        let ran = ask(controller.folder.path(), mistake);
        assert_eq!(ran.code, 2, "{mistake:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{mistake:?}");
        assert!(!ran.stderr.is_empty(), "{mistake:?}");
    }
}

fn json(controller: &Controller, arguments: &[&str]) -> Value {
    let ran = ask(controller.folder.path(), arguments);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
}

/// Scripts rely on these: fields may be added, none renamed.
#[test]
fn shapes_for_scripts() {
    let controller = Controller::start(Mood::Busy);
    let at = |value: &Value, places: &[&str]| {
        for place in places {
            assert!(value.pointer(place).is_some(), "{place} isn't in {value:#}");
        }
    };
    let plan = [
        "/commit",
        "/digest",
        "/steps/0/id",
        "/steps/0/kind",
        "/steps/0/app",
        "/steps/0/host",
        "/steps/1/balancer",
        "/steps/1/after/0",
        "/steps/0/summary",
        "/routes/0/route",
        "/routes/0/app",
        "/routes/0/lowestHealthy",
        "/waiting/1/app",
        "/waiting/1/reason",
        "/waiting/1/approval",
        "/blocked/0/app",
        "/blocked/0/file",
        "/blocked/0/line",
        "/blocked/0/reason",
    ];
    at(&json(&controller, &["diff", "-o", "json"]), &plan);
    let applied = json(&controller, &["apply", "-o", "json"]);
    at(&applied, &plan);
    at(&applied, &["/outcome/0/id", "/outcome/0/result", "/outcome/0/seconds", "/outcome/1/error"]);
    at(
        &json(&controller, &["status", "-o", "json"]),
        &[
            "/commit/applied",
            "/commit/attempted",
            "/approvals/0/id",
            "/approvals/0/reason",
            "/apps/0/environment",
            "/apps/0/name",
            "/apps/0/sync",
            "/apps/0/health",
            "/apps/0/revision",
            "/apps/0/observedGeneration",
            "/apps/0/conditions/0/type",
            "/apps/0/conditions/0/status",
            "/apps/0/conditions/0/reason",
            "/apps/0/conditions/0/message",
            "/hosts/0/name",
            "/hosts/0/reachable",
            "/hosts/0/message",
            "/balancers/0/name",
            "/balancers/0/reachable",
            "/balancers/0/message",
        ],
    );
    let one = json(&controller, &["get", "app", "production/web", "-o", "json"]);
    at(&one, &["/apiVersion", "/kind", "/metadata/name", "/spec", "/status"]);
    let many = json(&controller, &["get", "apps", "-o", "json"]);
    assert_eq!(many["kind"], "List");
    assert_eq!(many["items"].as_array().map(Vec::len), Some(2));
    let event = json(&controller, &["events", "--limit", "1", "-o", "json"]);
    at(&event, &["/time", "/type", "/reason", "/object", "/message"]);
}

#[test]
fn what_was_asked_reaches_the_controller() {
    let controller = Controller::start(Mood::Busy);
    let folder = controller.folder.path();
    ask(folder, &["diff", "--rev", "HEAD~1 & more?"]);
    ask(folder, &["logs", "production/web", "--tail", "5", "-f"]);
    let seen = controller.seen.lock().unwrap();
    assert_eq!(seen.revisions, [Some("HEAD~1 & more?".to_owned())]);
    let (app, tail, follow) = &seen.logs[0];
    assert_eq!((app.to_string().as_str(), *tail, *follow), ("production/web", Some(5), true));
}

/// `UPDATE_GOLDEN=1 cargo test --test cli reference` writes the page anew.
#[test]
fn reference() {
    golden("book/src/reference/commands.md", &plimsoll::cli::reference_markdown());
}
