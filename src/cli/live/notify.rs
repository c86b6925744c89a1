//! Messages to a supervisor, in the protocol of systemd's `sd_notify(3)`, which other supervisors understand too.

use std::env;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// How long a supervisor that does not read may hold up the thread that tells it something.
const WITHIN: Duration = Duration::from_millis(200);

/// The supervisor that started this process, if there is one that wants to know.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    to: Option<(UnixDatagram, PathBuf)>,
    watchdog: Option<Duration>,
    /// Another process speaks with it from now on.
    is_over: AtomicBool,
}

impl Supervisor {
    /// The one that the environment names (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).
    pub(crate) fn from_environment() -> Self {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let Some(name) = name else { return Self::default() };
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(WITHIN))?;
            Ok(socket)
        });
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        // A watchdog that is meant for another process of the same unit is not ours.
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&time| ours && time > 0).map(Duration::from_micros);
        Self {
            to: socket.ok().map(|socket| (socket, name.into())),
            watchdog,
            is_over: AtomicBool::new(false),
        }
    }

    /// How often it wants to hear that the server moves: half of the time after which it would end the process.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 2)
    }

    /// The server serves.
    pub(crate) fn ready(&self) {
        self.say("READY=1");
    }

    /// The configuration is being read again; [`ready`](Self::ready) says when that is done.
    pub(crate) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The server has begun to end.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// The server moves.
    pub(crate) fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    /// One line for people.
    pub(crate) fn status(&self, line: &str) {
        self.say(&format!("STATUS={}", line.replace('\n', " ")));
    }

    /// Another process serves from now on, and it alone speaks with the supervisor: the end of this one is not that of the
    /// service.
    pub(crate) fn main_process(&self, pid: u32) {
        self.say(&format!("MAINPID={pid}"));
        self.is_over.store(true, SeqCst);
    }

    /// Whether anybody listens.
    pub(crate) fn is_there(&self) -> bool {
        self.to.is_some()
    }

    fn say(&self, words: &str) {
        let Some((socket, path)) = self.to.as_ref().filter(|_| !self.is_over.load(SeqCst)) else { return };
        if let Err(error) = send(socket, path, words.as_bytes()) {
            tracing::debug!(%error, "the supervisor could not be told {words}");
        }
    }
}

/// Sends to a socket in the file system, or to one in Linux's abstract namespace, which is written with an `@`.
fn send(socket: &UnixDatagram, path: &std::path::Path, words: &[u8]) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::ffi::OsStrExt;
        if let Some(name) = path.as_os_str().as_bytes().strip_prefix(b"@") {
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            return socket.send_to_addr(words, &address).map(drop);
        }
    }
    socket.send_to(words, path).map(drop)
}
