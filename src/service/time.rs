//! `time`: the time of day, as C's `ctime` prints it, in the local time zone.

use super::{DatagramService, Peer, Reply, Service, Session, Stream, Turn};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::cell::Cell;
use std::io;

/// Bytes of what it says: `Thu Jan  1 00:00:00 1970` and a newline.
const LEN: usize = 25;

/// Says the time of day. On TCP at once, then the connection ends; on UDP in answer to any
/// datagram, with 25 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time;

thread_local! {
    /// What was said last, and for which second: a second's answers are formatted once.
    static SAID: Cell<(i64, [u8; LEN])> = const { Cell::new((i64::MIN, [0; LEN])) };
}

/// The present time as `ctime` prints it.
pub(super) fn now() -> [u8; LEN] {
    let now = Timestamp::now();
    let (second, said) = SAID.get();
    if second == now.as_second() {
        return said;
    }
    // The zone is the system's (`TZ`, `/etc/localtime`), looked at again every few minutes.
    let said = ctime(now, TimeZone::system());
    SAID.set((now.as_second(), said));
    said
}

fn ctime(at: Timestamp, zone: TimeZone) -> [u8; LEN] {
    let mut said = [b' '; LEN];
    let local = at.to_zoned(zone);
    let text = local.strftime("%a %b %e %H:%M:%S %Y\n").to_string();
    // A year of other than four digits would be cut; there will be none for a while.
    for (place, byte) in said.iter_mut().zip(text.bytes()) {
        *place = byte;
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
        LEN
    }

    fn datagram(&self, _request: &[u8], reply: &mut Reply<'_>) -> io::Result<()> {
        reply.send(&now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_ctime_prints() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (second, zone, said) in [
            (0, TimeZone::UTC, "Thu Jan  1 00:00:00 1970\n"),
            (1_000_000_000, TimeZone::UTC, "Sun Sep  9 01:46:40 2001\n"),
            (1_784_000_000, zone.clone(), "Tue Jul 14 05:33:20 2026\n"),
            (1_796_000_000, zone, "Mon Nov 30 01:53:20 2026\n"),
        ] {
            let at = Timestamp::from_second(second).unwrap();
            assert_eq!(std::str::from_utf8(&ctime(at, zone)).unwrap(), said);
        }
    }

    #[test]
    fn what_is_kept_for_a_second_is_the_present() {
        let (before, said, after) = (Timestamp::now(), now(), Timestamp::now());
        let near = [before, after].map(|at| ctime(at, TimeZone::system()));
        assert!(near.contains(&said), "{said:?} is not among {near:?}");
    }
}
