//! What a client is to be given and has not taken yet, and how slow it may be.

use crate::clock::{Nanos, nanos};
use crate::service::Pool;
use crate::service::pool::Buffer;
use crate::transport::socket::{self, send};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A side that is waited for must move this much within its timeout, so that one that moves a byte now and then does not
/// hold a place for ever.
const STRIDE: usize = 16 * 1024;

/// How a side that is waited for gets on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Headway {
    since: Nanos,
    moved: usize,
}

impl Headway {
    /// It is waited for from now on.
    pub(super) fn new(now: Nanos) -> Self {
        Self { since: now, moved: 0 }
    }

    /// It has moved this much.
    pub(super) fn moved(&mut self, bytes: usize, now: Nanos) {
        self.moved += bytes;
        if self.moved >= STRIDE {
            *self = Self::new(now);
        }
    }

    /// When it was too slow, if it does not move.
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
struct Untaken {
    bytes: Buffer,
    headway: Headway,
}

/// There is no room to keep more.
#[derive(Debug)]
pub(super) enum OutboundFault {
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

    /// Sends what the kernel takes and keeps the rest; how many bytes were sent.
    pub(super) fn send(
        &mut self,
        client: &socket::Socket,
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

    /// Sends what was kept, as far as the kernel takes it; how many bytes were sent.
    pub(super) fn flush(&mut self, client: &socket::Socket, now: Nanos) -> io::Result<u64> {
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

    /// When the client was too slow; nothing while it takes all.
    pub(super) fn deadline(&self, timeout: Duration) -> Option<Nanos> {
        self.kept.as_ref().map(|kept| kept.headway.deadline(timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let client = socket::Socket::from(std::os::fd::OwnedFd::from(client));
        let (mut far, _) = listener.accept().unwrap();
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
