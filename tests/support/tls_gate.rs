//! A gate in this process before backends that speak TLS, and whom it trusts.
#![allow(dead_code, reason = "each test file uses a part of it")]

use crate::certificate::{Certificate, Files};
use crate::support::{Folder, PATIENCE, Site, eventually, head};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tidegate::metrics::backends::BackendsSnapshot;
use tidegate::reason::BackendFailure;
use tidegate::service::{BackendTls, HttpGateConfig};
use tidegate::{Limits, Listen, ProxyBuilder, Server, Tls, proxy};

pub(crate) type Peer = StreamOwned<ServerConnection, TcpStream>;

pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

pub(crate) const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// A certificate whose authority a gate can be told to trust.
pub(crate) struct Trust {
    pub(crate) certificate: Certificate,
    pub(crate) files: Files,
    authority: Folder,
}

impl Trust {
    pub(crate) fn new(names: &[&str]) -> Self {
        let (certificate, authority) = Certificate::with_authority(names);
        let (files, folder) = (certificate.files(), Folder::new("trust"));
        folder.write("authority.pem", &authority.pem);
        Self { certificate, files, authority: folder }
    }

    /// The file of its authority.
    pub(crate) fn file(&self) -> std::path::PathBuf {
        self.authority.file("authority.pem")
    }

    pub(crate) fn choices(&self) -> BackendTls {
        let mut choices = BackendTls::default();
        choices.authorities = Some(self.file());
        choices.name = Some("localhost".to_owned());
        choices
    }

    /// The certificate for a server of tidegate.
    pub(crate) fn tls(&self) -> Tls {
        Tls::pem(&self.certificate.pem, &self.certificate.key).unwrap()
    }

    /// The certificate for a backend that the test itself is.
    pub(crate) fn server(&self, version: &'static SupportedProtocolVersion) -> Arc<ServerConfig> {
        let chain = CertificateDer::pem_slice_iter(self.certificate.pem.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.certificate.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let chain = chain.map(Result::unwrap).collect();
        let mut config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
        Arc::new(config)
    }
}

/// A gate in this process.
pub(crate) struct Gate {
    pub(crate) site: Site,
}

impl Gate {
    pub(crate) fn of(gate: ProxyBuilder, limits: Limits) -> Self {
        let listen = Listen::new("127.0.0.1:0", gate.build().unwrap()).unwrap();
        Self { site: Site::listening(Server::builder().limits(limits).listener(listen)) }
    }

    pub(crate) fn stream(backend: SocketAddr, trust: &Trust) -> Self {
        Self::of(to(backend).tls(trust.choices()), Limits::default().workers(2))
    }

    pub(crate) fn http(backend: SocketAddr, trust: &Trust) -> Self {
        let gate = to(backend).connections(4).tls(trust.choices()).http(HttpGateConfig::default());
        Self::of(gate, Limits::default().workers(2))
    }

    pub(crate) fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.site.address).unwrap();
        patient(client)
    }

    pub(crate) fn seen(&self) -> BackendsSnapshot {
        self.site.counts().backends.expect("it is a gate")
    }

    pub(crate) fn failures(&self, failure: BackendFailure) -> u64 {
        self.seen().backends.iter().map(|backend| backend.failures[failure as usize]).sum()
    }

    #[track_caller]
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&BackendsSnapshot) -> bool) {
        eventually(what, || holds(&self.seen()).then_some(()));
    }
}

pub(crate) fn to(backend: SocketAddr) -> ProxyBuilder {
    proxy([backend.to_string()]).unwrap()
}

pub(crate) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[track_caller]
pub(crate) fn accept(backend: &TcpListener, config: &Arc<ServerConfig>) -> Peer {
    let peer = patient(backend.accept().unwrap().0);
    StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), peer)
}

/// Says that this was all.
pub(crate) fn end(peer: &mut Peer) {
    peer.conn.send_close_notify();
    peer.flush().unwrap();
}

pub(crate) fn reset(socket: &TcpStream) {
    socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Bytes that do not repeat soon.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Reads an answer of HTTP that tells its length.
#[track_caller]
pub(crate) fn answer(from: &mut impl Read) -> (String, Vec<u8>) {
    let head = head(from);
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    from.read_exact(&mut body).unwrap();
    (head, body)
}

/// One request on a connection of its own: the status, and the body.
#[track_caller]
pub(crate) fn ask(gate: &Gate) -> (u16, String) {
    let mut client = gate.client();
    client.write_all(GET).unwrap();
    let (head, body) = answer(&mut client);
    (head[9..12].parse().unwrap(), String::from_utf8(body).unwrap())
}
