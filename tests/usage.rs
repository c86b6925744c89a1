//! What a person gets wrong on the command line, in the environment and in the file: one clear line that says what was wrong,
//! with which value, and what to do.

#[cfg(feature = "tls")]
#[path = "support/certificate.rs"]
mod certificate;
#[path = "support/refusal.rs"]
mod refusal;
mod support;

use refusal::{says, text};
use std::net::TcpListener;
use std::process::Output;
use support::{Program, command, eventually, finish, path, run};

/// `check` and the server say the same.
#[track_caller]
fn both_say(args: &[&str], code: i32, words: &[&str]) {
    for command in ["check", "serve"] {
        says(&run([&[command], args].concat()), code, words);
    }
}

const GATE: [&str; 2] = ["--listen", "proxy:127.0.0.1:8000=tcp://127.0.0.1:0"];
const HTTP_GATE: [&str; 2] = ["--listen", "proxy:http://127.0.0.1:8000=http://127.0.0.1:0"];

#[test]
fn a_number_below_zero_is_a_wrong_value_and_no_unknown_option() {
    for (args, words) in [
        (&["check", "--queue", "-1"][..], &["`-1`", "--queue", "whole number"][..]),
        (&["check", "--idle-timeout", "-1s"], &["`-1s`", "--idle-timeout", "not a time"]),
        (&["check", "--max-line", "-64KiB"], &["`-64KiB`", "--max-line", "not a size"]),
        (&["check", "--source-rate", "-5/s"], &["`-5/s`", "--source-rate", "not a rate"]),
        (&["check", "--backend-connections", "-5"], &["`-5`", "--backend-connections"]),
        (&["stress", "tcp://127.0.0.1:9", "-c", "-5"], &["`-5`", "--connections"]),
        (&["stress", "tcp://127.0.0.1:9", "-t", "-5s"], &["`-5s`", "--timeout"]),
        (&["client", "tcp://127.0.0.1:9", "--timeout", "-1s"], &["`-1s`", "--timeout"]),
        // An option whose value was forgotten.
        (&["check", "--queue", "--workers", "3"], &["a value is required", "--queue <N>"]),
        (&["check", "-5"], &["'-5'"]),
    ] {
        says(&run(args), 2, words);
    }
}

#[test]
fn a_time_of_nothing_is_refused_where_it_makes_no_sense() {
    for args in [
        [&HTTP_GATE[..], &["--backend-timeout", "0s"]].concat(),
        [&GATE[..], &["--backend-connect-timeout", "0"]].concat(),
        [&GATE[..], &["--backend-resolve", "0s"]].concat(),
        [&GATE[..], &["--half-close-timeout", "999us"]].concat(),
        vec!["--overload", "wait:0s"],
        vec!["--listen", "time=ws://127.0.0.1:0", "--push-every", "0s"],
    ] {
        both_say(&args, 2, &[args[args.len() - 2], args[args.len() - 1], "at least 1ms"]);
    }
    both_say(&["--stuck-threshold", "0s"], 2, &["stuck-threshold is 0s", "from 1ms to"]);
    both_say(&[&GATE[..], &["--backend-connections", "0"]].concat(), 2, &["`0`", "at least 1"]);
}

#[test]
fn a_wrong_value_is_told_from_a_wrong_form() {
    for (args, words) in [
        (&["--work", "cpu:1h"][..], &["cpu:1h", "cpu:60s at most"][..]),
        (&["--work", "cpu:soon"], &["`soon` is not a time"]),
        (&["--work", "nap:1ms"], &["nap:1ms", "cpu:1ms or sleep:20ms"]),
        (&["--source-prefix", "32"], &["`32`", "IPv4", "IPv6", "32,64"]),
        (&["--source-prefix", "33,64"], &["33,64", "an IPv4 address has 32 bits"]),
        (&["--source-prefix", "24,129"], &["24,129", "an IPv6 address has 128 bits"]),
        (&["--accept-proxy", "10.0.0.0/33"], &["10.0.0.0/33", "an IPv4 address has 32 bits"]),
        (&["--accept-proxy", "::1/129"], &["::1/129", "an IPv6 address has 128 bits"]),
        (&["--accept-proxy", "balancer"], &["balancer", "10.0.0.0/8"]),
        (&["--listen", "echo=unix:rel.sock"], &["unix:rel.sock", "from the root", "unix:/run/x.sock"]),
        (&["--listen", "echo=unix://rel.sock"], &["unix://rel.sock", "from the root"]),
        (&["--listen", "echo=tcp:127.0.0.1:5000"], &["slashes", "tcp://127.0.0.1:5000"]),
        (&["--fd-reserve", "1000000000"], &["fd-reserve is 1000000000"]),
        (&["--fd-reserve", "16000000"], &["fd-reserve is 16000000", "open files", "ulimit -n"]),
        (
            &["--listen", "echo=https://127.0.0.1:0", "--tls-cert", "site.pem"],
            &["site.pem", "no private key", "--tls-key FILE"],
        ),
        (
            &["--listen", "echo=https://127.0.0.1:0", "--tls-key", "site.key"],
            &["site.key", "no certificate", "--tls-cert FILE"],
        ),
        (
            &["--listen", "proxy:127.0.0.1:1=tcp://127.0.0.1:0", "--backend-connections", "10M"],
            &["backends may have", "open files", "backend-connections", "ulimit -n"],
        ),
    ] {
        both_say(args, 2, words);
    }
    says(&run(["client", "unix:rel.sock"]), 2, &["unix:rel.sock", "from the root"]);
}

#[test]
fn what_is_called_otherwise_elsewhere_is_named_as_it_is_here() {
    for (args, words) in [
        (&["--port", "5000"][..], &["'--port'", "--listen echo=tcp://"][..]),
        (&["-p", "5000"], &["'-p'", "--listen echo=tcp://"]),
        (&["--bind=0.0.0.0"], &["'--bind'", "--listen echo=tcp://"]),
        (&["--upstream", "127.0.0.1:8000"], &["'--upstream'", "--listen proxy:127.0.0.1:8000="]),
        (&["--threads", "4"], &["'--threads'", "--workers"]),
        (&["--timeout", "4s"], &["'--timeout'", "--idle-timeout"]),
        (&["tcp://127.0.0.1:5000"], &["'tcp://127.0.0.1:5000'", "--listen echo=tcp://", "client URL"]),
        (&["--listen", "proxy=tcp://127.0.0.1:0"], &["needs a backend", "proxy:127.0.0.1:8000"]),
        (&["--listen", "proxy:localhost=tcp://127.0.0.1:0"], &["`localhost`", "it has no port"]),
        (&["--listen", "proxy:http://h:80/app=http://127.0.0.1:0"], &["a backend has no path"]),
    ] {
        says(&run(args), 2, words);
    }
    let output = run(["check", "--config", "/etc"]);
    says(&output, 2, &["/etc: Is a directory"]);
    assert!(!text(&output.stderr).contains("os error"), "{output:?}");
}

#[test]
fn a_comparison_with_what_is_no_tidegate_says_where_the_address_stands() {
    let none = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    says(&run(["check", "--against", &none]), 1, &["nothing listens at", &none, "`metrics on`"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2p1\r\n",
    ] {
        let listener = listener.try_clone().unwrap();
        let served = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut client, _) = listener.accept().unwrap();
            let _ = client.read(&mut [0; 1024]).unwrap();
            client.write_all(answer.as_bytes()).unwrap();
        });
        let output = run(["check", "--against", &address]);
        served.join().unwrap();
        says(&output, 1, &[&address, "is not the admin endpoint of a tidegate", "`metrics on`"]);
    }
}

#[test]
fn two_that_listen_in_one_place_are_refused_before_anything_is_opened() {
    let (echo, time) = ("echo=tcp://127.0.0.1:7001", "time=http://0.0.0.0:7001");
    let unix = "echo=unix:/tmp/tidegate-usage.sock";
    for (args, words) in [
        (&["--listen", echo, "--listen", time][..], &[echo, time, "same place", "another port"][..]),
        (
            &["--listen", "time=udp://[::1]:7001,echo=udp://[::]:7001"],
            &["udp://[::1]:7001", "udp://[::]:7001"],
        ),
        (&["--listen", unix, "--listen", unix], &[unix, "another path"]),
        (&["--listen", echo, "--admin", "127.0.0.1:7001"], &[echo, "--admin 127.0.0.1:7001"]),
        (&["--listen", echo, "--agent", "0.0.0.0:7001"], &[echo, "--agent 0.0.0.0:7001"]),
        (&["--agent", "127.0.0.1:9464"], &["--admin 127.0.0.1:9464", "--agent 127.0.0.1:9464"]),
    ] {
        both_say(args, 2, words);
    }
    for apart in [
        "echo=tcp://127.0.0.1:7001,time=udp://127.0.0.1:7001",
        "echo=tcp://[::]:7001,echo=tcp://0.0.0.0:7001",
        "echo=tcp://127.0.0.1:7001,echo=tcp://127.0.0.2:7001",
        "echo=tcp://127.0.0.1:0,time=tcp://127.0.0.1:0",
    ] {
        let output = run(["check", "--listen", apart]);
        assert_eq!(output.status.code(), Some(0), "{apart}: {}", text(&output.stderr));
    }
}

#[test]
fn a_gate_that_leads_to_itself_is_refused() {
    for listen in [
        "proxy:127.0.0.1:7010=tcp://127.0.0.1:7010",
        "proxy:127.0.0.1:7010=tcp://0.0.0.0:7010",
        "proxy:127.0.0.2:8000,localhost:7010=tcp://0.0.0.0:7010",
        "proxy:http://127.0.0.1:7010=http://[::]:7010",
        "proxy:unix:/tmp/tidegate-usage.sock=unix:/tmp/tidegate-usage.sock",
    ] {
        both_say(&["--listen", listen], 2, &[listen, "itself as a backend", "round for ever"]);
    }
    let (there, back) =
        ("proxy:127.0.0.1:7011=tcp://127.0.0.1:7010", "proxy:127.0.0.1:7010=tcp://127.0.0.1:7011");
    both_say(&["--listen", there, "--listen", back], 2, &[there, back, "lead to each other"]);
    // A gate before another service of this program is none, nor is one before another gate.
    for listen in [
        "proxy:127.0.0.1:7010=tcp://127.0.0.1:7011,work=tcp://127.0.0.1:7010",
        "proxy:127.0.0.1:7011=tcp://127.0.0.1:7010,proxy:127.0.0.1:8000=tcp://127.0.0.1:7011",
    ] {
        let output = run(["check", "--listen", listen]);
        assert_eq!(output.status.code(), Some(0), "{listen}: {}", text(&output.stderr));
    }
}

/// `openssl req -x509` makes certificates that are authorities too: whoever trusts one of these means its holder.
#[cfg(feature = "tls")]
#[test]
fn a_self_signed_certificate_is_trusted_by_its_file_and_named_in_plain_words_without() {
    use certificate::Certificate;
    let (own, other) =
        (Certificate::with_ca(&["localhost"]).files(), Certificate::with_ca(&["localhost"]).files());
    let backend = Program::new()
        .without_echo()
        .arg("--listen", "echo=tls://127.0.0.1:0")
        .arg("--tls-cert", own.certificate.display())
        .arg("--tls-key", own.key.display())
        .start();
    let stdout = backend.stdout();
    let port = stdout.lines().find_map(|line| line.strip_prefix("echo on tls://127.0.0.1:")).unwrap();
    let client = |trusted: &std::path::Path, host: &str| {
        let (url, trusted) = (format!("tls://{host}:{port}"), trusted.to_str().unwrap());
        run(["client", &url, "--cacert", trusted, "--data", "x", "--quiet", "100ms", "-q"])
    };
    let output = client(&own.certificate, "localhost");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "x".to_owned()), "{output:?}");
    says(&client(&own.certificate, "127.0.0.1"), 1, &["for another name", "--tls-name"]);
    let authority = &["an authority's own (CA:TRUE)", "--cacert", "CA:FALSE"];
    says(&client(&other.certificate, "localhost"), 1, authority);
    // The gate and the stress client say the same.
    let url = format!("tls://localhost:{port}");
    let trusted = other.certificate.to_str().unwrap();
    says(&run(["stress", &url, "--cacert", trusted, "-n", "1", "-c", "1"]), 1, authority);
    let gate = |trusted: &std::path::Path| {
        let gate = Program::new().without_echo();
        let gate = gate.arg("--listen", format!("proxy:tls://localhost:{port}=tcp://127.0.0.1:0"));
        gate.arg("--backend-cacert", trusted.display()).start()
    };
    gate(&own.certificate).client().say("x").hear("x");
    let wary = gate(&other.certificate);
    let _ = wary.client().end();
    eventually("the log says why", || {
        let log = wary.stderr();
        let said = ["an authority's own (CA:TRUE)", "--backend-cacert", "CA:FALSE"];
        said.iter().all(|words| log.contains(words)).then_some(())
    });
}

/// A file that goes with the test.
struct File(std::path::PathBuf);

impl File {
    fn new(content: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-usage-{}-{number}.toml", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn what_would_protect_and_cannot_is_refused() {
    let (echo, udp) = (["--listen", "echo=tcp://127.0.0.1:0"], ["--listen", "echo=udp://127.0.0.1:0"]);
    for (args, words) in [
        ([&GATE[..], &["--backend-cacert", "own.pem"]].concat(), ["--backend-cacert", "no gate speaks TLS"]),
        ([&GATE[..], &["--backend-insecure"]].concat(), ["--backend-insecure", "no gate speaks TLS"]),
        (
            [&echo[..], &["--backend-connections", "4"]].concat(),
            ["--backend-connections", "no listener is a gate"],
        ),
        ([&GATE[..], &["--backend-timeout", "4s"]].concat(), ["--backend-timeout", "a gate for HTTP"]),
        (
            [&HTTP_GATE[..], &["--backend-connect", "first-byte"]].concat(),
            ["--backend-connect", "a gate for connections"],
        ),
        (
            [&echo[..], &["--tls-cert", "a", "--tls-key", "b"]].concat(),
            ["--tls-cert", "no listener speaks TLS"],
        ),
        (
            [&udp[..], &["--accept-proxy", "10.0.0.0/8"]].concat(),
            ["--accept-proxy", "all listeners take datagrams"],
        ),
        ([&HTTP_GATE[..], &["--ws-origin", "https://a.example"]].concat(), ["--ws-origin", "WebSockets"]),
    ] {
        both_say(&args, 2, &[words[0], "has no effect", words[1]]);
    }
    for (content, line, words) in [
        ("queue = 9\nbackend-cacert = \"x\"\n", 2, "`backend-cacert` has no effect: no gate speaks TLS"),
        (
            "[[listener]]\nlisten = \"proxy:127.0.0.1:1=tcp://127.0.0.1:0\"\nbackend-connections = 3\n\n[[listener]]\n\
             listen = \"echo=tcp://127.0.0.1:0\"\nbackend-connections = 4\n",
            7,
            "listener `echo=tcp://127.0.0.1:0`: `backend-connections` has no effect",
        ),
    ] {
        let file = File::new(content);
        both_say(&["--config", file.name()], 2, &[&format!("{}: line {line}: ", file.name()), words]);
        // With listeners of the command line the file may be another program's as well.
        let output = run(["check", "--config", file.name(), "--listen", "echo=tcp://127.0.0.1:0"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    // Who says that it is off is right.
    let off = ["check", "--backend-insecure=false", "--send-proxy", "off", "--backend-check", "0s"];
    let output = run(off);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn what_only_tunes_and_cannot_is_said_and_ignored() {
    let args = ["--max-datagram", "1KiB", "--work", "cpu:2ms", "--access-log", "-"];
    let options = ["--max-datagram has no effect", "--work has no effect", "--access-log has no effect"];
    let variables = [
        ("TIDEGATE_BACKEND_CACERT", "x", "TIDEGATE_BACKEND_CACERT has no effect: no gate speaks TLS"),
        ("TIDEGATE_QUEU", "7", "TIDEGATE_QUEU is ignored: did you mean TIDEGATE_QUEUE?"),
        ("TIDEGATE_VERBOSE", "1", "TIDEGATE_VERBOSE is ignored: --verbose is for the command line only"),
        ("TIDEGATE_NONSENSE", "1", "TIDEGATE_NONSENSE is ignored"),
        ("TIDEGATE_PORT_5000_TCP_ADDR", "10.0.0.1", ""),
        ("TIDEGATE_SERVICE_PORT_ADMIN", "9464", ""),
    ];
    let said =
        options.into_iter().chain(variables.iter().map(|(.., said)| *said)).filter(|said| !said.is_empty());
    let said: Vec<_> = said.collect();
    let mut check = command(path());
    check.arg("check").args(args).envs(variables.iter().map(|(name, value, _)| (name, value)));
    let output = finish(&mut check);
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(0), said.len()), "{stderr}");
    assert!(stderr.lines().all(|line| line.starts_with("tidegate: warning: ")), "{stderr}");
    assert!(said.iter().all(|words| stderr.contains(words)), "{stderr}");
    assert!(text(&output.stdout).ends_with("\nok\n"));
    let set: Vec<_> = variables.iter().map(|(name, value, _)| format!("export {name}={value}")).collect();
    let server = Program::new().prelude(&set.join("; "));
    let server = server
        .arg("--max-datagram", "1KiB")
        .arg("--work", "cpu:2ms")
        .arg("--access-log", "/dev/null")
        .start();
    eventually("the log says the same", || {
        let log = server.stderr();
        said.iter().all(|words| log.contains(words)).then_some(())
    });
    assert_eq!(server.stderr().matches(" WARN ").count(), said.len(), "{}", server.stderr());
}

#[test]
fn a_mistake_in_the_file_is_said_with_its_line() {
    for (content, line, words) in [
        ("workers = 4\n\nqueue = \"many\"\n", 3, "`queue`: `many` is not a count"),
        (
            "workers = 4\nidle-timeot = \"3s\"\n",
            2,
            "`idle-timeot` is not an option: did you mean `idle-timeout`?",
        ),
        ("workers = 4\nqueue = 90000\n", 2, "queue is 90000 and max-connections is 10000"),
        ("# few\nmax-connections = 20\n", 2, "queue is 128 and max-connections is 20"),
        ("workers = 4\nlisten = \"nothing=tcp://127.0.0.1:0\"\n", 2, "`nothing` is not a service"),
        ("[[listener]]\nqueue = 3\n", 1, "has no `listen`"),
        ("queue = 3\n[listener]\nlisten = \"echo=tcp://127.0.0.1:0\"\n", 2, "write [[listener]]"),
        ("\n[[listener]]\nlisten = \"echo=tcp://127.0.0.1:0\"\nqueue = \"x\"\n", 4, "`queue`: `x`"),
        (
            "\n[[listener]]\nlisten = \"echo=tcp://127.0.0.1:0\"\nqueue = 300\n",
            4,
            "queue is 300 here and 128",
        ),
        ("\n[[listener]]\nlisten = \"echo=https://127.0.0.1:0\"\n", 3, "needs a certificate"),
        (
            "[[listener]]\nlisten = \"echo=tcp://127.0.0.1:7001\"\n[[listener]]\nlisten = \"time=tcp://127.0.0.1:7001\"\n",
            2,
            "same place",
        ),
    ] {
        let file = File::new(content);
        both_say(
            &["--config", file.name()],
            2,
            &[&format!("tidegate: {}: line {line}: ", file.name()), words],
        );
    }
    // What the command line says is no mistake of the file.
    let file = File::new("queue = 5\n");
    let output = run(["check", "--config", file.name(), "--queue", "90000"]);
    says(&output, 2, &["tidegate: queue is 90000"]);
}

/// What `check` prints, as a file.
fn as_file(printed: &str) -> String {
    let (mut flat, mut tables) = (String::new(), String::new());
    let rows = tidegate::Limits::default().table();
    let mut in_listeners = false;
    for line in printed.lines() {
        let (name, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let rest = rest.trim();
        match line.len() - line.trim_start().len() {
            0 => in_listeners = line == "Listeners:",
            2 if in_listeners && name == "admin" => {
                let address = rest.trim_start_matches("http://").trim_end_matches("/status");
                flat += &format!("admin = \"{address}\"\n");
            }
            2 if in_listeners => tables += &format!("[[listener]]\nlisten = \"{name}={rest}\"\n"),
            2 => {
                let Some(row) = rows.iter().find(|row| row.name == name) else { continue };
                let value = rest.strip_suffix(&row.why).expect(line).trim();
                flat += &format!("{name} = \"{value}\"\n");
            }
            _ => tables += &format!("{name} = \"{rest}\"\n"),
        }
    }
    flat + &tables
}

#[test]
fn what_check_prints_can_be_written_into_a_file_and_comes_to_the_same() {
    let plain = ["--listen", "proxy:127.0.0.1:8000=tcp://127.0.0.1:7001"];
    let http = ["--listen", "proxy:http://127.0.0.1:8000=http://127.0.0.1:7002"];
    let secure = ["--listen", "proxy:https://127.0.0.1:8443=http://127.0.0.1:7003"];
    let own = File::new(
        "queue = 99\n[[listener]]\nlisten = \"echo=tcp://127.0.0.1:7001\"\nidle-timeout = \"5s\"\n[[listener]]\n\
         listen = \"proxy:127.0.0.1:8000=tcp://127.0.0.1:7002\"\naccept-proxy = \"10.0.0.0/8\"\nbackend-total = 7\n",
    );
    let all = [&plain[..], &http, &secure, &["--backlog", "7"]].concat();
    for args in [vec!["--workers", "3"], plain.to_vec(), http.to_vec(), all, vec!["--config", own.name()]] {
        let printed = run([&["check"], &args[..]].concat());
        assert_eq!(printed.status.code(), Some(0), "{args:?}: {}", text(&printed.stderr));
        let file = File::new(&as_file(&text(&printed.stdout)));
        let again = run(["check", "--config", file.name()]);
        let content = || std::fs::read_to_string(&file.0).unwrap();
        assert_eq!((again.status.code(), text(&again.stderr).as_str()), (Some(0), ""), "{}", content());
        let limits = |printed: &Output| {
            let printed = text(&printed.stdout);
            let (_, limits) = printed.split_once("\nLimits:\n").unwrap();
            limits.split_once("\nWhat they come to:").unwrap().0.to_owned()
        };
        assert_eq!(limits(&again), limits(&printed), "{}", content());
        let again = text(&again.stdout);
        for line in text(&printed.stdout).lines().take_while(|line| !line.is_empty()) {
            assert!(again.lines().any(|known| known == line), "`{line}` is not in {again}");
        }
    }
}
