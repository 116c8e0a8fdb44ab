//! Any bytes as the manifests of a commit.
#![no_main]

#[path = "../feeds/manifest.rs"]
mod feed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feed::feed(bytes));
