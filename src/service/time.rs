//! `time`: the time of day in the local time zone, as C's `ctime` prints it.
//!
//! The C library itself computes the local time. So `TZ` and `/etc/localtime` mean the same as for every other
//! program of the machine, odd values included. As in C, the zone is looked up once, at the first answer.

use super::{DatagramService, Peer, Reply, Service, Session, Stream, Turn};
use crate::sys::{LocalTime, local_time};
use std::cell::Cell;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// The length of what `ctime` prints: `Thu Jan  1 00:00:00 1970` and a newline.
const LEN: usize = 25;

/// Sends the time of day. On TCP it sends the time at once, with a newline, and ends the connection. On UDP it
/// answers any datagram with 24 bytes, without a newline.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time;

thread_local! {
    /// The last answer, and the second it is for: the answers of one second are formatted once.
    static SAID: Cell<(i64, [u8; LEN])> = const { Cell::new((i64::MIN, [0; LEN])) };
}

/// Seconds since 1970, negative before.
fn second(now: SystemTime) -> i64 {
    match now.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs() as i64,
        Err(before) => {
            let before = before.duration();
            -(before.as_secs() as i64) - i64::from(before.subsec_nanos() > 0)
        }
    }
}

/// The present time as `ctime` prints it.
pub(super) fn now() -> [u8; LEN] {
    let now = second(SystemTime::now());
    let (last, said) = SAID.get();
    if now == last {
        return said;
    }
    let said = ctime(now);
    SAID.set((now, said));
    said
}

fn ctime(second: i64) -> [u8; LEN] {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut said = *b"??? ??? ?? ??:??:?? ????\n";
    if let Some(LocalTime { year, month, day, weekday, hour, minute, second }) = local_time(second) {
        let (weekday, month) = (DAYS[weekday % 7], MONTHS[month % 12]);
        // A year of more than four digits does not fit.
        let _ =
            writeln!(&mut said[..], "{weekday} {month} {day:2} {hour:02}:{minute:02}:{second:02} {year:4}");
    }
    said
}

impl Service for Time {
    fn name(&self) -> &str {
        "time"
    }

    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Time)
    }

    fn client_speaks_first(&self) -> bool {
        false
    }
}

impl Session for Time {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        stream.send(&now())?;
        Ok(Turn::Close)
    }
}

impl DatagramService for Time {
    fn name(&self) -> &str {
        "time"
    }

    fn reply_max(&self, _request: usize) -> usize {
        LEN - 1
    }

    fn datagram(&self, _request: &[u8], reply: &mut Reply<'_>) -> io::Result<()> {
        reply.send(&now()[..LEN - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::print_by_c;
    use std::process::Command;

    /// Ways to say a zone: names, POSIX rules, paths, and what is none of these.
    const ZONES: [Option<&str>; 44] = [
        None,
        Some(""),
        Some("UTC"),
        Some("Europe/Berlin"),
        Some(":Europe/Berlin"),
        Some("America/St_Johns"),
        Some("America/New_York"),
        Some("America/Sao_Paulo"),
        Some("Asia/Kathmandu"),
        Some("Asia/Tokyo"),
        Some("Australia/Lord_Howe"),
        Some("Africa/Casablanca"),
        Some("Africa/Monrovia"),
        Some("Pacific/Apia"),
        Some("Antarctica/Troll"),
        Some("posix/Asia/Tokyo"),
        Some("right/UTC"),
        Some("right/Europe/Paris"),
        Some("/usr/share/zoneinfo/Asia/Tokyo"),
        Some(":/usr/share/zoneinfo/Asia/Tokyo"),
        Some("localtime"),
        Some("EST5EDT"),
        Some("EST5EDT,M3.2.0,M11.1.0"),
        Some("EST5EDT4,M3.2.0/2,M11.1.0/2"),
        Some("EST+5"),
        Some("UTC-3"),
        Some("GMT0"),
        Some("JST-9"),
        Some("CET-1CEST"),
        Some("CET-1CEST,M3.5.0,M10.5.0/3"),
        Some("CET-1CEST,J60/2,J300/2:30"),
        Some("CET-1CEST,59,299/26"),
        Some("XXX3YYY"),
        Some("XXX3YYY,0/0,J365/25"),
        Some("<+0330>-3:30"),
        Some("<-03>3<-02>,M3.5.0/-2,M10.5.0/-1"),
        Some("NZST-12:00:00NZDT-13:00:00,M10.1.0,M3.3.0"),
        Some("AAA24:00"),
        Some("AAA-25"),
        Some("AB5"),
        Some("No/Such"),
        Some("Foo"),
        Some("../../etc/passwd"),
        Some("\u{fc}"),
    ];

    /// Instants of which zones may disagree: the turns of years, the hours around changes of clocks in both halves
    /// of the year, what is before 1970 and after 2038, and some without a reason.
    fn instants() -> impl Iterator<Item = i64> {
        let years = (-40..120).map(|year| year * 31_556_952);
        let changes = [1_774_746_000, 1_792_890_000, 1_772_953_200, 1_793_512_800];
        let around = changes.into_iter().flat_map(|at| (-26..=26).map(move |half| at + half * 1_800));
        let odd = (0..400).map(|n: i64| (n * 2_654_435_761).rem_euclid(6_000_000_000) - 1_000_000_000);
        let edges = [-1, 0, 1, i64::from(i32::MAX), i64::from(i32::MAX) + 1, 4_102_444_800, 1_483_228_826];
        years.chain(around).chain(odd).chain(edges)
    }

    /// Not a test by itself: the one below runs it once in each zone, since a process has one zone.
    #[test]
    #[ignore = "run by it_is_what_c_prints_in_every_zone"]
    fn compare_in_this_zone() {
        for second in instants() {
            let (ours, by_c) = (ctime(second), print_by_c(second));
            let zone = std::env::var_os("TZ");
            assert_eq!(std::str::from_utf8(&ours), Ok(by_c.as_str()), "{second} in {zone:?}");
        }
    }

    #[test]
    fn it_is_what_c_prints_in_every_zone() {
        let this = std::env::current_exe().unwrap();
        let children: Vec<_> = ZONES
            .into_iter()
            .map(|zone| {
                let mut command = Command::new(&this);
                command.args(["--exact", "service::time::tests::compare_in_this_zone", "--ignored"]);
                match zone {
                    Some(zone) => command.env("TZ", zone),
                    None => command.env_remove("TZ"),
                };
                (zone, command.output().unwrap())
            })
            .collect();
        for (zone, output) in children {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "in {zone:?}: {said}");
        }
    }

    #[test]
    fn what_is_kept_for_a_second_is_the_present() {
        let (before, said, after) = (SystemTime::now(), now(), SystemTime::now());
        let near = [before, after].map(|at| ctime(second(at)));
        assert!(near.contains(&said), "{said:?} is not among {near:?}");
    }

    #[test]
    fn a_second_is_the_whole_one_before_an_instant() {
        use std::time::Duration;
        for (millis, expected) in [(-1_500, -2), (-1_000, -1), (-1, -1), (0, 0), (999, 0), (1_000, 1)] {
            let offset = Duration::from_millis(i64::unsigned_abs(millis));
            let at = if millis < 0 { UNIX_EPOCH - offset } else { UNIX_EPOCH + offset };
            assert_eq!(second(at), expected, "{millis} ms");
        }
    }
}
