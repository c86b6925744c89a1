//! The bare bounded pool: an acceptor, a bounded channel, blocking workers, and nothing else. It is what tidegate would
//! be without its own ground (parking, control threads first, a budget for refusals, a look at who has left).

use super::{Mode, thread};
use anyhow::Result;
use std::net::TcpListener;

/// tidegate's defaults.
const WORKERS: usize = 32;
const QUEUE: usize = 128;

pub(super) fn serve(listener: TcpListener, mode: Mode, buffer: usize) -> Result<()> {
    let (sender, receiver) = crossbeam_channel::bounded(QUEUE);
    for _ in 0..WORKERS {
        let receiver = receiver.clone();
        std::thread::Builder::new().spawn(move || {
            for stream in receiver {
                // A client that left has cost its worker nothing more than this.
                let _ = thread::converse(stream, mode, buffer);
            }
        })?;
    }
    loop {
        let Ok((stream, _)) = listener.accept() else {
            continue;
        };
        // Full: the stream comes back in the error and is closed with it.
        let _ = sender.try_send(stream);
    }
}
