//! A small site: pages, JSON, a form, and a large answer that no slow reader makes expensive.
//!
//! `cargo run --example site`, then open <http://127.0.0.1:5000>, or `curl http://127.0.0.1:5000/numbers | head`.

use std::io;
use tidegate::http::{Answer, Pull, Request, Response};
use tidegate::{Server, http};

mod support;

const FORM: &str = "<form method=post action=/hello><input name=name> <button>Say hello</button></form>
    <p><a href=/sum?of=1,2,3>a sum</a> <a href=/numbers>many numbers</a></p>";

fn answer(request: &Request<'_>, response: Response<'_, '_>) -> io::Result<Answer> {
    match (request.method(), request.path()) {
        ("GET" | "HEAD", "/") => response.html(FORM),
        ("POST", "/hello") => {
            let name = request.form_value("name").ok_or_else(|| http::status(400))?;
            response.text(&format!("hello {name}\n"))
        }
        ("GET" | "HEAD", "/sum") => {
            let of = request.query_value("of").unwrap_or_default();
            let numbers: Vec<f64> = of.split(',').filter_map(|number| number.parse().ok()).collect();
            response.json(&serde_json::json!({ "of": numbers, "sum": numbers.iter().sum::<f64>() }))
        }
        ("GET" | "HEAD", "/numbers") => {
            let mut lines = (0..10_000_000).map(|number| format!("{number}\n"));
            response.header("Content-Type", "text/plain").pull(move |piece| {
                piece.extend(lines.by_ref().take(4000).flat_map(String::into_bytes));
                Ok(if piece.is_empty() { Pull::End } else { Pull::More })
            })
        }
        (_, "/" | "/hello" | "/sum" | "/numbers") => Err(http::status(405)),
        _ => Err(http::status(404)),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().listen(&*support::address(), http(answer))?.bind()?;
    support::say(&server)?;
    server.serve()?.wait();
    Ok(())
}
