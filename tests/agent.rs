//! The agent tells a balancer how much more a server can take: the answers themselves, what they withstand, and Debian's
//! HAProxy, which follows them.
#![cfg(target_os = "linux")]

mod support;

use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use support::{Client, End, Ending, PATIENCE, Program, Running, command, eventually, figure, throughout};

/// Where a program said that its agent is.
fn agent(server: &Running) -> SocketAddr {
    let text = server.stdout();
    let line = text.lines().find_map(|line| line.strip_prefix("agent on ")).expect("it has an agent");
    line.parse().unwrap()
}

fn with_agent(program: Program) -> Program {
    program.arg("--agent", "127.0.0.1:0")
}

/// What a balancer is told that says nothing itself.
#[track_caller]
fn told(agent: SocketAddr) -> String {
    let mut client = Client::connect(agent);
    let (said, end) = client.rest();
    assert_eq!(end, End::Fin);
    String::from_utf8(said).unwrap()
}

/// The percentage that a balancer is told.
#[track_caller]
fn free(agent: SocketAddr) -> u32 {
    let said = told(agent);
    let percent = said.strip_prefix("up ready ").and_then(|rest| rest.strip_suffix("%\n"));
    percent.and_then(|percent| percent.parse().ok()).unwrap_or_else(|| panic!("told `{said}`"))
}

#[test]
fn an_idle_server_is_free_and_what_a_balancer_sends_is_not_looked_at() {
    let server = with_agent(Program::new()).start();
    let agent = agent(&server);
    assert_eq!(told(agent), "up ready 100%\n");
    let mut client = Client::connect(agent);
    client.say("GET /agent HTTP/1.0\r\n\r\n").finish();
    assert_eq!(client.rest(), (b"up ready 100%\n".to_vec(), End::Fin));
}

#[test]
fn the_share_falls_with_what_waits_is_never_down_and_comes_back() {
    let server = with_agent(Program::new().service("work"))
        .arg("--work", "sleep:400ms")
        .arg("--workers", 4)
        .arg("--queue", 400)
        .arg("--queue-timeout", "30s")
        .start();
    let agent = agent(&server);
    let mut clients: Vec<Client> = (0..60).map(|_| server.client()).collect();
    for client in &mut clients {
        client.say("x\n");
    }
    eventually("a full server says so", || (free(agent) <= 20).then_some(()));
    assert!(free(agent) >= 1);
    for client in &mut clients {
        client.hear("x\n");
    }
    eventually("a server that has caught up says so", || (free(agent) >= 50).then_some(()));
}

#[test]
fn a_server_that_ends_says_drain_until_it_has_ended() {
    let server = with_agent(Program::new()).arg("--drain-delay", "400ms").start();
    let agent = agent(&server);
    assert!(told(agent).starts_with("up "));
    let mut standing = server.client();
    standing.say("x").hear("x");
    server.signal(Signal::TERM);
    eventually("it says drain", || (told(agent) == "drain\n").then_some(()));
    standing.say("y").hear("y").finish();
    drop(standing);
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn a_gate_that_needs_a_backend_is_down_without_one_and_up_with_one() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = backend.local_addr().unwrap();
    drop(backend);
    let program = Program::new().service(&format!("proxy:{address}")).flag("--ready-needs-backend");
    let server = with_agent(program).start();
    let agent = agent(&server);
    eventually("it is down", || (told(agent) == "down #no backend is up\n").then_some(()));
    let _backend = TcpListener::bind(address).unwrap();
    eventually("it is up", || told(agent).starts_with("up ").then_some(()));
}

#[test]
fn a_flood_of_balancers_costs_no_thread_and_few_descriptors_and_the_next_is_answered() {
    let server = with_agent(Program::new()).start();
    let agent = agent(&server);
    told(agent);
    let (threads, descriptors) = (server.threads(), open_files(&server));
    // 16 places: the newest has the place of the oldest, whether or not that one leaves.
    let silent: Vec<Client> = (0..500).map(|_| Client::connect(agent)).collect();
    assert!(told(agent).starts_with("up "));
    assert!(server.status("Threads") <= threads, "{} threads, {threads} before", server.status("Threads"));
    let held = open_files(&server);
    assert!(held <= descriptors + 20, "{held} descriptors, {descriptors} before");
    eventually("its second is over", || (open_files(&server) <= descriptors).then_some(()));
    figure(format!(
        "500 silent balancers: {} descriptors more while they last, no thread more",
        held - descriptors
    ));
    drop(silent);
    server.client().say("x").hear("x");
}

fn open_files(server: &Running) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs").count()
}

#[test]
fn a_balancer_that_sends_without_end_is_cut_off() {
    let server = with_agent(Program::new()).start();
    let mut stream = TcpStream::connect(agent(&server)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let began = Instant::now();
    while stream.write_all(&[b'x'; 4096]).is_ok() {
        assert!(began.elapsed() < PATIENCE, "it still takes what is sent");
    }
}

#[test]
fn it_answers_when_the_process_has_no_descriptor_left() {
    let program = with_agent(Program::new()).open_files(200);
    let server = program.start();
    let agent = agent(&server);
    // The server is kept from accepting by its own descriptors: another limit is set from outside.
    let mut prlimit = Command::new("prlimit");
    let used = open_files(&server);
    let limit = prlimit.args([format!("--pid={}", server.pid()), format!("--nofile={used}:{used}")]).status();
    assert!(limit.expect("util-linux has it").success());
    for _ in 0..20 {
        assert!(told(agent).starts_with("up "));
    }
    figure(format!("20 of 20 answered with all {used} descriptors in use"));
}

#[test]
fn the_agent_goes_on_in_the_program_that_takes_this_ones_place() {
    let server = with_agent(Program::new()).start();
    let agent = agent(&server);
    assert_eq!(told(agent), "up ready 100%\n");
    let mut standing = server.client();
    standing.say("x").hear("x");
    server.signal(Signal::USR2);
    eventually("the new program serves", || server.stderr().contains("the new program serves").then_some(()));
    throughout(Duration::from_millis(500), "the new one answers, and not the one that drains", || {
        told(agent) == "up ready 100%\n"
    });
    standing.say("y").hear("y");
    let new = eventually("the log says which process", || {
        let log = server.stderr();
        let at = log.find("pid=")? + 4;
        log[at..].split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    });
    drop(standing);
    let new = rustix::process::Pid::from_raw(new).unwrap();
    rustix::process::kill_process(new, Signal::TERM).unwrap();
}

#[test]
fn its_answers_are_counted() {
    let server = with_agent(Program::new().admin()).start();
    let agent = agent(&server);
    for _ in 0..3 {
        told(agent);
    }
    let mut client = Client::connect(server.admin());
    client.say("GET /metrics HTTP/1.1\r\n\r\n");
    let text = String::from_utf8(client.rest().0).unwrap();
    for line in [
        "tidegate_agent_answers_total{answer=\"up\"} 3",
        "tidegate_agent_answers_total{answer=\"drain\"} 0",
        "tidegate_agent_free_ratio 1",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
    }
}

#[test]
fn an_address_that_is_taken_is_said_to_be_the_agents() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = support::run(["--admin", "off", "--listen", "echo=tcp://127.0.0.1:0", "--agent", &address]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("cannot open the agent on {address}")), "{said}");
    assert!(said.contains("--agent off") && said.lines().count() == 1, "{said}");
}

/// A port that nobody listens at; a program is told to listen there.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server behind HAProxy that can be started again where it was.
struct Node {
    port: u16,
    agent: u16,
    work: &'static str,
}

impl Node {
    /// Each has this many workers.
    const WORKERS: u64 = 8;

    fn new(work: &'static str) -> Self {
        Self { port: free_port(), agent: free_port(), work }
    }

    fn start(&self) -> Running {
        let listen = format!("work=tcp://127.0.0.1:{}", self.port);
        Program::new()
            .without_echo()
            .arg("--listen", listen)
            .arg("--agent", format!("127.0.0.1:{}", self.agent))
            .arg("--work", format!("sleep:{}", self.work))
            .arg("--workers", Self::WORKERS)
            .arg("--drain-delay", "1s")
            .arg("--worker-nice", 0)
            .arg("--queue-order", "fifo")
            .arg("--queue-timeout", "30s")
            .admin()
            .start()
    }

    /// The requests a second that it can answer at most.
    fn possible(&self) -> f64 {
        let millis: f64 = self.work.strip_suffix("ms").unwrap().parse().unwrap();
        1_000.0 * Self::WORKERS as f64 / millis
    }

    /// Its line in HAProxy's configuration.
    fn line(&self, name: &str) -> String {
        let Self { port, agent, .. } = self;
        format!(
            "  server {name} 127.0.0.1:{port} weight 100 check inter 200ms agent-check agent-inter 500ms \
             agent-addr 127.0.0.1 agent-port {agent}\n"
        )
    }
}

/// Clients that each ask, are answered, and come again over a new connection.
struct Crowd {
    began: Instant,
    stop: AtomicBool,
    answered: AtomicU64,
    /// Why, and when.
    lost: Mutex<Vec<String>>,
}

impl Crowd {
    fn ask_again_and_again(&self, at: SocketAddr) {
        while !self.stop.load(Relaxed) {
            match ask(at) {
                Ok(()) => drop(self.answered.fetch_add(1, Relaxed)),
                Err(error) => {
                    self.lost.lock().unwrap().push(format!("{error} after {:?}", self.began.elapsed()))
                }
            }
        }
    }
}

fn ask(at: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"x\n")?;
    stream.read_exact(&mut [0; 2])
}

/// How much of what these servers can do they did in this time. A server that is late because the machine is busy does
/// what it can: what counts is how much of their time its workers were in turns.
fn done(nodes: &[Node], running: &[Running], time: Duration) -> f64 {
    let busy = |server: &Running| {
        let mut client = Client::connect(server.admin());
        client.say("GET /metrics HTTP/1.1\r\n\r\n");
        let text = String::from_utf8(client.rest().0).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("tidegate_worker_busy_seconds_total "));
        line.and_then(|number| number.parse::<f64>().ok()).expect("a number")
    };
    let before: Vec<f64> = running.iter().map(busy).collect();
    let began = Instant::now();
    std::thread::sleep(time);
    let possible: f64 = nodes.iter().map(Node::possible).sum();
    let did = nodes.iter().zip(running).zip(before).map(|((node, server), before)| {
        let whole = Node::WORKERS as f64 * began.elapsed().as_secs_f64();
        node.possible() * (busy(server) - before) / whole
    });
    did.sum::<f64>() / possible
}

/// How much of it they do once HAProxy has found the right shares: the less of two seconds and two more. If it has not found
/// them `within` this time, how much they did last.
fn done_at_last(nodes: &[Node], running: &[Running], within: Duration) -> f64 {
    let until = Instant::now() + within;
    let mut before = 0.0_f64;
    loop {
        let share = done(nodes, running, Duration::from_secs(2));
        if before.min(share) >= ENOUGH || Instant::now() >= until {
            return before.min(share);
        }
        before = share;
    }
}

/// The share of the possible work that must be done.
const ENOUGH: f64 = 0.95;

/// HAProxy's own word for what a server is.
fn state(control: &std::path::Path, server: &str) -> String {
    let connect = || std::os::unix::net::UnixStream::connect(control).ok();
    let mut stream = eventually("HAProxy takes orders", connect);
    stream.write_all(b"show stat\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("nodes,{server},"))).unwrap_or_default();
    // Status and weight.
    line.split(',').skip(17).take(2).collect::<Vec<_>>().join(" ")
}

/// Three servers, one of them four times slower; one ends and returns. All that they can do is done, and no client is
/// lost.
#[test]
fn haproxy_follows_three_servers_of_unequal_speed_while_one_drains_and_returns() {
    let nodes = [Node::new("40ms"), Node::new("40ms"), Node::new("160ms")];
    let folder = std::env::temp_dir().join(format!("tidegate-agent-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (port, control) = (free_port(), folder.join("control"));
    let lines: String = nodes.iter().zip(["a", "b", "c"]).map(|(node, name)| node.line(name)).collect();
    let config = format!(
        "global\n  stats socket {} level admin\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  \
         timeout server 30s\n  retries 3\n  option redispatch\nlisten nodes\n  bind 127.0.0.1:{port}\n  \
         balance roundrobin\n{lines}",
        control.display()
    );
    std::fs::write(folder.join("haproxy.cfg"), config).unwrap();
    let mut running: Vec<Running> = nodes.iter().map(Node::start).collect();
    let mut haproxy = command("haproxy");
    haproxy.arg("-db").arg("-f").arg(folder.join("haproxy.cfg")).stdout(Stdio::null()).stderr(Stdio::null());
    let _haproxy = Ending(haproxy.spawn().expect("tests/setup.sh installs it"));
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("HAProxy listens", || TcpStream::connect(at).ok());
    let crowd =
        Crowd { began: Instant::now(), stop: false.into(), answered: 0.into(), lost: Mutex::default() };
    std::thread::scope(|scope| {
        for _ in 0..90 {
            scope.spawn(|| crowd.ask_again_and_again(at));
        }
        let stop = StopAtEnd(&crowd.stop);
        let settle = Duration::from_secs(20);
        let weight = |server| -> u32 {
            state(&control, server)
                .rsplit_once(' ')
                .and_then(|(_, number)| number.parse().ok())
                .expect("a weight")
        };
        // At first each has the same share, and the slow one gathers clients.
        eventually("HAProxy sends the slow one less", || (2 * weight("c") < weight("a")).then_some(()));
        let all = done_at_last(&nodes, &running, settle);
        let weights = ["a", "b", "c"].map(|name| state(&control, name));
        running[0].signal(Signal::TERM);
        eventually("HAProxy hears that it drains", || {
            state(&control, "a").starts_with("DRAIN").then_some(())
        });
        let (code, log) = running.remove(0).ended();
        assert_eq!(code, Some(0), "{log}");
        let without = done_at_last(&nodes[1..], &running, settle);
        running.insert(0, nodes[0].start());
        eventually("HAProxy hears that it is back", || state(&control, "a").starts_with("UP").then_some(()));
        let again = done_at_last(&nodes, &running, settle);
        drop(stop);
        figure(format!(
            "of the work that is possible: {all:.3} with all three {weights:?}, {without:.3} while one is away, {again:.3} \
             when it is back"
        ));
        for (share, when) in [(all, "with all"), (without, "without one"), (again, "with all again")] {
            assert!(share >= ENOUGH, "{when} {share:.3} of what is possible was done; weights {weights:?}");
        }
    });
    let lost = crowd.lost.into_inner().unwrap();
    assert!(lost.is_empty(), "{} answered, {} lost: {lost:?}", crowd.answered.load(Relaxed), lost.len());
    let _ = std::fs::remove_dir_all(&folder);
}

/// Ends the clients when the test ends, however it ends.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
