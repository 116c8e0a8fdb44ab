//! Replays the corpus of the fuzz targets in `fuzz/` on a stable compiler: the seeds, and every
//! input that once made a target fail. What a target does with an input is in `fuzz/feeds`.

#[path = "../fuzz/feeds/docker.rs"]
mod docker;
#[path = "../fuzz/feeds/haproxy.rs"]
mod haproxy;
#[path = "../fuzz/feeds/manifest.rs"]
mod manifest;
#[path = "../fuzz/feeds/socket.rs"]
mod socket;

use std::path::Path;

/// Feeds each file of `fuzz/corpus/TARGET`, and some that no file could hold better.
fn replay(target: &str, feed: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() > 5, "{target} has no corpus");
    for file in files {
        // The harness shows it where the feed panics.
        println!("{}", file.display());
        feed(&std::fs::read(&file).unwrap());
    }
    for bytes in [&b""[..], b"\0", b"\xff\xfe", &[b'a'; 70_000], &[0; 5000]] {
        feed(bytes);
    }
}

#[test]
fn any_bytes_as_manifests() {
    replay("manifest", manifest::feed);
}

#[test]
fn any_bytes_as_what_haproxy_answers() {
    replay("haproxy", haproxy::feed);
}

#[test]
fn any_bytes_as_what_an_engine_answers() {
    replay("docker", docker::feed);
}

#[test]
fn any_bytes_on_the_controllers_socket() {
    replay("socket", socket::feed);
}
