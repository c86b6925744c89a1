//! Replies that a client has not read yet, counted in `output_total`.

use super::holdings::{Deposit, Holdings};
use super::pool::Buffer;
use super::{Fault, Host, Peer, Seat};
use crate::admit::sources::SourceKey;
use crate::limits::Limits;
use crate::transport::socket::{ClientSocket, send};
use std::io;
use std::sync::Arc;

/// Replies that the kernel did not take. While the kernel takes everything, nothing is allocated and a connection
/// keeps one word.
#[derive(Debug, Default)]
pub(crate) struct Kept(Option<Box<KeptPlace>>);

/// Where the replies are.
#[derive(Debug)]
enum KeptPlace {
    /// In the connection, during its turn.
    Here(Buffer),
    /// In the table from which they can be given up for another source, while the connection is parked: see
    /// [`holdings`](super::holdings).
    Parked(Deposit),
}

impl Kept {
    /// What one connection takes of the allocator when it keeps replies.
    pub(super) const BYTES: usize = size_of::<KeptPlace>().next_power_of_two();

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Keeps bytes for a client, within the limits. If the total leaves no room, the source that keeps most gives
    /// some up.
    pub(super) fn keep(
        &mut self,
        data: &[u8],
        peer: &Peer,
        limits: &Limits,
        total: &Arc<Holdings>,
        host: &dyn Host,
    ) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let most = limits.output_per_connection;
        let new = || Box::new(KeptPlace::Here(Buffer::new(total.pool())));
        let KeptPlace::Here(buffer) = &mut **self.0.get_or_insert_with(new) else {
            debug_assert!(false, "what is parked is taken back before a turn");
            return Err(Fault::OutputLimit.into());
        };
        let mut kept = buffer.len() + data.len() <= most;
        while kept && let Err(full) = buffer.extend(data, most, limits.output_total) {
            let robbed = total.make_room(source(peer, limits), full.wanted, true);
            // The connection whose replies are given up ends in its next turn.
            robbed.into_iter().for_each(|seat| host.wake(seat));
            kept = robbed.is_some();
        }
        if kept {
            return Ok(());
        }
        if buffer.is_empty() {
            self.0 = None;
        }
        Err(Fault::OutputLimit.into())
    }

    /// Puts the replies into the table until the connection's next turn. An error if there is no memory for that.
    pub(crate) fn park(
        &mut self,
        seat: Seat,
        peer: &Peer,
        limits: &Limits,
        total: &Arc<Holdings>,
    ) -> io::Result<()> {
        if let Some(place) = &mut self.0
            && let KeptPlace::Here(buffer) = &mut **place
        {
            let buffer = std::mem::replace(buffer, Buffer::new(total.pool()));
            let deposit = total.deposit(buffer, source(peer, limits), seat);
            **place = KeptPlace::Parked(deposit.ok_or(Fault::OutputLimit)?);
        }
        Ok(())
    }

    /// Takes them back for a turn of the connection; an error if they were given up for another source.
    pub(crate) fn resume(&mut self) -> io::Result<()> {
        match self.0.take().map(|place| *place) {
            Some(KeptPlace::Parked(deposit)) => {
                let (_, buffer) = deposit.redeem().ok_or(Fault::OutputLimit)?;
                self.0 = Some(Box::new(KeptPlace::Here(buffer)));
            }
            Some(here) => self.0 = Some(Box::new(here)),
            None => {}
        }
        Ok(())
    }

    /// Sends what the kernel takes now, and returns the number of bytes.
    pub(crate) fn flush(&mut self, socket: &ClientSocket) -> io::Result<usize> {
        let Some(place) = &mut self.0 else { return Ok(0) };
        let KeptPlace::Here(buffer) = &mut **place else { return Ok(0) };
        let mut flushed = 0;
        while !buffer.is_empty() {
            match send(socket, buffer.bytes())? {
                0 => return Ok(flushed),
                n => {
                    buffer.consume(n);
                    flushed += n;
                }
            }
        }
        self.0 = None;
        Ok(flushed)
    }

    /// Discards what was not sent.
    pub(crate) fn discard(&mut self) {
        self.0 = None;
    }
}

/// The source that a client belongs to.
fn source(peer: &Peer, limits: &Limits) -> SourceKey {
    SourceKey::new(peer.address.source(), limits.source_prefix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::pool::Pool;
    use std::io::Read;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    fn keep(bytes: usize, pool: &Arc<Pool>) -> Kept {
        let mut buffer = Buffer::new(pool);
        buffer.extend(&vec![1; bytes], bytes, usize::MAX).unwrap();
        Kept(Some(Box::new(KeptPlace::Here(buffer))))
    }

    fn len(kept: &Kept) -> usize {
        match kept.0.as_deref() {
            Some(KeptPlace::Here(buffer)) => buffer.len(),
            _ => 0,
        }
    }

    #[test]
    fn what_is_parked_comes_back_unless_it_was_given_up() {
        let total = Arc::new(Holdings::default());
        let limits = Limits::default();
        let peer = |n: u8| Peer::new(SocketAddr::from(([127, 0, 0, n], 9)).into());
        let mut kept = [keep(8192, total.pool()), keep(4096, total.pool())];
        for (n, kept) in kept.iter_mut().enumerate() {
            kept.park(Seat { slot: n as u32, generation: 0 }, &peer(1), &limits, &total).unwrap();
            assert!(!kept.is_empty());
        }
        let robbed = total.make_room(source(&peer(2), &limits), 4096, true);
        assert_eq!(robbed.map(|seat| seat.slot), Some(0), "the larger one");
        let [first, second] = &mut kept;
        assert!(first.resume().is_err() && first.is_empty());
        second.resume().unwrap();
        assert_eq!((len(second), total.used()), (4096, 4096));
        second.park(Seat { slot: 1, generation: 0 }, &peer(1), &limits, &total).unwrap();
        second.discard();
        assert_eq!(total.used(), 0);
    }

    /// Two ends of a connection that holds much less than these tests send, whatever the system's defaults are.
    fn pair() -> (ClientSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let far = listener.accept().unwrap().0;
        socket2::SockRef::from(&near).set_send_buffer_size(64 << 10).unwrap();
        socket2::SockRef::from(&far).set_recv_buffer_size(64 << 10).unwrap();
        (OwnedFd::from(near).into(), far)
    }

    /// A client that resets while its replies are flushed must not leave them counted: the count is
    /// a limit for all clients.
    #[test]
    fn nothing_stays_counted_of_a_client_that_resets_in_the_middle() {
        let pool = Arc::new(Pool::default());
        let mut failed = 0;
        for _ in 0..50 {
            let (near, mut far) = pair();
            socket2::SockRef::from(&far).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            let mut kept = keep(8 << 20, &pool);
            std::thread::scope(|scope| {
                scope.spawn(move || far.read_exact(&mut [0; 1]).map(|()| drop(far)));
                while let Ok(flushed) = kept.flush(&near) {
                    if flushed == 0 {
                        std::thread::yield_now();
                    }
                }
            });
            failed += 1;
            kept.discard();
            assert_eq!(pool.used(), 0, "attempt {failed}");
        }
    }

    #[test]
    fn what_has_gone_is_not_held() {
        let pool = Arc::new(Pool::default());
        let (near, mut far) = pair();
        let mut kept = keep(8 << 20, &pool);
        let mut buffer = vec![0; 1 << 20];
        while !kept.is_empty() {
            kept.flush(&near).unwrap();
            let len = len(&kept);
            assert!(pool.used() <= 4 * len + 4096, "{} bytes for {len}", pool.used());
            let _ = far.read(&mut buffer).unwrap();
        }
        assert_eq!(pool.used(), 0);
    }
}
