//! The TLS of one connection: records in, bytes out, and the other way. It owns no buffer.
//!
//! It drives rustls through its unbuffered interface, in which the caller owns all bytes. The buffered one would keep
//! at least 4 KiB for each connection, idle or not, and read that much at a time.

use super::certificates::take_asked_name;
use super::facts::{TlsFacts, TlsVersion};
use super::outcome::{Advance, Broken, PLAIN_MAX};
use super::records::Records;
use crate::reason::HandshakeFailure;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{Error, HandshakeKind, PeerIncompatible, ProtocolVersion, ServerConfig};
use std::sync::Arc;

/// The longest message that is sent beside the bytes of a service: a flight of certificates.
const MESSAGE_MAX: usize = 256 * 1024;

/// What a record adds to its bytes, at most: its header, its type, what authenticates it.
const RECORD_OVERHEAD: usize = 64;

/// What rustls keeps of one connection.
pub(crate) struct RustlsEngine {
    connection: UnbufferedServerConnection,
    /// The name that the client asked for.
    asked_name: Option<String>,
    /// A message of the handshake is in the buffer in part, at a place that rustls remembers: it wants to see the same
    /// buffer in each call.
    fragment: bool,
    /// There may be whole records that were not taken.
    more: bool,
    /// The client has said that it will say no more.
    ended: bool,
    open: bool,
}

impl std::fmt::Debug for RustlsEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RustlsEngine").field("open", &self.open).finish_non_exhaustive()
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
        Ok(Self { connection, asked_name: None, fragment: false, more: false, ended: false, open: false })
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
        let mut got = 0;
        loop {
            if self.ended {
                return Ok((got, Advance::Ended));
            }
            if self.open && plain.len() - got < PLAIN_MAX {
                self.more = true;
                return Ok((got, Advance::NoRoom));
            }
            match self.step(records, plain, &mut got, out) {
                Ok(EngineStep::GoOn) => {}
                Ok(EngineStep::Stop(advance)) => {
                    self.more = advance == Advance::Opened && (self.more || !records.is_empty());
                    self.fragment = advance == Advance::NeedsInput && records.has_whole();
                    return Ok((got, advance));
                }
                Err(error) => {
                    self.last_words(records, out);
                    return Err(broken(error));
                }
            }
        }
    }

    /// Lets rustls go one step, and applies it.
    fn step(
        &mut self,
        records: &mut Records,
        plain: &mut [u8],
        got: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<EngineStep, Error> {
        let UnbufferedStatus { mut discard, state } =
            self.connection.process_tls_records(records.bytes_mut());
        let mut next = EngineStep::GoOn;
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) if self.open => {
                while plain.len() - *got >= PLAIN_MAX
                    && let Some(record) = traffic.next_record()
                {
                    let record = record?;
                    discard += record.discard;
                    let room = plain[*got..].get_mut(..record.payload.len());
                    room.ok_or(Error::PeerSentOversizedRecord)?.copy_from_slice(record.payload);
                    *got += record.payload.len();
                }
            }
            // The bytes stay inside until they are asked for; the handshake is over then.
            Ok(ConnectionState::ReadTraffic(_)) => self.more = true,
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, out)?,
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => self.ended = true,
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
                next = EngineStep::Stop(Advance::NeedsInput);
            }
            // Data before the handshake's end is never accepted: it could be a copy of an earlier request.
            Ok(_) => return Err(Error::General("unexpected state".to_owned())),
            Err(error) => {
                records.consume(discard);
                return Err(error);
            }
        }
        records.consume(discard);
        self.note_name();
        if !self.open && !self.connection.is_handshaking() && !self.owes_finished() {
            self.open = true;
            next = EngineStep::Stop(Advance::Opened);
        }
        Ok(next)
    }

    /// Whether the last message of a handshake of TLS 1.2 is still to be sent. The client waits for it, and its session may
    /// wait for the client. With TLS 1.3 the client waits for nothing any more: what is left goes with the first answer.
    fn owes_finished(&self) -> bool {
        self.connection.wants_write() && self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_2)
    }

    /// Encrypts at most [`PLAIN_MAX`] bytes, and adds the record to `out`, behind what must go before it.
    pub(crate) fn seal(
        &mut self,
        data: &[u8],
        records: &mut Records,
        out: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        self.write(records, out, data.len() + RECORD_OVERHEAD, |traffic, room| traffic.encrypt(data, room))
    }

    /// Adds these words, and the message that no more will be said. Nothing, where it cannot be said any more.
    pub(crate) fn close_notify(&mut self, words: &[u8], out: &mut Vec<u8>) {
        if !self.open || self.fragment {
            return;
        }
        // It fails where the connection has failed before.
        let mut none = Records::default();
        if words.chunks(PLAIN_MAX).any(|piece| self.seal(piece, &mut none, out).is_err()) {
            return;
        }
        let _ = self.write(&mut none, out, RECORD_OVERHEAD, |traffic, room| traffic.queue_close_notify(room));
    }

    fn write(
        &mut self,
        records: &mut Records,
        out: &mut Vec<u8>,
        wanted: usize,
        mut write: impl FnMut(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> Result<(), Broken> {
        loop {
            // What else is in the buffer is not to be taken now.
            let seen = if self.fragment { records.bytes_mut() } else { &mut [] };
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(seen);
            match state.map_err(broken)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    return fill(out, wanted, |room| write(&mut traffic, room));
                }
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out).map_err(broken)?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.ended = true,
                _ => return Err(broken(Error::General("the connection takes no more".to_owned()))),
            }
        }
    }

    /// After an error: adds the alert that tells the client.
    fn last_words(&mut self, records: &mut Records, out: &mut Vec<u8>) {
        while self.connection.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut data)) =
                self.connection.process_tls_records(records.bytes_mut()).state
            && encode(&mut data, out).is_ok()
        {}
    }

    fn note_name(&mut self) {
        if !self.open
            && let Some(name) = take_asked_name()
        {
            self.asked_name = Some(name);
        }
    }

    /// What was agreed on.
    pub(crate) fn facts(&self) -> TlsFacts {
        TlsFacts {
            version: match self.connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => TlsVersion::V1_3,
                _ => TlsVersion::V1_2,
            },
            server_name: self.asked_name.clone(),
            protocol: self.connection.alpn_protocol().map(<[u8]>::to_vec),
            resumed: self.connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// Whether the handshake is over.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether bytes may be had without more input.
    pub(crate) fn has_more(&self) -> bool {
        self.more
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

/// Adds what `write` writes; it needs `wanted` bytes, or says how many.
fn fill(
    out: &mut Vec<u8>,
    mut wanted: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), Broken> {
    let len = out.len();
    loop {
        out.resize(len + wanted, 0);
        match write(&mut out[len..]) {
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
    Broken { failure, why: error.to_string() }
}
