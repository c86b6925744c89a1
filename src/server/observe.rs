//! The server as the metrics and the admin endpoint see it.

use super::datagram::socket::DatagramSocket;
use super::shared::Shared;
use crate::metrics::kernel;
use crate::metrics::snapshot::{Ceilings, ListenerSnapshot, Observe, RefusalEntry, RefusedSource, Snapshot};
use crate::reason::DatagramDrop;
use std::os::fd::AsFd;
use std::time::Duration;

impl Shared {
    fn listener_snapshot(&self, index: usize, out: &mut Snapshot) -> ListenerSnapshot {
        let listener = &self.listeners[index];
        ListenerSnapshot {
            listener: listener.url.to_string(),
            service: listener.name.clone(),
            is_closed: listener.closed_at().is_some(),
            accept_errors: listener.accept_errors(),
            backlog: listener.socket().as_ref().and_then(|s| kernel::listen_backlog(s.as_fd())),
            handshakes: listener.tls.as_ref().map(|tls| tls.counts.snapshot(tls.setup.expires_at())),
            web: listener.web.as_ref().map(|counts| counts.snapshot()),
            // What is known of the backends of a closed gate is of no use to anybody once its last client has left.
            backends: (listener.closed_at().is_none() || self.admission.open_at(index) > 0)
                .then(|| self.counts.contain(|| listener.service.backends()).flatten())
                .flatten(),
            ..self.counts.read(index, &mut out.queue_wait)
        }
    }

    fn datagram_snapshot(&self, socket: &DatagramSocket, out: &mut Snapshot) -> ListenerSnapshot {
        let mut snapshot = ListenerSnapshot {
            listener: socket.url.to_string(),
            service: socket.name.clone(),
            datagram: true,
            is_closed: socket.closed_at().is_some(),
            ..self.counts.read(socket.column, &mut out.queue_wait)
        };
        snapshot.datagrams_dropped[DatagramDrop::KernelBuffer as usize] += socket.dropped_in_kernel();
        snapshot
    }
}

impl Observe for Shared {
    fn snapshot(&self) -> Snapshot {
        let now = self.clock.now();
        let limits = &self.limits.current().server;
        let stuck = crate::clock::nanos(limits.stuck_threshold);
        let mut out = Snapshot {
            phase: self.life.phase(),
            uptime: self.clock.elapsed(),
            connections_limit: limits.max_connections as u64,
            queue_length: self.waiting() as u64,
            shelf_length: self.order.len() as u64,
            shelf_oldest: Duration::from_nanos(self.order.oldest(now).unwrap_or(0)),
            standing: self.order.standing().stood_for(now).map(Duration::from_nanos),
            in_order: self.order.is_in_order(),
            queue_limit: limits.queue as u64,
            workers_limit: limits.workers as u64,
            handler_panics: self.counts.panics(),
            lingering: self.lingers.count() as u64,
            late_closes: self.late_closes.len() as u64,
            pending_input_bytes: self.input_total.used() as u64,
            pending_output_bytes: self.output_total.used() as u64,
            shedding: self.refusals.shedding(),
            ..Default::default()
        };
        for clock in self.counts.meters() {
            let (turn, busy) = clock.read(now);
            out.workers_busy += u64::from(turn.is_some());
            out.workers_stuck += u64::from(turn.is_some_and(|turn| turn > stuck));
            out.worker_busy += Duration::from_nanos(busy);
        }
        let mut all: Vec<(usize, ListenerSnapshot)> = Vec::new();
        for (index, listener) in self.listeners.iter().enumerate() {
            all.push((listener.position, self.listener_snapshot(index, &mut out)));
        }
        for socket in self.datagrams.sockets.iter() {
            all.push((socket.position, self.datagram_snapshot(socket, &mut out)));
        }
        let queued: u64 = all.iter().map(|(_, listener)| listener.queued).sum();
        if self.datagrams.sockets.is_empty() {
            // Only connections wait here: then it is what the listeners say, read at the same time.
            out.queue_length = queued;
        } else {
            out.queue_length = out.queue_length.max(queued);
        }
        all.sort_unstable_by_key(|&(position, _)| position);
        out.listeners = all.into_iter().map(|(_, snapshot)| snapshot).collect();
        out
    }

    fn refusals(&self) -> Vec<RefusalEntry> {
        self.refusals.last()
    }

    fn refused_sources(&self) -> Vec<RefusedSource> {
        self.refusals.sources.last_minute()
    }

    fn ceilings(&self) -> Ceilings {
        self.ceilings()
    }

    fn own_limits(&self) -> Vec<Vec<(&'static str, String)>> {
        let in_force = self.limits.current();
        let of_datagrams = self.datagrams.sockets.iter().map(|socket| (socket.position, Vec::new()));
        let of_connections = self.listeners.iter().zip(&in_force.listeners);
        let of_connections =
            of_connections.map(|(listener, own)| (listener.position, own.differing(&in_force.server)));
        let mut all: Vec<_> = of_connections.chain(of_datagrams).collect();
        all.sort_unstable_by_key(|&(position, _)| position);
        all.into_iter().map(|(_, own)| own).collect()
    }

    fn limits(&self) -> Vec<(&'static str, String)> {
        self.limits.current().server.table().into_iter().map(|row| (row.name, row.value)).collect()
    }
}
