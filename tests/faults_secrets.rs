//! The line X1 of the fault catalogue: a canary goes in by every door that takes a secret, and
//! comes out by none, whatever fails. (An app's secret in a good rollout, and a password in the
//! URL of a remote that is down, are in `tests/loop/secrets.rs`.)

mod harness;
#[path = "faults/a_refusing.rs"]
mod refusing;
#[allow(dead_code, reason = "only its listeners are used here")]
mod source_support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{Fleet, Installation, Output, app, run, set};
use plimsoll::model::SecretName;
use plimsoll::source::{Remote, SecretFolder, SourceOptions};
use refusing::RefusingRegistry;
use secrecy::ExposeSecret;
use serde_json::json;
use source_support::{Listener, reply};
use tokio::time::Instant;

/// In the environment of a container.
const ENV: &str = "kanarienvogel-7f3a9b1c";
/// For a registry; the second is `person:zeisig-4b1d77` in base64.
const REGISTRY: &str = "zeisig-4b1d77";
const REGISTRY_BASE64: &str = "cGVyc29uOnplaXNpZy00YjFkNzc";
/// In the token file of a repository.
const TOKEN: &str = "stieglitz-0dd5e3a2";

fn canary_in(bytes: &[u8]) -> Option<&'static str> {
    let holds = |canary: &&str| bytes.windows(canary.len()).any(|part| part == canary.as_bytes());
    [ENV, REGISTRY, REGISTRY_BASE64, TOKEN].into_iter().find(holds)
}

#[track_caller]
fn expect_none_in(output: &Output) {
    for text in [&output.stdout, &output.stderr] {
        let found = canary_in(text.as_bytes());
        assert!(found.is_none(), "{found:?} is told: {output}");
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.flat_map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files_below(&entry.path()),
        Ok(kind) if kind.is_file() => vec![entry.path()],
        _ => Vec::new(),
    });
    files.collect()
}

/// Everything that can be asked, everything that is kept (store, journal, clone, HAProxy's
/// files), and the command lines of all processes.
#[track_caller]
fn expect_none_anywhere(shop: &Installation) {
    shop.every_answer("production/web").iter().for_each(expect_none_in);
    let plan = shop.folder().join("plan.json");
    expect_none_in(&shop.plimsoll(["diff", "--out", plan.to_str().unwrap()]));
    for file in files_below(&shop.state()).into_iter().chain([plan]) {
        let found = canary_in(&std::fs::read(&file).unwrap_or_default());
        assert!(found.is_none(), "{found:?} is in {}", file.display());
    }
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let found = canary_in(&line);
        assert!(found.is_none(), "{found:?} in {:?}", String::from_utf8_lossy(&line));
    }
}

/// All objects of every kind, each of our containers one by one, and what the engine shows of
/// them to everybody: their labels.
#[track_caller]
fn expect_none_in_any_object(shop: &Installation) {
    let kinds = [
        "installation",
        "environment",
        "host",
        "balancer",
        "app",
        "container",
        "pin",
        "revision",
        "hold",
        "approval",
        "source",
        "execution",
    ];
    for kind in kinds {
        expect_none_in(&shop.plimsoll(["get", kind, "-o", "json"]).expect(0));
    }
    for (name, id) in shop.containers() {
        expect_none_in(&shop.plimsoll(["describe", "container", &name]));
        let found = Fleet::shared().alpha.inspect(&id).expect("it is on alpha");
        let found = canary_in(found["Config"]["Labels"].to_string().as_bytes());
        assert!(found.is_none(), "{found:?} is in a label of {name}");
    }
    expect_none_in(&shop.validate([]));
}

/// An image that holds nothing but busybox, on host alpha.
fn busybox_image(shop: &Installation) -> String {
    let root = shop.folder().join("root");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let archive = shop.folder().join("root.tar");
    run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg("bin")).expect(0);
    let name = format!("{}:1", shop.name);
    let imported = Fleet::shared().alpha.docker(["import", archive.to_str().unwrap(), &name]);
    imported.expect(0);
    name
}

#[test]
fn x1_containers_that_print_their_secrets_when_they_fail() {
    let shop = Installation::new("x1-logs");
    let image = busybox_image(&shop);
    shop.write_secret("web/token", ENV);
    let sh = |script: &str| json!(["/bin/busybox", "sh", "-c", script]);
    let base = set(app("web"), "/hosts", json!(["alpha"]));
    let base = set(set(base, "/replicas", 1), "/health/deadline", "3s");
    let base =
        set(set(base, "/image", image.as_str()), "/env", json!({"TOKEN": {"secret": "web/token"}}));
    for (what, script) in [
        ("it ends", "echo token is $TOKEN; exit 3"),
        ("it ends, and says it on stderr", "echo \"panicked at 'bad $TOKEN'\" >&2; exit 101"),
        ("it never listens", "echo waiting with $TOKEN; exec /bin/busybox sleep 1000"),
        ("in two pieces of a line", "printf 'kanarienvogel'; printf -- '-7f3a9b1c\\n'; exit 1"),
    ] {
        shop.write_app(&set(base.clone(), "/command", sh(script)));
        shop.repository.push(what);
        let mut command = shop.command(["apply", "-o", "json"]);
        let told = run(command.env("PLIMSOLL_LOG", "trace")).expect(1);
        assert!(told.stderr.contains(" WARN plimsoll"), "the log isn't told: {told}");
        expect_none_in(&told);
        expect_none_anywhere(&shop);
        // A new start of the app's story: no hold is in the way.
    }
    let mut controller = shop.start();
    controller.wait_for_status("the failure is told", |status| {
        status.app("production/web").health != "Healthy"
    });
    expect_none_anywhere(&shop);
    expect_none_in_any_object(&shop);
    assert!(canary_in(controller.log().as_bytes()).is_none(), "{}", controller.log());
    controller.stop();
    Fleet::shared().alpha.docker(["rmi", "-f", &image]);
}

/// The one who made the container knew its secrets; the one who finds it after a crash has to
/// hide them as well.
#[test]
fn x1_a_container_that_another_process_made_and_that_prints_its_secret() {
    let shop = Installation::new("x1-crash");
    let image = busybox_image(&shop);
    shop.write_secret("web/token", ENV);
    let script = "echo first $TOKEN; exec /bin/busybox sleep 1000";
    let mut web = set(set(app("web"), "/hosts", json!(["alpha"])), "/replicas", 1);
    for field in ["port", "routes", "drain"] {
        web["spec"].as_object_mut().unwrap().remove(field);
    }
    let check = json!({"command": ["/bin/busybox", "false"], "interval": "1s", "deadline": "8s"});
    let web = set(set(web, "/health", check), "/image", image.as_str());
    let web = set(web, "/env", json!({"TOKEN": {"secret": "web/token"}}));
    shop.write_app(&set(web, "/command", json!(["/bin/busybox", "sh", "-c", script])));
    shop.repository.push("A container that prints its secret and is never well");
    let mut apply = shop.command(["apply"]);
    apply.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut apply = apply.spawn().unwrap();
    harness::wait_until(Duration::from_secs(60), "the container runs", || {
        !shop.running().is_empty()
    });
    apply.kill().unwrap();
    apply.wait().unwrap();
    let told = run(shop.command(["apply", "-o", "json"]).env("PLIMSOLL_LOG", "trace")).expect(1);
    // It would be worth nothing if what the container says weren't told at all.
    assert!(told.to_string().contains("first "), "its last words aren't told: {told}");
    expect_none_in(&told);
    expect_none_anywhere(&shop);
    expect_none_in_any_object(&shop);
    Fleet::shared().alpha.docker(["rmi", "-f", &image]);
}

/// An app with a secret whose start an engine refuses for this field.
fn that_is_refused(name: &str, field: &str, value: serde_json::Value) -> Installation {
    let shop = Installation::new(name);
    shop.write_secret("web/token", ENV);
    let base = set(set(app("web"), "/hosts", json!(["alpha"])), "/replicas", 1);
    let base = set(base, "/env", json!({"TOKEN": {"secret": "web/token"}}));
    shop.write_app(&set(base, field, value));
    shop.repository.push("What the engine can't use");
    shop
}

/// The engine is told the environment, and repeats what it can't use.
#[test]
fn x1_an_engine_that_quotes_what_it_was_sent() {
    for (name, field, value) in [
        ("x1-program", "/command", json!(["/no/such/program"])),
        ("x1-network", "/network", json!("no-such-network")),
        ("x1-user", "/user", json!("nobody-at-all")),
        ("x1-group", "/user", json!("0:nobody-at-all")),
    ] {
        let shop = that_is_refused(name, field, value);
        let mut command = shop.command(["apply"]);
        let begin = Instant::now();
        let told = run(command.env("PLIMSOLL_LOG", "trace")).expect_failure();
        expect_none_in(&told);
        expect_none_anywhere(&shop);
        // It is the revision's fault, and isn't tried again and again.
        assert!(begin.elapsed() < Duration::from_secs(40), "{name}: {:?}", begin.elapsed());
        let events = shop.plimsoll(["events"]);
        assert!(!events.stdout.contains("trying again"), "{name}: {events}");
    }
}

#[test]
fn x1_the_login_of_a_registry_that_refuses_it() {
    let shop = Installation::new("x1-registry");
    let registry = RefusingRegistry::start();
    let name = format!("127.0.0.1:{}", registry.port);
    let docker = shop.folder().join("docker");
    std::fs::create_dir(&docker).unwrap();
    let config = json!({"auths": {&name: {"auth": format!("{REGISTRY_BASE64}=")}}});
    std::fs::write(docker.join("config.json"), config.to_string()).unwrap();
    let web = set(app("web"), "/hosts", json!(["alpha"]));
    shop.write_app(&set(web, "/image", format!("{name}/web:1")));
    shop.repository.push("An image behind a login");
    for words in [&["diff"][..], &["apply"], &["apply", "-o", "json"], &["doctor"]] {
        let mut command = shop.command(words.iter().copied());
        let config = docker.join("config.json");
        command.env("PLIMSOLL_LOG", "trace").env("PLIMSOLL_DOCKER_CONFIG", config);
        expect_none_in(&run(&mut command));
    }
    assert!(registry.logins() > 0, "nobody logged in");
    expect_none_anywhere(&shop);
}

#[test]
fn x1_the_token_of_a_repository_that_refuses_it() {
    let mut shop = Installation::new("x1-token");
    let file = shop.folder().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let mut asked = BTreeSet::new();
    for status in [401, 403, 500] {
        let server = Listener::answering(move |head| match head.contains("Authorization") {
            true => reply(status, &format!("denied: {head}")),
            false => reply(401, "who are you?"),
        });
        shop.repository.reach_at(&format!("http://127.0.0.1:{}/shop.git", server.port));
        for words in [&["diff"][..], &["apply", "-o", "json"], &["doctor"]] {
            let mut command = shop.command(words.iter().copied());
            command.env("PLIMSOLL_LOG", "trace").env("PLIMSOLL_GIT_TOKEN_FILE", &file);
            expect_none_in(&run(&mut command));
        }
        asked.insert(server.requests() > 1);
    }
    assert_eq!(asked, [true].into(), "the token was never sent");
    for path in files_below(&shop.state()) {
        let found = canary_in(&std::fs::read(&path).unwrap_or_default());
        assert!(found.is_none(), "{found:?} is in {}", path.display());
    }
}

/// Set for the child that panics.
const PANICS: &str = "PLIMSOLL_TEST_PANICS_IN";

/// Whatever a panic may print of what is at hand when secrets are: its message, also that of a
/// failed `unwrap`, is made of values as `{:?}` shows them.
fn panic_with_everything_at_hand(folder: &Path) -> ! {
    let names: BTreeSet<SecretName> = [SecretName::new("web/token").unwrap()].into();
    let secrets = SecretFolder::new(folder.join("secrets"));
    let url = format!("https://person:{TOKEN}@127.0.0.1:1/shop.git");
    let mut options = SourceOptions::new(url.clone(), folder.join("source"));
    options.credentials.token_file = Some(folder.join("token"));
    let remote = Remote::parse(&url).unwrap();
    let values = secrets.values(&names).unwrap();
    assert!(values.values().all(|value| value.expose_secret() == ENV));
    let digests = secrets.digests(&names);
    let missing = secrets.values(&[SecretName::new("web/other").unwrap()].into());
    let everything = (secrets, values, digests, options, remote, missing.unwrap_err());
    panic!("{everything:?}");
}

#[test]
fn x1_a_panic_tells_no_secret() {
    if let Some(folder) = std::env::var_os(PANICS) {
        panic_with_everything_at_hand(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("secrets/web")).unwrap();
    std::fs::write(folder.path().join("secrets/web/token"), ENV).unwrap();
    std::fs::write(folder.path().join("token"), TOKEN).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "x1_a_panic_tells_no_secret", "--nocapture"]);
    child.env(PANICS, folder.path()).env("RUST_BACKTRACE", "full");
    let told = run(&mut child).expect_failure();
    // It would be worth nothing if it weren't told what was at hand.
    for words in ["panicked at", "web/token", "REDACTED", "127.0.0.1:1/shop.git", "web/other"] {
        assert!(told.to_string().contains(words), "{words} isn't told: {told}");
    }
    expect_none_in(&told);
}
