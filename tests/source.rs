//! Sources against real transports: folders, git daemon, ssh, HTTP, and a server that says
//! nothing. Every server runs on loopback, in a folder of its own, and ends with its test.

#[path = "harness/claim.rs"]
mod harness;
mod source_support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use harness::free_port;
use plimsoll::model::{CommitId, Content};
use plimsoll::source::{
    GitSource, Head, LARGEST_FILE, Source, SourceError, SourceOptions, WorktreeSource,
};
use source_support::{Listener, Repository, Server, reply};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(20);

fn options(remote: &str, cache: &Path) -> SourceOptions {
    let mut options = SourceOptions::new(remote, cache);
    options.timeout = LONG;
    options
}

fn source(remote: &str, cache: &Path) -> GitSource {
    GitSource::open(options(remote, cache)).unwrap()
}

fn id(commit: &str) -> CommitId {
    CommitId(commit.to_owned())
}

async fn tip(source: &dyn Source) -> CommitId {
    match source.fetch(None).await.unwrap() {
        Head::At(commit) => commit,
        other => panic!("{other:?}"),
    }
}

/// Paths, with the text or `!REASON`.
async fn texts(source: &dyn Source, commit: &CommitId) -> BTreeMap<String, String> {
    let files = source.files(commit).await.unwrap();
    assert_eq!(files.commit, *commit);
    let text = |content| match content {
        Content::Bytes { bytes, .. } => String::from_utf8_lossy(&bytes).into_owned(),
        Content::Refused { reason } => format!("!{reason}"),
    };
    files.files.into_iter().map(|(path, content)| (path, text(content))).collect()
}

async fn paths(source: &dyn Source, commit: &CommitId) -> Vec<String> {
    texts(source, commit).await.into_keys().collect()
}

#[tokio::test]
async fn commits_come_over_every_transport() {
    let repository = Repository::new();
    let commit = repository.commit(&[("apps/web.yaml", "web: 1"), ("README.md", "no manifest")]);
    let server = Server::git_daemon(repository.path());
    let ssh = Server::ssh();
    let others = TempDir::new().unwrap();
    let other = |name: &str| others.path().join(name).display().to_string();
    repository.git(&["clone", "-q", "--bare", ".", &other("bare.git")]);
    repository.git(&["worktree", "add", "-q", "--detach", &other("linked")]);
    let remotes = [
        repository.path().display().to_string(),
        other("bare.git"),
        other("linked"),
        format!("file://{}", repository.path().display()),
        format!("git://127.0.0.1:{}/", server.port),
        format!("ssh://{}@127.0.0.1:{}{}", ssh.user(), ssh.port, repository.path().display()),
    ];
    for remote in remotes {
        let cache = TempDir::new().unwrap();
        let mut options = options(&remote, cache.path());
        options.credentials.ssh_key = Some(ssh.key());
        options.known_hosts = Some(ssh.known_hosts());
        let source = GitSource::open(options).unwrap();
        let found = tip(&source).await;
        assert_eq!(found.0, commit, "{remote}");
        let files = texts(&source, &found).await;
        assert_eq!(files, BTreeMap::from([("apps/web.yaml".into(), "web: 1".into())]), "{remote}");
        let described = source.describe(&found).await.unwrap();
        assert_eq!(described, format!("{} a commit (Ann Example)", &commit[..7]));
    }
}

#[tokio::test]
async fn an_unknown_ssh_server_and_a_wrong_key_are_refused() {
    let ssh = Server::ssh();
    let remote = format!("ssh://{}@127.0.0.1:{}/nowhere", ssh.user(), ssh.port);
    let empty = TempDir::new().unwrap();
    let mut unknown = options(&remote, empty.path());
    unknown.credentials.ssh_key = Some(ssh.key());
    unknown.known_hosts = Some(empty.path().join("known_hosts"));
    let error = GitSource::open(unknown).unwrap().fetch(None).await.unwrap_err().to_string();
    assert!(error.contains(&format!("ssh-keyscan -p {} 127.0.0.1", ssh.port)), "{error}");

    let mut wrong = options(&remote, empty.path());
    wrong.credentials.ssh_key = Some(ssh.other_key());
    wrong.known_hosts = Some(ssh.known_hosts());
    let error = GitSource::open(wrong).unwrap().fetch(None).await.unwrap_err().to_string();
    assert!(error.contains("took none of: the key"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let server = Server::tls();
    let cache = TempDir::new().unwrap();
    let remote = format!("https://127.0.0.1:{}/a.git", server.port);
    let error = source(&remote, cache.path()).fetch(None).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn the_branch_moves_forward_only() {
    let repository = Repository::new();
    let first = repository.commit(&[("a.yaml", "1")]);
    let second = repository.commit(&[("a.yaml", "2")]);
    let cache = TempDir::new().unwrap();
    let remote = repository.path().display().to_string();
    let source = source(&remote, cache.path());
    assert_eq!(tip(&source).await.0, second);
    let head = source.fetch(Some(&id(&first))).await.unwrap();
    assert_eq!(head, Head::At(id(&second)));
    let head = source.fetch(Some(&id(&second))).await.unwrap();
    assert_eq!(head, Head::At(id(&second)));

    // An older mirror.
    repository.git(&["update-ref", "refs/heads/main", &first]);
    let head = source.fetch(Some(&id(&second))).await.unwrap();
    assert_eq!(head, Head::Behind { applied: id(&second), tip: id(&first) });

    // A rewritten history; what was applied can still be read.
    repository.git(&["reset", "-q", "--hard", &first]);
    let other = repository.commit(&[("a.yaml", "3")]);
    let head = source.fetch(Some(&id(&second))).await.unwrap();
    assert_eq!(head, Head::Rewritten { applied: id(&second), tip: id(&other) });
    assert_eq!(texts(&source, &id(&second)).await["a.yaml"], "2");

    // A commit that nobody knows, and files as they lay, which have no ancestry.
    let nobody = id(&"1".repeat(40));
    let head = source.fetch(Some(&nobody)).await.unwrap();
    assert_eq!(head, Head::Rewritten { applied: nobody, tip: id(&other) });
    let head = source.fetch(Some(&CommitId::worktree())).await.unwrap();
    assert_eq!(head, Head::At(id(&other)));
}

#[tokio::test]
async fn a_deleted_branch_and_an_empty_repository_are_said() {
    let repository = Repository::new();
    let cache = TempDir::new().unwrap();
    let remote = repository.path().display().to_string();
    let source = source(&remote, cache.path());
    let error = source.fetch(None).await.unwrap_err();
    assert!(matches!(error, SourceError::NoBranch { .. }), "{error}");

    let commit = repository.commit(&[("a.yaml", "1")]);
    assert_eq!(tip(&source).await.0, commit);
    repository.git(&["checkout", "-q", "--detach"]);
    repository.git(&["branch", "-D", "main"]);
    let error = source.fetch(Some(&id(&commit))).await.unwrap_err();
    assert!(matches!(&error, SourceError::NoBranch { branch, .. } if branch == "main"), "{error}");
    // What is here is still here.
    assert_eq!(paths(&source, &id(&commit)).await, ["a.yaml"]);
}

#[tokio::test]
async fn revisions_are_resolved_where_they_are_now() {
    let repository = Repository::new();
    let first = repository.commit(&[("a.yaml", "1")]);
    repository.git(&["tag", "-a", "-m", "a tag", "v1"]);
    let second = repository.commit(&[("a.yaml", "2")]);
    let cache = TempDir::new().unwrap();
    let remote = repository.path().display().to_string();
    let source = source(&remote, cache.path());
    let cases = [("HEAD", &second), ("HEAD~1", &first), ("v1", &first), ("main", &second)];
    for (revision, expected) in cases {
        assert_eq!(source.resolve(revision).await.unwrap().0, *expected, "{revision}");
    }
    assert_eq!(source.resolve(&first).await.unwrap().0, first);
    assert_eq!(source.resolve(&first[..8]).await.unwrap().0, first);

    // A branch that comes, moves, and makes way for another.
    repository.git(&["branch", "topic", &first]);
    assert_eq!(source.resolve("topic").await.unwrap().0, first);
    repository.git(&["branch", "-f", "topic", &second]);
    assert_eq!(source.resolve("topic").await.unwrap().0, second);
    repository.git(&["branch", "-D", "topic"]);
    repository.git(&["branch", "topic/two", &first]);
    assert_eq!(source.resolve("topic/two").await.unwrap().0, first);

    for nothing in ["never", "HEAD~99", "", "--all", "ffffffffffff"] {
        let error = source.resolve(nothing).await.unwrap_err();
        assert!(matches!(error, SourceError::NoRevision(_)), "{nothing}: {error}");
    }
    let error = source.files(&id(&"1".repeat(40))).await.unwrap_err();
    assert!(matches!(error, SourceError::NoRevision(_)), "{error}");
}

#[tokio::test]
async fn links_submodules_and_large_files_are_refused_by_path() {
    let repository = Repository::new();
    let huge = "x".repeat(LARGEST_FILE as usize + 1);
    let full = "y".repeat(LARGEST_FILE as usize);
    repository.write("huge.yaml", &huge);
    repository.write("full.yml", &full);
    repository.write("B.YAML", "b");
    repository.write(".github/workflows/ci.yaml", "hidden");
    repository.write(".pre-commit-config.yaml", "hidden");
    repository.write("sub folder/ü.yaml", "u");
    repository.write("lfs.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:00\n");
    repository.write("bad\nname.yaml", "x");
    std::os::unix::fs::symlink("/etc/shadow", repository.path().join("shadow.yaml")).unwrap();
    std::os::unix::fs::symlink("/etc", repository.path().join("etc")).unwrap();
    repository.git(&["add", "-A"]);
    let gitlink = format!("160000,{},module.yaml", "1".repeat(40));
    repository.git(&["update-index", "--add", "--cacheinfo", &gitlink]);
    let commit = id(&repository.commit_index());

    let cache = TempDir::new().unwrap();
    let remote = repository.path().display().to_string();
    let source = source(&remote, cache.path());
    tip(&source).await;
    let files = texts(&source, &commit).await;
    let expected = [
        ("B.YAML", "b"),
        ("bad\\nname.yaml", "!bad\\nname.yaml has a name that isn't printable UTF-8: rename it"),
        ("full.yml", &full),
        ("huge.yaml", "!huge.yaml is over 1 MiB: split it into several files"),
        (
            "lfs.yaml",
            "!lfs.yaml is kept in Git LFS, which isn't asked: commit the file itself (git lfs untrack)",
        ),
        (
            "module.yaml",
            "!module.yaml is a submodule, and submodules aren't followed: commit the files themselves",
        ),
        (
            "shadow.yaml",
            "!shadow.yaml is a symbolic link, and links aren't followed: commit the file itself",
        ),
        ("sub folder/ü.yaml", "u"),
    ];
    for (path, text) in expected {
        assert_eq!(files.get(path).map(String::as_str), Some(text), "{path}");
    }
    assert_eq!(files.len(), expected.len(), "{:?}", files.keys());

    // As they lie, the same files by the same rules, but for the submodule, which has no file.
    let worktree = WorktreeSource::open(repository.path(), None).unwrap();
    let state = tip(&worktree).await;
    let mut lying = texts(&worktree, &state).await;
    lying.insert("module.yaml".into(), files["module.yaml"].clone());
    assert_eq!(lying, files);
}

#[tokio::test]
async fn a_repository_that_unfolds_without_end_is_refused_at_once() {
    let repository = Repository::new();
    repository.write("a", "x: 1");
    let blob = repository.git(&["hash-object", "-w", "a"]);
    let many = |mode: &str, id: &str, end: &str| {
        let kind = if mode == "040000" { "tree" } else { "blob" };
        let lines = (0..100).map(|n| format!("{mode} {kind} {}\tn{n:02}{end}\n", id.trim()));
        repository.make_tree(&lines.collect::<String>())
    };
    // A hundred folders of a hundred folders and so on, all of them the same object.
    let nested = |mut tree: String| {
        (0..8).for_each(|_| tree = many("040000", &tree, ""));
        tree
    };
    let full = nested(many("100644", &blob, ".yaml"));
    let empty = nested(many("100644", &blob, ".txt"));
    let mut deep = many("100644", &blob, ".yaml");
    for _ in 0..100 {
        deep = repository.make_tree(&format!("040000 tree {deep}\td\n"));
    }
    let cases = [
        (full, Some("has more than 100000 manifests")),
        (deep, Some("has folders more than 64 levels deep")),
        (empty, None),
    ];
    for (tree, expected) in cases {
        let commit = repository.commit_tree(&tree);
        let cache = TempDir::new().unwrap();
        let source = source(&repository.path().display().to_string(), cache.path());
        tip(&source).await;
        let started = tokio::time::Instant::now();
        match (source.files(&id(&commit)).await, expected) {
            (Ok(files), None) => assert!(files.files.is_empty()),
            (Err(error), Some(expected)) => {
                assert!(error.to_string().ends_with(expected), "{error}");
            }
            other => panic!("{other:?}"),
        }
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn only_what_is_below_the_path_is_read() {
    let repository = Repository::new();
    let commit =
        repository.commit(&[("a.yaml", "1"), ("live/b/c.yaml", "2"), ("live/d.yaml", "3")]);
    let cache = TempDir::new().unwrap();
    let remote = repository.path().display().to_string();
    let mut below = options(&remote, cache.path());
    below.path = Some("./live/".into());
    let source = GitSource::open(below.clone()).unwrap();
    let head = tip(&source).await;
    assert_eq!(paths(&source, &head).await, ["b/c.yaml", "d.yaml"]);

    for missing in ["nowhere", "a.yaml"] {
        below.path = Some(missing.into());
        let error = GitSource::open(below.clone()).unwrap().files(&id(&commit)).await.unwrap_err();
        assert!(matches!(error, SourceError::NoFolder { .. }), "{error}");
    }
    below.path = Some("../..".into());
    assert!(matches!(GitSource::open(below).err(), Some(SourceError::Path(_))));
}

#[tokio::test]
async fn only_blobs_that_changed_are_read() {
    let repository = Repository::new();
    let names: Vec<_> = (0..200).map(|n| format!("apps/team{}/app{n}.yaml", n % 10)).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let first = id(&repository.commit(&files));
    let second = id(&repository.commit(&[("apps/team3/app3.yaml", "changed")]));
    let cache = TempDir::new().unwrap();
    let source = source(&repository.path().display().to_string(), cache.path());
    tip(&source).await;
    assert_eq!(paths(&source, &first).await.len(), 200);
    assert_eq!(source.blobs_read(), 200);
    assert_eq!(texts(&source, &second).await["apps/team3/app3.yaml"], "changed");
    assert_eq!(source.blobs_read(), 201);
    // However often one is read, what it shares with the other is kept.
    for _ in 0..10 {
        texts(&source, &second).await;
    }
    let third = id(&repository.commit(&[("apps/team4/app4.yaml", "changed too")]));
    tip(&source).await;
    texts(&source, &third).await;
    assert_eq!(source.blobs_read(), 202);
}

#[tokio::test]
async fn a_damaged_cache_is_replaced() {
    let repository = Repository::new();
    let noise: String =
        (0..2000_u32).map(|n| format!("{}\n", n.wrapping_mul(2_654_435_761))).collect();
    let commit = id(&repository.commit(&[("a.yaml", "1"), ("noise.yaml", &noise)]));
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 7] = [
        ("packs cut", |git| each_pack(git, |bytes| bytes.truncate(bytes.len() / 2))),
        ("packs flipped", |git| {
            each_pack(git, |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0xff;
            })
        }),
        ("packs gone", |git| std::fs::remove_dir_all(git.join("objects")).unwrap()),
        ("a torn reference", |git| std::fs::write(git.join("refs/heads/main"), "12").unwrap()),
        ("no head", |git| std::fs::remove_file(git.join("HEAD")).unwrap()),
        ("stale locks", |git| {
            for lock in ["HEAD.lock", "config.lock", "refs/heads/main.lock", "packed-refs.lock"] {
                std::fs::write(git.join(lock), "").unwrap();
            }
        }),
        ("a file in its place", |git| {
            std::fs::remove_dir_all(git).unwrap();
            std::fs::create_dir(git).unwrap();
            std::fs::write(git.join("HEAD"), "nonsense").unwrap();
        }),
    ];
    for (name, damage) in cases {
        let cache = TempDir::new().unwrap();
        let remote = format!("file://{}", repository.path().display());
        tip(&source(&remote, cache.path())).await;
        let git = std::fs::read_dir(cache.path()).unwrap().map(|e| e.unwrap().path());
        damage(&git.into_iter().find(|path| path.is_dir()).unwrap());

        // After a restart, whether it fetches first or not.
        for fetches_first in [true, false] {
            let source = source(&remote, cache.path());
            if fetches_first {
                let head = source.fetch(Some(&commit)).await;
                assert_eq!(head.unwrap(), Head::At(commit.clone()), "{name}");
            }
            let files = texts(&source, &commit).await;
            assert_eq!(files["noise.yaml"], noise, "{name}");
        }
        // Left by a process that was killed.
        let git = std::fs::read_dir(cache.path()).unwrap().map(|e| e.unwrap().path());
        let git = git.into_iter().find(|path| path.is_dir()).unwrap();
        std::fs::create_dir(git.with_extension("new-0")).unwrap();
        std::fs::write(git.join("HEAD.lock"), "").unwrap();
        tip(&source(&remote, cache.path())).await;
        let left = std::fs::read_dir(cache.path()).unwrap().count();
        assert_eq!(left, 2, "{name}: the cache and its lock");
        // And it goes on.
        let newer = source(&remote, cache.path());
        assert_eq!(tip(&newer).await, commit, "{name}");
    }
}

fn each_pack(git: &Path, damage: fn(&mut Vec<u8>)) {
    let mut count = 0;
    for entry in std::fs::read_dir(git.join("objects/pack")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "pack") {
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            // libgit2 makes packs read-only.
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, bytes).unwrap();
            count += 1;
        }
    }
    assert!(count > 0);
}

#[tokio::test]
async fn a_long_history_is_compacted_without_losing_what_was_applied() {
    let repository = Repository::new();
    let cache = TempDir::new().unwrap();
    let source = source(&format!("file://{}", repository.path().display()), cache.path());
    let mut applied = id(&repository.commit(&[("a.yaml", "0")]));
    for number in 1..110 {
        source.fetch(Some(&applied)).await.unwrap();
        applied = id(&repository.commit(&[("a.yaml", &number.to_string())]));
    }
    source.fetch(Some(&applied)).await.unwrap();
    let first = repository.git(&["rev-list", "--max-parents=0", "HEAD"]);
    repository.git(&["reset", "-q", "--hard", first.trim()]);
    for number in 1..110 {
        repository.commit(&[("a.yaml", &format!("other {number}"))]);
        let head = source.fetch(Some(&applied)).await.unwrap();
        assert!(matches!(head, Head::Rewritten { .. }));
    }
    assert_eq!(texts(&source, &applied).await["a.yaml"], "109");
    let git = std::fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path());
    let git = git.into_iter().find(|path| path.is_dir()).unwrap();
    let packs = std::fs::read_dir(git.join("objects/pack")).unwrap().count();
    assert!(packs < 210, "{packs} files of packs");
}

#[tokio::test]
async fn a_remote_that_says_nothing_or_drips_is_given_up() {
    let silent = Listener::silent();
    let drip = Listener::dripping();
    for remote in [
        format!("git://127.0.0.1:{}/a", silent.port),
        format!("http://127.0.0.1:{}/a", silent.port),
        format!("ssh://git@127.0.0.1:{}/a", silent.port),
        format!("git://127.0.0.1:{}/a", drip.port),
    ] {
        let cache = TempDir::new().unwrap();
        let mut options = options(&remote, cache.path());
        options.timeout = Duration::from_millis(400);
        let source = GitSource::open(options).unwrap();
        let started = tokio::time::Instant::now();
        let error = source.fetch(None).await.unwrap_err().to_string();
        assert!(error.contains("didn't finish within 0.4 s"), "{remote}: {error}");
        assert!(started.elapsed() < Duration::from_secs(5), "{remote}");
    }
}

#[tokio::test]
async fn fetches_that_hang_are_bounded_and_keep_nothing_from_ending() {
    let drip = Listener::dripping();
    let cache = TempDir::new().unwrap();
    let mut options = options(&format!("git://127.0.0.1:{}/a", drip.port), cache.path());
    options.timeout = Duration::from_millis(100);
    let source = GitSource::open(options).unwrap();
    let mut errors = Vec::new();
    for _ in 0..5 {
        errors.push(source.fetch(None).await.unwrap_err().to_string());
    }
    assert!(errors[4].contains("3 earlier fetches still hang"), "{errors:?}");
}

#[tokio::test]
async fn a_remote_that_is_down_is_said() {
    let cache = TempDir::new().unwrap();
    let port = free_port();
    let remote = format!("http://127.0.0.1:{port}/a.git");
    let error = source(&remote, cache.path()).fetch(None).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("fetch failed: {remote}: ")), "{error}");
    let gone = source("file:///nowhere/at/all", cache.path()).fetch(None).await.unwrap_err();
    assert!(matches!(gone, SourceError::Fetch { .. }), "{gone}");
}

#[tokio::test]
async fn credentials_are_sent_once_and_shown_nowhere() {
    let cases = [
        (401, "the server wants credentials, and it took none of: those in the URL"),
        (403, "403"),
        (500, "500"),
    ];
    for (status, expected) in cases {
        let server = Listener::answering(move |request| {
            // It repeats what it was told, as some servers do.
            let message =
                if status == 401 && !request.contains("Authorization") { "" } else { request };
            reply(status, message)
        });
        let cache = TempDir::new().unwrap();
        let remote = format!("http://robot:hunter2%21@127.0.0.1:{}/a?token=s3cr3t", server.port);
        let source = source(&remote, cache.path());
        let error = source.fetch(None).await.unwrap_err();
        for text in [error.to_string(), format!("{error:?}"), source.name()] {
            for secret in ["hunter2", "s3cr3t", "robot"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
        assert!(error.to_string().contains(expected), "{error}");
        assert!(server.requests() <= 4, "{} requests", server.requests());
        for entry in walk(cache.path()) {
            let bytes = std::fs::read(&entry).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains("hunter2") && !text.contains("s3cr3t"), "{}", entry.display());
        }
    }
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(walk(&path)),
            false => files.push(path),
        }
    }
    files
}

#[tokio::test]
async fn a_token_file_is_the_password() {
    use base64::Engine as _;
    let expected = base64::engine::general_purpose::STANDARD.encode("git:t0ken");
    let server = Listener::answering(move |request| match request.contains(&expected) {
        true => reply(418, ""),
        false => reply(401, ""),
    });
    let cache = TempDir::new().unwrap();
    let token = cache.path().join("token");
    std::fs::write(&token, "t0ken\n").unwrap();
    let remote = format!("http://127.0.0.1:{}/a", server.port);
    let mut options = options(&remote, cache.path());
    options.credentials.token_file = Some(token.clone());
    let source = GitSource::open(options).unwrap();
    let error = source.fetch(None).await.unwrap_err().to_string();
    assert!(error.contains("418"), "{error}");
    std::fs::remove_file(&token).unwrap();
    let error = source.fetch(None).await.unwrap_err().to_string();
    assert!(error.contains("token can't be read"), "{error}");
}

#[tokio::test]
async fn hooks_of_the_repository_are_not_run() {
    let repository = Repository::new();
    let mark = repository.path().join("ran");
    for hook in ["post-checkout", "post-update", "reference-transaction", "pre-receive"] {
        let path = repository.path().join(".git/hooks").join(hook);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\ntouch {}\n", mark.display())).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    repository.git_without_hooks(&["commit", "-q", "--allow-empty", "-m", "a commit"]);
    let cache = TempDir::new().unwrap();
    tip(&source(&repository.path().display().to_string(), cache.path())).await;
    assert!(!mark.exists());
}

#[tokio::test]
async fn two_remotes_share_no_cache() {
    let (one, two) = (Repository::new(), Repository::new());
    one.commit(&[("a.yaml", "one")]);
    two.commit(&[("b.yaml", "two")]);
    let cache = TempDir::new().unwrap();
    for (repository, file) in [(&one, "a.yaml"), (&two, "b.yaml"), (&one, "a.yaml")] {
        let source = source(&repository.path().display().to_string(), cache.path());
        let head = tip(&source).await;
        assert_eq!(paths(&source, &head).await, [file]);
    }
}

#[tokio::test]
async fn a_local_repository_is_found_from_a_folder_in_it_and_its_working_tree_is_not_read() {
    let repository = Repository::new();
    repository.commit(&[("deep/er/a.yaml", "committed")]);
    repository.write("deep/er/a.yaml", "only written");
    repository.write("new.yaml", "only written");
    let cache = TempDir::new().unwrap();
    let folder = repository.path().join("deep/er").display().to_string();
    let source = source(&folder, cache.path());
    let head = tip(&source).await;
    let files = texts(&source, &head).await;
    assert_eq!(files, BTreeMap::from([("deep/er/a.yaml".into(), "committed".into())]));
}
