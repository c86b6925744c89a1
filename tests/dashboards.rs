//! The dashboard keeps the conventions, and the rules and their tests pass.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

fn dashboard() -> Value {
    serde_json::from_str(&std::fs::read_to_string("dashboards/tidegate.json").unwrap()).unwrap()
}

fn panels(dashboard: &Value) -> Vec<&Value> {
    let all = dashboard["panels"].as_array().unwrap();
    all.iter().filter(|panel| panel["type"] != "row").collect()
}

#[test]
fn the_dashboard_is_one_that_can_be_imported_as_it_is() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 41);
    assert_eq!(dashboard["uid"], "tidegate");
    assert_eq!(dashboard["id"], Value::Null);
    assert!(dashboard["tags"].as_array().unwrap().contains(&"tidegate".into()));
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    assert_eq!(variables[0]["type"], "datasource");
    for variable in &variables[1..] {
        assert_eq!((&variable["multi"], &variable["includeAll"]), (&true.into(), &true.into()));
        assert_eq!(variable["datasource"]["uid"], "${datasource}");
    }
}

#[test]
fn every_panel_keeps_the_conventions() {
    let dashboard = dashboard();
    let panels = panels(&dashboard);
    assert!(panels.len() > 30);
    let mut ids = BTreeSet::new();
    let mut titles = BTreeSet::new();
    for panel in &panels {
        let title = panel["title"].as_str().unwrap();
        assert!(!title.is_empty() && ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        assert!(
            panel["description"].as_str().is_some_and(|d| d.len() > 20 && d.ends_with('.')),
            "{title}: description"
        );
        assert!(
            panel["fieldConfig"]["defaults"]["unit"].as_str().is_some_and(|u| !u.is_empty()),
            "{title}: unit"
        );
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            check_query(title, target["expr"].as_str().unwrap());
        }
        let place = &panel["gridPos"];
        let at = |key: &str| place[key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24 && at("h") >= 4, "{title} is out of the grid");
        titles.insert((title, at("y")));
    }
    assert_eq!(titles.len(), panels.len());
    overlaps(&panels);
}

/// Every rate is over `$__rate_interval`, and every selector has job and instance.
fn check_query(title: &str, query: &str) {
    for (at, _) in query.match_indices('[') {
        assert!(query[at..].starts_with("[$__rate_interval]"), "{title}: {query}");
    }
    let metrics = ["tidegate_", "process_", "up{"];
    let mut selectors = 0;
    for metric in metrics {
        for (at, _) in query.match_indices(metric) {
            let rest = &query[at..];
            let selector = rest.find('{').map_or("", |open| &rest[open..rest.find('}').unwrap_or(open)]);
            assert!(
                selector.contains("job=~\"$job\"") && selector.contains("instance=~\"$instance\""),
                "{title}: {query}"
            );
            let name = &rest[..rest.find('{').unwrap()];
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{title}: {query}");
            selectors += 1;
        }
    }
    assert!(selectors > 0, "{title}: {query} asks for nothing of ours");
    // A turn that only saw its client leave is no work.
    assert_eq!(query.contains("tidegate_turns_total"), query.contains("outcome="), "{title}: {query}");
}

fn overlaps(panels: &[&Value]) {
    let corner = |panel: &Value, key: &str| panel["gridPos"][key].as_u64().unwrap();
    for (index, a) in panels.iter().enumerate() {
        for b in &panels[index + 1..] {
            let apart = |at: &str, size: &str| {
                corner(a, at) + corner(a, size) <= corner(b, at)
                    || corner(b, at) + corner(b, size) <= corner(a, at)
            };
            assert!(apart("x", "w") || apart("y", "h"), "{} lies over {}", a["title"], b["title"]);
        }
    }
}

#[test]
fn every_metric_has_a_panel_or_a_reason_not_to() {
    let all = std::fs::read_to_string("dashboards/tidegate.json").unwrap();
    for metric in tidegate::metrics::catalogue::CATALOGUE {
        let elsewhere = ["process_virtual_memory_bytes", "process_virtual_memory_max_bytes"];
        // Of a histogram a panel may show the sum or the count.
        assert!(
            all.contains(metric.name) || elsewhere.contains(&metric.name),
            "{} is on no panel",
            metric.name
        );
    }
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).output();
    let output = output.expect("promtool is there: tests/setup.sh installs it");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn promtool_accepts_the_rules_their_tests_and_the_configuration() {
    promtool(&["check", "rules", "dashboards/alerts.yml"]);
    promtool(&["check", "config", "dashboards/prometheus.yml"]);
    promtool(&["test", "rules", "dashboards/alerts_test.yml"]);
}

#[test]
fn every_alert_is_tested_to_fire_and_not_to_fire_and_says_what_to_do() {
    let rules = std::fs::read_to_string("dashboards/alerts.yml").unwrap();
    let tests = std::fs::read_to_string("dashboards/alerts_test.yml").unwrap();
    let alerts: Vec<_> = rules.split("- alert: ").skip(1).collect();
    assert_eq!(alerts.len(), 21);
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        let cases: Vec<_> = tests.split(&format!("alertname: {name}\n")).skip(1).collect();
        let quiet = cases.iter().filter(|case| case.trim_start().starts_with("exp_alerts: []")).count();
        assert!(quiet >= 1, "no test shows that {name} does not fire");
        assert!(cases.len() > quiet, "no test shows that {name} fires");
    }
}
