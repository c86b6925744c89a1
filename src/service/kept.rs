//! Replies that a client has not taken yet, counted in `output_total`.

use super::Fault;
use super::pool::{Buffer, Pool};
use crate::limits::Limits;
use crate::transport::socket::send;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;

/// Replies that the kernel did not take: nothing is allocated while it takes all, and what a
/// connection keeps of them is one word.
#[derive(Debug, Default)]
pub(crate) struct Kept(Option<Box<Buffer>>);

impl Kept {
    /// What one connection takes of the allocator when it has some.
    pub(super) const BYTES: usize = size_of::<Buffer>().next_power_of_two();

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Keeps bytes, within the limits.
    pub(super) fn keep(&mut self, data: &[u8], limits: &Limits, pool: &Arc<Pool>) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let most = limits.output_per_connection;
        let buffer = self.0.get_or_insert_with(|| Box::new(Buffer::new(pool)));
        if buffer.len() + data.len() > most || buffer.extend(data, most, limits.output_total).is_err() {
            self.0 = self.0.take().filter(|buffer| !buffer.is_empty());
            return Err(Fault::OutputLimit.into());
        }
        Ok(())
    }

    /// Sends what the kernel takes now; how much that was.
    pub(crate) fn flush(&mut self, socket: &TcpStream) -> io::Result<usize> {
        let Some(buffer) = &mut self.0 else { return Ok(0) };
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

    /// Gives up what was not sent.
    pub(crate) fn discard(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    fn keep(bytes: usize, pool: &Arc<Pool>) -> Kept {
        let limits = Limits { output_per_connection: bytes, ..Limits::default() };
        let mut kept = Kept::default();
        kept.keep(&vec![1; bytes], &limits, pool).unwrap();
        kept
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
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
            let len = kept.0.as_ref().map_or(0, |buffer| buffer.len());
            assert!(pool.used() <= 4 * len + 4096, "{} bytes for {len}", pool.used());
            let _ = far.read(&mut buffer).unwrap();
        }
        assert_eq!(pool.used(), 0);
    }
}
