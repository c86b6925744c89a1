//! What can stand in front of a service: HAProxy, nginx, relays of our own, tidegate.

use crate::pin::Cpus;
use crate::scratch::Scratch;
use crate::server::{Place, Server, Spec, default_tidegate};
use anyhow::{Context, Result, ensure};
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian keeps nginx's module for streams; another nginx may have it built in.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
/// Connections that HAProxy may have: with its pipes it wants two and a half descriptors for each, of 20,000.
const CONNECTIONS_MAX: usize = 7_500;

/// What a front is asked to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) backends: &'a [SocketAddr],
    /// Connections that each backend may have; only fronts with a limit know it.
    pub(crate) places: usize,
    /// It speaks HTTP and uses connections to the backends again.
    pub(crate) http: bool,
    /// More arguments of tidegate.
    pub(crate) more: &'a str,
}

/// A front that runs, and the files of its configuration.
pub(crate) struct Front {
    pub(crate) server: Server,
    pub(crate) folder: Option<Scratch>,
}

/// Starts a front by its name. A label after a colon tells two of one kind apart.
pub(crate) fn start(spec: &Spec, wanted: Wanted<'_>, cpus: &Cpus) -> Result<Front> {
    ensure!(!wanted.backends.is_empty(), "a front has a backend");
    let (base, path) = program(spec);
    let front = match base {
        "haproxy" => haproxy(wanted, "", "", cpus),
        "haproxy-splice" => haproxy(wanted, "    option splice-auto\n", "", cpus),
        "haproxy-limits" => {
            let queue = "    timeout queue 500ms\n";
            haproxy(wanted, queue, &format!(" maxconn {} maxqueue 64", wanted.places), cpus)
        }
        "nginx" => nginx(wanted, cpus),
        "tidegate" => tidegate(built(path)?, wanted, &spec.args, cpus),
        peer => relay(peer, wanted, cpus),
    };
    front.with_context(|| format!("{} did not start", spec.name))
}

fn tidegate(path: PathBuf, wanted: Wanted<'_>, args: &[String], cpus: &Cpus) -> Result<Front> {
    let backends: Vec<String> = wanted.backends.iter().map(SocketAddr::to_string).collect();
    let (proxy, scheme) = if wanted.http { ("proxy:http://", "http://") } else { ("proxy:", "tcp://") };
    let mut command = Command::new(path);
    command.args(["--listen", &format!("{proxy}{}={scheme}127.0.0.1:0", backends.join(","))]);
    command.args(["--backend-connections", &wanted.places.to_string(), "--admin", "off"]);
    command.args(wanted.more.split_whitespace()).args(args);
    // The line that says where it listens may name the backends too, and these come first.
    let place = if wanted.http { Place::Said("on http://") } else { Place::Said("on tcp://") };
    Ok(Front { server: Server::launch(command, place, cpus)?, folder: None })
}

fn relay(name: &str, wanted: Wanted<'_>, cpus: &Cpus) -> Result<Front> {
    ensure!(wanted.backends.len() == 1 && !wanted.http, "it copies bytes to one backend");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["peer", name, "--to", &wanted.backends[0].to_string()]);
    command.args(["--places", &wanted.places.to_string()]);
    Ok(Front { server: Server::launch(command, Place::Said("tcp://"), cpus)?, folder: None })
}

fn haproxy(wanted: Wanted<'_>, options: &str, limits: &str, cpus: &Cpus) -> Result<Front> {
    let folder = Scratch::new()?;
    let addr = free_address()?;
    let mode = if wanted.http { "http\n    http-reuse always" } else { "tcp" };
    let mut text = format!(
        "global\n    maxconn {CONNECTIONS_MAX}\n    nbthread 1\n\
         defaults\n    mode {mode}\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n{options}\
         listen gate\n    bind {addr} backlog 4096\n    balance leastconn\n",
    );
    for (at, backend) in wanted.backends.iter().enumerate() {
        writeln!(text, "    server s{at} {backend}{limits}")?;
    }
    let config = folder.write("haproxy.cfg", &text)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-q").arg("-f").arg(config);
    Ok(Front { server: Server::launch(command, Place::Told(addr), cpus)?, folder: Some(folder) })
}

fn nginx(wanted: Wanted<'_>, cpus: &Cpus) -> Result<Front> {
    let folder = Scratch::new()?;
    let addr = free_address()?;
    let mut upstream = "upstream backend {\n  least_conn;\n".to_owned();
    for backend in wanted.backends {
        writeln!(upstream, "  server {backend};")?;
    }
    let text = match wanted.http {
        true => format!(
            "{}{upstream}  keepalive 64;\n}}\nserver {{\n  listen {addr} backlog=4096;\n  location / {{\n    \
             proxy_pass http://backend;\n    proxy_http_version 1.1;\n    proxy_set_header Connection \"\";\n  }}\n}}\n}}\n",
            nginx_http(folder.path()),
        ),
        false => format!(
            "{}stream {{\n{upstream}}}\nserver {{\n  listen {addr} backlog=4096;\n  proxy_connect_timeout 5s;\n  \
             proxy_pass backend;\n}}\n}}\n",
            nginx_main(folder.path()),
        ),
    };
    Ok(Front { server: nginx_with(&folder, &text, addr, cpus)?, folder: Some(folder) })
}

/// Starts a server that answers HTTP requests by itself.
pub(crate) fn http_server(spec: &Spec, cpus: &Cpus) -> Result<Front> {
    let (base, path) = program(spec);
    let server = match base {
        "nginx" => return nginx_alone(cpus),
        "tidegate" => {
            let mut command = Command::new(built(path)?);
            command.args(["--listen", "hello=http://127.0.0.1:0", "--admin", "off"]).args(&spec.args);
            Server::launch(command, Place::Said("http://"), cpus)
        }
        peer => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["peer", peer]);
            Server::launch(command, Place::Said("tcp://"), cpus)
        }
    };
    let server = server.with_context(|| format!("{} did not start", spec.name))?;
    Ok(Front { server, folder: None })
}

/// A server's name without its label, and the path of another build.
fn program(spec: &Spec) -> (&str, Option<PathBuf>) {
    let (base, path) = match spec.name.split_once('@') {
        Some((base, path)) => (base, Some(PathBuf::from(path))),
        None => (spec.name.as_str(), None),
    };
    (base.split(':').next().unwrap_or(base), path)
}

/// The tidegate to run.
fn built(path: Option<PathBuf>) -> Result<PathBuf> {
    let path = path.unwrap_or_else(default_tidegate);
    ensure!(path.is_file(), "{} is not there: build it with `cargo build --release`", path.display());
    Ok(path)
}

/// nginx that answers every request itself, as fast as it can.
pub(crate) fn nginx_alone(cpus: &Cpus) -> Result<Front> {
    nginx_answering("", "", cpus)
}

/// The same, with more words for its listener and for its server.
pub(crate) fn nginx_answering(listen: &str, server: &str, cpus: &Cpus) -> Result<Front> {
    let folder = Scratch::new()?;
    let addr = free_address()?;
    let text = format!(
        "{}server {{\n  listen {addr} {listen} backlog=4096;\n  {server}\n  location / {{\n    return 200 \"hello\\n\";\n  }}\n}}\n}}\n",
        nginx_http(folder.path()),
    );
    Ok(Front { server: nginx_with(&folder, &text, addr, cpus)?, folder: Some(folder) })
}

fn nginx_with(folder: &Scratch, text: &str, addr: SocketAddr, cpus: &Cpus) -> Result<Server> {
    let config = folder.write("nginx.conf", text)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder.path()).arg("-e").arg("stderr").arg("-c").arg(config);
    Server::launch(command, Place::Told(addr), cpus)
}

/// One process, so that what it costs is what nginx costs.
fn nginx_main(folder: &Path) -> String {
    let module = match Path::new(STREAM_MODULE).exists() {
        true => format!("load_module {STREAM_MODULE};\n"),
        false => String::new(),
    };
    format!(
        "{module}daemon off;\nmaster_process off;\npid {}/pid;\nerror_log stderr crit;\nworker_rlimit_nofile 20000;\n\
         events {{ worker_connections 19000; }}\n",
        folder.display()
    )
}

fn nginx_http(folder: &Path) -> String {
    let folder_name = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {folder_name}/{what};\n"))
        .concat();
    format!(
        "{}http {{\n{temporary}access_log off;\nkeepalive_requests 100000000;\nkeepalive_timeout 600s;\n",
        nginx_main(folder)
    )
}

/// An address that is free now. These servers cannot say which port the kernel gave them.
pub(super) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}
