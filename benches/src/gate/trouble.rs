//! Which trouble the service behind a front has.

/// More than the Python server can do.
pub(super) const FLOOD_RATE: f64 = 4_500.0;
/// The same for gunicorn, in times of what it can do.
pub(super) const FLOOD_TIMES: f64 = 10.0;

/// Which scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Trouble {
    /// A Python ThreadingTCPServer, 1 ms of CPU for each request, is asked 4,500 times a second.
    Survive,
    /// The only backend takes ten times as long for ten seconds.
    Slow,
    /// One of three backends takes ten times as long all the time.
    Three,
    /// One of three backends is killed, and is back after five seconds.
    Killed,
    /// gunicorn with two workers and 10 ms a request is asked ten times as often as it can answer, over HTTP.
    Gunicorn,
}

impl Trouble {
    /// Fronts that are measured.
    pub(crate) fn fronts(self) -> &'static str {
        match self {
            Trouble::Survive => "tidegate gate haproxy-limits haproxy nginx nothing",
            Trouble::Gunicorn => "tidegate haproxy-limits nginx nothing",
            Trouble::Slow | Trouble::Three | Trouble::Killed => "tidegate haproxy-limits haproxy nginx",
        }
    }

    /// Its name among the results.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Trouble::Survive => "gate-survive",
            Trouble::Slow => "gate-slow",
            Trouble::Three => "gate-three",
            Trouble::Killed => "gate-killed",
            Trouble::Gunicorn => "gate-gunicorn",
        }
    }

    /// Whether its clients speak HTTP.
    pub(super) fn is_http(self) -> bool {
        self == Trouble::Gunicorn
    }

    pub(super) fn backends(self) -> usize {
        match self {
            Trouble::Survive | Trouble::Slow | Trouble::Gunicorn => 1,
            Trouble::Three | Trouble::Killed => 3,
        }
    }
}
