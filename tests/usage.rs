//! What a person gets wrong on the command line, in the environment and in the file: one clear line that says what was wrong,
//! with which value, and what to do.

#[cfg(feature = "tls")]
#[path = "support/certificate.rs"]
mod certificate;
mod support;

use std::net::TcpListener;
use std::process::Output;
use support::run;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that the program ended with this code and one line on stderr that says all of this.
#[track_caller]
fn says(output: &Output, code: i32, words: &[&str]) {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stderr: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    assert!(stderr.starts_with("tidegate: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is not said in: {stderr}");
    }
    assert!(stdout.is_empty(), "nothing is promised on stdout: {stdout}");
}

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
    use support::Program;
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
    support::eventually("the log says why", || {
        let log = wary.stderr();
        let said = ["an authority's own (CA:TRUE)", "--backend-cacert", "CA:FALSE"];
        said.iter().all(|words| log.contains(words)).then_some(())
    });
}
