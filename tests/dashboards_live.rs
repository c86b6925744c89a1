//! A real Prometheus scrapes a real tidegate under real load: every panel's query and every rule's
//! expression returns data, and the load-shedding alert fires and resolves.

#[path = "support/certificate.rs"]
mod certificate;
#[path = "support/admin_http.rs"]
mod http;
#[path = "support/admin_process.rs"]
mod process;

use certificate::Certificate;
use http::{ask, eventually};
use process::{Background, Tidegate};
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A Prometheus on a free port, with the shipped files in a quicker form.
struct Prometheus {
    _process: Background,
    address: SocketAddr,
    directory: PathBuf,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let directory = std::env::temp_dir().join(format!("tidegate-prometheus-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        write_quicker_files(&directory, target);
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", directory.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdout(Stdio::null());
        let process = Background::start(&mut command);
        let prometheus = Self { _process: process, address, directory };
        let ready = || ask(address, "GET /-/ready HTTP/1.0\r\n\r\n").is_ok_and(|reply| reply.status == 200);
        eventually("Prometheus is ready", Duration::from_secs(60), ready);
        prometheus
    }

    /// Asks its API; the `data` of the answer.
    fn api(&self, path: &str) -> Result<Value, String> {
        let request = format!("GET /api/v1/{path} HTTP/1.0\r\nHost: prometheus\r\n\r\n");
        let reply = ask(self.address, &request).map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&reply.body).map_err(|error| error.to_string())?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].clone()),
            _ => Err(answer.to_string()),
        }
    }

    /// How many series a query has now whose value is a number.
    fn query(&self, query: &str) -> Result<usize, String> {
        let data = self.api(&format!("query?query={}", percent_encode(query)))?;
        let series = data["result"].as_array().ok_or("no result")?;
        let is_number = |series: &&Value| {
            series["value"][1].as_str().is_some_and(|value| value.parse::<f64>().is_ok_and(f64::is_finite))
        };
        Ok(series.iter().filter(is_number).count())
    }

    /// `inactive`, `pending` or `firing`.
    fn alert_state(&self, name: &str) -> String {
        let groups = self.api("rules?type=alert").unwrap_or_default();
        let rules = groups["groups"].as_array().into_iter().flatten();
        let mut rules = rules.flat_map(|group| group["rules"].as_array().into_iter().flatten());
        rules
            .find(|rule| rule["name"] == name)
            .map_or("missing".into(), |rule| rule["state"].as_str().unwrap().into())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The shipped files, with seconds for minutes: nothing but times and the target is changed.
fn write_quicker_files(directory: &Path, target: SocketAddr) {
    let config = std::fs::read_to_string("dashboards/prometheus.yml").unwrap();
    let quick = config.replace(": 15s", ": 1s").replace("127.0.0.1:9464", &target.to_string());
    assert!(quick != config && quick.contains(&target.to_string()));
    std::fs::write(directory.join("prometheus.yml"), quick).unwrap();
    let rules = std::fs::read_to_string("dashboards/alerts.yml").unwrap();
    let mut quick = rules.clone();
    for (minutes, seconds) in [
        ("[5m]", "[6s]"),
        ("[15m]", "[10s]"),
        ("for: 15m", "for: 3s"),
        ("for: 10m", "for: 3s"),
        ("for: 5m", "for: 3s"),
        ("for: 2m", "for: 2s"),
    ] {
        assert!(rules.contains(minutes), "no rule has {minutes} any more");
        quick = quick.replace(minutes, seconds);
    }
    std::fs::write(directory.join("alerts.yml"), quick).unwrap();
}

fn percent_encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Title and query of every panel, as Grafana would ask them.
fn panel_queries() -> Vec<(String, String)> {
    let text = std::fs::read_to_string("dashboards/tidegate.json").unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query = query
                .replace("$__rate_interval", "5s")
                .replace("$job", "tidegate")
                .replace("$instance", ".*");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

/// Name and query of every rule; the left side of an alert's comparison, which must have data
/// whether or not the alert fires.
fn rule_queries(prometheus: &Prometheus) -> Vec<(String, String)> {
    let groups = prometheus.api("rules").unwrap();
    let rules = groups["groups"].as_array().unwrap().iter();
    let rules = rules.flat_map(|group| group["rules"].as_array().unwrap());
    rules
        .map(|rule| {
            assert_eq!(rule["health"], "ok", "{rule}");
            let (name, query) = (rule["name"].as_str().unwrap(), rule["query"].as_str().unwrap());
            let is_alert = rule["type"] == "alerting";
            (name.to_owned(), if is_alert { without_threshold(query) } else { query.to_owned() })
        })
        .collect()
}

fn without_threshold(query: &str) -> String {
    let comparison = [" == ", " > ", " < "].iter().filter_map(|sign| query.rfind(sign)).max().unwrap();
    let mut left = query[..comparison].to_owned();
    // Of `(a > 1) and b` the left side is `(a`.
    while left.matches('(').count() > left.matches(')').count() && left.starts_with('(') {
        left.remove(0);
    }
    left
}

#[test]
fn every_query_has_data_and_the_alert_fires_and_resolves() {
    let work = ["--work", "sleep:20ms", "--workers", "2", "--queue", "4", "--refusal-rate", "500"];
    let listen = ["--listen", "work=tcp://127.0.0.1:0"];
    let udp = ["--listen", "echo=udp://127.0.0.1:0"];
    let behind = Tidegate::start(&["--listen", "echo=tcp://127.0.0.1:0"]);
    let gate = format!("proxy:{}=tcp://127.0.0.1:0", behind.listeners[0].strip_prefix("tcp://").unwrap());
    let gate = ["--listen", &gate, "--backend-connections", "2"];
    let files = Certificate::new(&["localhost"], 4000).files();
    let (certificate, key) = (files.certificate.to_str().unwrap(), files.key.to_str().unwrap());
    let tls = ["--listen", "echo=tls://127.0.0.1:0", "--tls-cert", certificate, "--tls-key", key];
    let web = ["--listen", "hello=http://127.0.0.1:0"];
    let server = Tidegate::start(&[&listen[..], &udp, &gate, &work, &tls, &web].concat());
    let prometheus = Prometheus::start(server.admin);
    assert_eq!(prometheus.alert_state("TidegateSheddingLoad"), "inactive");

    let load = server.stress(&["-c", "50", "-d", "60s", "--warmup", "0s", "--reuse", "never"]);
    let datagrams = server.stress_at(1, &["-c", "1", "-r", "50", "-d", "60s", "--warmup", "0s"]);
    let passing =
        server.stress_at(2, &["-c", "4", "-r", "50", "-d", "60s", "--warmup", "0s", "--reuse", "never"]);
    let requests = server.stress_at(4, &["-c", "1", "-r", "50", "-d", "60s", "--warmup", "0s"]);
    let firing = || prometheus.alert_state("TidegateSheddingLoad") == "firing";
    eventually("the alert fires", Duration::from_secs(40), firing);
    let mut queries = panel_queries();
    assert!(queries.len() > 55);
    queries.extend(rule_queries(&prometheus));
    for (name, query) in &queries {
        let has_data = || match prometheus.query(query) {
            Ok(series) => series > 0,
            Err(error) => panic!("{name}: {query}: {error}"),
        };
        eventually(&format!("{name} has data: {query}"), Duration::from_secs(15), has_data);
    }
    load.end();
    datagrams.end();
    passing.end();
    requests.end();
    let resolved = || prometheus.alert_state("TidegateSheddingLoad") == "inactive";
    eventually("the alert resolves", Duration::from_secs(40), resolved);
    eprintln!("{} queries have data; TidegateSheddingLoad fired and resolved", queries.len());
}
