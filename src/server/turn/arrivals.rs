//! What the order of turns needs to know about an entry in the line: since when it waits, whose it is, and whether its
//! client has hung up.

use crate::admit::sharing::Sharing;
use crate::admit::turns::accounts::Class;
use crate::clock::Nanos;
use crate::server::queue::line::{Claim, Entry, Job};
use crate::server::queue::order::{About, Arrivals};
use crate::server::shared::Shared;

impl Arrivals<Entry> for Shared {
    fn pop(&self) -> Option<Entry> {
        self.line.pop()
    }

    fn since(entry: &Entry) -> Nanos {
        entry.since
    }

    fn about(&self, entry: &Entry) -> Option<About> {
        match entry.job {
            Job::Turn(id, claim) => {
                let slot = self.table.get(id.slot)?;
                Some(About {
                    slot: id.slot,
                    generation: id.generation.0,
                    since: entry.since,
                    class: if claim == Claim::Newcomer { Class::Newcomer } else { Class::Established },
                    source: Sharing::source(slot.heap()),
                    hung_up: slot.state.has_hung_up(id.generation),
                })
            }
            Job::Datagram(slot) => {
                let letter = self.datagrams.slots().lock(slot);
                let (socket, peer) = (&self.datagrams.sockets[letter.socket], letter.taken.peer);
                let source = Sharing::source(self.sharing.heap(socket.column, peer.ip()));
                let (since, class) = (entry.since, Class::Datagram);
                Some(About { slot, generation: 0, since, class, source, hung_up: false })
            }
            // These are for no client, or for one that is to be told at once.
            Job::Overloaded(_) | Job::Receive(_) | Job::Tick | Job::Farewell => None,
        }
    }
}
