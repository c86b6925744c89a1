//! What each path answers. Nothing here changes the server but the order to read the configuration again, where it is
//! taken.

use super::configuration;
use super::history::History;
use super::limits::OnReload;
use super::link::AdminAnswer;
use super::request::{Rejected, reload_ordered};
use super::status;
use crate::metrics::process::ProcessReader;
use crate::metrics::registry::{CONTENT_TYPE, Exporter};
use crate::metrics::snapshot::{Observe, Phase};
use std::io;
use std::sync::Arc;
use std::time::Instant;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// Makes the answers.
pub(super) struct Pages {
    observe: Arc<dyn Observe>,
    exporter: Exporter,
    process: ProcessReader,
    history: History,
    on_reload: Option<OnReload>,
}

impl Pages {
    pub(super) fn new(observe: Arc<dyn Observe>, on_reload: Option<OnReload>) -> io::Result<Self> {
        let exporter = Exporter::new(Arc::clone(&observe))?;
        let (process, history) = (ProcessReader::new(), History::default());
        Ok(Self { observe, exporter, process, history, on_reload })
    }

    /// Orders that the configuration is read again; the whole answer.
    pub(super) fn reload(&self) -> Vec<u8> {
        match &self.on_reload {
            Some(order) if order().is_ok() => reload_ordered(),
            _ => Rejected::Unavailable.response(false),
        }
    }

    /// Adds a sample to the history.
    pub(super) fn sample(&mut self, now: Instant) {
        self.history.push(now, &self.observe.snapshot(), self.process.read().cpu);
    }

    /// Answers one target: a path, perhaps with a query, which is not looked at. `html` says that the client can show HTML.
    pub(super) fn answer(&self, target: &str, html: bool) -> AdminAnswer {
        match target.split(['?', '#']).next().unwrap_or_default() {
            "/metrics" => match self.exporter.render() {
                Ok(text) => answer(200, CONTENT_TYPE, text),
                Err(error) => answer(500, TEXT, format!("the metrics cannot be shown: {error}\n").into()),
            },
            "/livez" => answer(200, TEXT, "ok\n".into()),
            "/readyz" => self.ready(),
            "/status" if !html => {
                let mut page = answer(200, TEXT, self.status().to_text());
                page.headers.push(("Vary", "Accept".to_owned()));
                page
            }
            "/status" => {
                let mut page = answer(200, HTML, self.status().to_html());
                page.headers.push(("Content-Security-Policy", status::CSP.to_owned()));
                page.headers.push(("Vary", "Accept".to_owned()));
                page.headers.push(("Referrer-Policy", "no-referrer".to_owned()));
                page
            }
            "/configuration.json" => {
                let process = self.process.read();
                answer(200, JSON, configuration::json(self.observe.as_ref(), &process))
            }
            "/status.json" => answer(200, JSON, self.status().to_json()),
            "/" => {
                let mut page = answer(302, TEXT, "see /status\n".into());
                page.headers.push(("Location", "/status".to_owned()));
                page
            }
            _ => answer(
                404,
                TEXT,
                "not here; there are /metrics, /livez, /readyz, /status, /status.json and /configuration.json\n".into(),
            ),
        }
    }

    /// The answer when making one panicked.
    pub(super) fn panicked() -> AdminAnswer {
        answer(500, TEXT, "a service panicked while it was asked how it is: see the log\n".into())
    }

    fn ready(&self) -> AdminAnswer {
        let seen = self.observe.snapshot();
        let open = seen.listeners.iter().filter(|l| !l.is_closed);
        let mut gates = open.filter(|l| l.backends.as_ref().is_some_and(|gate| !gate.ready));
        match (seen.phase, gates.next()) {
            (Phase::Serving, None) => answer(200, TEXT, "ready\n".into()),
            (Phase::Serving, Some(gate)) => {
                answer(503, TEXT, format!("not ready: no backend of {} is up\n", gate.listener).into())
            }
            (phase, _) => answer(503, TEXT, format!("not ready: {}\n", phase.as_str()).into()),
        }
    }

    fn status(&self) -> status::StatusPage {
        status::StatusPage::new(Instant::now(), self.observe.as_ref(), &self.process.read(), &self.history)
    }
}

fn answer(status: u16, content_type: &str, body: Vec<u8>) -> AdminAnswer {
    AdminAnswer {
        status,
        headers: vec![
            ("Content-Type", content_type.to_owned()),
            ("Cache-Control", "no-store".to_owned()),
            ("X-Content-Type-Options", "nosniff".to_owned()),
        ],
        body,
    }
}
