//! Line and area charts as SVG, drawn with the page's own colours.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;

/// How values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
}

/// One axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) scale: Scale,
    pub(super) from: f64,
    pub(super) to: f64,
    /// Where lines and labels go.
    pub(super) ticks: Vec<(f64, String)>,
    pub(super) label: &'static str,
}

impl Axis {
    /// From 0 to at least `to`, with about five round ticks.
    pub(super) fn linear(to: f64, label: &'static str, show: fn(f64) -> String) -> Self {
        let to = if to > 0.0 { to } else { 1.0 };
        let magnitude = 10f64.powf((to / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|n| n * magnitude)
            .into_iter()
            .find(|step| to / step <= 6.0)
            .unwrap_or(to);
        let count = (to / step).ceil() as usize;
        let ticks = (0..=count).map(|n| (n as f64 * step, show(n as f64 * step))).collect();
        Self { scale: Scale::Linear, from: 0.0, to: count as f64 * step, ticks, label }
    }

    /// Powers of ten around the values.
    pub(super) fn logarithmic(from: f64, to: f64, label: &'static str, show: fn(f64) -> String) -> Self {
        let low = from.max(1e-9).log10().floor() as i32;
        let high = (to.max(1e-9).log10().ceil() as i32).max(low + 1);
        let ticks = (low..=high).map(|n| (10f64.powi(n), show(10f64.powi(n)))).collect();
        Self { scale: Scale::Logarithmic, from: 10f64.powi(low), to: 10f64.powi(high), ticks, label }
    }

    /// Where a value lies, 0 to 1.
    fn at(&self, value: f64) -> f64 {
        let (value, from, to) = match self.scale {
            Scale::Linear => (value, self.from, self.to),
            Scale::Logarithmic => (value.max(f64::MIN_POSITIVE).ln(), self.from.ln(), self.to.ln()),
        };
        ((value - from) / (to - from)).clamp(0.0, 1.0)
    }
}

/// Some points of one colour.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    /// The name of its colour in the page's style.
    pub(super) colour: &'static str,
    /// Filled down to the series before it (or the axis); else a line.
    pub(super) area: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// Draws the chart with its legend.
pub(super) fn draw(title: &str, x: &Axis, y: &Axis, series: &[Series]) -> String {
    let mut svg = String::new();
    // Writing to a string does not fail.
    let _ = write_chart(&mut svg, title, x, y, series);
    svg
}

fn write_chart(out: &mut String, title: &str, x: &Axis, y: &Axis, series: &[Series]) -> std::fmt::Result {
    write!(out, "<figure><figcaption>{title}<span class=legend>")?;
    for one in series {
        write!(out, "<span><i style=\"background:var(--{})\"></i>{}</span>", one.colour, one.name)?;
    }
    write!(
        out,
        "</span></figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"{title}\">"
    )?;
    write_axes(out, x, y)?;
    let mut floor: Vec<(f64, f64)> = Vec::new();
    for one in series {
        let points: Vec<_> = one.points.iter().map(|p| place(x, y, *p)).collect();
        if one.area {
            write_area(out, one, &points, &floor)?;
            floor = points;
        } else {
            let path = path(&points);
            write!(out, "<path class=line d=\"{path}\" style=\"stroke:var(--{})\"/>", one.colour)?;
        }
    }
    writeln!(out, "</svg></figure>")
}

fn write_axes(out: &mut String, x: &Axis, y: &Axis) -> std::fmt::Result {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for (value, label) in &y.ticks {
        let at = bottom - y.at(*value) * (bottom - TOP);
        write!(
            out,
            "<path class=grid d=\"M{LEFT} {at:.1}H{right}\"/><text class=y x={} y={:.1}>{label}</text>",
            LEFT - 6.0,
            at + 4.0
        )?;
    }
    for (value, label) in &x.ticks {
        let at = LEFT + x.at(*value) * (right - LEFT);
        write!(
            out,
            "<path class=grid d=\"M{at:.1} {TOP}V{bottom}\"/><text class=x x={at:.1} y={}>{label}</text>",
            bottom + 16.0
        )?;
    }
    write!(
        out,
        "<text class=x x={:.1} y={}>{}</text><text class=unit x={LEFT} y={}>{}</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 4.0,
        x.label,
        TOP - 3.0,
        y.label
    )
}

fn write_area(
    out: &mut String,
    series: &Series,
    points: &[(f64, f64)],
    floor: &[(f64, f64)],
) -> std::fmt::Result {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return Ok(());
    };
    let mut outline = path(points);
    if floor.is_empty() {
        let bottom = HEIGHT - BOTTOM;
        write!(outline, "L{:.1} {bottom}L{:.1} {bottom}Z", last.0, first.0)?;
    } else {
        for (x, y) in floor.iter().rev() {
            write!(outline, "L{x:.1} {y:.1}")?;
        }
        outline.push('Z');
    }
    write!(out, "<path class=area d=\"{outline}\" style=\"fill:var(--{})\"/>", series.colour)
}

fn place(x: &Axis, y: &Axis, (at, value): (f64, f64)) -> (f64, f64) {
    (LEFT + x.at(at) * (WIDTH - RIGHT - LEFT), HEIGHT - BOTTOM - y.at(value) * (HEIGHT - BOTTOM - TOP))
}

fn path(points: &[(f64, f64)]) -> String {
    let mut path = String::with_capacity(points.len() * 12);
    for (n, (x, y)) in points.iter().enumerate() {
        let _ = write!(path, "{}{x:.1} {y:.1}", if n == 0 { 'M' } else { 'L' });
    }
    path
}
