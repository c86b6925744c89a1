//! `tests/python/upper.py`, a handler of Python's `socketserver`, line by line in Rust. The handler
//! reads and writes in plain blocking style, and keeps its worker until it returns.
//!
//! `cargo run --example upper`, then `printf 'hello\n' | tidegate client tcp://127.0.0.1:5000`.

use std::io::{BufRead, Read, Write};
use tidegate::{Server, handler};

mod support;

/// Longer lines are cut, as `readline(LINE_MAX)` does.
const LINE_MAX: u64 = 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let upper = handler(|stream| {
        loop {
            let mut line = Vec::new();
            stream.take(LINE_MAX).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                return Ok(());
            }
            stream.write_all(&line.to_ascii_uppercase())?;
        }
    });
    let server = Server::builder().workers(32).queue(128).listen(&*support::address(), upper)?.bind()?;
    support::say(&server)?;
    server.serve()?.wait();
    Ok(())
}
