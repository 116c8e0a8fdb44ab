//! Any bytes as what is sent to the controller's socket.
#![no_main]

#[path = "../feeds/socket.rs"]
mod feed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feed::feed(bytes));
