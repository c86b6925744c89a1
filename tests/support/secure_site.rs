//! A server in this process that speaks everything that has TLS, and the same without it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use crate::certificate::{Authority, Certificate, Files};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use tidegate::http::{Answer, Request, Response};
use tidegate::{Handle, Limits, Listen, Server, Service, Tls, http, lines, websocket};

/// It serves until it is dropped.
pub(crate) struct SecureSite {
    pub(crate) handle: Handle,
    pub(crate) authority: Authority,
    files: Files,
    pub(crate) https: SocketAddr,
    pub(crate) wss: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) ws: SocketAddr,
}

/// What the page's script does is written under it; its address names the port of the WebSocket.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>a page</title><link rel="icon" href="data:,">
<body data-state="busy"><pre></pre><script>
const said = [];
const say = (text) => { said.push(text); document.querySelector("pre").textContent = said.join("\n"); };
const done = () => { document.body.dataset.state = "done"; };
const scheme = location.protocol === "https:" ? "wss" : "ws";
(async () => {
  for (let n = 0; n < 3; n++) {
    const answer = await fetch("/back", { method: "POST", body: "x".repeat(100000) });
    say(`${answer.status} ${(await answer.text()).length}`);
  }
  const socket = new WebSocket(`${scheme}://${location.hostname}:${location.search.slice(1)}/`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { socket.send("from a page \u00e9"); socket.send(new Uint8Array(300000)); };
  let came = 0;
  socket.onmessage = ({ data }) => {
    say(typeof data === "string" ? data : `${data.byteLength} bytes`);
    if (++came === 2) socket.close(1000);
  };
  socket.onclose = ({ code, wasClean }) => { say(`closed ${code} ${wasClean}`); done(); };
})().catch((error) => { say(String(error)); done(); });
</script>"#;

fn pages(request: &Request<'_>, response: Response<'_, '_>) -> io::Result<Answer> {
    match (request.method(), request.path()) {
        ("GET", "/") => response.header("Content-Type", "text/html").text(PAGE),
        ("POST", "/back") => response.bytes(request.body()),
        ("GET", path) => response.text(&format!("hello {}\n", &path[1..])),
        _ => response.status(405).empty(),
    }
}

fn hello() -> impl Service {
    lines("hello", |line, reply| reply.send(&[b"hello ", line, b"\n"].concat()))
}

impl SecureSite {
    #[track_caller]
    pub(crate) fn serve() -> Self {
        let (certificate, authority) = Certificate::with_authority(&["localhost"]);
        let tls = Tls::pem(&certificate.pem, &certificate.key).unwrap();
        let web = tls.clone().protocols(["http/1.1"]).unwrap();
        let at = "127.0.0.1:0";
        let handle = Server::builder()
            .limits(Limits::default().workers(2))
            .listener(Listen::new(at, http(pages)).unwrap().tls(web.clone()))
            .listener(Listen::new(at, websocket::echo()).unwrap().tls(web))
            .listener(Listen::new(at, hello()).unwrap().tls(tls))
            .listener(Listen::new(at, http(pages)).unwrap())
            .listener(Listen::new(at, websocket::echo()).unwrap())
            .bind()
            .unwrap()
            .serve()
            .unwrap();
        let all: Vec<_> = handle.addresses().iter().filter_map(tidegate::Address::ip).collect();
        let [https, wss, tls, http, ws] = all[..] else { panic!("five listeners: {all:?}") };
        let files = certificate.files();
        std::fs::write(files.certificate.with_file_name("authority.pem"), &authority.pem).unwrap();
        Self { handle, authority, files, https, wss, tls, http, ws }
    }

    /// Its certificate, for another server that stands before it.
    pub(crate) fn tls(&self) -> Tls {
        Tls::files(&self.files.certificate, &self.files.key).unwrap().protocols(["http/1.1"]).unwrap()
    }

    /// The authority's certificate in a file.
    pub(crate) fn authority_file(&self) -> PathBuf {
        self.files.certificate.with_file_name("authority.pem")
    }
}
