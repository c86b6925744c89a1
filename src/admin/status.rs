//! The status page and its JSON: one report, shown in two ways.
//!
//! What the page shows is made once, as words, paths and rows ([`view`]); the page is rendered with them, and its script
//! only puts newer ones in their places. So it says the same without a script.

mod json;
mod report;
mod text;
mod view;
mod web;

use super::history::History;
use crate::metrics::process::ProcessSnapshot;
use crate::metrics::snapshot::Observe;
use report::Report;
use std::fmt::Write;
use std::time::Instant;
use view::View;

const TEMPLATE: &str = include_str!("status.html");
const STYLE: &str = include_str!("status.css");
const SCRIPT: &str = include_str!("status.js");

/// What the page may do: nothing but its own style, its own script and `status.json`. The hashes
/// are those of the two files (a test compares them).
pub(super) const CSP: &str = concat!(
    "default-src 'none'; style-src 'sha256-FLN7nxizU+VgVDA5ydrM5+OAk/z/TPynNJ24tPpix8c='; ",
    "script-src 'sha256-Mjv5H00z440vTw2xFozmz2qhJBos7uyzF0xgWG5L0To='; ",
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
);

/// The page at one moment.
#[derive(Debug)]
pub(super) struct StatusPage {
    report: Report,
    view: View,
}

impl StatusPage {
    pub(super) fn new(
        now: Instant,
        observe: &dyn Observe,
        process: &ProcessSnapshot,
        history: &History,
    ) -> Self {
        let report = Report::new(now, observe, process, history);
        Self { view: View::new(&report, history), report }
    }

    /// The page, whole.
    pub(super) fn to_html(&self) -> Vec<u8> {
        let mut out = String::with_capacity(TEMPLATE.len() + STYLE.len() + SCRIPT.len() + 32 * 1024);
        let mut rest = TEMPLATE;
        while let Some((before, after)) = rest.split_once("{{") {
            out.push_str(before);
            let (name, after) = after.split_once("}}").unwrap_or((after, ""));
            self.fill(name, &mut out);
            rest = after;
        }
        out.push_str(rest);
        out.into_bytes()
    }

    fn fill(&self, name: &str, out: &mut String) {
        let view = &self.view;
        match name.split_once(':') {
            Some(("text", name)) => escape(view.text.get(name).map_or("", String::as_str), out),
            Some(("path", name)) => out.push_str(view.path.get(name).map_or("", String::as_str)),
            Some(("meter", name)) => {
                let _ = write!(out, "{}", view.meter.get(name).copied().unwrap_or_default());
            }
            Some(("rows", name)) => {
                for row in view.rows.get(name).into_iter().flatten() {
                    render_row(row, out);
                }
            }
            _ => out.push_str(match name {
                "state" => view.state,
                "style" => STYLE,
                "script" => SCRIPT,
                _ => "",
            }),
        }
    }

    /// The same for a terminal.
    pub(super) fn to_text(&self) -> Vec<u8> {
        text::text(TEMPLATE, &self.view).into_bytes()
    }

    /// The same for programs.
    pub(super) fn to_json(&self) -> Vec<u8> {
        json::json(&self.report, &self.view).to_string().into_bytes()
    }
}

fn render_row(cells: &[String], out: &mut String) {
    out.push_str("<tr>");
    for (at, cell) in cells.iter().enumerate() {
        let tag = if at == 0 { "th" } else { "td" };
        let zero = if cell == "0" { " class=\"zero\"" } else { "" };
        let _ = write!(out, "<{tag}{zero}>");
        escape(cell, out);
        let _ = write!(out, "</{tag}>");
    }
    out.push_str("</tr>");
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests;
