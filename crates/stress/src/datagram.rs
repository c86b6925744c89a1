//! Sending datagrams, and finding the request that a datagram from the server answers.

use super::clock::Nanos;
use super::exchange::READS;
use super::load::Loader;
use super::outcome::Outcome;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

impl Loader<'_> {
    /// Sends the request as one datagram.
    pub(super) fn send_datagram(&mut self, i: usize) {
        let slot = &mut self.slots[i];
        let number = slot.window.send(slot.intended >= self.measure_from);
        let Some(fd) = &slot.fd else { return };
        let payload = self.plan.wire.request(slot.payload);
        let request = self.datagrams.request(payload, number);
        match rustix::net::send(fd, request, SendFlags::NOSIGNAL) {
            Ok(sent) => {
                slot.sent = sent;
                self.recorder.connections().bytes_sent += sent as u64;
            }
            // No room in the kernel: as lost as on the way.
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => {}
            Err(error) => self.failed(i, error),
        }
    }

    /// Reads the datagrams that have come.
    pub(super) fn read_datagrams(&mut self, i: usize) {
        for _ in 0..READS {
            let slot = &mut self.slots[i];
            let Some(fd) = &slot.fd else { return };
            let got = match rustix::net::recv(fd, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((got, _)) => got,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => continue,
                // The other end's kernel says that nothing listens.
                Err(error) if slot.requesting => return self.failed(i, error),
                Err(_) => return,
            };
            let now = self.clock.now();
            self.recorder.connections().bytes_received += got as u64;
            self.on_datagram(i, got, now);
        }
    }

    fn on_datagram(&mut self, i: usize, got: usize, now: Nanos) {
        let slot = &mut self.slots[i];
        let wire = &self.plan.wire;
        let reply = &self.buffer[..got];
        if slot.requesting && wire.busy.as_deref().is_some_and(|text| reply.starts_with(text)) {
            return self.complete(i, Outcome::Busy, true, now);
        }
        let payload = wire.request(slot.payload);
        let newest = slot.window.newest();
        let number = self.datagrams.number(payload, reply, newest, wire.expect.as_deref());
        match number.and_then(|number| slot.window.reply(number)) {
            // A request before it may have ended otherwise, and then this is no reply to the newest.
            Some((Outcome::Ok, _)) if slot.requesting && number == Some(newest) => {
                if !self.established {
                    self.established = true;
                    self.control.establish();
                }
                self.complete(i, Outcome::Ok, true, now);
            }
            Some((Outcome::Ok, _)) => {}
            Some((outcome, measured)) => self.recorder.noted(measured, outcome),
            None if slot.requesting => self.complete(i, Outcome::BadReply, true, now),
            None => {}
        }
    }
}
