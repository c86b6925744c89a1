//! Why a connection was refused, why it ended, and what accept can say: each an enum whose
//! [`as_str`](DropReason::as_str) is the metric label, so that code, logs and metrics use one word.

macro_rules! labels {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum $name { $($(#[$vmeta])* $variant,)* }

        impl $name {
            /// Every value, in the order of its discriminant.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// How many values there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The label that metrics and logs use.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $label,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

labels! {
    /// Why an accepted connection was turned away before its first turn.
    DropReason {
        /// As many connections wait for a worker as `queue` allows.
        QueueFull = "queue_full",
        /// As many connections are open as `max_connections` allows.
        MaxConnections = "max_connections",
        /// Its source already has as many connections as `max_per_source` allows.
        PerSource = "per_source",
        /// Its source connects faster than its rate allows.
        Rate = "rate",
        /// It waited for a worker longer than `queue_timeout`.
        QueueTimeout = "queue_timeout",
        /// The process is out of descriptors; it was accepted on a spare one to be told so.
        FdReserve = "fd_reserve",
        /// The client left before its first turn.
        ClientGone = "client_gone",
        /// The server ended before its first turn.
        Draining = "draining",
        /// The service's `verify` hook said no.
        Denied = "denied",
        /// A gate can reach none of its backends.
        NoBackend = "no_backend",
        /// Its listener accepts PROXY headers, and it is not from a trusted balancer or does not begin with one.
        ProxyHeader = "proxy_header",
    }
}

impl DropReason {
    /// Whether a client that is turned away for this reason is told so, where the protocol has words for it: not one that
    /// has left, none when everything is cut, and nobody who is no balancer.
    pub(crate) fn has_words(self) -> bool {
        !matches!(self, DropReason::ClientGone | DropReason::Draining | DropReason::ProxyHeader)
    }
}

labels! {
    /// Why a served connection ended.
    CloseReason {
        /// The client ended it.
        Client = "client",
        /// The service ended it.
        Server = "server",
        /// Nothing was asked for longer than `idle_timeout`.
        IdleTimeout = "idle_timeout",
        /// A request was not whole `read_timeout` after its first byte.
        ReadTimeout = "read_timeout",
        /// The client took none of its replies for `write_timeout`.
        WriteTimeout = "write_timeout",
        /// The connection was reset, or failed in another way.
        Reset = "reset",
        /// The client broke the protocol (a line over `max_line`, say).
        Protocol = "protocol",
        /// The service's turn panicked.
        Panic = "panic",
        /// Its half-read line did not fit into `input_total` beside those of the others.
        InputLimit = "input_limit",
        /// Its unsent replies outgrew `output_per_connection` or `output_total`.
        OutputLimit = "output_limit",
        /// The service's turn returned an error.
        Error = "error",
        /// The server ended.
        Shutdown = "shutdown",
        /// Its TLS handshake failed; [`HandshakeFailure`] says why.
        Handshake = "handshake",
        /// Its request waited longer than `queue_timeout`.
        Overload = "overload",
    }
}

labels! {
    /// Why a TLS handshake failed.
    HandshakeFailure {
        /// It was not over `read_timeout` after its first byte, or that did not come.
        Timeout = "timeout",
        /// The client does not speak TLS: HTTP without it, say.
        NotTls = "not_tls",
        /// The client speaks no version that is offered.
        Version = "version",
        /// The client and the server have no cipher suite, group or kind of signature in common.
        Parameters = "parameters",
        /// The client offers other protocols (ALPN) only.
        Protocol = "protocol",
        /// The client refused: it does not trust the certificate, say.
        Alert = "alert",
        /// The client broke the rules of TLS.
        Malformed = "malformed",
        /// The client left in the middle.
        ClientGone = "client_gone",
        /// What it had sent did not fit into `input_total` beside what others had.
        InputLimit = "input_limit",
        /// The server could not go on.
        Internal = "internal",
    }
}

labels! {
    /// Why a request of an established connection got no turn.
    TurnShed {
        /// It waited for a worker longer than `queue_timeout`.
        QueueTimeout = "queue_timeout",
        /// Its client had left before its turn.
        ClientGone = "client_gone",
    }
}

labels! {
    /// What a limit in a dry run would have refused or shed. Each is the reason of one limit.
    WouldDrop {
        /// As many newcomers waited for a worker as `queue` allows.
        QueueFull = "queue_full",
        /// Its source had as many connections as `max_per_source` allows.
        PerSource = "per_source",
        /// Its source connected faster than `source_rate` allows.
        Rate = "rate",
        /// A datagram whose source had sent more than `datagram_source_rate` allows.
        SourceRate = "source_rate",
        /// It waited for a worker longer than `queue_timeout`.
        QueueTimeout = "queue_timeout",
    }
}

impl WouldDrop {
    /// What a newcomer that is turned away for this reason would be counted as in a dry run; `None` if no such limit can be in
    /// one.
    pub(crate) fn of_newcomer(reason: DropReason) -> Option<Self> {
        match reason {
            DropReason::QueueFull => Some(WouldDrop::QueueFull),
            DropReason::PerSource => Some(WouldDrop::PerSource),
            DropReason::Rate => Some(WouldDrop::Rate),
            DropReason::QueueTimeout => Some(WouldDrop::QueueTimeout),
            _ => None,
        }
    }
}

labels! {
    /// The classes of errors that accept reports; after each of them accepting goes on.
    AcceptError {
        /// The process has no descriptor left.
        Emfile = "emfile",
        /// The system has no descriptor left.
        Enfile = "enfile",
        /// The kernel has no memory left for sockets (`ENOBUFS`, `ENOMEM`).
        Nobufs = "nobufs",
        /// The client gave up before it was accepted.
        Aborted = "aborted",
        /// Any other.
        Other = "other",
    }
}

labels! {
    /// How a turn of a service ended.
    TurnOutcome {
        /// It read or sent something, and returned.
        Ok = "ok",
        /// It returned an error, or panicked.
        Error = "error",
        /// It gave up waiting for the client.
        Timeout = "timeout",
        /// It saw that the client had ended, and nothing else.
        End = "end",
        /// It found nothing: the client had connected and not spoken yet.
        Empty = "empty",
    }
}

labels! {
    /// Why a datagram was not answered.
    DatagramDrop {
        /// As many datagrams wait for a worker as `queue` allows, or every buffer is in use.
        QueueFull = "queue_full",
        /// The kernel's receive buffer was full.
        KernelBuffer = "kernel_buffer",
        /// It was longer than `max_datagram`.
        Oversize = "oversize",
        /// Answering it could loop or reflect, or the service's `verify` said no.
        RefusedSource = "refused_source",
        /// Its source has sent more than `datagram_source_rate` allows.
        SourceRate = "source_rate",
        /// It waited for a worker longer than `queue_timeout`.
        QueueTimeout = "queue_timeout",
        /// Its reply could not be sent.
        Unsent = "unsent",
        /// The server ended before it was answered.
        Draining = "draining",
    }
}

labels! {
    /// Why a backend could not be reached.
    BackendFailure {
        /// Nobody listens there.
        Refused = "refused",
        /// It did not answer within `backend_connect_timeout`.
        Timeout = "timeout",
        /// The connection was reset before a byte had passed.
        Reset = "reset",
        /// There is no way to it: no route, or no permission to use its socket.
        Unreachable = "unreachable",
        /// Its name has no address.
        Resolve = "resolve",
        /// This process or machine has no descriptor, port or memory left; the backend is not to blame.
        Local = "local",
        /// It answered a check over HTTP with an error, or not in HTTP.
        Unhealthy = "unhealthy",
        /// The TLS handshake failed: its certificate is not trusted, say.
        Tls = "tls",
    }
}

labels! {
    /// Why a backend did not answer an HTTP request as it should.
    RequestFailure {
        /// It closed the connection and had answered nothing.
        Closed = "closed",
        /// It answered what is not HTTP, or cannot be read in one way only.
        Unreadable = "unreadable",
        /// It was silent for `backend_timeout`.
        Timeout = "timeout",
        /// It stopped in the middle of its answer.
        Cut = "cut",
    }
}

labels! {
    /// What became of a request for a WebSocket.
    SocketHandshake {
        /// The socket was opened.
        Opened = "opened",
        /// The request did not ask for a WebSocket.
        NotWebSocket = "not_websocket",
        /// It was not a GET without a body.
        Method = "method",
        /// It asked for another version than 13.
        Version = "version",
        /// It had no key of 16 bytes.
        Key = "key",
        /// It came from a page whose origin may not connect.
        Origin = "origin",
        /// The service refused it, or failed.
        Service = "service",
    }
}
