//! Line plots as SVG: panels side by side under one title and one legend.

use std::fmt::Write;

/// Plots that belong together.
pub(crate) struct Plot {
    pub(crate) title: &'static str,
    pub(crate) subtitle: String,
    pub(crate) panels: Vec<Panel>,
}

/// One pair of axes.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

/// One direction. Values outside are not drawn.
pub(crate) struct Axis {
    pub(crate) label: &'static str,
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<(f64, String)>,
}

/// One contender in a panel.
pub(crate) struct Line {
    pub(crate) name: String,
    /// `#rrggbb`.
    pub(crate) color: &'static str,
    pub(crate) stroke: Stroke,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How points are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stroke {
    Solid,
    Dashed,
    /// With a dot at each point.
    Dotted,
    /// Dots alone.
    None,
}

const WIDTH: f64 = 400.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 112.0;
const BOTTOM: f64 = 56.0;
const INK: &str = "#24292f";
const FAINT: &str = "#57606a";
const GRID: &str = "#e4e7eb";

impl Axis {
    /// Decades, with lines at 1, 2 and 5; as wide as `values` need.
    pub(crate) fn logarithmic(label: &'static str, values: impl Iterator<Item = f64>) -> Axis {
        let (low, high) = extent(values.filter(|value| *value > 0.0));
        let ticks: Vec<f64> = (-3..7)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)))
            .collect();
        let low = ticks
            .iter()
            .copied()
            .rfind(|tick| *tick <= low)
            .unwrap_or(low);
        let high = ticks
            .iter()
            .copied()
            .find(|tick| *tick >= high)
            .unwrap_or(high);
        let ticks = ticks
            .into_iter()
            .filter(|tick| (low..=high).contains(tick))
            .map(|tick| (tick, number(tick)));
        Axis {
            label,
            low,
            high,
            logarithmic: true,
            ticks: ticks.collect(),
        }
    }

    /// From 0 to a round number.
    pub(crate) fn linear(label: &'static str, values: impl Iterator<Item = f64>) -> Axis {
        let (_, high) = extent(values);
        let step = 10f64.powf(high.log10().floor());
        let step = [0.1, 0.2, 0.5, 1.0]
            .map(|part| part * step)
            .into_iter()
            .find(|step| high / step <= 6.0)
            .unwrap_or(step);
        let count = (high / step).ceil();
        let ticks = (0..=count as u32).map(|tick| f64::from(tick) * step);
        Axis {
            label,
            low: 0.0,
            high: count * step,
            logarithmic: false,
            ticks: ticks.map(|it| (it, number(it))).collect(),
        }
    }

    /// Names at 0, 1, 2 and so on.
    pub(crate) fn names(label: &'static str, names: &[&str]) -> Axis {
        let ticks = names
            .iter()
            .enumerate()
            .map(|(place, name)| (place as f64, (*name).to_owned()));
        Axis {
            label,
            low: -0.3,
            high: names.len() as f64 - 0.7,
            logarithmic: false,
            ticks: ticks.collect(),
        }
    }

    /// Where a value lies between the ends, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        match self.logarithmic {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        }
    }
}

impl Plot {
    /// The picture; panels are `height` high.
    pub(crate) fn draw(&self, height: f64) -> String {
        let full = (
            self.panels.len() as f64 * (LEFT + WIDTH + RIGHT),
            TOP + height + BOTTOM,
        );
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0}\" height=\"{1:.0}\" viewBox=\"0 0 {0:.0} {1:.0}\" \
             font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
            full.0, full.1
        );
        text(
            &mut svg,
            (20.0, 32.0),
            "start",
            &format!("fill=\"{INK}\" font-size=\"18\" font-weight=\"bold\""),
            self.title,
        );
        text(
            &mut svg,
            (20.0, 52.0),
            "start",
            &format!("fill=\"{FAINT}\""),
            &self.subtitle,
        );
        self.legend(&mut svg);
        for (position, panel) in self.panels.iter().enumerate() {
            panel.draw(
                &mut svg,
                position as f64 * (LEFT + WIDTH + RIGHT) + LEFT,
                height,
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// Every name once, in the order of their first lines.
    fn legend(&self, svg: &mut String) {
        let (mut seen, mut x) = (Vec::new(), 20.0);
        for line in self.panels.iter().flat_map(|panel| &panel.lines) {
            if seen.contains(&&line.name) {
                continue;
            }
            seen.push(&line.name);
            line.sample(svg, (x, 72.0));
            text(
                svg,
                (x + 31.0, 76.0),
                "start",
                &format!("fill=\"{INK}\""),
                &line.name,
            );
            x += 56.0 + 6.6 * line.name.len() as f64;
        }
    }
}

impl Panel {
    fn draw(&self, svg: &mut String, left: f64, height: f64) {
        let at = |(x, y): (f64, f64)| {
            (
                left + self.x.place(x) * WIDTH,
                TOP + (1.0 - self.y.place(y)) * height,
            )
        };
        let faint = &format!("fill=\"{FAINT}\" font-size=\"11\"");
        for (value, label) in &self.y.ticks {
            let (_, y) = at((self.x.low, *value));
            grid(svg, (left, y), (left + WIDTH, y));
            text(svg, (left - 8.0, y + 4.0), "end", faint, label);
        }
        for (value, label) in &self.x.ticks {
            let (x, _) = at((*value, self.y.low));
            grid(svg, (x, TOP), (x, TOP + height));
            text(svg, (x, TOP + height + 18.0), "middle", faint, label);
        }
        text(
            svg,
            (left, TOP - 10.0),
            "start",
            &format!("fill=\"{INK}\" font-weight=\"bold\""),
            self.title,
        );
        text(svg, (left + WIDTH, TOP - 10.0), "end", faint, self.y.label);
        text(
            svg,
            (left + WIDTH / 2.0, TOP + height + 40.0),
            "middle",
            &format!("fill=\"{FAINT}\""),
            self.x.label,
        );
        // The first ones matter most, so they are drawn over the others.
        for line in self.lines.iter().rev() {
            let inside = |&&(x, y): &&(f64, f64)| {
                [self.x.place(x), self.y.place(y)]
                    .iter()
                    .all(|place| (-1e-9..=1.0 + 1e-9).contains(place))
            };
            line.draw(
                svg,
                &line
                    .points
                    .iter()
                    .filter(inside)
                    .map(|point| at(*point))
                    .collect::<Vec<_>>(),
            );
        }
    }
}

impl Line {
    /// What it looks like, for the legend.
    fn sample(&self, svg: &mut String, (x, y): (f64, f64)) {
        let whole = [(x, y), (x + 12.0, y), (x + 24.0, y)];
        match self.stroke {
            Stroke::Solid | Stroke::Dashed => self.draw(svg, &whole),
            Stroke::None => self.draw(svg, &whole[1..2]),
            Stroke::Dotted => {
                self.stroke(svg, &whole);
                self.draw(svg, &whole[1..2]);
            }
        }
    }

    fn draw(&self, svg: &mut String, points: &[(f64, f64)]) {
        if self.stroke != Stroke::None {
            self.stroke(svg, points);
        }
        if matches!(self.stroke, Stroke::Dotted | Stroke::None) {
            let color = self.color;
            for (x, y) in points {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{color}\" stroke=\"#ffffff\"/>"
                );
            }
        }
    }

    fn stroke(&self, svg: &mut String, points: &[(f64, f64)]) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let dash = if self.stroke == Stroke::Dashed {
            " stroke-dasharray=\"6 4\""
        } else {
            ""
        };
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2.2\"{dash} stroke-linejoin=\"round\"/>",
            points.join(" "),
            self.color
        );
    }
}

fn grid(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{GRID}\"/>"
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, style: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {style}>{text}</text>"
    );
}

fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, 0.0), |(low, high), it| {
        (f64::min(low, it), f64::max(high, it))
    });
    if low < high {
        (low, high)
    } else {
        (0.5, high.max(1.0))
    }
}

/// `0.5`, `20`, `1,000`.
fn number(value: f64) -> String {
    match value {
        _ if value >= 1000.0 => format!("{:.0},{:03.0}", (value / 1000.0).floor(), value % 1000.0),
        _ if value.fract().abs() < 1e-9 => format!("{value:.0}"),
        _ => format!("{value:.3}").trim_end_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_ends_at_ticks() {
        let axis = Axis::logarithmic("ms", [0.7, 30.0].into_iter());
        assert_eq!((axis.low, axis.high), (0.5, 50.0));
        assert_eq!(axis.ticks.len(), 7);
        assert!((axis.place(5.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_linear_axis_begins_at_nothing() {
        let axis = Axis::linear("per second", [430.0].into_iter());
        assert_eq!((axis.low, axis.high, axis.ticks.len()), (0.0, 500.0, 6));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.05, 0.5, 2.0, 1000.0, 20_500.0].map(number),
            ["0.05", "0.5", "2", "1,000", "20,500"]
        );
    }
}
