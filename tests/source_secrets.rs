//! The folder of secrets on a real file system: what is read, what is refused, and that no
//! secret byte is in any of it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use plimsoll::model::{SecretDigest, SecretName};
use plimsoll::source::{SecretError, SecretFolder};
use secrecy::ExposeSecret;
use tempfile::TempDir;

fn names(texts: &[&str]) -> BTreeSet<SecretName> {
    texts.iter().map(|text| SecretName::new(*text).unwrap()).collect()
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn digest(folder: &SecretFolder, name: &str) -> Result<SecretDigest, SecretError> {
    folder.digests(&names(&[name])).into_values().next().unwrap()
}

fn value(folder: &SecretFolder, name: &str) -> Result<String, SecretError> {
    let values = folder.values(&names(&[name]))?;
    Ok(values.into_values().next().unwrap().expose_secret().to_owned())
}

#[test]
fn one_newline_at_the_end_is_no_part_of_a_secret() {
    let folder = TempDir::new().unwrap();
    let secrets = SecretFolder::new(folder.path());
    let cases = [
        ("plain", "plain"),
        ("line\n", "line"),
        ("windows\r\n", "windows"),
        ("two\n\n", "two\n"),
        ("inner\nline", "inner\nline"),
        ("", ""),
        ("\n", ""),
        (" spaces ", " spaces "),
    ];
    for (bytes, expected) in cases {
        write(folder.path(), "web/url", bytes);
        assert_eq!(value(&secrets, "web/url").unwrap(), expected);
    }
}

#[test]
fn digests_tell_secrets_apart_and_need_the_key() {
    let folder = TempDir::new().unwrap();
    let secrets = SecretFolder::new(folder.path());
    for (name, text) in [("a", "one"), ("b", "two"), ("c", "one\n")] {
        write(folder.path(), name, text);
    }
    let digests = secrets.digests(&names(&["a", "b", "c", "missing"]));
    let of = |name: &str| digests[&SecretName::new(name).unwrap()].clone();
    assert_eq!(of("a"), of("c"));
    assert_ne!(of("a"), of("b"));
    assert!(matches!(of("missing"), Err(SecretError::Missing { .. })));
    assert_eq!(digest(&secrets, "a"), of("a"), "the key stays");

    let key = folder.path().join(".plimsoll-key");
    let metadata = std::fs::metadata(&key).unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (32, 0o600));
    let entries = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(entries, 4, "three secrets and the key");

    // Another key, another digest.
    std::fs::remove_file(&key).unwrap();
    assert_ne!(digest(&secrets, "a"), of("a"));
    // A damaged key is never replaced: that would replace every app.
    std::fs::write(&key, "short").unwrap();
    assert!(matches!(digest(&secrets, "a"), Err(SecretError::BadKey { .. })));
    assert_eq!(std::fs::read(&key).unwrap(), b"short");
}

/// RFC 4231, test case 2, with its key filled up with zeros, as HMAC itself does.
#[test]
fn digests_are_hmac_sha_256() {
    let folder = TempDir::new().unwrap();
    let mut key = [0; 32];
    key[..4].copy_from_slice(b"Jefe");
    write(folder.path(), ".plimsoll-key", key);
    write(folder.path(), "a", "what do ya want for nothing?");
    let SecretDigest(digest) = digest(&SecretFolder::new(folder.path()), "a").unwrap();
    let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(digest.hex(), expected);
}

#[test]
fn many_that_make_the_key_at_once_agree_on_one() {
    for _ in 0..20 {
        let folder = TempDir::new().unwrap();
        write(folder.path(), "a", "secret");
        let start = Arc::new(std::sync::Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (path, start) = (folder.path().to_owned(), start.clone());
                std::thread::spawn(move || {
                    start.wait();
                    digest(&SecretFolder::new(path), "a")
                })
            })
            .collect();
        let digests: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(
            digests.iter().all(|digest| digest.is_ok() && *digest == digests[0]),
            "{digests:?}"
        );
    }
}

#[test]
fn what_is_no_secret_is_refused_and_nothing_of_it_is_shown() {
    let above = TempDir::new().unwrap();
    let folder = above.path().join("secrets");
    write(above.path(), "outside", "CANARY");
    write(&folder, "..data/real", "followed");
    write(&folder, "binary", b"CANARY\xff");
    write(&folder, "zero", "CANARY\0");
    write(&folder, "huge", "CANARY".repeat(20_000));
    write(&folder, "file/inside", "x");
    symlink(above.path().join("outside"), folder.join("absolute")).unwrap();
    symlink("../outside", folder.join("relative")).unwrap();
    symlink("..", folder.join("up")).unwrap();
    symlink("loop", folder.join("loop")).unwrap();
    symlink("..data/real", folder.join("mounted")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(folder.join("fifo")).status();
    assert!(fifo.unwrap().success());
    let secrets = SecretFolder::new(&folder);

    assert_eq!(value(&secrets, "mounted").unwrap(), "followed");
    type Expected = fn(&SecretError) -> bool;
    let cases: BTreeMap<&str, Expected> = BTreeMap::from([
        ("absolute", (|e| matches!(e, SecretError::Outside { .. })) as Expected),
        ("relative", |e| matches!(e, SecretError::Outside { .. })),
        ("up/outside", |e| matches!(e, SecretError::Outside { .. })),
        ("loop", |e| matches!(e, SecretError::Outside { .. })),
        ("binary", |e| matches!(e, SecretError::NotText { .. })),
        ("zero", |e| matches!(e, SecretError::NotText { .. })),
        ("huge", |e| matches!(e, SecretError::TooLarge { .. })),
        ("file", |e| matches!(e, SecretError::NotAFile { .. })),
        ("fifo", |e| matches!(e, SecretError::NotAFile { .. })),
        ("nowhere/at/all", |e| matches!(e, SecretError::Missing { .. })),
        ("zero/below", |e| matches!(e, SecretError::Missing { .. })),
    ]);
    for (name, is_expected) in cases {
        for error in [value(&secrets, name).unwrap_err(), digest(&secrets, name).unwrap_err()] {
            assert!(is_expected(&error), "{name}: {error:?}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("CANARY"), "{shown}");
            assert!(shown.contains(folder.to_str().unwrap()), "{shown}");
        }
    }
}

#[test]
fn a_missing_folder_matters_only_where_secrets_are_asked_for() {
    let secrets = SecretFolder::new("/nowhere/secrets");
    assert!(secrets.digests(&BTreeSet::new()).is_empty());
    assert!(secrets.values(&BTreeSet::new()).unwrap().is_empty());
    let error = digest(&secrets, "a").unwrap_err();
    assert!(error.to_string().contains("mkdir -p -m 700 /nowhere/secrets"), "{error}");
    assert!(matches!(value(&secrets, "a"), Err(SecretError::NoFolder { .. })));
}

#[test]
fn files_that_everybody_can_read_are_warned_of() {
    let folder = TempDir::new().unwrap();
    let mode = |name: &str, mode: u32| {
        let path = folder.path().join(name);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write(folder.path(), "open", "x");
    write(folder.path(), "closed", "x");
    mode("open", 0o644);
    mode("closed", 0o600);
    let secrets = SecretFolder::new(folder.path());
    let asked = names(&["open", "closed", "missing"]);
    mode("", 0o755);
    let warnings = secrets.warnings(&asked);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("chmod 600") && warnings[0].contains("open"), "{warnings:?}");
    mode("", 0o700);
    assert!(secrets.warnings(&asked).is_empty());
}
