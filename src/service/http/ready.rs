//! The ready services over HTTP.

use super::response::TEXT;
use super::{Answer, Request, Response, http};
use crate::service::{Cost, Service, time};
use std::io;

/// Answers `GET /name` with `hello name`.
pub fn hello() -> impl Service {
    http(|request, response| match request.method() {
        "GET" | "HEAD" => {
            let name = request.path().trim_start_matches('/');
            response.whole(Some(TEXT), &[b"hello ", name.as_bytes()])
        }
        _ => only_get(response),
    })
    .name("hello")
}

/// Answers every request with its body.
pub fn echo() -> impl Service {
    http(send_back).name("echo")
}

/// Answers with the time of day, as C's `ctime` prints it.
pub fn time() -> impl Service {
    http(|request, response| match request.method() {
        "GET" | "HEAD" => response.whole(Some(TEXT), &[&time::now()]),
        _ => only_get(response),
    })
    .name("time")
}

/// Answers every request with its body after doing the work, to size a pool before the real handler exists.
pub fn work(cost: Cost) -> impl Service {
    http(move |request, response| {
        cost.pay();
        send_back(request, response)
    })
    .name("work")
}

fn send_back(request: &Request<'_>, response: Response<'_, '_>) -> io::Result<Answer> {
    match request.header("content-type") {
        Some(kind) => response.header("Content-Type", kind).bytes(request.body()),
        None => response.bytes(request.body()),
    }
}

fn only_get(response: Response<'_, '_>) -> io::Result<Answer> {
    response.status(405).header("Allow", "GET, HEAD").text("this answers GET and HEAD\n")
}
