//! A listener for datagrams that opens while the server serves, between the moment that it is bound and the moment that it
//! receives.

use super::socket::{DatagramSocket, column_of};
use crate::limits::Limits;
use crate::server::error::BuildError;
use crate::server::listen::{Around, ListenOffer};
use crate::server::poll::poller::Source;
use crate::server::relisten::Placed;
use crate::server::shared::Shared;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::RwLockReadGuard;

pub(crate) struct OpeningDatagrams<'a> {
    number: usize,
    seat: DatagramSeat<'a>,
}

enum DatagramSeat<'a> {
    New(Box<DatagramSocket>),
    /// Its listener is there, and gets this socket.
    Again(UdpSocket),
    /// Its listener is there, and still answers the last of what it received when it was closed. Nobody closes its socket
    /// meanwhile.
    Kept(RwLockReadGuard<'a, Option<UdpSocket>>),
}

impl Shared {
    /// Binds one that opens.
    pub(crate) fn bind_datagrams(
        &self,
        placed: Placed,
        limits: &Limits,
        around: &Around<'_>,
    ) -> Result<OpeningDatagrams<'_>, BuildError> {
        let Placed { number, again, position, mut listen } = placed;
        let kept = again.and_then(|number| self.datagrams.sockets[number].keep());
        let seat = match (kept, again, &listen.offer) {
            (Some(kept), ..) => DatagramSeat::Kept(kept),
            (None, None, ListenOffer::Datagrams(service)) => {
                let (service, socket) = (service.clone(), listen.open_datagrams(limits, around)?);
                let mut listener = listen.seated_datagrams(socket, service, position)?.asleep();
                listener.column = column_of(number, self.listeners.room());
                DatagramSeat::New(Box::new(listener))
            }
            _ => DatagramSeat::Again(listen.open_datagrams(limits, around)?),
        };
        Ok(OpeningDatagrams { number, seat })
    }

    /// Puts their sockets into the poller. Nothing is received before they are [started](Self::start_datagrams); where that
    /// does not come to pass, a socket leaves the poller when it is closed.
    pub(crate) fn register_datagrams(&self, openings: &[OpeningDatagrams<'_>]) -> Result<(), BuildError> {
        let added = openings.iter().try_for_each(|OpeningDatagrams { number, seat }| match seat {
            DatagramSeat::New(listener) => listener.register(&self.poller, *number),
            DatagramSeat::Again(socket) => self.poller.add(socket.as_fd(), Source::Datagrams(*number)),
            DatagramSeat::Kept(_) => Ok(()),
        });
        added.map_err(|source| BuildError::Start { what: "the datagram listeners", source })
    }

    /// Gives it its seat; its number. Nothing can fail here.
    pub(crate) fn seat_datagrams(&self, OpeningDatagrams { number, seat }: OpeningDatagrams<'_>) -> usize {
        let sockets = &self.datagrams.sockets;
        match seat {
            DatagramSeat::New(listener) => {
                self.counts.open([listener.column]);
                let seat = sockets.add(*listener);
                debug_assert_eq!(seat, Some(number), "it was looked for one");
            }
            DatagramSeat::Again(socket) => sockets[number].open_again(socket),
            DatagramSeat::Kept(socket) => sockets[number].stay_open(socket),
        }
        number
    }

    /// The one of this number receives from now on.
    pub(crate) fn start_datagrams(&self, number: usize) {
        let (sockets, now) = (&self.datagrams.sockets, self.clock.now());
        sockets[number].start(&self.line, number, now);
        if !self.life.takes_newcomers() {
            // The server has begun to end, and may not have seen that this one is open.
            sockets[number].take_no_more(&self.line, number, now);
        }
        self.crew.work_queued();
    }

    /// Closes the listeners for datagrams at these positions: they take nothing that comes from now on.
    pub(crate) fn close_datagrams(&self, closing: &[usize]) {
        let sockets = self.datagrams.sockets.iter().enumerate();
        for (number, socket) in sockets.filter(|(_, socket)| closing.contains(&socket.position)) {
            socket.close_down(&self.line, number, self.clock.now());
        }
        self.crew.work_queued();
    }
}
