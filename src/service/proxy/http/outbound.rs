//! Bytes for a client that it has not taken yet, and a limit on how slow it may be.

use crate::clock::{Nanos, nanos};
use crate::service::Pool;
use crate::service::pool::Buffer;
use crate::transport::socket::{self, send};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How many bytes a side must move within its timeout while the gate waits for it. So a side that moves a byte now and
/// then cannot hold a place for ever.
const STRIDE: usize = 16 * 1024;

/// Measures whether a side that the gate waits for is fast enough.
#[derive(Clone, Copy, Debug)]
pub(super) struct Headway {
    since: Nanos,
    moved: usize,
}

impl Headway {
    /// The wait begins now.
    pub(super) fn new(now: Nanos) -> Self {
        Self { since: now, moved: 0 }
    }

    /// Notes that the side has moved `bytes` more.
    pub(super) fn moved(&mut self, bytes: usize, now: Nanos) {
        self.moved += bytes;
        if self.moved >= STRIDE {
            *self = Self::new(now);
        }
    }

    /// The time at which the side is too slow, if it has not moved enough until then.
    pub(super) fn deadline(&self, timeout: Duration) -> Nanos {
        self.since.saturating_add(nanos(timeout))
    }
}

/// Bytes on their way to a client.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    kept: Option<Box<Untaken>>,
}

#[derive(Debug)]
pub(super) struct Untaken {
    bytes: Buffer,
    headway: Headway,
}

/// Why bytes could not be sent or kept.
#[derive(Debug)]
pub(super) enum OutboundFault {
    /// There is no memory left to keep what the client does not take.
    NoRoom,
    Socket(io::Error),
}

impl Outbound {
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.bytes.len())
    }

    /// Sends as much as the kernel takes and keeps the rest. Returns how many bytes were sent.
    pub(super) fn send(
        &mut self,
        client: &socket::ClientSocket,
        mut data: &[u8],
        now: Nanos,
        (pool, most): (&Arc<Pool>, usize),
    ) -> Result<u64, OutboundFault> {
        let mut sent = 0;
        while self.kept.is_none() && !data.is_empty() {
            match send(client, data).map_err(OutboundFault::Socket)? {
                0 => break,
                n => {
                    sent += n as u64;
                    data = &data[n..];
                }
            }
        }
        if !data.is_empty() {
            let new = || Box::new(Untaken { bytes: Buffer::new(pool), headway: Headway::new(now) });
            let kept = self.kept.get_or_insert_with(new);
            let added = kept.bytes.extend(data, usize::MAX, most);
            added.map_err(|_| OutboundFault::NoRoom)?;
        }
        Ok(sent)
    }

    /// Sends as many of the kept bytes as the kernel takes. Returns how many.
    pub(super) fn flush(&mut self, client: &socket::ClientSocket, now: Nanos) -> io::Result<u64> {
        let Some(kept) = &mut self.kept else { return Ok(0) };
        let mut flushed = 0;
        while !kept.bytes.is_empty() {
            match send(client, kept.bytes.bytes())? {
                0 => return Ok(flushed),
                n => {
                    kept.bytes.consume(n);
                    kept.headway.moved(n, now);
                    flushed += n as u64;
                }
            }
        }
        self.kept = None;
        Ok(flushed)
    }

    /// The time at which the client is too slow; `None` while nothing is kept for it.
    pub(super) fn deadline(&self, timeout: Duration) -> Option<Nanos> {
        self.kept.as_ref().map(|kept| kept.headway.deadline(timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn one_that_drips_is_too_slow_and_one_that_moves_is_not() {
        let timeout = Duration::from_nanos(100);
        let mut headway = Headway::new(0);
        for now in 1..100 {
            headway.moved(10, now);
        }
        assert_eq!(headway.deadline(timeout), 100);
        headway.moved(STRIDE, 99);
        assert_eq!(headway.deadline(timeout), 199);
    }

    #[test]
    fn what_a_client_does_not_take_is_kept_in_order_and_counted() {
        // A Unix socket keeps a few hundred kilobytes; what TCP keeps differs by megabytes from system to system.
        let (client, mut far) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        let client = socket::ClientSocket::from(std::os::fd::OwnedFd::from(client));
        let pool = Arc::new(Pool::default());
        let mut out = Outbound::default();
        let data: Vec<u8> = (0..8_000_000_u32).map(|n| n as u8).collect();
        let mut sent = out.send(&client, &data, 0, (&pool, 64 << 20)).unwrap();
        assert!(!out.is_empty() && pool.used() >= out.len());
        assert!(out.deadline(Duration::from_nanos(7)) == Some(7));
        sent += out.send(&client, b"last", 1, (&pool, 64 << 20)).unwrap();
        let mut got = vec![0; data.len() + 4];
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| far.read_exact(&mut got));
            while !out.is_empty() {
                sent += out.flush(&client, 2).unwrap();
                std::thread::yield_now();
            }
            reader.join().unwrap().unwrap();
        });
        assert!(got[..data.len()] == data && got.ends_with(b"last"));
        assert_eq!((sent, pool.used()), (got.len() as u64, 0));
        let mut full = Outbound::default();
        assert!(matches!(full.send(&client, &data, 0, (&pool, 4096)), Err(OutboundFault::NoRoom)));
    }
}
