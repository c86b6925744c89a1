//! What a person is told who got something wrong: one line.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::process::Output;

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that the program ended with this code and one line on stderr that says all of this.
#[track_caller]
pub(crate) fn says(output: &Output, code: i32, words: &[&str]) {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stderr: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    assert!(stderr.starts_with("tidegate: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is not said in: {stderr}");
    }
    for word in ["panicked", "backtrace", "Some(", "Os {"] {
        assert!(!stderr.contains(word), "a person reads: {stderr}");
    }
    assert!(stdout.is_empty(), "nothing is promised on stdout: {stdout}");
}
