//! The acceptor's steps, one after the other, on real sockets and without a thread of the server.

use super::*;
use crate::limits::{Limits, RefusalRate};
use crate::server::{BoundServer, Server};
use std::io::{ErrorKind, Read};
use std::net::TcpStream;

/// A server with a busy worker, which refuses nobody for whom its budget has to pay.
fn server(queue: usize) -> BoundServer {
    let limits = Limits::default()
        .workers(1)
        .queue(queue)
        .queue_target(Duration::ZERO)
        .refusal_rate(RefusalRate::PerSecond(0.0));
    let builder = Server::builder().limits(limits).busy_reply("busy\n");
    let server = builder.listen("127.0.0.1:0", crate::Echo).unwrap().bind().unwrap();
    server.shared().counts.meters()[0].begin(1);
    server
}

fn acceptor(server: &BoundServer) -> Acceptor {
    let shared = server.shared().clone();
    let socket = shared.listeners[0].socket().as_ref().unwrap().try_clone().unwrap();
    Acceptor::new(shared, Poll::new().unwrap(), vec![socket], crossbeam_channel::bounded(1).1)
}

/// Newcomers that wait for a worker, in the order in which they came.
fn line_up(server: &BoundServer, acceptor: &mut Acceptor, count: usize) -> Vec<TcpStream> {
    let address = server.addresses()[0].to_string();
    let room = server.shared().line.newcomers();
    let clients = (1..=count).map(|nth| {
        let client = TcpStream::connect(&address).unwrap();
        while room.waiting() < nth {
            acceptor.watched[0].ready = true;
            acceptor.accept_all();
        }
        client
    });
    clients.collect()
}

#[test]
fn when_fewer_newcomers_may_wait_those_who_have_waited_longest_are_refused_at_once() {
    let server = server(8);
    let (shared, mut acceptor) = (server.shared(), acceptor(&server));
    let clients = line_up(&server, &mut acceptor, 6);
    let room = shared.line.newcomers();
    let mut waiting_after = || {
        acceptor.accept_all();
        room.waiting()
    };
    room.note_overflow();
    room.shrink_to(2);
    assert_eq!(waiting_after(), 6, "a queue that does not stand may drain");
    assert!(shared.order.standing().observe(shared.clock.now() + 2 * INTERVAL, Some(1)));
    assert_eq!((waiting_after(), waiting_after()), (2, 2));
    let counted = shared.counts.read_counts(0);
    assert_eq!(counted.dropped[DropReason::QueueFull as usize], 4);
    assert!(counted.conserved() && counted.open() == 2);
    for (nth, mut client) in clients.into_iter().enumerate() {
        let mut told = String::new();
        if nth < 4 {
            client.read_to_string(&mut told).unwrap();
            assert_eq!(told, "busy\n", "{nth}");
        } else {
            client.set_nonblocking(true).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "{nth}");
        }
    }
}
