//! The lines G1 to G13 of the fault catalogue, from the command line, over real transports.
//! Whatever the remote does, what was applied last goes on serving and is kept up, and people
//! are told what is wrong. (G11, signed commits, is declared by no field yet.)
//!
//! The mechanics of each single fault (damaged packs, refused keys, moved references) are in
//! `tests/source.rs`; here it is about what a whole installation makes of it.

#[path = "faults/a_daemon.rs"]
mod daemon;
mod harness;
#[path = "faults/a_slow_remote.rs"]
mod slow_remote;
#[path = "faults/a_small_disk.rs"]
mod small_disk;
#[allow(dead_code, reason = "only its listeners are used here")]
mod source_support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use daemon::Daemon;
use harness::{Installation, Load, app, run, set, wait_until};
use serde_json::Value;
use slow_remote::SlowRemote;
use small_disk::SmallDisk;
use source_support::{Listener, reply};
use tokio::time::Instant;

/// An installation whose remote is served by a git daemon, with one app of two containers.
fn served(name: &str) -> (Installation, Daemon, Value) {
    let mut shop = Installation::new(name);
    let daemon = Daemon::start(shop.folder());
    shop.repository.reach_at(&daemon.url("remote.git"));
    let web = set(app("web"), "/replicas", 1);
    shop.deploy(&web);
    (shop, daemon, web)
}

/// Nothing was touched: the same containers, and they answer.
#[track_caller]
fn expect_kept(shop: &Installation, before: &std::collections::BTreeMap<String, String>) {
    assert_eq!(&shop.containers(), before);
    assert_eq!(&shop.running(), before);
    assert_eq!(shop.get("web").unwrap().status, 200);
}

fn status_json(shop: &Installation) -> Value {
    shop.plimsoll(["status", "-o", "json"]).expect(0).json()
}

#[test]
fn g1_a_remote_that_is_down_is_said_and_tried_again_while_the_last_good_state_is_kept_up() {
    let (shop, mut daemon, web) = served("g1");
    let before = shop.containers();
    let load = Load::start(shop.load_on("web"));
    let mut controller = shop.start();
    controller.wait_for_commit(&shop.repository.head());

    daemon.stop();
    controller.wait_for_status("the failed fetch is told", |_| {
        status_json(&shop)["sourceError"].as_str().is_some_and(|told| told.contains("fetch failed"))
    });
    let told = shop.plimsoll(["status"]).expect(0);
    assert!(told.to_string().contains("fetch failed: git://127.0.0.1"), "{told}");
    // The next try, and which one it is; it goes on.
    for attempt in [1, 2, 3] {
        let next = format!("attempt {attempt}, next try in ");
        wait_until(Duration::from_secs(30), &next, || {
            let told = status_json(&shop)["sourceError"].as_str().unwrap_or_default().to_owned();
            let number = told.split_once("(attempt ").and_then(|(_, rest)| rest.split_once(", "));
            let number = number.and_then(|(number, _)| number.parse().ok());
            number.is_some_and(|number: u32| number >= attempt) && told.ends_with(" s)")
        });
    }
    let events = shop.plimsoll(["events", "-o", "json"]).expect(0).stdout;
    assert!(events.contains("FetchFailed"), "{events}");
    assert!(events.contains("(attempt 1, next try in "), "{events}");
    expect_kept(&shop, &before);
    // Drift is healed meanwhile, from the commit that is known.
    let (name, id) = before.first_key_value().unwrap();
    let host = if name.starts_with("alpha/") { "alpha" } else { "beta" };
    let fleet = harness::Fleet::shared();
    let engine = if host == "alpha" { &fleet.alpha } else { &fleet.beta };
    load.stop().expect_none_lost(50);
    engine.remove(id);
    wait_until(Duration::from_secs(60), "the removed container is replaced", || {
        shop.running().len() == before.len()
    });

    daemon.restart();
    shop.write_app(&set(web, "/image", "web:2"));
    let commit = shop.repository.push("Version 2");
    controller.wait_for_commit(&commit);
    assert!(status_json(&shop)["sourceError"].is_null());
    controller.stop();
}

/// An `apply` against a remote that never ends its answer.
fn begin_apply_on(drip: &Listener, shop: &mut Installation) -> std::process::Child {
    shop.repository.reach_at(&format!("git://127.0.0.1:{}/remote.git", drip.port));
    let mut apply = shop.command(["apply"]);
    apply.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn g2_a_remote_that_hangs_in_a_pack_is_given_up_in_time_and_the_loop_lives() {
    // Both wait for the same minute, side by side.
    let (mut alone, _first_daemon, _) = served("g2-apply");
    let kept = alone.containers();
    let drip = Listener::dripping();
    let begin = Instant::now();
    let apply = begin_apply_on(&drip, &mut alone);
    let ended = std::thread::spawn(move || (apply.wait_with_output().unwrap(), begin.elapsed()));

    let mut shop = Installation::new("g2");
    let daemon = Daemon::start(shop.folder());
    let remote = SlowRemote::before(daemon.port());
    shop.repository.reach_at(&remote.url("remote.git"));
    let web = set(app("web"), "/replicas", 1);
    let first = shop.deploy(&web);
    let before = shop.containers();
    let load = Load::start(shop.load_on("web"));
    let mut controller = shop.start();
    controller.wait_for_commit(&first);
    remote.slow_down();
    shop.write_app(&set(web, "/image", "web:2"));
    let second = shop.repository.push("Version 2, which comes a byte at a time");
    wait_until(Duration::from_secs(30), "a pack hangs", || remote.hanging() > 0);
    expect_kept(&shop, &before);
    load.stop().expect_none_lost(100);
    // While the fetch hangs the loop goes round: what is missing is made again.
    let (name, id) = before.first_key_value().unwrap();
    let fleet = harness::Fleet::shared();
    let engine = if name.starts_with("alpha/") { &fleet.alpha } else { &fleet.beta };
    engine.remove(id);
    wait_until(Duration::from_secs(40), "the removed container is replaced", || {
        shop.running().len() == before.len()
    });
    assert!(status_json(&shop)["sourceError"].is_null(), "it hangs, and hasn't failed yet");
    controller.wait_for_status("the hanging fetch is given up", |_| {
        status_json(&shop)["sourceError"].as_str().is_some_and(|told| {
            told.contains("fetch failed") && told.contains("didn't finish within")
        })
    });
    remote.heal();
    controller.wait_for_commit(&second);
    assert!(status_json(&shop)["sourceError"].is_null());
    controller.stop();

    let (told, took) = ended.join().unwrap();
    assert!(took < Duration::from_secs(80), "{took:?}");
    let text = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.code().is_some_and(|code| code > 1), "{told:?}");
    assert!(text.contains("fetch failed") && text.contains("didn't finish within"), "{text}");
    expect_kept(&alone, &kept);
}

#[test]
fn g3_history_rewritten_waits_and_says_from_where_to_where_and_what_to_type() {
    let (shop, _daemon, web) = served("g3");
    let applied = shop.deploy(&set(web.clone(), "/image", "web:2"));
    let before = shop.containers();
    let load = Load::start(shop.load_on("web"));
    shop.write_app(&set(web, "/image", "web:3"));
    let rewritten = shop.repository.push_rewritten("Version 3 in place of version 2");
    let told = shop.plimsoll(["apply"]).expect(1);
    let range = format!("history rewritten {}..{}", &applied[..12], &rewritten[..12]);
    assert!(told.to_string().contains(&range), "no {range}: {told}");
    let id = shop.diff().approval();
    assert!(told.to_string().contains(&format!("plimsoll approve {id}")), "{told}");
    expect_kept(&shop, &before);
    shop.approve(&id);
    shop.converge();
    assert!(shop.get("web").unwrap().text().contains("version=3"));
    load.stop().expect_none_lost(100);
}

#[test]
fn g4_a_deleted_branch_and_an_empty_repository_never_mean_delete_all() {
    let (shop, _daemon, _) = served("g4");
    let before = shop.containers();
    let commit = shop.repository.head();
    let load = Load::start(shop.load_on("web"));
    let mut controller = shop.start();
    controller.wait_for_commit(&commit);
    shop.repository.git(["push", "-q", "origin", "main:other"]);
    // git keeps a branch that HEAD names from being deleted.
    let head = shop.repository.remote().join("HEAD");
    std::fs::write(head, "ref: refs/heads/other\n").unwrap();
    shop.repository.git(["push", "-q", "origin", ":main"]);
    controller.wait_for_status("the missing branch is told", |_| {
        status_json(&shop)["sourceError"]
            .as_str()
            .is_some_and(|told| told.contains("no branch main"))
    });
    expect_kept(&shop, &before);
    controller.stop();
    let told = shop.plimsoll(["apply"]).expect_error();
    assert!(
        told.stderr.contains("has no branch main") && told.stderr.contains("--branch"),
        "{told}"
    );

    // Another repository in its place, with nothing in it.
    std::fs::remove_dir_all(shop.repository.remote()).unwrap();
    let remote = shop.repository.remote().to_str().unwrap();
    shop.repository.git(["init", "-q", "--bare", "-b", "main", remote]);
    let told = shop.plimsoll(["apply"]).expect_error();
    assert!(told.stderr.contains("no branch main"), "{told}");
    expect_kept(&shop, &before);

    shop.repository.push("Back again");
    shop.converge();
    expect_kept(&shop, &before);
    load.stop().expect_none_lost(100);
}

#[test]
fn g5_a_mirror_that_serves_an_older_ref_is_ignored() {
    let (shop, _daemon, web) = served("g5");
    let old = shop.repository.head();
    let applied = shop.deploy(&set(web, "/image", "web:2"));
    let before = shop.containers();
    shop.repository.git(["push", "-q", "--force", "origin", &format!("{old}:main")]);
    for _ in 0..2 {
        let (code, plan) = shop.apply();
        assert!(plan.steps.is_empty() && plan.approvals().is_empty(), "{code} {plan:?}");
        assert_eq!(plan.commit, applied);
    }
    expect_kept(&shop, &before);
    assert!(shop.get("web").unwrap().text().contains("version=2"));
}

/// There are no webhooks yet; what wakes the controller is its own look at the remote.
#[test]
fn g6_a_ref_that_shows_up_later_than_it_was_announced_is_found_by_the_next_look() {
    let mut shop = Installation::new("g6");
    let daemon = Daemon::start(shop.folder());
    shop.repository.reach_at(&daemon.url("remote.git"));
    let mut controller = shop.start();
    wait_until(Duration::from_secs(30), "the missing branch is told", || {
        controller.log().contains("no branch main")
    });
    shop.write_app(&set(app("web"), "/replicas", 1));
    let commit = shop.repository.push("The first commit");
    controller.wait_for_commit(&commit);
    controller.stop();
}

fn cache_of(shop: &Installation) -> PathBuf {
    let entries = std::fs::read_dir(shop.state().join("source")).unwrap().flatten();
    let folders: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders[0].clone()
}

#[test]
fn g7_a_damaged_clone_and_a_fetch_that_was_killed_cost_nothing_but_a_new_clone() {
    let (mut shop, daemon, web) = served("g7");
    let before = shop.containers();
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("a pack cut", |git| {
            for entry in std::fs::read_dir(git.join("objects/pack")).unwrap().flatten() {
                let bytes = std::fs::read(entry.path()).unwrap();
                std::fs::remove_file(entry.path()).unwrap();
                std::fs::write(entry.path(), &bytes[..bytes.len() / 2]).unwrap();
            }
        }),
        ("stale locks", |git| {
            for lock in ["HEAD.lock", "refs/heads/main.lock", "packed-refs.lock", "config.lock"] {
                std::fs::write(git.join(lock), "").unwrap();
            }
        }),
        ("a shallow boundary", |git| {
            let head = std::fs::read_to_string(git.join("refs/heads/main")).unwrap();
            std::fs::write(git.join("shallow"), head).unwrap();
        }),
        ("no objects", |git| std::fs::remove_dir_all(git.join("objects")).unwrap()),
    ];
    for (what, damage) in damages {
        damage(&cache_of(&shop));
        shop.expect_nothing_to_do();
        assert_eq!(shop.containers(), before, "{what}");
    }

    // Killed while it waits for the rest of a pack.
    let drip = Listener::dripping();
    shop.repository.reach_at(&format!("git://127.0.0.1:{}/remote.git", drip.port));
    let mut fetch =
        shop.command(["diff"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until(Duration::from_secs(30), "it fetches", || drip.requests() > 0);
    fetch.kill().unwrap();
    fetch.wait().unwrap();
    shop.repository.reach_at(&daemon.url("remote.git"));
    shop.expect_nothing_to_do();
    shop.deploy(&set(web, "/image", "web:2"));
    assert!(shop.get("web").unwrap().text().contains("version=2"));
}

/// A commit of this many small files, made by the fast path of git.
fn many_files(shop: &Installation, files: u32, name: impl Fn(u32) -> String) {
    let mut script = "commit refs/heads/main\ncommitter P <p@example.invalid> 0 +0000\ndata 4\n\
                      many\nfrom refs/heads/main^0\n"
        .to_owned();
    script.push_str("M 100644 inline many/0.txt\ndata 2\n#\n\n");
    for number in 0..files {
        script.push_str(&format!("M 100644 inline {}\ndata 2\n#\n\n", name(number)));
    }
    let path = shop.folder().join("import");
    std::fs::write(&path, script).unwrap();
    let imported = Command::new("git")
        .arg("-C")
        .arg(shop.repository.remote())
        .args(["fast-import", "--quiet", "--force"])
        .stdin(std::fs::File::open(path).unwrap())
        .output()
        .unwrap();
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
}

#[test]
fn g8_a_huge_repository_is_refused_and_a_huge_file_blocks_itself_only() {
    let (shop, _daemon, web) = served("g8");
    let before = shop.containers();
    // A file that is too large is refused by name; the others go on.
    shop.repository.write("apps/large.yaml", &format!("# {}\n", "x".repeat(1_100_000)));
    shop.write_app(&set(app("other"), "/replicas", 1));
    shop.repository.push("A file of more than 1 MiB");
    let (code, plan) = shop.apply();
    assert_eq!(code, 1, "{plan:?}");
    let blocked = &plan.blocked[0];
    assert_eq!(blocked.file, "apps/large.yaml");
    assert!(blocked.reason.contains("apps/large.yaml is over 1 MiB"), "{blocked:?}");
    assert_eq!(shop.get("other").unwrap().status, 200);
    shop.repository.remove("apps/large.yaml");
    shop.repository.push("Away with it");
    shop.converge();
    let _ = web;

    // Files that are no manifests cost nothing.
    many_files(&shop, 100_000, |n| format!("many/{}/{n}.txt", n % 100));
    let begin = Instant::now();
    shop.expect_nothing_to_do();
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    // So many manifests are refused as a whole, and nothing is deleted.
    many_files(&shop, 100_001, |n| format!("many/{}/{n}.yaml", n % 100));
    let begin = Instant::now();
    let told = shop.plimsoll(["apply"]).expect_error();
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert!(told.stderr.contains("has more than 100000 manifests"), "{told}");
    let now = shop.containers();
    assert!(before.iter().all(|(name, id)| now.get(name) == Some(id)), "{before:?} {now:?}");
    assert_eq!(shop.get("web").unwrap().status, 200);
}

#[test]
fn g9_links_out_of_the_tree_are_refused_by_path_and_their_targets_never_shown() {
    let (shop, _daemon, _) = served("g9");
    let outside = shop.folder().join("outside.yaml");
    std::fs::write(&outside, "kind: Canary\nsecret: kanarienvogel-7f3a\n").unwrap();
    let clone = shop.repository.clone();
    for (name, target) in [
        ("shadow.yaml", Path::new("/etc/shadow")),
        ("outside.yaml", &outside),
        ("up.yaml", Path::new("../../outside.yaml")),
    ] {
        std::os::unix::fs::symlink(target, clone.join("apps").join(name)).unwrap();
    }
    shop.repository.push("Links to other places");
    let shadow = std::fs::read_to_string("/etc/shadow").unwrap_or_default();
    // Nothing else is declared that isn't there.
    for (words, code) in [
        (&["diff"][..], 0),
        (&["diff", "-o", "json"], 0),
        (&["validate", "--rev", "main"], 1),
        (&["apply"], 1),
    ] {
        let told = shop.plimsoll(words.iter().copied()).expect(code);
        let all = told.to_string();
        for name in ["apps/shadow.yaml", "apps/outside.yaml", "apps/up.yaml"] {
            assert!(all.contains(name), "{name} isn't named: {all}");
        }
        assert!(!all.contains("kanarienvogel"), "{all}");
        assert!(shadow.lines().all(|line| line.is_empty() || !all.contains(line)), "{all}");
    }
    // The files as they lie are no way around it.
    let told = shop.validate([]).expect(1).to_string();
    assert!(!told.contains("kanarienvogel") && told.contains("apps/outside.yaml"), "{told}");
    assert_eq!(shop.get("web").unwrap().status, 200);
}

#[test]
fn g10_submodules_lfs_filters_hooks_and_programs_are_never_followed() {
    let (mut shop, _daemon, _) = served("g10");
    let before = shop.containers();
    let touched = shop.folder().join("touched");
    let touch = format!("touch {}", touched.display());

    // A submodule, a pointer of LFS, and a filter that would run a program.
    let head = shop.repository.head();
    shop.repository.git(["update-index", "--add", "--cacheinfo", &format!("160000,{head},sub")]);
    shop.repository.git([
        "update-index",
        "--add",
        "--cacheinfo",
        &format!("160000,{head},sub.yaml"),
    ]);
    let clone = shop.repository.clone().to_owned();
    let modules = format!("[submodule \"sub\"]\n\tpath = sub\n\turl = ext::sh -c {touch}\n");
    std::fs::write(clone.join(".gitmodules"), modules).unwrap();
    std::fs::write(clone.join(".gitattributes"), "*.yaml filter=evil diff=evil\n").unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";
    std::fs::write(clone.join("apps/lfs.yaml"), pointer).unwrap();
    shop.repository.git(["add", ".gitmodules", ".gitattributes", "apps/lfs.yaml"]);
    shop.repository.git(["commit", "-q", "-m", "Everything that git could follow"]);
    shop.repository.git(["push", "-q", "origin", "main"]);
    // The one who runs the program has set the filter up, and hooks lie in the remote.
    std::fs::write(
        shop.folder().join(".gitconfig"),
        format!("[filter \"evil\"]\n\tsmudge = {touch}\n\tclean = {touch}\n"),
    )
    .unwrap();
    for hook in ["post-checkout", "reference-transaction", "post-merge"] {
        use std::os::unix::fs::PermissionsExt;
        let path = shop.repository.remote().join("hooks").join(hook);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\n{touch}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (code, plan) = shop.apply();
    assert_eq!(code, 1, "{plan:?}");
    let reason = |file: &str| {
        let blocked = plan.blocked.iter().find(|blocked| blocked.file == file);
        blocked.unwrap_or_else(|| panic!("{file}: {plan:?}")).reason.clone()
    };
    assert!(reason("sub.yaml").contains("submodule"), "{plan:?}");
    assert!(reason("apps/lfs.yaml").contains("LFS"), "{plan:?}");
    expect_kept(&shop, &before);

    // A URL that names a program.
    shop.repository.reach_at(&format!("ext::sh -c {touch}"));
    let told = shop.plimsoll(["diff"]).expect_error();
    assert!(told.stderr.contains("would run a program"), "{told}");
    assert!(!touched.exists(), "something was run");
}

#[test]
fn g12_a_disk_that_gets_full_in_a_fetch_gives_no_partial_read() {
    let (shop, _daemon, web) = served("g12");
    let before = shop.containers();
    let load = Load::start(shop.load_on("web"));
    let disk = SmallDisk::mount(&shop.state().join("source"), 256);
    // Noise, which nothing makes smaller.
    let mut state = 1_u32;
    let noise: String = (0..90_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            format!("# {state:08x}\n")
        })
        .collect();
    shop.repository.write("noise.yaml", &noise);
    shop.write_app(&set(web, "/image", "web:2"));
    let commit = shop.repository.push("More than the disk takes");
    for words in ["diff", "apply"] {
        let told = shop.plimsoll([words]).expect_error();
        assert!(told.stderr.to_lowercase().contains("space"), "what is wrong? {told}");
        expect_kept(&shop, &before);
    }
    disk.resize(64 << 10);
    shop.converge();
    assert!(shop.get("web").unwrap().text().contains("version=2"));
    assert!(shop.status().is_converged_at(&commit));
    load.stop().expect_none_lost(100);
}

#[test]
fn g13_credentials_in_the_url_are_redacted_however_the_server_fails() {
    const SECRET: &str = "zaunkoenig-90210";
    let mut shop = Installation::new("g13");
    for status in [401, 403, 404, 500, 302] {
        // A server that repeats what it was sent, as careless ones do.
        let server = Listener::answering(move |head| reply(status, &format!("denied: {head}")));
        let url = format!("http://person:{SECRET}@127.0.0.1:{}/shop.git", server.port);
        shop.repository.reach_at(&url);
        for words in [&["diff"][..], &["apply"], &["diff", "-o", "json"], &["doctor"], &["status"]]
        {
            let mut command = shop.command(words.iter().copied());
            let told = run(command.env("PLIMSOLL_LOG", "trace"));
            if words[0] != "doctor" && words[0] != "status" {
                assert!(told.code > 1, "{told}");
                assert!(told.stderr.contains("127.0.0.1"), "which server? {}", told.stderr);
            }
            for text in [&told.stdout, &told.stderr] {
                assert!(!text.contains(SECRET), "{status}: told: {text}");
                // Neither as it goes over the wire: base64 of `person:zaunkoenig-90210`.
                assert!(!text.contains("cGVyc29uOnphdW5rb2VuaWctOTAyMTA"), "{status}: {text}");
            }
        }
    }
    let grep = run(Command::new("grep").args(["-r", "-l", SECRET]).arg(shop.state()));
    assert!(grep.code != 0, "in the state folder: {grep}");
}
