//! Every metric as data. The exporter, `tidegate metrics` and `docs/metrics.md` are all made from this catalogue.

use super::web::{CLASSES, CLOSES};
use crate::reason::{
    AcceptError, BackendFailure, CloseReason, DatagramDrop, DropReason, HandshakeFailure, RequestFailure,
    SocketHandshake, TurnOutcome, TurnShed, WouldDrop,
};
use std::fmt;

/// How a metric behaves over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// Only goes up, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in cumulative buckets (see [`BUCKETS`](super::snapshot::BUCKETS)).
    Histogram,
}

impl MetricKind {
    /// The word of the text format's `# TYPE` line.
    pub const fn as_str(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When a metric has samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Presence {
    /// From the start to the end, at 0 where nothing happened.
    Always,
    /// The same, for each listener that takes connections.
    Tcp,
    /// The same, for each listener of `udp://`.
    Udp,
    /// For each listener that takes connections and is open, where the system tells (Linux).
    OpenTcp,
    /// From the start to the end, for each listener of a gate.
    Gate,
    /// For each backend of a gate, while it is configured or its name has its address.
    Backend,
    /// Where there is a configuration that can be read again: in the program.
    Program,
    /// Where `/proc` tells (Linux).
    Linux,
    /// For each listener that speaks TLS.
    Tls,
    /// For each listener that speaks HTTP, also where WebSockets follow or a gate passes it on.
    Http,
    /// The same, but for gates.
    OwnHttp,
}

impl Presence {
    /// What the documentation says of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Presence::Always => "always",
            Presence::Tcp => "for each TCP listener",
            Presence::Udp => "for each UDP listener",
            Presence::OpenTcp => "for each open TCP listener, on Linux",
            Presence::Gate => "for each listener of a gate",
            Presence::Backend => "for each backend of a gate",
            Presence::Program => "in the program",
            Presence::Linux => "on Linux",
            Presence::Tls => "for each TLS listener",
            Presence::Http => "for each listener of HTTP or WebSockets",
            Presence::OwnHttp => "for each listener of HTTP or WebSockets that is no gate",
        }
    }
}

/// A label and what its values mean.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What it tells apart.
    pub meaning: &'static str,
    /// Its values and their meanings; none where they come from the configuration.
    pub values: &'static [(&'static str, &'static str)],
}

macro_rules! metrics {
    ($($id:ident $name:literal $kind:ident $unit:literal $presence:ident [$($label:ident),*] $help:literal;)*) => {
        /// Names each metric, so that the compiler sees that every one is exported.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Id {
            $(#[doc = concat!("`", $name, "`: ", $help)] $id,)*
        }

        /// Every metric, in the order of the documentation.
        pub const CATALOGUE: &[Metric] = &[
            $(Metric {
                id: Id::$id,
                name: $name,
                kind: MetricKind::$kind,
                unit: $unit,
                presence: Presence::$presence,
                labels: &[$($label),*],
                help: $help,
            },)*
        ];
    };
}

/// One metric.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Metric {
    /// What the exporter knows it by.
    pub id: Id,
    /// Its full name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// What one is: a unit, or the thing that is counted.
    pub unit: &'static str,
    /// When it has samples.
    pub presence: Presence,
    /// Its labels, in the order of its samples' values.
    pub labels: &'static [Label],
    /// The `# HELP` line.
    pub help: &'static str,
}

const fn label(
    name: &'static str,
    meaning: &'static str,
    values: &'static [(&'static str, &'static str)],
) -> Label {
    Label { name, meaning, values }
}

const LISTENER: Label = label(
    "listener",
    "the listener's URL with its real port, like `tcp://127.0.0.1:5000` or `https://0.0.0.0:8443`",
    &[],
);
const SERVICE: Label = label("service", "the service's name, like `echo`", &[]);
const VERSION: Label = label("version", "the version of tidegate", &[]);
const REVISION: Label = label("revision", "the commit it was built from, or `unknown`", &[]);
const STATE: Label = label(
    "state",
    "where the connection is",
    &[
        ("queued", "it waits for a worker"),
        ("active", "a worker is serving it"),
        ("idle", "it waits for its client, and no thread waits with it"),
    ],
);
const WORKER_STATE: Label = label(
    "state",
    "what the worker is doing",
    &[("busy", "it runs a turn of a service"), ("idle", "it waits for work")],
);
const DROP: Label = label(
    "reason",
    "why it was turned away before its first turn",
    &[
        (DropReason::QueueFull.as_str(), "as many entries waited for a worker as `queue` allows"),
        (DropReason::MaxConnections.as_str(), "as many connections were open as `max_connections` allows"),
        (DropReason::PerSource.as_str(), "its source had as many connections as `max_per_source` allows"),
        (DropReason::Rate.as_str(), "its source connected faster than its rate allows"),
        (DropReason::QueueTimeout.as_str(), "it waited for a worker longer than `queue_timeout`"),
        (DropReason::FdReserve.as_str(), "the process was out of file descriptors"),
        (DropReason::ClientGone.as_str(), "the client left before its first turn"),
        (DropReason::Draining.as_str(), "the server ended before its first turn"),
        (DropReason::Denied.as_str(), "the service's `verify` hook said no"),
        (DropReason::NoBackend.as_str(), "no backend of the gate could be reached"),
        (
            DropReason::ProxyHeader.as_str(),
            "`accept-proxy` does not name its address, or it did not begin with a PROXY header",
        ),
    ],
);
const CLOSE: Label = label(
    "reason",
    "why it ended",
    &[
        (CloseReason::Client.as_str(), "the client ended it"),
        (CloseReason::Server.as_str(), "the service ended it"),
        (CloseReason::IdleTimeout.as_str(), "nothing was asked for longer than `idle_timeout`"),
        (CloseReason::ReadTimeout.as_str(), "a request was not whole within `read_timeout`"),
        (CloseReason::WriteTimeout.as_str(), "the client took none of its replies for `write_timeout`"),
        (CloseReason::Reset.as_str(), "the connection was reset, or failed in another way"),
        (CloseReason::Protocol.as_str(), "the client broke the protocol (a line over `max_line`, say)"),
        (CloseReason::Panic.as_str(), "the service's turn panicked"),
        (
            CloseReason::InputLimit.as_str(),
            "its incomplete request did not fit beside those of other connections (`input_total`)",
        ),
        (
            CloseReason::OutputLimit.as_str(),
            "its unsent replies outgrew `output_per_connection` or `output_total`",
        ),
        (CloseReason::Error.as_str(), "the service's turn returned an error"),
        (CloseReason::Shutdown.as_str(), "the server ended"),
        (CloseReason::Handshake.as_str(), "its TLS handshake failed"),
        (CloseReason::Overload.as_str(), "its request waited for a worker longer than `queue_timeout`"),
    ],
);
const TLS_VERSION: Label =
    label("version", "the version of TLS that was agreed on", &[("1.2", "TLS 1.2"), ("1.3", "TLS 1.3")]);
const TLS_KIND: Label = label(
    "kind",
    "whether the client had been there before",
    &[("full", "it was shown the certificate"), ("resumed", "it resumed an earlier session by a ticket")],
);
const TLS_FAILURE: Label = label(
    "reason",
    "why the handshake failed",
    &[
        (HandshakeFailure::Timeout.as_str(), "it was not over within `read_timeout`"),
        (HandshakeFailure::NotTls.as_str(), "the client does not speak TLS: HTTP without it, say"),
        (HandshakeFailure::Version.as_str(), "the client speaks no version that is offered"),
        (HandshakeFailure::Parameters.as_str(), "no cipher suite, group or kind of signature in common"),
        (HandshakeFailure::Protocol.as_str(), "the client offers other protocols (ALPN) only"),
        (HandshakeFailure::Alert.as_str(), "the client refused: it does not trust the certificate, say"),
        (HandshakeFailure::Malformed.as_str(), "the client broke the rules of TLS"),
        (HandshakeFailure::ClientGone.as_str(), "the client left in the middle"),
        (
            HandshakeFailure::InputLimit.as_str(),
            "what it had sent did not fit beside that of others (`input_total`)",
        ),
        (HandshakeFailure::Internal.as_str(), "the server could not go on"),
    ],
);
const ACCEPT_ERROR: Label = label(
    "error",
    "the class of the error",
    &[
        (AcceptError::Emfile.as_str(), "the process has no file descriptor left"),
        (AcceptError::Enfile.as_str(), "the system has no file descriptor left"),
        (AcceptError::Nobufs.as_str(), "the kernel has no memory left for sockets"),
        (AcceptError::Aborted.as_str(), "the client gave up before it was accepted"),
        (AcceptError::Other.as_str(), "any other"),
    ],
);
const OUTCOME: Label = label(
    "outcome",
    "how the turn ended",
    &[
        (TurnOutcome::Ok.as_str(), "it read or sent something, and returned"),
        (TurnOutcome::Error.as_str(), "it returned an error, or panicked"),
        (TurnOutcome::Timeout.as_str(), "it gave up waiting for the client"),
        (TurnOutcome::End.as_str(), "it saw that the client had ended, and nothing else"),
        (TurnOutcome::Empty.as_str(), "it found nothing: the client had connected and not spoken yet"),
    ],
);
const SHED: Label = label(
    "reason",
    "why the request got no turn",
    &[
        (TurnShed::QueueTimeout.as_str(), "it waited for a worker longer than `queue_timeout`"),
        (TurnShed::ClientGone.as_str(), "its client had left before its turn"),
    ],
);
const DATAGRAM_DROP: Label = label(
    "reason",
    "why it was not answered",
    &[
        (DatagramDrop::QueueFull.as_str(), "as many datagrams waited for a worker as `queue` allows"),
        (DatagramDrop::KernelBuffer.as_str(), "the kernel's receive buffer was full"),
        (DatagramDrop::Oversize.as_str(), "it was longer than `max_datagram`"),
        (DatagramDrop::RefusedSource.as_str(), "answering it could loop or reflect, or `verify` said no"),
        (DatagramDrop::SourceRate.as_str(), "its source has sent more than `datagram_source_rate` allows"),
        (DatagramDrop::QueueTimeout.as_str(), "it waited for a worker longer than `queue_timeout`"),
        (DatagramDrop::Unsent.as_str(), "its reply could not be sent"),
        (DatagramDrop::Draining.as_str(), "the server ended before it was answered"),
    ],
);
const WOULD_DROP: Label = label(
    "reason",
    "what the limit is, and why it would have turned the client away",
    &[
        (WouldDrop::QueueFull.as_str(), "`queue`: as many newcomers waited for a worker as it allows"),
        (WouldDrop::PerSource.as_str(), "`max_per_source`: its source had as many connections as it allows"),
        (WouldDrop::Rate.as_str(), "`source_rate`: its source connected faster than it allows"),
        (WouldDrop::SourceRate.as_str(), "`datagram_source_rate`: its source had sent more than it allows"),
        (WouldDrop::QueueTimeout.as_str(), "`queue_timeout`: it waited for a worker longer"),
    ],
);
const BACKEND: Label =
    label("backend", "the backend's address, like `127.0.0.1:8000` or `unix:/run/app.sock`", &[]);
const GATE_REFUSAL: Label = label(
    "reason",
    "why it got no place",
    &[
        (DropReason::QueueFull.as_str(), "as many clients waited for a place as `queue` allows"),
        (DropReason::QueueTimeout.as_str(), "it waited for a place longer than `queue_timeout`"),
        (DropReason::NoBackend.as_str(), "no backend could be reached within `backend_connect_timeout`"),
        (DropReason::ClientGone.as_str(), "the client left while it waited"),
    ],
);
const BACKEND_FAILURE: Label = label(
    "reason",
    "why the attempt failed",
    &[
        (BackendFailure::Refused.as_str(), "nobody listens there"),
        (BackendFailure::Timeout.as_str(), "it did not answer within `backend_connect_timeout`"),
        (BackendFailure::Reset.as_str(), "it reset the connection before a byte had passed"),
        (BackendFailure::Unreachable.as_str(), "no route to it, or no permission to use its socket"),
        (BackendFailure::Resolve.as_str(), "its name could not be resolved again; it is used as before"),
        (
            BackendFailure::Local.as_str(),
            "this process had no descriptor, port or memory left; the backend is not to blame",
        ),
        (BackendFailure::Unhealthy.as_str(), "it answered a check over HTTP with an error, or not in HTTP"),
        (BackendFailure::Tls.as_str(), "the TLS handshake failed: its certificate is not trusted, say"),
    ],
);

const ANSWER: Label = label(
    "answer",
    "its first word",
    &[
        ("up", "the server serves, and takes the share of the load that the answer names"),
        ("drain", "the server is told to end: no new connections"),
        ("down", "the server cannot serve: no backend of a gate is up, say"),
    ],
);
const ANSWER_CLASS: Label = label(
    "class",
    "the first digit of the answer's status",
    &[
        ("other", "a status that is none of HTTP's"),
        ("1xx", "the connection went on as a WebSocket"),
        ("2xx", "it was done"),
        ("3xx", "the client is to look elsewhere, or has it already"),
        ("4xx", "the request was at fault"),
        ("5xx", "the backend was at fault"),
    ],
);
const HTTP_CLASS: Label = label(
    "class",
    "the first digit of the answer's status",
    &[
        (CLASSES[0], "the connection went on as a WebSocket"),
        (CLASSES[1], "it was done"),
        (CLASSES[2], "the client is to look elsewhere, or has it already"),
        (CLASSES[3], "the request was at fault"),
        (CLASSES[4], "the server was at fault, or had more to do than it can"),
    ],
);
const SOCKET_HANDSHAKE: Label = label(
    "outcome",
    "what became of the request",
    &[
        (SocketHandshake::Opened.as_str(), "the socket was opened"),
        (SocketHandshake::NotWebSocket.as_str(), "it did not ask for a WebSocket: a page was opened, say"),
        (SocketHandshake::Method.as_str(), "it was not a GET without a body"),
        (SocketHandshake::Version.as_str(), "it asked for another version than 13"),
        (SocketHandshake::Key.as_str(), "it had no key of 16 bytes in base64"),
        (SocketHandshake::Origin.as_str(), "it came from a page whose origin may not connect"),
        (SocketHandshake::Service.as_str(), "the service refused it, or failed"),
    ],
);
const DIRECTION: Label = label(
    "direction",
    "who sent it",
    &[("received", "the client"), ("sent", "the server, what was pushed included")],
);
const CLOSE_CODE: Label = label(
    "code",
    "the close code of whoever closed it first (RFC 6455, 7.4)",
    &[
        (CLOSES[0], "it was done"),
        (CLOSES[1], "the page was left, or the server ended"),
        (CLOSES[2], "a peer broke the protocol"),
        (CLOSES[3], "a kind of message that is not taken"),
        (CLOSES[4], "text that is not UTF-8"),
        (CLOSES[5], "a rule of the service"),
        (CLOSES[6], "a message that is longer than `max_message`"),
        (CLOSES[7], "the service failed"),
        (CLOSES[8], "the server had more to do than it can, or no room"),
        (CLOSES[9], "another code of the RFC"),
        (CLOSES[10], "a code of a library or framework, 3000 to 3999"),
        (CLOSES[11], "a code of the application, 4000 to 4999"),
        (CLOSES[12], "a close frame without a code"),
        (CLOSES[13], "the connection ended without a close frame"),
    ],
);
const REQUEST_FAILURE: Label = label(
    "reason",
    "why it was not answered as it should be",
    &[
        (RequestFailure::Closed.as_str(), "the backend closed the connection and had answered nothing"),
        (RequestFailure::Unreadable.as_str(), "the answer was not HTTP, or could be read in two ways"),
        (RequestFailure::Timeout.as_str(), "the backend was silent for `backend_timeout`"),
        (RequestFailure::Cut.as_str(), "the backend stopped in the middle of its answer"),
    ],
);

metrics! {
    BuildInfo "tidegate_build_info" Gauge "1" Always [VERSION, REVISION]
        "The version that is running; always 1.";
    Accepted "tidegate_connections_accepted_total" Counter "connections" Tcp [LISTENER]
        "Connections that were accepted.";
    Dropped "tidegate_connections_dropped_total" Counter "connections" Tcp [LISTENER, DROP]
        "Accepted connections that were refused or shed before their first turn.";
    Closed "tidegate_connections_closed_total" Counter "connections" Tcp [LISTENER, CLOSE]
        "Connections that ended after their first turn had begun.";
    Connections "tidegate_connections" Gauge "connections" Tcp [LISTENER, STATE]
        "Open connections, by where they are.";
    Active "tidegate_connections_active" Gauge "connections" Always []
        "Connections that a worker is serving.";
    ConnectionsLimit "tidegate_connections_limit" Gauge "connections" Always []
        "Most connections that may be open at the same time.";
    AcceptErrors "tidegate_accept_errors_total" Counter "errors" Tcp [LISTENER, ACCEPT_ERROR]
        "Errors that accept returned; accepting goes on after each.";
    BacklogConnections "tidegate_listen_backlog_connections" Gauge "connections" OpenTcp [LISTENER]
        "Connections that wait in the kernel to be accepted.";
    BacklogLimit "tidegate_listen_backlog_limit" Gauge "connections" OpenTcp [LISTENER]
        "Most connections that may wait in the kernel to be accepted.";
    BacklogDrops "tidegate_listen_backlog_drops_total" Counter "handshakes" OpenTcp [LISTENER]
        "Handshakes that the kernel dropped, in most cases because its accept queue was full.";
    Workers "tidegate_workers" Gauge "threads" Always [WORKER_STATE]
        "Workers, by what they are doing.";
    WorkersLimit "tidegate_workers_limit" Gauge "threads" Always []
        "Workers that were configured.";
    WorkerBusy "tidegate_worker_busy_seconds_total" Counter "seconds" Always []
        "Time that all workers together have spent in turns.";
    WorkersStuck "tidegate_workers_stuck" Gauge "threads" Always []
        "Workers that have been in one turn for longer than `stuck_threshold`.";
    HandlerPanics "tidegate_handler_panics_total" Counter "panics" Always []
        "Panics in services; each closed its connection, and the worker went on.";
    QueueLength "tidegate_queue_length" Gauge "entries" Always []
        "Entries that wait for a worker: newcomers, open connections with another request, and datagrams.";
    QueueLimit "tidegate_queue_limit" Gauge "entries" Always []
        "Most newcomers, and most datagrams, that may wait before others are refused.";
    QueueNewcomers "tidegate_queue_newcomers" Gauge "entries" Always []
        "Newcomers that wait for a worker, which `tidegate_queue_limit` bounds.";
    QueueStanding "tidegate_queue_standing" Gauge "1" Always []
        "1 while the queue stands: for 100 ms its oldest request has waited longer than `queue_target`, and sources take turns; else 0.";
    ShelfLength "tidegate_shelf_length" Gauge "entries" Always []
        "Entries that are set aside while the queue stands; part of `tidegate_queue_length`.";
    ShelfOldest "tidegate_shelf_oldest_seconds" Gauge "seconds" Always []
        "Time that the oldest of the entries set aside has waited.";
    QueueWait "tidegate_queue_wait_seconds" Histogram "seconds" Always []
        "Time that an entry waited in the queue until a worker took it.";
    Turns "tidegate_turns_total" Counter "turns" Always [SERVICE, OUTCOME]
        "Turns of a service, by how they ended.";
    WouldDrop "tidegate_would_drop_total" Counter "connections, requests and datagrams" Always [LISTENER, WOULD_DROP]
        "What limits in a dry run would have refused or shed, and let through.";
    TurnsShed "tidegate_turns_shed_total" Counter "requests" Always [SERVICE, SHED]
        "Requests of connections that had been served before, and that got no turn.";
    TurnDuration "tidegate_turn_duration_seconds" Histogram "seconds" Always [SERVICE]
        "Time that a turn spent in the service's own code; turns that ended as `end` or `empty` are left out.";
    ReceivedBytes "tidegate_received_bytes_total" Counter "bytes" Always [SERVICE]
        "Bytes read from clients.";
    SentBytes "tidegate_sent_bytes_total" Counter "bytes" Always [SERVICE]
        "Bytes that the kernel took to send to clients.";
    PendingInput "tidegate_pending_input_bytes" Gauge "bytes" Always []
        "Bytes held of requests that are not complete yet.";
    PendingOutput "tidegate_pending_output_bytes" Gauge "bytes" Always []
        "Bytes of replies that clients have not taken yet.";
    TlsHandshakes "tidegate_tls_handshakes_total" Counter "handshakes" Tls [LISTENER, TLS_VERSION, TLS_KIND]
        "TLS handshakes that ended well.";
    TlsFailures "tidegate_tls_handshake_failures_total" Counter "handshakes" Tls [LISTENER, TLS_FAILURE]
        "TLS handshakes that failed, by reason.";
    TlsDuration "tidegate_tls_handshake_seconds" Histogram "seconds" Tls [LISTENER]
        "Time from a client's first byte to the end of its TLS handshake, the waits for the client included.";
    TlsBusy "tidegate_tls_handshake_busy_seconds_total" Counter "seconds" Tls [LISTENER]
        "Time that workers have spent in TLS handshakes.";
    TlsCertificateExpiry "tidegate_tls_certificate_expiry_timestamp_seconds" Gauge "seconds" Tls [LISTENER]
        "When the first of the listener's certificates expires, in seconds since the Unix epoch.";
    HttpRequests "tidegate_http_requests_total" Counter "requests" Http [LISTENER, HTTP_CLASS]
        "HTTP requests that were answered. A client that is refused before its first turn is counted as dropped, not here.";
    HttpDuration "tidegate_http_request_duration_seconds" Histogram "seconds" Http [LISTENER]
        "Time from a request's first byte to the end of its answer; through a gate, from when the request is ready to ask for a backend. Answers that refuse it because of overload, and answers that broke off, are left out.";
    HttpRequestBody "tidegate_http_request_body_bytes_total" Counter "bytes" OwnHttp [LISTENER]
        "Bytes of the bodies of HTTP requests.";
    HttpResponseBody "tidegate_http_response_body_bytes_total" Counter "bytes" OwnHttp [LISTENER]
        "Bytes of the bodies of answers to HTTP requests.";
    WebSockets "tidegate_websockets" Gauge "sockets" OwnHttp [LISTENER]
        "WebSockets that are open.";
    SocketHandshakes "tidegate_websocket_handshakes_total" Counter "requests" OwnHttp [LISTENER, SOCKET_HANDSHAKE]
        "Requests for a WebSocket, by what became of them.";
    SocketMessages "tidegate_websocket_messages_total" Counter "messages" OwnHttp [LISTENER, DIRECTION]
        "Messages over WebSockets.";
    SocketCloses "tidegate_websocket_closes_total" Counter "sockets" OwnHttp [LISTENER, CLOSE_CODE]
        "WebSockets that ended, by close code.";
    DatagramsReceived "tidegate_datagrams_received_total" Counter "datagrams" Udp [LISTENER]
        "Datagrams that were read from the kernel.";
    DatagramsDropped "tidegate_datagrams_dropped_total" Counter "datagrams" Udp [LISTENER, DATAGRAM_DROP]
        "Datagrams that were not answered.";
    GateWaiting "tidegate_gate_waiting_clients" Gauge "clients" Gate [LISTENER]
        "Clients that wait for a place at a backend.";
    GateWait "tidegate_gate_wait_seconds" Histogram "seconds" Gate [LISTENER]
        "Time until a client got a place at a backend, with its wait in the kernel's backlog and in the queue. Clients that got none are left out.";
    GateRefused "tidegate_gate_refused_total" Counter "clients" Gate [LISTENER, GATE_REFUSAL]
        "Clients that got no place at a backend.";
    GatePlaces "tidegate_gate_places" Gauge "places" Gate [LISTENER]
        "Places in use at all backends of the listener together.";
    GatePlacesLimit "tidegate_gate_places_limit" Gauge "places" Gate [LISTENER]
        "Most places that may be in use at all backends of the listener together.";
    BackendUp "tidegate_backend_up" Gauge "1" Backend [LISTENER, BACKEND]
        "1 while the backend is used, 0 while it is set aside because it could not be reached.";
    BackendPlaces "tidegate_backend_places" Gauge "places" Backend [LISTENER, BACKEND]
        "Places in use at the backend: its connections, open or being opened.";
    BackendPlacesLimit "tidegate_backend_places_limit" Gauge "places" Backend [LISTENER, BACKEND]
        "Most connections that the backend may have.";
    BackendPlacesTaken "tidegate_backend_places_taken_total" Counter "places" Backend [LISTENER, BACKEND]
        "Places that were taken at the backend.";
    BackendPlacesGivenBack "tidegate_backend_places_given_back_total" Counter "places" Backend [LISTENER, BACKEND]
        "Places that were given back.";
    BackendConnections "tidegate_backend_connections_total" Counter "connections" Backend [LISTENER, BACKEND]
        "Connections that reached the backend, those of checks included.";
    BackendFailures "tidegate_backend_failures_total" Counter "failures" Backend [LISTENER, BACKEND, BACKEND_FAILURE]
        "Attempts to reach the backend that failed.";
    BackendConnect "tidegate_backend_connect_seconds" Histogram "seconds" Backend [LISTENER, BACKEND]
        "Time that connecting to the backend took.";
    BackendSent "tidegate_backend_sent_bytes_total" Counter "bytes" Backend [LISTENER, BACKEND]
        "Bytes sent to the backend; of an open connection in steps of 64 KiB.";
    BackendReceived "tidegate_backend_received_bytes_total" Counter "bytes" Backend [LISTENER, BACKEND]
        "Bytes received from the backend; of an open connection in steps of 64 KiB.";
    BackendAnswers "tidegate_backend_answers_total" Counter "answers" Backend [LISTENER, BACKEND, ANSWER_CLASS]
        "Answers of the backend to HTTP requests, by the first digit of their status.";
    BackendRequestFailures "tidegate_backend_request_failures_total" Counter "requests" Backend [LISTENER, BACKEND, REQUEST_FAILURE]
        "HTTP requests that the backend did not answer as it should.";
    BackendReused "tidegate_backend_requests_reused_total" Counter "requests" Backend [LISTENER, BACKEND]
        "HTTP requests that were sent on a connection which had served others.";
    BackendRepeated "tidegate_backend_requests_repeated_total" Counter "requests" Backend [LISTENER, BACKEND]
        "HTTP requests that were sent again, since the backend closed their connection when it was used again.";
    Lingering "tidegate_lingering_connections" Gauge "connections" Always []
        "Connections that have their reply and are being closed, while what the client still sends is thrown away.";
    LateCloses "tidegate_late_closes" Gauge "connections" Always []
        "Connections that have ended, since their client left under overload, and whose socket is closed within 4 s.";
    Draining "tidegate_draining" Gauge "1" Always []
        "1 from the moment the server is told to end, else 0.";
    LogLinesDropped "tidegate_log_lines_dropped_total" Counter "lines" Always []
        "Lines of the log that were dropped, since nobody read the log fast enough.";
    AccessLogLinesDropped "tidegate_access_log_lines_dropped_total" Counter "lines" Always []
        "Lines of the access log that were dropped, since they could not be written, or not fast enough.";
    AgentAnswers "tidegate_agent_answers_total" Counter "answers" Always [ANSWER]
        "Answers of the agent to balancers.";
    AgentFree "tidegate_agent_free_ratio" Gauge "1" Always []
        "Share of the server that was free when the agent last answered a balancer, from 0 to 1; also 0 if it told the balancer to go elsewhere, and if none has asked.";
    ConfigSuccess "tidegate_config_last_reload_successful" Gauge "1" Program []
        "1 if the configuration took effect when it was last read, at the start or after SIGHUP; 0 if it had a fault.";
    ConfigTime "tidegate_config_last_reload_success_timestamp_seconds" Gauge "seconds" Program []
        "When the configuration in force was read, in seconds since the Unix epoch.";
    ProcessCpu "process_cpu_seconds_total" Counter "seconds" Always []
        "Processor time spent, user and system.";
    ProcessOpenFds "process_open_fds" Gauge "descriptors" Linux []
        "Open file descriptors.";
    ProcessMaxFds "process_max_fds" Gauge "descriptors" Always []
        "How many file descriptors may be open.";
    ProcessVirtual "process_virtual_memory_bytes" Gauge "bytes" Linux []
        "Virtual memory.";
    ProcessVirtualMax "process_virtual_memory_max_bytes" Gauge "bytes" Always []
        "How much virtual memory the process may have.";
    ProcessResident "process_resident_memory_bytes" Gauge "bytes" Linux []
        "Resident memory.";
    ProcessThreads "process_threads" Gauge "threads" Linux []
        "Threads of the process.";
    ProcessStart "process_start_time_seconds" Gauge "seconds" Linux []
        "When the process started, in seconds since the Unix epoch.";
}

impl Metric {
    /// The labels as `{a,b}`, or nothing.
    pub fn label_names(&self) -> String {
        if self.labels.is_empty() {
            return String::new();
        }
        let names: Vec<_> = self.labels.iter().map(|label| label.name).collect();
        format!("{{{}}}", names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(label: &Label) -> Vec<&'static str> {
        label.values.iter().map(|&(value, _)| value).collect()
    }

    #[test]
    fn label_values_are_those_of_the_code() {
        let all = |names: &[&'static str]| names.to_vec();
        macro_rules! same {
            ($label:ident, $type:ident) => {
                assert_eq!(values(&$label), all(&$type::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>()));
            };
        }
        same!(DROP, DropReason);
        same!(CLOSE, CloseReason);
        same!(ACCEPT_ERROR, AcceptError);
        same!(OUTCOME, TurnOutcome);
        same!(SHED, TurnShed);
        same!(DATAGRAM_DROP, DatagramDrop);
        same!(WOULD_DROP, WouldDrop);
        same!(TLS_FAILURE, HandshakeFailure);
        same!(BACKEND_FAILURE, BackendFailure);
        same!(SOCKET_HANDSHAKE, SocketHandshake);
    }

    #[test]
    fn names_follow_the_conventions() {
        for metric in CATALOGUE {
            let Metric { name, kind, unit, .. } = metric;
            assert_eq!(*kind == MetricKind::Counter, name.ends_with("_total"), "{name}");
            if ["seconds", "bytes"].contains(unit) {
                let base = name.strip_suffix("_total").unwrap_or(name);
                assert!(base.ends_with(unit), "{name} is in {unit}");
            }
            assert!(metric.help.ends_with('.'), "{name}: {}", metric.help);
            assert!(!metric.help.contains('\n') && !metric.help.contains('\\'), "{name}");
            let same = CATALOGUE.iter().filter(|other| other.name == *name).count();
            assert_eq!(same, 1, "{name}");
        }
    }
}
