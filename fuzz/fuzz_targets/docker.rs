//! Any bytes as what an engine answers.
#![no_main]

#[path = "../feeds/docker.rs"]
mod feed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feed::feed(bytes));
