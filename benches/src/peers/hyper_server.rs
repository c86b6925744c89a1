//! hyper over tokio, a task for each connection: HTTP as most asynchronous Rust servers have it underneath.

use super::Mode;
use anyhow::Result;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

pub(super) fn serve(listener: std::net::TcpListener, mode: Mode) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        // The accept loop is a task of its own, so that it runs on the workers, as tokio advises.
        tokio::spawn(accept(listener, mode)).await?;
        Ok(())
    })
}

async fn accept(listener: TcpListener, mode: Mode) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(stream, mode))),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn converse(stream: TcpStream, mode: Mode) -> hyper::Result<()> {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    server.serve_connection(TokioIo::new(stream), service_fn(move |request| hello(request, mode))).await
}

/// What tidegate's `hello` answers, after the work.
async fn hello(request: Request<Incoming>, mode: Mode) -> Result<Response<Full<Bytes>>, Infallible> {
    match mode {
        Mode::Sleep(amount) => tokio::time::sleep(amount).await,
        other => other.work(),
    }
    let name = request.uri().path().trim_start_matches('/');
    let mut response = Response::new(Full::new(Bytes::from(format!("hello {name}\n"))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}
