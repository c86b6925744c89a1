//! What idle clients cost: resident memory with thousands of connections that were used once and are quiet, over HTTP,
//! as WebSockets and over TLS, beside nginx and hyper for the same.

use crate::gate::front::{Front, nginx_answering};
use crate::hold;
use crate::pin::Cpus;
use crate::scratch::Scratch;
use crate::server::{Place, Server, default_tidegate};
use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct IdleArgs {
    /// Connections over HTTP, and WebSockets; client and server may each have 20,000 open files in most places.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Connections over TLS.
    #[arg(long, default_value_t = 2_000)]
    tls: usize,
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// Longest wait for a connection or its reply.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Long enough that nobody is sent away for being idle.
const STAY: &str = "600s";

/// A certificate that signed itself, and its key.
struct Identity {
    folder: Scratch,
}

impl Identity {
    fn new() -> Result<Self> {
        let this = Self { folder: Scratch::new()? };
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        openssl.args(["-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
        // A client takes no authority for a server.
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl.arg("-keyout").arg(this.key()).arg("-out").arg(this.certificate());
        let made = openssl.output().context("cannot start openssl, which makes the certificate")?;
        ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        Ok(this)
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// What clients believe.
    fn client(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certificate())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    }
}

/// Measures, and prints a table.
pub(crate) fn run(args: &IdleArgs) -> Result<()> {
    let (servers, _) = Cpus::all()?.apart();
    let identity = Identity::new()?;
    println!("| idle clients | server | before | with them | each | threads |\n|---|---|---|---|---|---|");
    for (what, request, count) in [("HTTP", GET, args.connections), ("WebSocket", UPGRADE, args.connections)]
    {
        let scheme = if what == "HTTP" { "http" } else { "ws" };
        let front = tidegate(scheme, &[], &servers)?;
        row(what, "tidegate", count, &front, |addr, count| hold::open(addr, count, request))?;
        if what == "HTTP" {
            let nginx = nginx_answering("", "", &servers)?;
            row(what, "nginx", count, &nginx, |addr, count| hold::open(addr, count, request))?;
            let hyper = hyper(&servers)?;
            row(what, "hyper", count, &hyper, |addr, count| hold::open(addr, count, request))?;
        }
    }
    let (certificate, key) = (identity.certificate(), identity.key());
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let client = identity.client()?;
    let open = |addr, count| open_secure(&client, addr, count);
    let options = ["--tls-cert", &certificate, "--tls-key", &key];
    row("HTTPS", "tidegate", args.tls, &tidegate("https", &options, &servers)?, open)?;
    let more = format!("ssl_certificate {certificate}; ssl_certificate_key {key};");
    row("HTTPS", "nginx", args.tls, &nginx_answering("ssl", &more, &servers)?, open)?;
    Ok(())
}

fn tidegate(scheme: &str, options: &[&str], cpus: &Cpus) -> Result<Front> {
    let mut command = Command::new(default_tidegate());
    command.args(["--listen", &format!("echo={scheme}://127.0.0.1:0"), "--admin", "off"]);
    command.args(["--max-connections", "11000", "--idle-timeout", STAY, "--ws-ping", STAY]).args(options);
    let said = match scheme {
        "http" => "http://",
        "ws" => "ws://",
        _ => "https://",
    };
    Ok(Front { server: Server::launch(command, Place::Said(said), cpus)?, folder: None })
}

fn hyper(cpus: &Cpus) -> Result<Front> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["peer", "hyper"]);
    Ok(Front { server: Server::launch(command, Place::Said("tcp://"), cpus)?, folder: None })
}

/// Measures one server, which has been used a little before.
fn row<C>(
    what: &str,
    name: &str,
    count: usize,
    front: &Front,
    open: impl Fn(SocketAddr, usize) -> Result<Vec<C>>,
) -> Result<()> {
    let server = &front.server;
    drop(open(server.addr, 20)?);
    std::thread::sleep(Duration::from_millis(300));
    let (before, threads_before) = (resident(server.pid())?, status(server.pid(), "Threads:")?);
    let held = open(server.addr, count)?;
    let (with, threads) = (resident(server.pid())?, status(server.pid(), "Threads:")?);
    let each = with.saturating_sub(before) as f64 / count as f64 / 1024.0;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "| {count} {what} | {name} | {:.1} MiB | {:.1} MiB | {each:.2} KiB | {threads_before} and {threads} |",
        mib(before),
        mib(with)
    );
    drop(held);
    Ok(())
}

/// The memory that a process has now.
fn resident(pid: u32) -> Result<u64> {
    Ok(status(pid, "VmRSS:")? << 10)
}

/// A number of what the kernel says of a process.
fn status(pid: u32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("a process has {name}"))?.parse()?)
}

type Secure = StreamOwned<ClientConnection, TcpStream>;

/// Opens connections over TLS one after the other, each with one request and its reply.
fn open_secure(client: &Arc<ClientConfig>, addr: SocketAddr, count: usize) -> Result<Vec<Secure>> {
    let mut held = Vec::with_capacity(count);
    for index in 0..count {
        let stream = TcpStream::connect_timeout(&addr, TIMEOUT)
            .with_context(|| format!("cannot open connection {index} of {count}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let connection = ClientConnection::new(client.clone(), ServerName::try_from("localhost")?)?;
        let mut secure = StreamOwned::new(connection, stream);
        secure.write_all(GET)?;
        let mut reply = [0; 4096];
        if secure.read(&mut reply).with_context(|| format!("connection {index} has no reply"))? == 0 {
            bail!("connection {index} of {count} was closed");
        }
        held.push(secure);
    }
    std::thread::sleep(Duration::from_millis(300));
    Ok(held)
}
