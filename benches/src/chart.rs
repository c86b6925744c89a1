//! Two kinds of picture: lines over a load, and groups of bars.

use crate::svg::{Anchor, Svg};

/// The height of a line of words.
const LINE: f64 = 16.0;

/// How values become heights.
#[derive(Clone, Copy)]
pub(crate) enum Scale {
    /// From zero.
    Linear { max: f64 },
    /// Powers of ten.
    Log { min: f64, max: f64 },
}

impl Scale {
    /// From 0 (lowest) to 1 (highest).
    fn at(self, value: f64) -> f64 {
        let part = match self {
            Scale::Linear { max } => value / max,
            Scale::Log { min, max } => (value.max(min) / min).ln() / (max / min).ln(),
        };
        part.clamp(0.0, 1.0)
    }

    fn ticks(self) -> Vec<f64> {
        match self {
            Scale::Linear { max } => {
                let step = nice_step(max / 4.0);
                (0..).map(|n| f64::from(n) * step).take_while(|&tick| tick <= max).collect()
            }
            Scale::Log { min, max } => {
                let powers = (0..).map(|n| min * 10f64.powi(n));
                powers.take_while(|&tick| tick <= max * 1.001).collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least `wanted`.
fn nice_step(wanted: f64) -> f64 {
    let power = 10f64.powf(wanted.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|&step| step >= wanted)
        .unwrap_or(wanted)
}

/// One server's line. A point without a value has none to show.
pub(crate) struct Line<'a> {
    /// Its class in the style sheet.
    pub(crate) class: &'a str,
    pub(crate) points: Vec<(f64, Option<f64>)>,
}

/// A field of lines.
pub(crate) struct Field<'a> {
    pub(crate) title: &'a str,
    pub(crate) below: &'a str,
    /// Left, top, width, height of the field itself.
    pub(crate) place: (f64, f64, f64, f64),
    pub(crate) across: f64,
    pub(crate) ticks_across: &'a [f64],
    pub(crate) show_across: fn(f64) -> String,
    pub(crate) scale: Scale,
    pub(crate) show: fn(f64) -> String,
}

impl Field<'_> {
    /// Draws the field and its lines, the first line last, so that it is on top.
    pub(crate) fn draw(&self, svg: &mut Svg, lines: &[Line<'_>]) {
        let (left, top, width, height) = self.place;
        svg.text("title", (left, top - LINE), Anchor::Start, self.title);
        for tick in self.scale.ticks() {
            let y = top + height * (1.0 - self.scale.at(tick));
            svg.line("grid", (left, y), (left + width, y));
            svg.text("small", (left - 6.0, y + 4.0), Anchor::End, &(self.show)(tick));
        }
        svg.line("axis", (left, top + height), (left + width, top + height));
        for &tick in self.ticks_across {
            let x = left + width * tick / self.across;
            svg.line("axis", (x, top + height), (x, top + height + 4.0));
            svg.text("small", (x, top + height + LINE + 2.0), Anchor::Middle, &(self.show_across)(tick));
        }
        svg.text("small", (left + width / 2.0, top + height + 2.3 * LINE), Anchor::Middle, self.below);
        for line in lines.iter().rev() {
            let known = line.points.iter().filter_map(|&(across, value)| Some((across, value?)));
            let points: Vec<(f64, f64)> = known.map(|(across, value)| self.place_of(across, value)).collect();
            svg.polyline(line.class, &points);
            for &point in &points {
                svg.dot(line.class, point, if line.class == "tidegate" { 4.0 } else { 3.0 });
            }
        }
    }

    fn place_of(&self, across: f64, value: f64) -> (f64, f64) {
        let (left, top, width, height) = self.place;
        (left + width * across / self.across, top + height * (1.0 - self.scale.at(value)))
    }

    /// A dashed line across.
    pub(crate) fn mark(&self, svg: &mut Svg, value: f64) {
        let (left, _, width, _) = self.place;
        let y = self.place_of(0.0, value).1;
        svg.line("mark", (left, y), (left + width, y));
    }

    /// A dashed line from top to bottom.
    pub(crate) fn mark_across(&self, svg: &mut Svg, across: f64) {
        let (_, top, _, height) = self.place;
        let x = self.place_of(across, 0.0).0;
        svg.line("mark", (x, top), (x, top + height));
    }

    /// Words at a place of the field.
    pub(crate) fn note(&self, svg: &mut Svg, class: &str, at: (f64, f64), words: &str) {
        let (x, y) = self.place_of(at.0, at.1);
        svg.text(class, (x, y - 8.0), Anchor::End, words);
    }
}

/// Names and colours, in a row; returns where the next would begin.
pub(crate) fn legend(svg: &mut Svg, at: (f64, f64), entries: &[(&str, &str)]) {
    let (mut x, y) = at;
    for (class, words) in entries {
        svg.bar(class, (x, y - 10.0), 18.0, 10.0);
        svg.text("", (x + 24.0, y), Anchor::Start, words);
        // About the width of a letter of this size.
        x += 24.0 + 7.1 * words.chars().count() as f64 + 20.0;
    }
}

/// A group of bars: a name, and for each server its class and value.
pub(crate) struct Group<'a> {
    pub(crate) name: String,
    pub(crate) bars: Vec<(&'a str, f64)>,
}

/// Groups side by side, each bar with its value; each group is scaled by its own highest bar, since only neighbours in
/// one group are to be compared.
pub(crate) fn groups(
    svg: &mut Svg,
    place: (f64, f64, f64, f64),
    groups: &[Group<'_>],
    show: fn(f64) -> String,
) {
    let (left, top, width, height) = place;
    let count: usize = groups.iter().map(|group| group.bars.len()).sum();
    // A gap between groups is as wide as one bar and a half.
    let unit = width / (count as f64 + 1.5 * groups.len().saturating_sub(1) as f64).max(1.0);
    let mut x = left;
    for group in groups {
        let highest = group.bars.iter().fold(f64::MIN_POSITIVE, |most, bar| most.max(bar.1));
        let middle = x + unit * group.bars.len() as f64 / 2.0;
        for (class, value) in &group.bars {
            let tall = height * value / highest;
            svg.bar(class, (x + unit * 0.08, top + height - tall), unit * 0.84, tall.max(1.0));
            svg.text("value", (x + unit / 2.0, top + height - tall - 4.0), Anchor::Middle, &show(*value));
            x += unit;
        }
        svg.text("small", (middle, top + height + LINE + 2.0), Anchor::Middle, &group.name);
        x += unit * 1.5;
    }
    svg.line("axis", (left, top + height), (left + width, top + height));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_and_ticks() {
        let linear = Scale::Linear { max: 1000.0 };
        assert_eq!(linear.at(500.0), 0.5);
        assert_eq!(linear.ticks(), [0.0, 500.0, 1000.0]);
        let log = Scale::Log { min: 0.001, max: 1.0 };
        assert!((log.at(0.001) - 0.0).abs() < 1e-9 && (log.at(1.0) - 1.0).abs() < 1e-9);
        assert_eq!(log.ticks().len(), 4);
        assert_eq!(log.at(0.0), 0.0);
    }
}
