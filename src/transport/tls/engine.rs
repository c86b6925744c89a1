//! The TLS of one connection, with a client or with a backend: records in, bytes out, and the other way. It owns no buffer.
//!
//! It drives rustls through its unbuffered interface, in which the caller owns all bytes. The buffered one would keep
//! at least 4 KiB for each connection, idle or not, and read that much at a time.

use super::certificates::take_asked_name;
use super::choices::OPTIONS;
use super::facts::{TlsFacts, TlsVersion};
use super::outcome::{Advance, Broken, PLAIN_MAX};
use super::records::Records;
use crate::reason::HandshakeFailure;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, ReadTraffic, UnbufferedStatus, WriteTraffic,
};
use rustls::{
    ClientConfig, CommonState, Error, HandshakeKind, PeerIncompatible, ProtocolVersion, ServerConfig,
};
use std::sync::Arc;
use tidegate_protocols::tls::{explain, in_words};

/// The longest message that is sent beside the bytes of a service: a flight of certificates.
const MESSAGE_MAX: usize = 256 * 1024;

/// What a record adds to its bytes, at most: its header, its type, what authenticates it.
const RECORD_OVERHEAD: usize = 64;

/// What rustls keeps of one connection.
pub(crate) struct RustlsEngine {
    connection: TlsConnection,
    /// The name that the client asked for.
    asked_name: Option<String>,
    progress: Progress,
}

/// A connection as rustls sees it.
enum TlsConnection {
    /// The other side is a client of this server.
    Server(UnbufferedServerConnection),
    /// The other side is a backend.
    Client(UnbufferedClientConnection),
}

impl TlsConnection {
    fn common(&self) -> &CommonState {
        match self {
            TlsConnection::Server(connection) => connection,
            TlsConnection::Client(connection) => connection,
        }
    }
}

/// How far a connection has come.
#[derive(Default)]
struct Progress {
    /// A message of the handshake is in the buffer in part, at a place that rustls remembers: it wants to see the same
    /// buffer in each call.
    fragment: bool,
    /// There may be whole records that were not taken.
    more: bool,
    /// Bytes that were decrypted and not taken: at most those of a record.
    inside: Vec<u8>,
    /// The other side has said that it will say no more.
    ended: bool,
    open: bool,
}

/// What is to be written.
#[derive(Clone, Copy)]
enum Saying<'s> {
    Bytes(&'s [u8]),
    /// `close_notify`.
    End,
}

impl std::fmt::Debug for RustlsEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RustlsEngine").field("open", &self.progress.open).finish_non_exhaustive()
    }
}

/// What one step with rustls came to.
enum EngineStep {
    GoOn,
    Stop(Advance),
}

impl RustlsEngine {
    /// What one connection takes of the machine at most, beside this struct itself: twice of what was measured, 5 KiB for an idle
    /// connection and 6 KiB for one in the middle of its handshake.
    pub(crate) const BYTES: usize = 12 * 1024;

    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Broken> {
        let connection = UnbufferedServerConnection::new(config).map_err(broken)?;
        Ok(Self::of(TlsConnection::Server(connection)))
    }

    /// The TLS of a connection to a server that must prove this name.
    pub(super) fn to_server(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Broken> {
        let connection = UnbufferedClientConnection::new(config, name).map_err(broken)?;
        Ok(Self::of(TlsConnection::Client(connection)))
    }

    fn of(connection: TlsConnection) -> Self {
        Self { connection, asked_name: None, progress: Progress::default() }
    }

    /// Takes whole records, as many as there are and `plain` has room for, and says how many bytes were in them. In
    /// the handshake it stops when that is over. What is to be sent meanwhile is added to `out`: also an alert, when it
    /// fails.
    pub(crate) fn advance(
        &mut self,
        records: &mut Records,
        plain: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Advance), Broken> {
        let mut got = self.progress.unpack(plain);
        loop {
            if self.progress.ended {
                return Ok((got, Advance::Ended));
            }
            if self.progress.open && plain.len() - got < PLAIN_MAX {
                self.progress.more = !self.progress.inside.is_empty() || !records.is_empty();
                return Ok((got, Advance::NoRoom));
            }
            match self.step(records, plain, &mut got, out) {
                Ok(EngineStep::GoOn) => {}
                Ok(EngineStep::Stop(advance)) => {
                    let progress = &mut self.progress;
                    progress.more =
                        !progress.inside.is_empty() || advance == Advance::Opened && !records.is_empty();
                    progress.fragment = advance == Advance::NeedsInput && records.has_whole();
                    return Ok((got, advance));
                }
                Err(error) => {
                    self.last_words(records, out);
                    return Err(self.broken(error));
                }
            }
        }
    }

    /// An error of reading as it is counted, in words for who set this side up.
    fn broken(&self, error: Error) -> Broken {
        let explained = match self.connection {
            TlsConnection::Client(_) if !self.progress.open => Some(explain(&error, OPTIONS)),
            _ => None,
        };
        let broken = broken(error);
        Broken { why: explained.unwrap_or(broken.why), ..broken }
    }

    /// Lets rustls go one step, and applies it.
    fn step(
        &mut self,
        records: &mut Records,
        plain: &mut [u8],
        got: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<EngineStep, Error> {
        let (seen, progress) = (records.bytes_mut(), &mut self.progress);
        let (discard, stepped) = match &mut self.connection {
            TlsConnection::Server(connection) => {
                progress.apply(connection.process_tls_records(seen), plain, got, out)
            }
            TlsConnection::Client(connection) => {
                progress.apply(connection.process_tls_records(seen), plain, got, out)
            }
        };
        records.consume(discard);
        let next = stepped?;
        self.note_name();
        if !self.progress.open && !self.connection.common().is_handshaking() && !self.owes_finished() {
            self.progress.open = true;
            return Ok(EngineStep::Stop(Advance::Opened));
        }
        Ok(next)
    }

    /// Whether the last message of a handshake of TLS 1.2 is still to be sent. The other side waits for it, and a session
    /// may wait for the other side. With TLS 1.3 that side waits for nothing any more: what is left goes with the first answer.
    fn owes_finished(&self) -> bool {
        let connection = self.connection.common();
        connection.wants_write() && connection.protocol_version() == Some(ProtocolVersion::TLSv1_2)
    }

    /// Encrypts at most [`PLAIN_MAX`] bytes, and adds the record to `out`, behind what must go before it.
    pub(crate) fn seal(
        &mut self,
        data: &[u8],
        records: &mut Records,
        out: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        self.write(records, out, Saying::Bytes(data))
    }

    /// Adds these words, and the message that no more will be said. Nothing, where it cannot be said any more.
    pub(crate) fn close_notify(&mut self, words: &[u8], out: &mut Vec<u8>) {
        if !self.progress.open || self.progress.fragment {
            return;
        }
        // It fails where the connection has failed before.
        let mut none = Records::default();
        if words.chunks(PLAIN_MAX).any(|piece| self.seal(piece, &mut none, out).is_err()) {
            return;
        }
        let _ = self.write(&mut none, out, Saying::End);
    }

    fn write(&mut self, records: &mut Records, out: &mut Vec<u8>, saying: Saying<'_>) -> Result<(), Broken> {
        loop {
            // What else is in the buffer is not to be taken now.
            let seen = if self.progress.fragment { records.bytes_mut() } else { &mut [] };
            let progress = &mut self.progress;
            let done = match &mut self.connection {
                TlsConnection::Server(connection) => {
                    progress.write(connection.process_tls_records(seen), saying, out)
                }
                TlsConnection::Client(connection) => {
                    progress.write(connection.process_tls_records(seen), saying, out)
                }
            };
            if done? {
                return Ok(());
            }
        }
    }

    /// After an error: adds the alert that tells the other side.
    fn last_words(&mut self, records: &mut Records, out: &mut Vec<u8>) {
        while self.connection.common().wants_write() {
            let seen = records.bytes_mut();
            let encoded = match &mut self.connection {
                TlsConnection::Server(connection) => encode_next(connection.process_tls_records(seen), out),
                TlsConnection::Client(connection) => encode_next(connection.process_tls_records(seen), out),
            };
            if !encoded {
                return;
            }
        }
    }

    fn note_name(&mut self) {
        if !self.progress.open
            && let Some(name) = take_asked_name()
        {
            self.asked_name = Some(name);
        }
    }

    /// What was agreed on.
    pub(crate) fn facts(&self) -> TlsFacts {
        let connection = self.connection.common();
        TlsFacts {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => TlsVersion::V1_3,
                _ => TlsVersion::V1_2,
            },
            server_name: self.asked_name.clone(),
            protocol: connection.alpn_protocol().map(<[u8]>::to_vec),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// Whether the handshake is over.
    pub(crate) fn is_open(&self) -> bool {
        self.progress.open
    }

    /// Whether bytes may be had without more input.
    pub(crate) fn has_more(&self) -> bool {
        self.progress.more
    }
}

impl Progress {
    /// Applies a step of rustls. Returns how many bytes of the records were used, and what follows.
    fn apply<Side>(
        &mut self,
        status: UnbufferedStatus<'_, '_, Side>,
        plain: &mut [u8],
        got: &mut usize,
        out: &mut Vec<u8>,
    ) -> (usize, Result<EngineStep, Error>) {
        let UnbufferedStatus { mut discard, state } = status;
        let mut next = EngineStep::GoOn;
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let read = self.read(&mut traffic, plain, got);
                discard += read.as_ref().copied().unwrap_or(0);
                if let Err(error) = read {
                    return (discard, Err(error));
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                if let Err(error) = encode(&mut data, out) {
                    return (discard, Err(error));
                }
            }
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => self.ended = true,
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
                next = EngineStep::Stop(Advance::NeedsInput);
            }
            // Data before the handshake's end is never accepted: it could be a copy of an earlier request.
            Ok(_) => return (discard, Err(Error::General("unexpected state".to_owned()))),
            Err(error) => return (discard, Err(error)),
        }
        (discard, Ok(next))
    }

    /// Takes the bytes that rustls has decrypted. Those that `plain` has no room for, and those that come before the end of the
    /// handshake is known, are kept. Returns how many bytes of the records were used.
    fn read<Side>(
        &mut self,
        traffic: &mut ReadTraffic<'_, '_, Side>,
        plain: &mut [u8],
        got: &mut usize,
    ) -> Result<usize, Error> {
        let mut discard = 0;
        while let Some(record) = traffic.next_record() {
            let record = record?;
            discard += record.discard;
            let bytes = record.payload;
            if bytes.len() > PLAIN_MAX {
                return Err(Error::PeerSentOversizedRecord);
            }
            match plain[*got..].get_mut(..bytes.len()) {
                Some(room) if self.open && self.inside.is_empty() => {
                    room.copy_from_slice(bytes);
                    *got += bytes.len();
                }
                _ => self.inside.extend_from_slice(bytes),
            }
        }
        Ok(discard)
    }

    /// Moves kept bytes to `plain`, and says how many.
    fn unpack(&mut self, plain: &mut [u8]) -> usize {
        let bytes = self.inside.len().min(plain.len());
        if !self.open || bytes == 0 {
            return 0;
        }
        plain[..bytes].copy_from_slice(&self.inside[..bytes]);
        match bytes == self.inside.len() {
            true => self.inside = Vec::new(),
            false => drop(self.inside.drain(..bytes)),
        }
        bytes
    }

    /// Writes, if rustls is ready for that; otherwise does what must come before. Returns whether it was written.
    fn write<Side>(
        &mut self,
        status: UnbufferedStatus<'_, '_, Side>,
        saying: Saying<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Broken> {
        match status.state.map_err(broken)? {
            ConnectionState::WriteTraffic(mut traffic) => {
                return fill(out, &mut traffic, saying).map(|()| true);
            }
            ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out).map_err(broken)?,
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => self.ended = true,
            // It came with the last message of the handshake, and was not asked for yet.
            ConnectionState::ReadTraffic(mut traffic) => {
                self.read(&mut traffic, &mut [], &mut 0).map_err(broken)?;
            }
            _ => return Err(broken(Error::General("the connection takes no more".to_owned()))),
        }
        Ok(false)
    }
}

/// Adds the message that rustls wants to send next; false if there is none.
fn encode_next<Side>(status: UnbufferedStatus<'_, '_, Side>, out: &mut Vec<u8>) -> bool {
    match status.state {
        Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, out).is_ok(),
        _ => false,
    }
}

/// Adds a message of the handshake.
fn encode<T>(data: &mut EncodeTlsData<'_, T>, out: &mut Vec<u8>) -> Result<(), Error> {
    let len = out.len();
    // The length is told by the first try.
    let wanted = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size.min(MESSAGE_MAX),
        _ => return Ok(()),
    };
    out.resize(len + wanted, 0);
    let encoded = data.encode(&mut out[len..]).map_err(|error| Error::General(error.to_string()));
    out.truncate(len + encoded.as_ref().copied().unwrap_or(0));
    encoded.map(drop)
}

/// Adds the record that says this.
fn fill<Side>(
    out: &mut Vec<u8>,
    traffic: &mut WriteTraffic<'_, Side>,
    saying: Saying<'_>,
) -> Result<(), Broken> {
    let len = out.len();
    let mut wanted = RECORD_OVERHEAD;
    if let Saying::Bytes(data) = saying {
        wanted += data.len();
    }
    loop {
        out.resize(len + wanted, 0);
        let room = &mut out[len..];
        let written = match saying {
            Saying::Bytes(data) => traffic.encrypt(data, room),
            Saying::End => traffic.queue_close_notify(room),
        };
        match written {
            Ok(written) => {
                out.truncate(len + written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(size)) if wanted < size.required_size => {
                wanted = size.required_size;
            }
            Err(error) => {
                out.truncate(len);
                return Err(broken(Error::General(error.to_string())));
            }
        }
    }
}

/// An error of rustls as it is counted.
fn broken(error: Error) -> Broken {
    let failure = match &error {
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13,
        ) => HandshakeFailure::Version,
        Error::PeerIncompatible(_) => HandshakeFailure::Parameters,
        Error::NoApplicationProtocol => HandshakeFailure::Protocol,
        Error::AlertReceived(_) => HandshakeFailure::Alert,
        Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::InvalidMessage(_)
        | Error::PeerMisbehaved(_)
        | Error::DecryptError
        | Error::PeerSentOversizedRecord => HandshakeFailure::Malformed,
        _ => HandshakeFailure::Internal,
    };
    Broken { failure, why: in_words(&error) }
}
