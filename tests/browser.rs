//! A browser opens pages of tidegate over HTTP and HTTPS, whose scripts post to it and talk to it over WebSockets.
#![cfg(feature = "tls")]

#[path = "support/certificate.rs"]
mod certificate;
#[path = "support/secure_site.rs"]
mod secure_site;
mod support;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use secure_site::SecureSite;
use sha2::{Digest, Sha256};
use std::process::Command;
use support::finish;

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
