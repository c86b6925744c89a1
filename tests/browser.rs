//! A browser opens pages of tidegate over HTTP and HTTPS, whose scripts post to it and talk to it over WebSockets: directly, and
//! through a gate.
#![cfg(feature = "tls")]

#[path = "support/certificate.rs"]
mod certificate;
#[path = "support/secure_site.rs"]
mod secure_site;
mod support;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use secure_site::SecureSite;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::process::Command;
use support::finish;
use tidegate::service::{BackendTls, HttpGateConfig};
use tidegate::{Handle, Limits, Listen, Server, proxy};

/// What the driver of the browser prints.
#[track_caller]
fn browse(args: &[&str]) -> String {
    let mut node = Command::new("node");
    let output = finish(node.arg("tests/support/web_browser.mjs").args(args));
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{error}");
    said.into_owned()
}

const DONE: &str =
    "200 100000\n200 100000\n200 100000\nfrom a page \u{e9}\n300000 bytes\nclosed 1000 true\nhttp/1.1 ";

#[test]
fn a_page_is_opened_over_https_and_its_script_opens_a_websocket_inside_tls() {
    let site = SecureSite::serve();
    let url = format!("https://localhost:{}/?{}", site.https.port(), site.wss.port());
    let key = BASE64.encode(Sha256::digest(&site.authority.public_key));
    assert_eq!(browse(&[&url, &key]), format!("{DONE}TLS 1.3\n"));
    // The browser looks at the certificate: without the key of the authority it shows no page.
    assert_eq!(browse(&[&url]), "refused: nobody has vouched for the certificate\n");
    site.handle.shutdown(support::PATIENCE);
}

#[test]
fn a_page_is_opened_over_http_and_its_script_opens_a_websocket() {
    let site = SecureSite::serve();
    let url = format!("http://localhost:{}/?{}", site.http.port(), site.ws.port());
    assert_eq!(browse(&[&url]), format!("{DONE}plain\n"));
    site.handle.shutdown(support::PATIENCE);
}

/// A gate before the pages and before the WebSockets of a site. `front` has TLS between the browser and the gate, `back` between
/// the gate and the site.
struct GateBefore {
    handle: Handle,
    pages: SocketAddr,
    sockets: SocketAddr,
}

impl GateBefore {
    fn of(site: &SecureSite, front: bool, back: bool) -> Self {
        let backends = if back { [site.https, site.wss] } else { [site.http, site.ws] };
        let listeners = backends.map(|backend| {
            let mut gate =
                proxy([backend.to_string()]).unwrap().connections(2).http(HttpGateConfig::default());
            if back {
                let mut tls = BackendTls::default();
                tls.authorities = Some(site.authority_file());
                tls.name = Some("localhost".to_owned());
                gate = gate.tls(tls);
            }
            let listen = Listen::new("127.0.0.1:0", gate.build().unwrap()).unwrap();
            if front { listen.tls(site.tls()) } else { listen }
        });
        let builder = Server::builder().limits(Limits::default().workers(2));
        let handle = listeners.into_iter().fold(builder, tidegate::Builder::listener).bind().unwrap();
        let handle = handle.serve().unwrap();
        let all: Vec<_> = handle.addresses().iter().filter_map(tidegate::Address::ip).collect();
        Self { handle, pages: all[0], sockets: all[1] }
    }

    /// The requests that each of both backends has answered with a status of 1xx and 2xx.
    fn answered(&self) -> [(u64, u64); 2] {
        let counts = self.handle.observe().snapshot().listeners;
        [0, 1].map(|at| {
            let backends = counts[at].backends.as_ref().expect("it is a gate");
            assert_eq!(backends.in_use, 0, "all places are given back");
            (backends.backends[0].answers[1], backends.backends[0].answers[2])
        })
    }
}

/// Browser, gate and site, with and without TLS on either side of the gate.
#[test]
fn a_page_and_the_websocket_of_its_script_pass_through_the_gate() {
    let site = SecureSite::serve();
    let key = BASE64.encode(Sha256::digest(&site.authority.public_key));
    for (front, back) in [(false, false), (true, false), (false, true), (true, true)] {
        let gate = GateBefore::of(&site, front, back);
        let (scheme, inside) = if front { ("https", "TLS 1.3") } else { ("http", "plain") };
        let url = format!("{scheme}://localhost:{}/?{}", gate.pages.port(), gate.sockets.port());
        let args = if front { vec![&*url, &*key] } else { vec![&*url] };
        assert_eq!(browse(&args), format!("{DONE}{inside}\n"), "TLS in front {front}, behind {back}");
        support::eventually("the page, three posts, and the WebSocket were answered by the site", || {
            (gate
                .handle
                .observe()
                .snapshot()
                .listeners
                .iter()
                .all(|listener| listener.backends.as_ref().is_some_and(|backends| backends.in_use == 0)))
            .then_some(())
        });
        assert_eq!(gate.answered(), [(0, 4), (1, 0)], "the page and three posts; the WebSocket");
        gate.handle.shutdown(support::PATIENCE);
    }
    site.handle.shutdown(support::PATIENCE);
}
