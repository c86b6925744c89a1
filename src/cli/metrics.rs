//! `tidegate metrics`: the metric catalogue, as text, JSON or the document in `docs/`.

use crate::metrics::catalogue::{CATALOGUE, Label, Metric};
use crate::metrics::snapshot::BUCKETS;
use std::fmt::Write;
use std::process::ExitCode;

/// Options of `tidegate metrics`.
#[derive(Debug, clap::Args)]
pub(super) struct MetricsArgs {
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = CatalogueForm::Text)]
    output: CatalogueForm,
}

/// How the catalogue is printed.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum CatalogueForm {
    /// For people
    Text,
    /// For programs: a list of objects
    Json,
    /// What docs/metrics.md is
    Markdown,
}

/// Prints it.
pub(super) fn run(args: &MetricsArgs) -> ExitCode {
    super::exit::print(&match args.output {
        CatalogueForm::Text => text(),
        CatalogueForm::Json => json(),
        CatalogueForm::Markdown => markdown(),
    })
}

fn text() -> String {
    let mut out = String::new();
    for metric in CATALOGUE {
        let Metric { name, kind, help, .. } = metric;
        let _ = writeln!(out, "{name}{}  {kind}\n    {help}", metric.label_names());
        for label in metric.labels.iter().filter(|label| !label.values.is_empty()) {
            let values: Vec<_> = label.values.iter().map(|&(value, _)| value).collect();
            let _ = writeln!(out, "    {}: {}", label.name, values.join(", "));
        }
    }
    out
}

fn json() -> String {
    let label = |label: &Label| {
        let values: serde_json::Map<_, _> = label
            .values
            .iter()
            .map(|&(value, meaning)| (value.to_owned(), serde_json::Value::from(meaning)))
            .collect();
        serde_json::json!({ "name": label.name, "meaning": label.meaning, "values": values })
    };
    let metric = |metric: &Metric| {
        serde_json::json!({
            "name": metric.name, "type": metric.kind.as_str(), "unit": metric.unit, "help": metric.help,
            "present": metric.presence.as_str(),
            "labels": metric.labels.iter().map(label).collect::<Vec<_>>(),
        })
    };
    let all: Vec<_> = CATALOGUE.iter().map(metric).collect();
    format!("{:#}\n", serde_json::Value::from(all))
}

fn markdown() -> String {
    let mut out = String::from(HEAD);
    let bounds: Vec<_> = BUCKETS.iter().map(f64::to_string).collect();
    let _ = writeln!(out, "Histograms have the upper bounds {} and `+Inf`, in seconds.\n", bounds.join(", "));
    out.push_str("| Metric | Type | Unit | Labels | What it says | Present |\n|---|---|---|---|---|---|\n");
    for metric in CATALOGUE {
        let Metric { name, kind, unit, help, presence, .. } = metric;
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{}`", label.name)).collect();
        let labels = labels.join(", ");
        let _ = writeln!(out, "| `{name}` | {kind} | {unit} | {labels} | {help} | {} |", presence.as_str());
    }
    out.push_str("\n## Labels\n");
    for metric in CATALOGUE {
        for label in metric.labels {
            write_label(metric, label, &mut out);
        }
    }
    out.push_str(TAIL);
    out
}

fn write_label(metric: &Metric, label: &Label, out: &mut String) {
    if label.values.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n### `{}` of `{}`: {}\n", label.name, metric.name, label.meaning);
    out.push_str("| Value | Meaning |\n|---|---|\n");
    for (value, meaning) in label.values {
        let _ = writeln!(out, "| `{value}` | {meaning} |");
    }
}

const HEAD: &str = "\
<!-- Made by `tidegate metrics --output markdown`; a test compares it. Change src/metrics/catalogue.rs. -->
# Metrics

What `/metrics` of the admin endpoint shows, in Prometheus's text format 0.0.4. Every combination of a
listener or service with the values listed below is there from the start, at 0. No client's address and no
path is ever a label. `listener` is the listener's URL with its real port; `service` is its service's name. A listener that
closes at a reload keeps its counters, and goes on with them if it opens again.

The endpoint answers requests for an address, for `localhost`, for the name in `--admin`, and for the names given with
`--admin-host` (`*` stands for all). A request for another host name gets 421: so a page in a browser cannot read the
endpoint by giving its own name this address. If Prometheus asks for `gate.example:9464`, start tidegate with
`--admin-host gate.example`.

";

const TAIL: &str = "
## What always holds

In every scrape and for each listener

```text
tidegate_connections_accepted_total =
    sum(tidegate_connections_dropped_total) + sum(tidegate_connections_closed_total) + sum(tidegate_connections)
```

exactly: each thread counts for itself and every step moves a connection from one count to another, so each
thread's counts are balanced whenever they are read. A connection that moves between two threads while they
are read can show in a neighbouring `state` for that one scrape; none is ever lost or counted twice.

For each backend, and for each gate in sum,

```text
tidegate_backend_places_taken_total = tidegate_backend_places_given_back_total + tidegate_backend_places
```

holds exactly too: places are counted under one lock. A backend whose name has its address no more is shown until its
last connection has ended.

A value that describes the process or its configuration, like `process_start_time_seconds`, is the same in every
scrape, whatever the clock of the machine does.

## Questions and where the answer is

| Question | Query |
|---|---|
| Are clients turned away, and why? | `sum by (reason) (rate(tidegate_connections_dropped_total[5m]))` |
| How busy are the workers? | `instance:tidegate_worker_utilization:ratio_rate5m` (a rule of `dashboards/alerts.yml`) |
| How long does a client wait for a worker? | `histogram_quantile(0.99, rate(tidegate_queue_wait_seconds_bucket[5m]))` |
| Does the kernel refuse before tidegate can? | `rate(tidegate_listen_backlog_drops_total[5m])` |
| What does a request cost the processor? | `rate(process_cpu_seconds_total[5m]) / sum(rate(tidegate_turns_total{outcome=\"ok\"}[5m]))` |
| How long does the service itself take? | `histogram_quantile(0.99, rate(tidegate_turn_duration_seconds_bucket[5m]))` |
| Is a worker stuck? | `tidegate_workers_stuck` |
| Which backends of a gate are set aside? | `tidegate_backend_up == 0` |
| How full are the places at the backends? | `tidegate_gate_places / tidegate_gate_places_limit` |
| How long does a client wait for a backend? | `histogram_quantile(0.99, rate(tidegate_gate_wait_seconds_bucket[5m]))` |

`dashboards/` has the alerts, a Grafana dashboard and a Prometheus configuration that work with these.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::catalogue::MetricKind;

    #[test]
    fn each_form_names_every_metric() {
        let (text, json, markdown) = (text(), json(), markdown());
        for metric in CATALOGUE {
            assert!(
                text.contains(metric.name) && json.contains(metric.name) && markdown.contains(metric.name)
            );
            assert!(text.contains(metric.help) && markdown.contains(metric.help));
        }
        assert_eq!(CATALOGUE.iter().filter(|metric| metric.kind == MetricKind::Histogram).count(), 6);
    }
}
