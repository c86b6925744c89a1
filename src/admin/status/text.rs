//! The status page as plain text, for a terminal. Its tables are those of the page, under the same heads.

use super::view::View;
use std::fmt::Write;

/// The cards of the page: a title, and the names of the number, its limit, what the limit is for, and a note.
const CARDS: [(&str, &str, &str, &str, &str); 4] = [
    ("Workers busy", "workers", "workers-limit", "", "workers-note"),
    ("Waiting for a worker", "queue", "queue-limit", " for newcomers", "queue-note"),
    ("Connections", "connections", "connections-limit", "", "connections-note"),
    ("Open files", "descriptors", "descriptors-limit", "", "descriptors-note"),
];

/// What is counted a second.
const RATES: [(&str, &str); 4] =
    [("turns", "turns-now"), ("accepted", "accepted-now"), ("refused", "dropped-now"), ("sent", "sent-now")];

/// The page that this is the template of, as text. A table without rows is left out.
pub(super) fn text(template: &str, view: &View) -> String {
    let text = |name: &str| view.text.get(name).map_or("", String::as_str);
    let mut out = String::with_capacity(4096);
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{}, up {}, {}\n", text("version"), text("uptime"), text("time"));
    let _ = writeln!(out, "{}: {}", text("title"), text("why"));
    if !text("advice").is_empty() {
        let _ = writeln!(out, "{}", text("advice"));
    }
    out.push('\n');
    let cards = CARDS.map(|(title, used, limit, of, note)| {
        let limit = format!("limit {}{of}", text(limit));
        [title, text(used), &limit, text(note)].map(str::to_owned).to_vec()
    });
    table(&[], &cards, &mut out);
    let rates = RATES.map(|(name, now)| format!("{name} {}", text(now)));
    let _ = writeln!(out, "\nA second: {}", rates.join(", "));
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("data-r=\"") {
        let (name, after) = after.split_once('"').unwrap_or((after, ""));
        rest = after;
        let rows = view.rows.get(name).map_or(&[][..], Vec::as_slice);
        let section = before.rsplit_once("<h2>").map_or("", |(_, section)| section);
        if !rows.is_empty() {
            let title = section.split_once("</h2>").map_or("", |(title, _)| title);
            let _ = writeln!(out, "\n{}", plain(title, view));
            table(&heads(section, view), rows, &mut out);
        }
    }
    out
}

/// The heads of the columns of a section's table.
fn heads(section: &str, view: &View) -> Vec<String> {
    let Some((_, head)) = section.split_once("<thead>") else { return Vec::new() };
    let cells = head.split("</th>").flat_map(|part| part.split("</td>"));
    let cells: Vec<_> = cells.map(|cell| plain(cell, view)).collect();
    // What follows the last cell is no cell.
    cells[..cells.len() - 1].to_vec()
}

/// A piece of the template without its tags, with the words of the view in their places.
fn plain(html: &str, view: &View) -> String {
    let mut out = String::new();
    for (at, part) in html.split('<').enumerate() {
        let words = if at == 0 { part } else { part.split_once('>').map_or("", |(_, words)| words) };
        match words.strip_prefix("{{text:").and_then(|rest| rest.strip_suffix("}}")) {
            Some(name) => out.push_str(view.text.get(name).map_or("", String::as_str)),
            None => out.push_str(words),
        }
    }
    out
}

/// Rows under their heads, each column as wide as its widest cell.
fn table(heads: &[String], rows: &[Vec<String>], out: &mut String) {
    let all = || std::iter::once(heads).filter(|row| !row.is_empty()).chain(rows.iter().map(Vec::as_slice));
    let columns = all().map(<[String]>::len).max().unwrap_or(0);
    let width = |at: usize| all().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
    for row in all() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "  {cell:width$}");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}
