//! What waits for a person: mass deletions, and history that was rewritten.

use serde_json::json;

use crate::harness::{Installation, app, set};

#[test]
fn deleting_the_last_app_waits_for_approval() {
    let shop = Installation::new("prune");
    shop.deploy(&set(app("web"), "/replicas", 1));
    let before = shop.containers();

    shop.remove_app("web");
    shop.repository.push("Remove everything");
    let shown = shop.diff();
    let (code, plan) = shop.apply();
    assert_eq!(code, 1, "{plan:?}");
    assert_eq!(shop.containers(), before);
    assert_eq!(shop.get("web").unwrap().status, 200);
    let approval = plan.approval();
    assert_eq!(shown.approval(), approval);
    let status = shop.status();
    assert!(status.approvals.iter().any(|asked| asked.id == approval), "{status:?}");

    // An approval holds for that commit only.
    shop.repository.write("README.md", "Something else.\n");
    shop.repository.push("Another commit");
    let (code, plan) = shop.apply();
    assert_eq!(code, 1, "{plan:?}");
    assert_ne!(plan.approval(), approval);
    shop.plimsoll(["approve", "no-such-id"]).expect_failure();

    shop.approve(&plan.approval());
    shop.converge();
    assert_eq!(shop.containers().len(), 0);
    assert_eq!(shop.get("web").unwrap().status, 404);
}

#[test]
fn removing_a_large_share_waits_and_removing_a_small_one_does_not() {
    let shop = Installation::new("share");
    // Twelve of fifteen containers are one app's.
    shop.write_app(&set(app("large"), "/replicas", 6));
    shop.write_app(&set(app("small"), "/replicas", json!({"alpha": 1, "beta": 0})));
    shop.deploy(&set(app("web"), "/replicas", 1));
    assert_eq!(shop.containers().len(), 15);

    shop.remove_app("small");
    shop.repository.push("Remove a small app");
    shop.converge();
    assert_eq!(shop.containers_of("small").len(), 0);
    assert_eq!(shop.get("small").unwrap().status, 404);

    // A commit can't disarm the guard for itself.
    shop.remove_app("large");
    let disarmed = json!({
        "apiVersion": "plimsoll/v1alpha1",
        "kind": "Installation",
        "metadata": {"name": shop.name, "uid": format!("{:08x}", std::process::id())},
        "spec": {"guards": {"prune": "100%"}},
    });
    shop.write("installation.yaml", &disarmed);
    shop.repository.push("Remove the large app, and the guard");
    let (code, plan) = shop.apply();
    assert_eq!(code, 1, "{plan:?}");
    assert_eq!(shop.containers_of("large").len(), 12);
    shop.approve(&plan.approval());
    shop.converge();
    assert_eq!(shop.containers_of("large").len(), 0);
    assert_eq!(shop.get("web").unwrap().status, 200);
}

#[test]
fn a_rewritten_history_waits_for_approval() {
    let shop = Installation::new("rewritten");
    let web = set(app("web"), "/replicas", 1);
    shop.deploy(&web);
    let applied = shop.deploy(&set(web.clone(), "/image", "web:2"));
    let before = shop.containers();

    shop.repository.git(["reset", "-q", "--hard", "HEAD~1"]);
    shop.write_app(&set(web, "/image", "web:3"));
    let rewritten = shop.repository.push_rewritten("Version 3, instead of everything");
    let (code, plan) = shop.apply();
    assert_eq!(code, 1, "{plan:?}");
    assert_eq!(shop.containers(), before);
    assert_eq!(shop.status().commit.applied.as_deref(), Some(applied.as_str()));
    let approvals = plan.approvals();
    assert!(approvals.values().any(|reason| reason.contains("rewritten")), "{approvals:?}");

    shop.approve(&plan.approval());
    shop.converge();
    assert!(shop.get("web").unwrap().text().contains("version=3"));
    assert!(shop.status().is_converged_at(&rewritten));
}

#[test]
fn a_remote_that_shows_an_older_commit_or_none_changes_nothing() {
    let shop = Installation::new("older");
    let web = set(app("web"), "/replicas", 1);
    shop.deploy(&web);
    let applied = shop.deploy(&set(web, "/image", "web:2"));
    let before = shop.containers();

    // An old mirror.
    shop.repository.git(["push", "-q", "--force", "origin", "HEAD~1:main"]);
    let (_, plan) = shop.apply();
    assert!(plan.steps.is_empty(), "{plan:?}");
    assert_eq!(shop.containers(), before);
    assert_eq!(shop.status().commit.applied.as_deref(), Some(applied.as_str()));

    // The branch is gone.
    shop.repository.git(["push", "-q", "origin", ":main"]);
    let output = shop.plimsoll(["apply"]);
    assert!(output.code != 0, "{output}");
    assert!(output.stderr.contains("main"), "{output}");
    assert_eq!(shop.containers(), before);

    // The remote is gone.
    std::fs::remove_dir_all(shop.repository.url()).unwrap();
    let output = shop.plimsoll(["apply"]);
    assert!(output.code != 0, "{output}");
    assert_eq!(shop.containers(), before);
    assert_eq!(shop.get("web").unwrap().status, 200);
}
