//! The outcomes of requests. Every request that was sent ends as exactly one [`Outcome`].

use std::ops::{AddAssign, Index, IndexMut};

macro_rules! outcomes {
    ($($(#[$meta:meta])* $variant:ident = $label:literal,)*) => {
        /// How a request ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        #[repr(usize)]
        pub enum Outcome { $($(#[$meta])* $variant,)* }

        impl Outcome {
            /// Every outcome, in the order in which reports list them.
            pub const ALL: &'static [Outcome] = &[$(Outcome::$variant,)*];

            /// The name in reports.
            pub const fn as_str(self) -> &'static str {
                match self { $(Outcome::$variant => $label,)* }
            }
        }
    };
}

outcomes! {
    /// Answered as expected. In the modes without a reply: the connection did what the mode asks of it.
    Ok = "ok",
    /// Answered with the server's word for "busy".
    Busy = "busy",
    /// The connection was refused by the kernel: nothing listens.
    Refused = "refused",
    /// The connection was reset before the whole reply had come.
    Reset = "reset",
    /// The server ended the connection in order, before the whole reply had come.
    EofEarly = "eof_early",
    /// No connection within the connect timeout.
    ConnectTimeout = "connect_timeout",
    /// The handshake of TLS failed, or the server broke the protocol later.
    TlsFailed = "tls_failed",
    /// No whole reply within the timeout.
    ReadTimeout = "read_timeout",
    /// A reply came, and it is not the expected one.
    BadReply = "bad_reply",
    /// The network says that there is no way to the address.
    Unreachable = "unreachable",
    /// This machine has no free port for another connection to the target.
    AddressUnavailable = "address_unavailable",
    /// This process, or this machine, has no free descriptor for another socket.
    DescriptorLimit = "descriptor_limit",
    /// Any other error of the operating system.
    OtherError = "other_error",
    /// UDP: no reply within the timeout. Reports take [`Outcome::Late`] off it.
    Lost = "lost",
    /// UDP: a reply came after the timeout.
    Late = "late",
    /// Still unanswered when the run was interrupted.
    UnansweredAtEnd = "unanswered_at_end",
    /// Due, but not sent before the end: no connection was free.
    UnsentAtEnd = "unsent_at_end",
    /// The server ended the connection while the generator was away, with a part of the request still to be sent.
    GeneratorLate = "generator_late",
    /// Due, but noticed so late by the generator that sending it would have been a burst.
    Skipped = "skipped",
    /// UDP: a further reply to a request that had its reply. Not a request, so in no sum.
    Duplicate = "duplicate",
}

impl Outcome {
    /// Whether such a request was tried at all, so that it counts as sent.
    pub(crate) const fn is_sent(self) -> bool {
        !matches!(self, Outcome::UnsentAtEnd | Outcome::Skipped | Outcome::Duplicate)
    }

    /// Whether its time is a lower bound only: the client gave up waiting.
    pub(crate) const fn is_censored(self) -> bool {
        matches!(
            self,
            Outcome::ConnectTimeout
                | Outcome::ReadTimeout
                | Outcome::Lost
                | Outcome::UnansweredAtEnd
                | Outcome::UnsentAtEnd
                | Outcome::Skipped
        )
    }
}

/// How many requests ended in each way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcomes([u64; Outcome::ALL.len()]);

impl Index<Outcome> for Outcomes {
    type Output = u64;

    fn index(&self, outcome: Outcome) -> &u64 {
        &self.0[outcome as usize]
    }
}

impl IndexMut<Outcome> for Outcomes {
    fn index_mut(&mut self, outcome: Outcome) -> &mut u64 {
        &mut self.0[outcome as usize]
    }
}

impl AddAssign<&Outcomes> for Outcomes {
    fn add_assign(&mut self, other: &Outcomes) {
        for (sum, n) in self.0.iter_mut().zip(other.0) {
            *sum += n;
        }
    }
}

impl Outcomes {
    /// Every outcome with its count, in report order. A late reply is not also counted as lost.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Outcome, u64)> + '_ {
        Outcome::ALL.iter().map(|&outcome| (outcome, self.count(outcome)))
    }

    /// The count of one outcome as reports give it.
    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Lost => self[Outcome::Lost].saturating_sub(self[Outcome::Late]),
            other => self[other],
        }
    }

    /// How many requests were tried.
    pub(crate) fn sent(&self) -> u64 {
        self.iter().filter(|(o, _)| o.is_sent()).map(|(_, n)| n).sum()
    }

    /// How many requests that were tried ended in this part of a run: a late reply ended when it was given up.
    pub(crate) fn ended(&self) -> u64 {
        let tried = Outcome::ALL.iter().filter(|o| o.is_sent() && **o != Outcome::Late);
        tried.map(|outcome| self[*outcome]).sum()
    }

    /// How many requests were due and not tried.
    pub(crate) fn unsent(&self) -> u64 {
        self[Outcome::UnsentAtEnd] + self[Outcome::Skipped]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_reply_is_counted_once() {
        let mut outcomes = Outcomes::default();
        outcomes[Outcome::Ok] = 5;
        outcomes[Outcome::Lost] = 3;
        outcomes[Outcome::Late] = 1;
        outcomes[Outcome::Duplicate] = 7;
        outcomes[Outcome::UnsentAtEnd] = 2;
        assert_eq!(outcomes.count(Outcome::Lost), 2);
        assert_eq!((outcomes.sent(), outcomes.ended()), (8, 8));
        assert_eq!(outcomes.unsent(), 2);
    }
}
