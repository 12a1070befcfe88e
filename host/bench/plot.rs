//! Latency curves as SVG: how many of all on an axis of nines, and the time that took on a logarithmic one.

use std::error::Error;
use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

use super::BenchError;
use super::latency::Point;

const SIZE: (u32, u32) = (960, 540);
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x1F, 0x29, 0x37);
const FAINT: RGBColor = RGBColor(0x6B, 0x72, 0x80);
const GRID: RGBColor = RGBColor(0xE5, 0xE7, 0xEB);
/// Also told apart by people who see few colours (after Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0x33, 0x33, 0x33),
];

/// A curve with a name.
#[derive(Debug, Clone)]
pub struct Series {
    /// For the legend.
    pub name: String,
    /// With rising shares.
    pub points: Vec<Point>,
}

/// Draws the curves.
///
/// # Errors
/// If there is nothing to draw, or the drawing library fails.
pub fn draw(title: &str, curves: &[Series]) -> Result<String, BenchError> {
    let mut svg = String::new();
    paint(&mut svg, title, curves).map_err(|error| BenchError::Plot { reason: error.to_string() })?;
    Ok(svg)
}

fn paint(svg: &mut String, title: &str, curves: &[Series]) -> Result<(), Box<dyn Error>> {
    let curves: Vec<(&str, Vec<(f64, f64)>)> =
        curves.iter().map(|curve| (curve.name.as_str(), line(&curve.points))).collect();
    let all = || curves.iter().flat_map(|(_, line)| line.iter().copied());
    let right = all().map(|(nines, _)| nines).fold(1.0, f64::max);
    let Some(heights) = heights(all().map(|(_, height)| height)) else { return Err("there are no values".into()) };
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let heading = TextStyle::from((FONT, 20).into_font()).color(&INK);
    root.draw(&Text::new(title.to_owned(), (24, 18), heading))?;
    let shares = (0..=20).map(f64::from).take_while(|nines| *nines <= right).collect();
    let shares = Axis { range: 0.0..right, marks: shares, words: share_words };
    let times = Axis { marks: time_marks(&heights), range: heights, words: time_words };
    let mut chart = ChartBuilder::on(&root)
        .margin(24)
        .margin_top(56)
        .x_label_area_size(52)
        .y_label_area_size(76)
        .build_cartesian_2d(shares, times)?;
    let labels = TextStyle::from((FONT, 14).into_font()).color(&FAINT);
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(FAINT)
        .label_style(labels.clone())
        .axis_desc_style(labels.clone())
        .x_desc("share of all, slowest on the right")
        .y_desc("latency")
        .draw()?;
    for ((name, line), colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(3);
        chart
            .draw_series(LineSeries::new(line.iter().copied(), style))?
            .label(legend(name, line))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
        chart.draw_series(line.last().map(|slowest| Circle::new(*slowest, 4, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .margin(16)
        .legend_area_size(30)
        .label_font(TextStyle::from((FONT, 15).into_font()).color(&INK))
        .background_style(WHITE.mix(0.85))
        .border_style(TRANSPARENT)
        .draw()?;
    root.present()?;
    Ok(())
}

/// An axis with its own marks, and words for them.
struct Axis {
    range: Range<f64>,
    marks: Vec<f64>,
    words: fn(f64) -> String,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        from + (f64::from(to - from) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        value.to_string()
    }

    fn format_ext(&self, value: &f64) -> String {
        (self.words)(*value)
    }
}

/// A curve in the plot's coordinates: nines, and the logarithm of milliseconds.
fn line(points: &[Point]) -> Vec<(f64, f64)> {
    // The last point is all of them, at no finite nine: it goes a little beyond the one before.
    let last = points.iter().filter(|point| point.share < 1.0).map(|point| nines(point.share)).fold(0.0, f64::max);
    let place = |share: f64| if share < 1.0 { nines(share) } else { last + 0.05 };
    points.iter().map(|point| (place(point.share), point.ms.max(1e-6).log10())).collect()
}

/// A curve's name, and how long the slowest took.
fn legend(name: &str, line: &[(f64, f64)]) -> String {
    let slowest = line.last().map(|(_, height)| format!(", max {}", time_words(*height)));
    format!("{name}{}", slowest.unwrap_or_default())
}

fn nines(share: f64) -> f64 {
    -(1.0 - share).log10()
}

/// The range of heights, with some air.
fn heights(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    (low <= high).then(|| low - 0.1..high.max(low + 0.4) + 0.25)
}

/// 1, 2 and 5 of each power of ten; of wide ranges only 1.
fn time_marks(heights: &Range<f64>) -> Vec<f64> {
    let steps: &[f64] = if heights.end - heights.start > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let decades = (heights.start.floor() as i32)..=(heights.end.ceil() as i32);
    let marks = decades.flat_map(|decade| steps.iter().map(move |step| f64::from(decade) + step.log10()));
    marks.filter(|mark| heights.contains(mark)).collect()
}

fn share_words(nines: f64) -> String {
    // 99.9 % has as many digits behind the point as it has nines over two.
    let percent = 100.0 * (1.0 - 10_f64.powf(-nines));
    let digits = (0_usize..20).find(|digits| *digits as f64 + 2.0 >= nines.round()).unwrap_or_default();
    format!("{percent:.digits$} %")
}

fn time_words(height: f64) -> String {
    let ms = 10_f64.powf(height);
    let (value, unit) = match ms {
        ms if ms >= 999.5 => (ms / 1e3, "s"),
        ms if ms >= 0.999_5 => (ms, "ms"),
        ms => (ms * 1e3, "µs"),
    };
    let digits = if value >= 99.95 { 0 } else { usize::from(value < 9.995) + usize::from(value < 99.5) };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_speak_in_nines_and_units() {
        assert_eq!([0.0, 1.0, 2.0, 3.0, 5.0].map(share_words), ["0 %", "90 %", "99 %", "99.9 %", "99.999 %"]);
        let words = [0.001, 0.05, 0.2, 1.0, 1.25, 20.0, 500.0, 1_000.0, 2_500.0].map(|ms: f64| time_words(ms.log10()));
        assert_eq!(words, ["1 µs", "50 µs", "200 µs", "1 ms", "1.25 ms", "20 ms", "500 ms", "1 s", "2.5 s"]);
    }

    #[test]
    fn a_plot_has_its_curves_names_and_title() {
        let points =
            (0..=40).map(|step| Point { share: 1.0 - 10_f64.powf(-f64::from(step) / 10.0), ms: f64::from(step + 1) });
        let points: Vec<Point> = points.chain([Point { share: 1.0, ms: 90.0 }]).collect();
        let curves = ["one", "two < three"].map(|name| Series { name: name.to_owned(), points: points.clone() });

        let svg = draw("a title & more", &curves).unwrap();

        for part in ["<svg", "</svg>", "a title &amp; more", "one", "two &lt; three", "99.9 %", "max 90 ms", "#0072B2"]
        {
            assert!(svg.contains(part), "{part:?} is missing:\n{svg}");
        }
    }

    #[test]
    fn one_value_and_none_are_no_accident() {
        let one = Series { name: "one".to_owned(), points: vec![Point { share: 1.0, ms: 0.0 }] };
        assert!(draw("one", &[one]).is_ok());
        assert!(draw("none", &[]).is_err());
    }
}
