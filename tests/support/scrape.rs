//! The metrics of a running program, as one scrape shows them.

use super::{Client, Reply, Running};

/// What the admin endpoint of a program answers to a path.
#[track_caller]
pub(crate) fn admin(server: &Running, path: &str) -> Reply {
    let reply =
        Client::connect(server.admin()).ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply
}

/// One scrape.
pub(crate) struct Scrape(String);

impl Scrape {
    #[track_caller]
    pub(crate) fn of(server: &Running) -> Self {
        Self(admin(server, "/metrics").text().to_owned())
    }

    /// The sum of the samples of a metric that have each of these labels: `reason="rate"` is one.
    #[track_caller]
    pub(crate) fn sum(&self, metric: &str, labels: &[&str]) -> u64 {
        let samples = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(metric)?;
            let (found, value) = rest.rsplit_once(' ')?;
            let of_it = found.is_empty() || found.starts_with('{');
            let value: f64 = value.parse().unwrap();
            of_it.then(|| if labels.iter().all(|label| found.contains(label)) { value as u64 } else { 0 })
        });
        let samples: Vec<_> = samples.collect();
        assert!(!samples.is_empty(), "there is no {metric}");
        samples.iter().sum()
    }

    /// Every accepted connection is somewhere.
    #[track_caller]
    pub(crate) fn assert_conserved(&self) {
        let sum = |metric| self.sum(metric, &[]);
        let there = sum("tidegate_connections_dropped_total") + sum("tidegate_connections_closed_total");
        assert_eq!(sum("tidegate_connections_accepted_total"), there + sum("tidegate_connections"));
    }
}
