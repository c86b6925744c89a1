//! The house-keeping thread of a gate for HTTP. It closes connections to backends that were unused for too long, and
//! checks backends with HTTP requests.

use super::shared::HttpGate;
use crate::clock::{Nanos, nanos};
use crate::reason::BackendFailure;
use crate::service::http::wire::{ResponseHead, Scanner, Slots};
use crate::service::proxy::backends::{Place, Unreached};
use crate::service::proxy::connect::{Arrival, Connecting};
use crate::service::proxy::gate::Settings;
use crate::service::proxy::socket::{BackendSocket, Store};
use crate::service::proxy::tend::{CHECK_BYTES, greeting};
use crate::service::{Decrypted, Pool};
use crate::transport::tls::PLAIN_MAX;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often the thread looks for connections to close.
const LOOK: Duration = Duration::from_secs(1);

/// The most bytes of the head of an answer to a check.
const HEAD_MAX: usize = 16 << 10;

/// Starts the thread. It ends when the returned sender is dropped.
pub(in crate::service::proxy) fn start(gate: &Arc<HttpGate>) -> io::Result<Sender<Infallible>> {
    let (alive, ended) = bounded(0);
    let gate = Arc::downgrade(gate);
    std::thread::Builder::new().name("http-gate".to_owned()).spawn(move || keep(&gate, &ended))?;
    Ok(alive)
}

fn keep(gate: &Weak<HttpGate>, ended: &Receiver<Infallible>) {
    let mut pause = Duration::ZERO;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(pause) {
        let Some(gate) = gate.upgrade() else { return };
        gate.tidy();
        pause = LOOK;
        let settings = gate.gate.settings.get();
        if let (Some(path), Some(every)) = (&settings.http.check_path, settings.check_every) {
            check(&gate, &settings, path, nanos(every));
            pause = pause.min(every).min(Duration::from_millis(250));
        }
    }
}

/// Checks each backend that is due.
fn check(gate: &Arc<HttpGate>, settings: &Settings, path: &str, every: Nanos) {
    let due: Vec<Place> = std::iter::from_fn(|| gate.gate.backends.take_for_check(every)).collect();
    // Each check has a thread, so that a silent backend does not hold up the checks of the others.
    std::thread::scope(|scope| {
        for place in due {
            let look = move || {
                gate.spares.close_one(place.backend());
                let began = gate.gate.clock.now();
                match ask(gate, settings, &place, path) {
                    Ok(()) => place.reached(gate.gate.clock.now().saturating_sub(began)),
                    Err(unreached) => place.failed(unreached),
                }
            };
            // Where the system has no thread left, the place is given back, and the backend is due again.
            if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, look) {
                tracing::debug!(%error, "no thread for the check of a backend");
            }
        }
    });
}

/// Sends a request to one backend. The check succeeds if the answer has a status from 200 to 399 and comes within
/// `connect_timeout`.
fn ask(gate: &HttpGate, settings: &Settings, place: &Place, path: &str) -> Result<(), Unreached> {
    let clock = &gate.gate.clock;
    let deadline = settings.connect_deadline(clock.now());
    let pool = Arc::new(Pool::default());
    let store = (&pool, CHECK_BYTES);
    let mut socket = reach(gate, settings, place, deadline, store)?;
    let host = place.address();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tidegate\r\nConnection: close\r\n\r\n");
    // The send buffer of a new socket has room for the whole request.
    if !socket.send(request.as_bytes(), store).is_ok_and(|sent| sent == request.len()) {
        return Err(BackendFailure::Reset.into());
    }
    let (mut heard, mut scanner) = (Vec::new(), Scanner::responses());
    let mut buffer = vec![0; PLAIN_MAX];
    loop {
        match socket.receive(&mut buffer, true, store) {
            Ok(Decrypted::End) | Err(_) => return Err(BackendFailure::Reset.into()),
            Ok(Decrypted::Bytes { bytes, .. }) => heard.extend_from_slice(&buffer[..bytes]),
            Ok(Decrypted::Nothing) if clock.now() >= deadline => return Err(BackendFailure::Timeout.into()),
            Ok(Decrypted::Nothing) => {
                wait([(socket.as_fd(), PollFlags::IN)], deadline, clock.now());
                // What the backend did not take of the request.
                let _ = socket.flush();
            }
        }
        match scanner.find(&heard, HEAD_MAX) {
            Ok(None) => {}
            Ok(Some(range)) => return judge(path, &heard[range]),
            Err(_) => return Err(not_http(path)),
        }
    }
}

fn judge(path: &str, head: &[u8]) -> Result<(), Unreached> {
    let mut slots = Slots::new();
    match ResponseHead::parse(head, "GET", &mut slots, 100) {
        Ok(head) if matches!(head.status, 200..400) => Ok(()),
        Ok(head) => Err(unhealthy(format!("GET {path} was answered {}, not 200 to 399", head.status))),
        Err(_) => Err(not_http(path)),
    }
}

fn not_http(path: &str) -> Unreached {
    unhealthy(format!("GET {path} was not answered in HTTP"))
}

fn unhealthy(why: String) -> Unreached {
    Unreached { failure: BackendFailure::Unhealthy, why: why.into() }
}

fn reach(
    gate: &HttpGate,
    settings: &Settings,
    place: &Place,
    deadline: Nanos,
    store: Store<'_>,
) -> Result<BackendSocket, Unreached> {
    let clock = &gate.gate.clock;
    let (greeting, times) = (greeting(settings), (clock.now(), deadline));
    let (mut connecting, mut arrival) = Connecting::start(place.address(), greeting, times, store)?;
    loop {
        match arrival {
            Arrival::Made { socket, .. } => return Ok(socket),
            Arrival::Wait { until } => {
                wait(connecting.awaits(), until, clock.now());
                arrival = connecting.poll(clock.now(), store)?;
            }
        }
    }
}

/// Waits for an event on these sockets, at most until `until`.
fn wait<'f>(sockets: impl IntoIterator<Item = (BorrowedFd<'f>, PollFlags)>, until: Nanos, now: Nanos) {
    let left = until.saturating_sub(now).clamp(1_000_000, 1_000_000_000);
    let time = Timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as _ };
    let sockets: Vec<_> = sockets.into_iter().collect();
    let mut looks: Vec<_> = sockets.iter().map(|(socket, flags)| PollFd::new(socket, *flags)).collect();
    // An error only makes the wait shorter.
    let _ = poll(&mut looks, Some(&time));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_well_that_answers_below_400() {
        let judged = |status: &str| judge("/up", format!("HTTP/1.1 {status}\r\n\r\n").as_bytes());
        for status in ["200 OK", "204 No Content", "302 Found"] {
            assert_eq!(judged(status), Ok(()));
        }
        for (status, why) in [
            ("404 Not Found", "GET /up was answered 404, not 200 to 399"),
            ("503 Service Unavailable", "GET /up was answered 503, not 200 to 399"),
            ("100 Continue", "GET /up was answered 100, not 200 to 399"),
            ("x", "GET /up was not answered in HTTP"),
        ] {
            let unreached = judged(status).unwrap_err();
            assert_eq!((unreached.failure, &*unreached.why), (BackendFailure::Unhealthy, why));
        }
    }
}
