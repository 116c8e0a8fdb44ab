//! What a person reads while something is wrong, and that all is well again afterwards.

#![allow(dead_code, reason = "each test binary uses another part of it")]

use std::time::Duration;

use crate::harness::{Installation, Load, Output, wait_until};

/// Both streams of a command.
pub fn said(output: &Output) -> String {
    format!("{}{}", output.stdout, output.stderr)
}

/// Panics unless every one of `words` is in `text`.
#[track_caller]
pub fn expect_words(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} isn't said:\n{text}");
    }
}

/// `plimsoll apply`, as a person reads it, with its exit code.
#[track_caller]
pub fn apply(shop: &Installation) -> (i32, String) {
    let output = shop.plimsoll(["apply"]);
    (output.code, said(&output))
}

/// `plimsoll status`, as a person reads it.
#[track_caller]
pub fn status(shop: &Installation) -> String {
    said(&shop.plimsoll(["status"]).expect(0))
}

/// `plimsoll events`, as a person reads them.
#[track_caller]
pub fn events(shop: &Installation) -> String {
    said(&shop.plimsoll(["events"]).expect(0))
}

/// Waits until users were served a while longer, so that a loss would have been seen.
#[track_caller]
pub fn let_users_come(load: &Load, requests: u64) {
    let good = load.so_far().good;
    wait_until(Duration::from_secs(30), "more requests", || load.so_far().good > good + requests);
}
