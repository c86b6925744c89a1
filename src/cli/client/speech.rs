//! How a message becomes bytes, and where its reply ends: in a stream of bytes, in datagrams, over HTTP, on a WebSocket.

use super::failure::Failure;
use super::output::Printer;
use super::random::random;
use std::time::Duration;
use tidegate_protocols::RequestForm;
use tidegate_protocols::http::{Response, ResponseReader, is_answered_without_a_body, request};
use tidegate_protocols::websocket::{self, FrameReader, Said};
use tidegate_units::url::Url;

/// What ends a reply that comes over a stream of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyEnd {
    /// A newline.
    Newline,
    /// Nothing more has come for this time.
    Quiet(Duration),
}

/// What is spoken.
pub(super) enum Speech {
    /// Bytes. A message may be a line of its own.
    Bytes { adds_newline: bool, reply_end: ReplyEnd },
    /// A datagram for each message and each reply.
    Datagrams,
    /// A request for each message, and a response for each reply.
    Http(Box<Requests>),
    /// A message of a WebSocket for each message and each reply.
    Socket(Box<Frames>),
}

/// What the server did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing.
    Silence,
    /// It said something, but not a whole reply.
    Part,
    /// It said a whole reply.
    Reply,
    /// It ended the connection.
    End,
}

impl Speech {
    /// Whether messages and replies are one to one, and the connection is of no interest.
    pub(super) fn is_http(&self) -> bool {
        matches!(self, Speech::Http(_))
    }

    /// The bytes of a message. No message is a request without a body, where there are requests.
    pub(super) fn code(&mut self, message: Option<Vec<u8>>) -> Vec<u8> {
        match self {
            Speech::Bytes { adds_newline: true, .. } => {
                let mut line = message.unwrap_or_default();
                line.push(b'\n');
                line
            }
            Speech::Bytes { .. } | Speech::Datagrams => message.unwrap_or_default(),
            Speech::Http(http) => http.code(message.as_deref()),
            Speech::Socket(_) => websocket::message(&message.unwrap_or_default(), mask()),
        }
    }

    /// Prints what the server says in `bytes`. What it comes to, and what has to be sent at once.
    pub(super) fn hear(&mut self, bytes: &[u8], output: &mut Printer) -> Result<(Heard, Vec<u8>), Failure> {
        let heard = match self {
            Speech::Bytes { reply_end, .. } => {
                output.print(bytes)?;
                let whole = *reply_end == ReplyEnd::Newline && bytes.contains(&b'\n');
                if whole { Heard::Reply } else { Heard::Part }
            }
            Speech::Datagrams => {
                output.print(bytes)?;
                output.end_line()?;
                Heard::Reply
            }
            Speech::Http(http) => http.hear(bytes, output)?,
            Speech::Socket(socket) => return socket.hear(bytes, output),
        };
        Ok((heard, Vec::new()))
    }
}

fn mask() -> [u8; 4] {
    (random() as u32).to_ne_bytes()
}

/// HTTP.
pub(super) struct Requests {
    url: Url,
    form: RequestForm,
    reader: ResponseReader,
    /// What is wrong with what the server said.
    pub(super) wrong: Option<String>,
    /// The connection serves no further request.
    pub(super) spent: bool,
}

impl Requests {
    pub(super) fn new(url: &Url, form: RequestForm) -> Self {
        let reader = ResponseReader::default();
        Self { url: url.clone(), form, reader, wrong: None, spent: false }
    }

    fn code(&mut self, body: Option<&[u8]>) -> Vec<u8> {
        self.reader.reset();
        self.reader.head_only = is_answered_without_a_body(&self.form, body.is_some());
        request(&self.url, &self.form, body, false)
    }

    fn hear(&mut self, bytes: &[u8], output: &mut Printer) -> Result<Heard, Failure> {
        let mut body = Vec::new();
        let response = self.reader.read(bytes, &mut |piece| body.extend_from_slice(piece));
        output.print(&body)?;
        Ok(match response {
            Response::More => Heard::Part,
            Response::Whole(keep) => {
                self.spent = !keep;
                self.replied()
            }
            Response::Wrong => {
                self.wrong = Some("with something that is no HTTP".to_owned());
                Heard::Reply
            }
        })
    }

    /// The connection has ended: whether that ends the reply.
    pub(super) fn end(&mut self) -> bool {
        let ends = self.reader.ends_with_the_connection();
        if ends {
            self.replied();
        }
        ends
    }

    fn replied(&mut self) -> Heard {
        let status = self.reader.status();
        let again = match self.reader.retry_after() {
            Some(seconds @ 1..) => format!(": it may be asked again in {seconds} s"),
            _ => String::new(),
        };
        self.wrong = (!(200..300).contains(&status)).then(|| format!("with status {status}{again}"));
        Heard::Reply
    }
}

/// A WebSocket.
pub(super) struct Frames {
    reader: FrameReader,
    /// We have said that we close.
    closes: bool,
    /// The server has closed: its code.
    pub(super) closed: Option<Option<u16>>,
    /// The server has broken the protocol.
    pub(super) is_broken: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self { reader: FrameReader::masking(mask()), closes: false, closed: None, is_broken: false }
    }
}

impl Frames {
    /// What is said at the end.
    pub(super) fn close(&mut self) -> Vec<u8> {
        self.closes = true;
        websocket::close(mask())
    }

    fn hear(&mut self, bytes: &[u8], output: &mut Printer) -> Result<(Heard, Vec<u8>), Failure> {
        let (mut rest, mut heard) = (bytes, Heard::Part);
        loop {
            let mut message = Vec::new();
            let next = self.reader.next(rest, &mut |piece| message.extend_from_slice(piece));
            let Some((used, said)) = next else { break };
            rest = &rest[used..];
            output.print(&message)?;
            match said {
                Said::Part => {}
                Said::Message => {
                    output.end_line()?;
                    heard = Heard::Reply;
                }
                Said::Close(code) => {
                    self.closed = Some(code);
                    let answer = if self.closes { Vec::new() } else { self.close() };
                    return Ok((if heard == Heard::Reply { heard } else { Heard::End }, answer));
                }
                Said::Wrong => {
                    self.is_broken = true;
                    return Ok((Heard::End, Vec::new()));
                }
            }
        }
        Ok((heard, self.reader.take_pongs()))
    }

    /// Why the server closed, where that was not the usual end.
    pub(super) fn reason(&self) -> Option<String> {
        let code = self.closed??;
        let meaning = match code {
            1000 | 1001 => return None,
            1002 => ": it takes what we sent for a breach of the protocol",
            1003 | 1007 => ": it does not take such data",
            1008 => ": its policy forbids it",
            1009 => ": the message is too large for it",
            1011 => ": it failed",
            1012 => ": it restarts",
            1013 => ": it is busy, and may be asked again later",
            _ => "",
        };
        Some(format!("close code {code}{meaning}"))
    }
}
