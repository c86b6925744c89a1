//! One thread, one datagram at a time: the limit for datagrams.

use super::announce::announce;
use super::work::Mode;
use anyhow::Result;
use std::net::{SocketAddr, UdpSocket};

pub(super) fn serve(listen: SocketAddr, mode: Mode) -> Result<()> {
    let socket = UdpSocket::bind(listen)?;
    announce("udp", socket.local_addr()?)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok((n, peer)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        mode.work();
        let answer = match mode {
            // As long as what `ctime` prints; the clock is read, the words are not made.
            Mode::Time => {
                let _ = std::hint::black_box(std::time::SystemTime::now());
                &b"Thu Jan  1 00:00:00 1970\n"[..]
            }
            _ => &buffer[..n],
        };
        let _ = socket.send_to(answer, peer);
    }
}
