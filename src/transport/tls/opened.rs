//! The two ends of a connection whose handshake is over, for unit tests.

use super::choices::BackendTls;
use super::client::ToBackends;
use super::engine::RustlsEngine;
use super::outcome::PLAIN_MAX;
use super::records::Records;
use super::setup::Tls;
use rcgen::{CertificateParams, KeyPair};

/// The end of a server, and that of its client.
pub(crate) fn opened() -> (RustlsEngine, RustlsEngine) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let server = Tls::pem(certificate.pem(), key.serialize_pem()).unwrap().engine().unwrap();
    let chosen = BackendTls { insecure: true, ..BackendTls::default() };
    let to_server = ToBackends::new(&chosen, false, 1).unwrap();
    let client = to_server.engine(&to_server.name(Some("localhost")).unwrap()).unwrap();
    let (mut ends, mut plain) = ([client, server], vec![0; 2 * PLAIN_MAX]);
    let mut records = [Records::default(), Records::default()];
    records.iter_mut().for_each(|records| assert!(records.load(&[])));
    for end in [0, 1, 0, 1, 0, 1] {
        let mut out = Vec::new();
        ends[end].advance(&mut records[end], &mut plain, &mut out).unwrap();
        records[1 - end].space()[..out.len()].copy_from_slice(&out);
        records[1 - end].filled(out.len());
    }
    let [client, server] = ends;
    assert!(client.is_open() && server.is_open());
    (server, client)
}
