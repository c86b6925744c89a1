//! A server as the metrics and the admin endpoint see it.

use crate::metrics::kernel;
use crate::metrics::snapshot::{ListenerSnapshot, Observe, Refusal, Snapshot};
use crate::reason::DatagramDrop;
use crate::server::core::Core;
use crate::server::datagram::socket::DatagramSocket;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

impl Core {
    fn listener_snapshot(&self, index: usize, out: &mut Snapshot) -> ListenerSnapshot {
        let listener = &self.listeners[index];
        ListenerSnapshot {
            listener: listener.url.clone(),
            service: listener.service.name().to_owned(),
            accept_errors: listener.accept_errors.each_ref().map(|n| n.load(Relaxed)),
            backlog: self.lock_socket(index).as_ref().and_then(|s| kernel::listen_backlog(s.as_fd())),
            ..self.ledgers.read(index, &mut out.queue_wait)
        }
    }

    fn datagram_snapshot(&self, socket: &DatagramSocket, out: &mut Snapshot) -> ListenerSnapshot {
        let mut snapshot = ListenerSnapshot {
            listener: socket.url.clone(),
            service: socket.service.name().to_owned(),
            datagram: true,
            ..self.ledgers.read(socket.column, &mut out.queue_wait)
        };
        snapshot.datagrams_dropped[DatagramDrop::KernelBuffer as usize] += socket.dropped_in_kernel();
        snapshot
    }

    /// Connections that have ended since the start, on all listeners.
    pub(crate) fn closed_total(&self) -> u64 {
        let mut waits = Default::default();
        (0..self.listeners.len()).map(|index| self.ledgers.read(index, &mut waits).closed_total()).sum()
    }

    /// Datagrams that were received and not answered because the server ended.
    pub(crate) fn datagrams_dropped_at_end(&self) -> u64 {
        let dropped = |socket: &DatagramSocket| {
            let counts = self.ledgers.read(socket.column, &mut Default::default());
            counts.datagrams_dropped[DatagramDrop::Draining as usize] + socket.too_late.load(Relaxed)
        };
        self.datagrams.sockets.iter().map(dropped).sum()
    }
}

impl Observe for Core {
    fn snapshot(&self) -> Snapshot {
        let now = self.clock.now();
        let stuck = crate::clock::nanos(self.limits.stuck_threshold);
        let mut out = Snapshot {
            phase: self.phase(),
            uptime: self.clock.elapsed(),
            connections_limit: self.limits.max_connections as u64,
            queue_length: self.queue.len() as u64,
            queue_limit: self.limits.queue as u64,
            workers_limit: self.limits.workers as u64,
            handler_panics: self.panics.load(Relaxed),
            lingering: self.lingering.load(Relaxed) as u64,
            pending_input_bytes: self.input_total.used() as u64,
            pending_output_bytes: self.output_total.used() as u64,
            shedding: self.refusals.shedding(),
            ..Default::default()
        };
        for clock in &self.worker_clocks {
            let (turn, busy) = clock.read(now);
            out.workers_busy += u64::from(turn.is_some());
            out.workers_stuck += u64::from(turn.is_some_and(|turn| turn > stuck));
            out.worker_busy += Duration::from_nanos(busy);
        }
        out.listeners =
            (0..self.listeners.len()).map(|index| self.listener_snapshot(index, &mut out)).collect();
        // In ascending order of position, so each is right when it is put in.
        for socket in &self.datagrams.sockets {
            let snapshot = self.datagram_snapshot(socket, &mut out);
            out.listeners.insert(socket.position, snapshot);
        }
        out
    }

    fn refusals(&self) -> Vec<Refusal> {
        self.refusals.last()
    }

    fn limits(&self) -> Vec<(&'static str, String)> {
        self.limits.table().into_iter().map(|row| (row.name, row.value)).collect()
    }
}
