//! The pictures of the scenes: useful replies over time.

use super::{Played, report::middle};
use crate::chart::{Field, Line, Scale, legend};
use crate::plots::{PICTURE_WIDTH, short_title_of, title_of};
use crate::svg::{Anchor, Svg};
use std::collections::BTreeMap;

/// Every picture that there are results for: a file name and its content.
pub(crate) fn pictures(scenes: &BTreeMap<String, Played>) -> Vec<(&'static str, String)> {
    scenes.get("surge").map(|played| ("surge.svg", surge(played))).into_iter().collect()
}

fn surge(played: &Played) -> String {
    let words = "8,000 connections ask 600 times a second, and between the dashed lines 8,000 times a second; one core can \
                 do the horizontal line.";
    let (from, count) = played.judged_seconds();
    over_time(played, (from, from + count), "Useful replies in each second", words)
}

/// A line for each server, second by second, with marks at two instants.
pub(crate) fn over_time(played: &Played, marks: (usize, usize), title: &str, words: &str) -> String {
    let mut svg = Svg::new(PICTURE_WIDTH, 380.0);
    let (from, count) = played.judged_seconds();
    let all = played.stages.iter().map(|(_, time)| time).sum::<f64>().round() as usize;
    let shown: Vec<(&str, Vec<f64>)> = played
        .servers
        .iter()
        .filter_map(|runs| Some((runs.server.as_str(), middle(runs, from, count)?.useful(0, all))))
        .collect();
    let highest = shown.iter().flat_map(|(_, seconds)| seconds).copied().fold(1.0, f64::max);
    let top = highest.min(played.capacity.unwrap_or(highest) * 1.3);
    let ticks: Vec<f64> = (0..=all / 2).map(|n| 2.0 * n as f64).collect();
    let field = Field {
        title,
        below: "seconds",
        place: (60.0, 92.0, PICTURE_WIDTH - 90.0, 216.0),
        across: all as f64,
        ticks_across: &ticks,
        show_across: |second| format!("{second}"),
        scale: Scale::Linear { max: top * 1.05 },
        show: |value| format!("{value:.0}"),
    };
    if let Some(capacity) = played.capacity {
        field.mark(&mut svg, capacity);
    }
    field.mark_across(&mut svg, marks.0 as f64);
    field.mark_across(&mut svg, marks.1 as f64);
    let lines: Vec<Line<'_>> = shown
        .iter()
        .map(|(name, seconds)| Line {
            class: name,
            // A point stands in the middle of its second.
            points: seconds.iter().enumerate().map(|(at, &value)| (at as f64 + 0.5, Some(value))).collect(),
        })
        .collect();
    field.draw(&mut svg, &lines);
    let entries: Vec<(&str, &str)> = shown.iter().map(|(name, _)| (*name, short_title_of(name))).collect();
    legend(&mut svg, (24.0, 30.0), &entries);
    svg.text("small", (24.0, 370.0), Anchor::Start, words);
    let worst = shown.iter().map(|(name, seconds)| {
        let worst = seconds.iter().skip(from).take(count).copied().fold(f64::INFINITY, f64::min);
        format!("{} {worst:.0}", title_of(name))
    });
    let described = format!("Useful replies in the worst second: {}.", worst.collect::<Vec<_>>().join(", "));
    svg.finish(title, &described)
}
