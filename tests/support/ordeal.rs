//! The real program under something hostile, beside clients that behave: what held, as docs/reliability.md shows it.

use super::{Client, Program, Running, Scrape, Stop, eventually, figure, raise_open_files};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What 99 of 100 requests of clients that behave do not exceed, whatever happens beside them: the machine may be busy.
const P99_MOST: Duration = Duration::from_secs(1);

/// Clients that behave, each with a connection that it keeps.
const STANDING: usize = 2;

/// A server, what it had before, and how long its healthy clients waited.
pub(crate) struct Ordeal {
    pub(crate) server: Running,
    threads: u64,
    descriptors: usize,
    healthy: SocketAddr,
    waits: Mutex<Vec<Duration>>,
    newcomers: bool,
}

impl Ordeal {
    /// Starts the program. Clients that behave keep their connections to the listener that it names so, which is an echo.
    #[track_caller]
    pub(crate) fn of(program: Program, listener: &str) -> Self {
        raise_open_files();
        let server = program.admin().start();
        let healthy = server.listening(listener);
        // What is made for the first client and kept for the others is there before.
        Client::connect(healthy).say("x").hear("x");
        Scrape::of(&server);
        let threads = server.threads();
        let (waits, newcomers) = (Mutex::default(), false);
        let mut ordeal = Self { server, threads, descriptors: 0, healthy, waits, newcomers };
        ordeal.nobody_is_left();
        ordeal.descriptors = ordeal.settled_files();
        ordeal
    }

    /// Another client comes for each request anew, and is served like the others.
    pub(crate) fn with_newcomers(mut self) -> Self {
        self.newcomers = true;
        self
    }

    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.server.pid())).expect("it runs").count()
    }

    /// How many files are open, once that does not change any more: the last scrape has left, too.
    fn settled_files(&self) -> usize {
        let (mut last, mut since) = (0, Instant::now());
        eventually("its descriptors stay as they are", || {
            let now = self.open_files();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            (since.elapsed() > Duration::from_millis(200)).then_some(now)
        })
    }

    /// Attacks, while clients that behave ask and are answered.
    #[track_caller]
    pub(crate) fn beside<T>(&self, attack: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stopped = Stop(&over);
            let over = &over;
            for _ in 0..STANDING {
                let mut client = Client::connect(self.healthy);
                // Before the first answer the kernel may have taken it, and the program not.
                client.say("x").hear("x");
                scope.spawn(move || {
                    self.ask(over, |words| {
                        client.say(words).hear(words);
                    });
                });
            }
            if self.newcomers {
                let come = |words: &str| {
                    Client::connect(self.healthy).say(words).hear(words);
                };
                scope.spawn(move || self.ask(over, come));
            }
            attack()
        })
    }

    /// One client's requests, until the attack is over.
    fn ask(&self, over: &AtomicBool, mut ask: impl FnMut(&str)) {
        while !over.load(Ordering::SeqCst) {
            let began = Instant::now();
            ask("still here");
            self.waits.lock().unwrap().push(began.elapsed());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn nobody_is_left(&self) {
        eventually("all clients have left", || {
            (Scrape::of(&self.server).sum("tidegate_connections", &[]) == 0).then_some(())
        });
    }

    /// Nothing is left behind; ends the program, and tells what held.
    #[track_caller]
    pub(crate) fn end(self, what: &str) {
        self.nobody_is_left();
        eventually("its descriptors are back", || (self.settled_files() <= self.descriptors).then_some(()));
        self.end_amid(0, what, || ());
    }

    /// Ends the program while clients are there, who do something meanwhile, and tells what held. It ends with this code, after
    /// the time that is returned.
    #[track_caller]
    pub(crate) fn end_amid(self, code: i32, what: &str, meanwhile: impl FnOnce()) -> Duration {
        let (threads, descriptors) = (self.server.status("Threads"), self.settled_files());
        let seen = Scrape::of(&self.server);
        seen.assert_conserved();
        let sum = |metric| seen.sum(metric, &[]);
        let (accepted, dropped) =
            (sum("tidegate_connections_accepted_total"), sum("tidegate_connections_dropped_total"));
        let (closed, open) = (sum("tidegate_connections_closed_total"), sum("tidegate_connections"));
        let (most, ceiling) = (self.most_resident() / 1024, self.ceiling());
        let (requests, p99, longest) = self.waited();
        let began = Instant::now();
        self.server.signal(Signal::TERM);
        meanwhile();
        let (ended, log) = self.server.ended();
        let took = began.elapsed();
        let drained =
            log.lines().rev().find_map(|line| line.split_once(" INFO ")?.1.strip_prefix("drained "));
        figure(format!(
            "{what}; {requests} requests of clients that behave: p99 {p99:.1?}, longest {longest:.1?}; {threads} threads ({} \
             before), at most {most} MiB resident (ceiling {ceiling} MiB), {descriptors} descriptors ({} before), {accepted} \
             accepted = {dropped} dropped + {closed} closed + {open} open; then drained {}, exit code {}",
            self.threads,
            self.descriptors,
            drained.unwrap_or("nothing"),
            ended.map_or("none".to_owned(), |code| code.to_string())
        ));
        assert!(requests >= 100, "{requests} requests of clients that behave");
        assert!(p99 < P99_MOST, "p99 of clients that behave: {p99:?}");
        assert!(threads <= self.threads, "{threads} threads, {} before", self.threads);
        assert!(most <= ceiling, "{most} MiB, {ceiling} MiB is the ceiling");
        assert_eq!(ended, Some(code), "{log}");
        took
    }

    /// The most that it has held, in KiB. Of an unoptimised program the code alone is more than what is promised for it.
    fn most_resident(&self) -> u64 {
        let code = if cfg!(debug_assertions) { self.server.status("RssFile") } else { 0 };
        self.server.status("VmHWM").saturating_sub(code)
    }

    /// The memory that it said at its start it takes at most, in MiB.
    #[track_caller]
    fn ceiling(&self) -> u64 {
        let said = self.server.stdout();
        let number = said.split("at most ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        number.unwrap_or_else(|| panic!("no ceiling in {said}"))
    }

    /// How many requests there were, the wait that 99 of 100 did not exceed, and the longest.
    fn waited(&self) -> (usize, Duration, Duration) {
        let mut waits = self.waits.lock().unwrap();
        waits.sort_unstable();
        let last = waits.len().checked_sub(1).expect("somebody asked");
        (waits.len(), waits[last * 99 / 100], waits[last])
    }
}
