//! Accepts and resets: no server can refuse with fewer calls (accept, one option, close).

use anyhow::Result;
use std::net::TcpListener;
use std::time::Duration;

pub(super) fn serve(listener: TcpListener) -> Result<()> {
    loop {
        let Ok((stream, _)) = listener.accept() else {
            continue;
        };
        // A close without lingering is a reset.
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}
