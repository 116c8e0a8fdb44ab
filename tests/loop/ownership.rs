//! What isn't ours is never touched.

use crate::harness::{Engine, Fleet, Installation, app, set};

/// What would differ if somebody had touched a container.
fn facts(engine: &Engine, id: &str) -> (String, String, String) {
    let found = engine.inspect(id).unwrap_or_else(|| panic!("{id} is gone"));
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (text(&found["Id"]), text(&found["Name"]), text(&found["State"]["StartedAt"]))
}

#[test]
fn containers_of_others_are_left_alone() {
    let fleet = Fleet::shared();
    let shop = Installation::new("foreign");
    let alpha = &fleet.alpha;
    // On the very port that would be taken first.
    let publish = format!("127.0.0.1:{}:8080", shop.ports.first_container_port());
    let on_port = alpha.run_foreign(["-p", &publish, "web:1"]);
    // Of an installation of the same name, with labels as ours, and another uid.
    let labels: Vec<String> = [
        ("format", "1"),
        ("installation", &shop.name),
        ("uid", "00000000"),
        ("environment", "production"),
        ("app", "web"),
        ("revision", &"ab".repeat(32)),
        ("slot", "0"),
        ("commit", &"c".repeat(40)),
        ("image", "web:1"),
        ("image-id", &format!("sha256:{}", "ab".repeat(32))),
    ]
    .iter()
    .flat_map(|(key, value)| ["--label".to_owned(), format!("plimsoll.{key}={value}")])
    .collect();
    let name = format!("{}.production.web.abababababab.0", shop.name);
    let words = labels.iter().map(String::as_str).chain(["--name", &name, "web:1"]);
    let twin = alpha.run_foreign(words);
    // Of our installation, by its labels, and yet unreadable.
    let installation = format!("plimsoll.installation={}", shop.name);
    let unreadable = alpha.run_foreign(["--label", &installation, "web:1"]);
    let foreign = [&on_port, &twin, &unreadable];
    let before: Vec<_> = foreign.iter().map(|id| facts(alpha, id)).collect();

    let web = set(app("web"), "/replicas", 1);
    shop.deploy(&web);
    shop.deploy(&set(web, "/image", "web:2"));
    assert_eq!(shop.get("web").unwrap().status, 200);
    shop.remove_app("web");
    shop.repository.push("Remove everything");
    let (_, plan) = shop.apply();
    shop.approve(&plan.approval());
    shop.converge();

    let after: Vec<_> = foreign.iter().map(|id| facts(alpha, id)).collect();
    assert_eq!(after, before);
    for id in foreign {
        alpha.remove(id);
    }
}

#[test]
fn a_name_that_a_foreign_container_holds_is_reported_with_its_id() {
    let fleet = Fleet::shared();
    let shop = Installation::new("name-taken");
    let web = set(set(app("web"), "/replicas", 1), "/hosts", serde_json::json!(["alpha"]));
    shop.deploy(&web);
    let (name, id) = shop.containers().pop_first().unwrap();
    let name = name.strip_prefix("alpha/").unwrap();
    // The same name, held by somebody else.
    fleet.alpha.remove(&id);
    let foreign = fleet.alpha.run_foreign(["--name", name, "web:1"]);
    let before = facts(&fleet.alpha, &foreign);

    // Another slot may serve instead; what may not happen is that the foreign one is touched.
    let output = shop.plimsoll(["apply"]);
    if output.code != 0 {
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(said.contains(&foreign[..12]), "{output}");
    }
    assert_eq!(facts(&fleet.alpha, &foreign), before);
    fleet.alpha.remove(&foreign);
    shop.converge();
    assert_eq!(shop.get("web").unwrap().status, 200);
}
