//! The only unsafe code: system calls that no well-kept crate wraps, each with the reason why it
//! is sound.
#![allow(unsafe_code)]
