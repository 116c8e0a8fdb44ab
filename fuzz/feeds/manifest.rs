//! Any bytes as the manifests of a commit: what comes out is a reading, never a panic, and the
//! same one each time.

use bytes::Bytes;
use plimsoll::manifest::{Reader, Reading, render, render_warnings};
use plimsoll::model::{CommitId, Content, Files};

/// What every commit here has beside the bytes, so that references find something.
const FLEET: &str = "apiVersion: plimsoll/v1alpha1
kind: Installation
metadata: {name: shop, uid: 8f14e45f}
---
apiVersion: plimsoll/v1alpha1
kind: Environment
metadata: {name: production}
---
apiVersion: plimsoll/v1alpha1
kind: Host
metadata: {name: alpha}
spec: {engine: unix:///var/run/docker.sock, address: 127.0.0.1, ports: 20000-20999}
---
apiVersion: plimsoll/v1alpha1
kind: Balancer
metadata: {name: edge}
spec: {listen: [{name: web, bind: 127.0.0.1:8080}], stats: 127.0.0.1:8404}
";

/// A zero byte begins another file.
pub fn feed(bytes: &[u8]) {
    let mut all = vec![("fleet.yaml".to_owned(), FLEET.as_bytes())];
    let parts = bytes.split(|byte| *byte == 0).enumerate().take(4);
    all.extend(parts.map(|(number, part)| (format!("apps/{number}.yaml"), part)));
    let files = all.into_iter().map(|(path, text)| {
        // The blob's name stands for the text, as git's does.
        let blob = format!("{path} {}", text.len());
        (path, Content::Bytes { blob, bytes: Bytes::copy_from_slice(text) })
    });
    let files = Files { commit: CommitId("0".repeat(40)), files: files.collect() };
    let mut reader = Reader::new();
    let first = told(&reader.read(&files));
    assert_eq!(first, told(&reader.read(&files)), "a second reading says something else");
}

fn told(reading: &Reading) -> String {
    // One diagnostic more than there are lines would be told at a place that isn't there.
    assert!(reading.diagnostics.iter().all(|told| told.location.line > 0 && told.column > 0));
    let desired = reading.desired.as_ref().map(|desired| serde_json::to_string(desired).unwrap());
    format!(
        "{:?}{:?}{desired:?}",
        render(&reading.diagnostics, false),
        render_warnings(&reading.warnings, true)
    )
}
