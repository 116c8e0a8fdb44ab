//! Any bytes as what HAProxy answers, and what its files hold.
#![no_main]

#[path = "../feeds/haproxy.rs"]
mod feed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feed::feed(bytes));
