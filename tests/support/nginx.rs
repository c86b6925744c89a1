//! An nginx of its own for a test.
#![allow(dead_code, reason = "each test file uses a part of it")]

use crate::certificate::Files;
use crate::support::{Ending, command, eventually};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;

/// It runs until it is dropped.
pub(crate) struct Nginx {
    pub(crate) port: u16,
    _running: Ending,
}

impl Nginx {
    /// One server of HTTP, with what `block` says, which keeps its files in `folder`.
    #[track_caller]
    pub(crate) fn plain(folder: &Path, block: &str) -> Self {
        Self::start(folder, "", block)
    }

    /// The same inside TLS, with this certificate; its files are beside that.
    #[track_caller]
    pub(crate) fn inside_tls(files: &Files, block: &str) -> Self {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        let block = format!("ssl_certificate {certificate}; ssl_certificate_key {key}; {block}");
        Self::start(files.certificate.parent().unwrap(), " ssl", &block)
    }

    #[track_caller]
    fn start(folder: &Path, how: &str, block: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (root, path) = (folder.display(), folder.join("nginx.conf"));
        let configuration = format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/error;\n\
             events {{ worker_connections 500; }}\n\
             http {{ access_log off; server {{ listen 127.0.0.1:{port}{how}; {block} }}\n\
             client_body_temp_path {root}/a; proxy_temp_path {root}/b; fastcgi_temp_path {root}/c;\n\
             uwsgi_temp_path {root}/d; scgi_temp_path {root}/e; }}\n"
        );
        std::fs::write(&path, configuration).unwrap();
        let mut nginx = command("nginx");
        nginx.arg("-p").arg(folder).arg("-c").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        let running = Ending(nginx.spawn().expect("tests/setup.sh installs nginx"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("nginx listens", || TcpStream::connect(address).ok());
        Self { port, _running: running }
    }
}
