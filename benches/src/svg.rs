//! A small SVG writer: shapes, words, and one style sheet with a light and a dark side.

use std::fmt::Write;

/// The look of all pictures. A server has one colour wherever it appears; in the dark the colours are lighter.
const STYLE: &str = "
  text { font: 13px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
  .title { font-size: 15px; font-weight: 600; }
  .small { font-size: 12px; fill: #59636e; }
  .value { font-size: 11px; }
  .paper { fill: #ffffff; }
  .axis { stroke: #8c959f; stroke-width: 1; }
  .grid { stroke: #d1d9e0; stroke-width: 1; }
  .mark { stroke: #8c959f; stroke-width: 1; stroke-dasharray: 4 4; }
  polyline { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
  polyline.tidegate { stroke-width: 4; }
  .tidegate { --ink: #0550ae; } .tokio { --ink: #bc4c00; } .thread { --ink: #1a7f37; }
  .pool { --ink: #bf3989; } .python { --ink: #9a6700; } .epoll { --ink: #6e7781; }
  .reset { --ink: #6e7781; } .udp { --ink: #6e7781; } .tokio-4k { --ink: #d4a72c; }
  .asyncio { --ink: #8250df; } .haproxy { --ink: #bf3989; } .haproxy-limits { --ink: #bc4c00; }
  .nginx { --ink: #1a7f37; } .nothing { --ink: #6e7781; }
  polyline { stroke: var(--ink); } .dot, .bar { fill: var(--ink); } text.ink { fill: var(--ink); }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .small { fill: #9198a1; } .paper { fill: #0d1117; }
    .axis { stroke: #656c76; } .grid { stroke: #2b3138; } .mark { stroke: #656c76; }
    .tidegate { --ink: #58a6ff; } .tokio { --ink: #ff9d57; } .thread { --ink: #56d364; }
    .pool { --ink: #f778ba; } .python { --ink: #e3b341; } .epoll { --ink: #9ea7b3; }
    .reset { --ink: #9ea7b3; } .udp { --ink: #9ea7b3; } .tokio-4k { --ink: #ffdf8a; }
    .asyncio { --ink: #d2a8ff; } .haproxy { --ink: #f778ba; } .haproxy-limits { --ink: #ff9d57; }
    .nginx { --ink: #56d364; } .nothing { --ink: #9ea7b3; }
  }";

/// Where a text is held.
#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture in the making.
pub(crate) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

impl Svg {
    pub(crate) fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    pub(crate) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.add(format_args!(
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        ));
    }

    pub(crate) fn polyline(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.add(format_args!(r#"<polyline class="{class}" points="{}"/>"#, points.join(" ")));
    }

    pub(crate) fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        self.add(format_args!(r#"<circle class="dot {class}" cx="{x:.1}" cy="{y:.1}" r="{radius}"/>"#));
    }

    pub(crate) fn bar(&mut self, class: &str, (x, y): (f64, f64), width: f64, height: f64) {
        self.add(format_args!(
            r#"<rect class="bar {class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="2"/>"#
        ));
    }

    pub(crate) fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.add(format_args!(
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
        ));
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.body, "{element}");
    }

    /// The file. `title` and `description` are for those who do not see it.
    pub(crate) fn finish(self, title: &str, description: &str) -> String {
        let Self { width, height, body } = self;
        let (title, description) = (escape(title), escape(description));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\">\n<title>{title}</title>\n<desc>{description}</desc>\n\
             <style>{STYLE}\n</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n{body}</svg>\n"
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cannot_become_elements() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text("small", (1.0, 2.0), Anchor::End, "p99 < 1 s & <b>");
        let file = svg.finish("a < b", "");
        assert!(file.contains("p99 &lt; 1 s &amp; &lt;b&gt;</text>"), "{file}");
        assert!(file.contains("<title>a &lt; b</title>"));
    }
}
