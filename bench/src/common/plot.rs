//! Plots, as SVG: lines over a number, bars over names.

use std::ops::Range;
use std::path::Path;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// Pixels.
const SIZE: (u32, u32) = (960, 540);
/// Distinguishable also for those who see few colours (Okabe and Ito's palette).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// What stands around a plot of lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinePlot {
    pub(crate) title: String,
    /// The axis's quantity and unit.
    pub(crate) x: String,
    pub(crate) y: String,
    /// Logarithmic axes; values that are not positive are then left out.
    pub(crate) log_x: bool,
    pub(crate) log_y: bool,
}

/// One line, or one set of bars.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Points of a line.
    pub(crate) points: Vec<(f64, f64)>,
}

/// What stands around a plot of bars, and the names under them.
#[derive(Clone, Debug, Default)]
pub(crate) struct BarPlot {
    pub(crate) title: String,
    pub(crate) y: String,
    /// One group of bars each.
    pub(crate) groups: Vec<String>,
}

/// Bars of one colour, one for each group; `None` where there is nothing to show.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bars {
    pub(crate) name: String,
    pub(crate) values: Vec<Option<f64>>,
}

/// Draws `series` as lines with a mark at each point.
///
/// # Errors
/// The path, and what could not be done.
pub(crate) fn lines(path: &Path, plot: &LinePlot, series: &[Series]) -> Result<(), String> {
    let shown: Vec<Series> = series.iter().map(|series| visible(plot, series)).collect();
    let points = || shown.iter().flat_map(|series| series.points.iter());
    let x = bounds(points().map(|(x, _)| *x), plot.log_x);
    let y = bounds(points().map(|(_, y)| *y), plot.log_y);
    let drawn = match (plot.log_x, plot.log_y) {
        (false, false) => draw_lines(path, plot, &shown, x, y),
        (true, false) => draw_lines(path, plot, &shown, x.log_scale(), y),
        (false, true) => draw_lines(path, plot, &shown, x, y.log_scale()),
        (true, true) => draw_lines(path, plot, &shown, x.log_scale(), y.log_scale()),
    };
    drawn.map_err(|error| format!("cannot draw {}: {error}", path.display()))
}

/// Draws groups of bars, one colour a series.
///
/// # Errors
/// The path, and what could not be done.
pub(crate) fn bars(path: &Path, plot: &BarPlot, series: &[Bars]) -> Result<(), String> {
    draw_bars(path, plot, series).map_err(|error| format!("cannot draw {}: {error}", path.display()))
}

fn visible(plot: &LinePlot, series: &Series) -> Series {
    let fits = |value: f64, log: bool| value.is_finite() && (!log || value > 0.0);
    let points = series.points.iter().copied();
    Series {
        name: series.name.clone(),
        points: points.filter(|(x, y)| fits(*x, plot.log_x) && fits(*y, plot.log_y)).collect(),
    }
}

/// The range of an axis: from zero, or by factors, with room above.
fn bounds(values: impl Iterator<Item = f64>, log: bool) -> Range<f64> {
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        (least, most) = (least.min(value), most.max(value));
    }
    match (least.is_finite(), log) {
        (false, _) => 1.0..10.0,
        (true, true) => least / 1.25..most * 1.25,
        (true, false) => least.min(0.0)..(most * 1.1).max(f64::MIN_POSITIVE),
    }
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw_lines<X, Y>(path: &Path, plot: &LinePlot, series: &[Series], x: X, y: Y) -> Drawn
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(&plot.title, ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(72)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(&plot.x)
        .y_desc(&plot.y)
        .x_label_formatter(&|value| number(*value))
        .y_label_formatter(&|value| number(*value))
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    for (series, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(series.points.iter().copied(), style))?
            .label(&series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        chart.draw_series(series.points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

fn draw_bars(path: &Path, plot: &BarPlot, series: &[Bars]) -> Drawn {
    let values = || series.iter().flat_map(|bars| bars.values.iter().flatten().copied());
    let y = bounds(values().chain([0.0]), false);
    let groups = plot.groups.len().max(1);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(&plot.title, ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..groups as f64, y)?;
    chart.configure_mesh().disable_x_mesh().disable_x_axis().y_desc(&plot.y).draw()?;
    let width = 0.8 / series.len().max(1) as f64;
    for (at, (bars, colour)) in series.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let style = colour.filled();
        let bar = |(group, value): (usize, &Option<f64>)| {
            let left = group as f64 + 0.1 + at as f64 * width;
            value.map(|value| Rectangle::new([(left, 0.0), (left + width * 0.95, value)], style))
        };
        chart
            .draw_series(bars.values.iter().enumerate().filter_map(bar))?
            .label(&bars.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], style));
    }
    let font = ("sans-serif", 15).into_font().color(&BLACK);
    let centred = font.pos(plotters::style::text_anchor::Pos::new(
        plotters::style::text_anchor::HPos::Center,
        plotters::style::text_anchor::VPos::Top,
    ));
    for (group, name) in plot.groups.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(group as f64 + 0.5, 0.0));
        root.draw_text(name, &centred, (x, y + 8))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

/// A number as axes show it: 10k, 2.5M.
fn number(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, "G"),
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = format!("{scaled:.3}");
    let short = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{short}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(draw: impl FnOnce(&Path) -> Result<(), String>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plot.svg");
        draw(&path).unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn lines_on_logarithmic_axes_leave_out_what_has_no_logarithm() {
        let plot =
            LinePlot { title: "T".into(), x: "flows".into(), y: "cycles".into(), log_x: true, log_y: true };
        let series = Series { name: "weir".into(), points: vec![(0.0, 1.0), (1.0, 30.0), (1e6, 160.0)] };
        let svg = drawn(|path| lines(path, &plot, &[series]));
        assert_eq!(svg.matches("<circle").count(), 2, "{svg}");
        assert!(svg.contains("weir") && svg.contains("cycles") && svg.contains("flows"));
    }

    #[test]
    fn a_bar_is_missing_where_there_is_no_value() {
        let plot = BarPlot { title: "T".into(), y: "cycles".into(), groups: vec!["W1".into(), "W2".into()] };
        let ours = Bars { name: "weir".into(), values: vec![Some(8.0), Some(25.0)] };
        let theirs = Bars { name: "peer".into(), values: vec![None, Some(40.0)] };
        let both = drawn(|path| bars(path, &plot, &[ours.clone(), theirs]));
        let one = drawn(|path| bars(path, &plot, &[ours]));
        // One bar and one mark in the legend.
        assert_eq!(both.matches("<rect").count(), one.matches("<rect").count() + 2);
        assert!(both.contains("W1") && both.contains("W2"));
    }

    #[test]
    fn a_plot_of_nothing_is_drawn() {
        assert!(drawn(|path| lines(path, &LinePlot::default(), &[])).contains("</svg>"));
    }

    #[test]
    fn numbers_on_axes_are_short() {
        assert_eq!(
            [1.0, 64.0, 1000.0, 10_000.0, 2_500_000.0].map(number),
            ["1", "64", "1000", "10k", "2.5M"]
        );
    }
}
