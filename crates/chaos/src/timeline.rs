//! Throughput over time with the faults as bands: an SVG picture as text. Pure.

use std::fmt::Write;

/// A fault in the picture.
#[derive(Clone, Debug)]
pub(crate) struct Band {
    /// Written above it.
    pub(crate) name: &'static str,
    /// What it hit; shown when it is pointed at.
    pub(crate) target: String,
    /// Which colour; kinds with equal numbers share one.
    pub(crate) colour: usize,
    pub(crate) from_s: f64,
    pub(crate) undone_s: f64,
    pub(crate) ready_s: f64,
}

const WIDTH: f64 = 1120.0;
const HEIGHT: f64 = 300.0;
/// Room for the numbers at the axes and for the names of the faults.
const LEFT: f64 = 56.0;
const TOP: f64 = 96.0;
const BOTTOM: f64 = 24.0;
/// Pixels from which a band has room for its name.
const NAME_PIXELS: f64 = 6.0;

/// Hue of a band.
pub(crate) fn hue(colour: usize) -> usize {
    // The golden angle keeps neighbours apart.
    colour * 137 % 360
}

/// The picture.
pub(crate) fn svg(per_second: &[u64], bands: &[Band]) -> String {
    let seconds = per_second.len().max(1) as f64;
    let most = per_second.iter().copied().max().unwrap_or(0).max(1) as f64;
    let x = |s: f64| LEFT + s.clamp(0.0, seconds) / seconds * (WIDTH - LEFT);
    let y = |count: f64| TOP + (1.0 - count / most) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"operations per second, with faults\">\n"
    );
    let mut named_until = 0.0;
    for band in bands {
        let (from, undone, ready) = (x(band.from_s), x(band.undone_s), x(band.ready_s));
        let (hue, height) = (hue(band.colour), HEIGHT - TOP - BOTTOM);
        let mut rect = |left: f64, right: f64, opacity: f64| {
            let width = (right - left).max(1.0);
            let _ = writeln!(
                svg,
                "<rect x=\"{left:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\" \
                 fill=\"hsl({hue} 70% 50%)\" fill-opacity=\"{opacity}\"><title>{} {}</title></rect>",
                band.name,
                escape(&band.target)
            );
        };
        rect(from, undone, 0.35);
        rect(undone, ready, 0.15);
        if from >= named_until {
            let _ = writeln!(
                svg,
                "<text class=\"band\" transform=\"translate({:.1} {:.1}) rotate(-45)\">{}</text>",
                from + 6.0,
                TOP - 4.0,
                band.name
            );
            named_until = from + 2.0 * NAME_PIXELS;
        }
    }
    let points: Vec<_> = per_second
        .iter()
        .enumerate()
        .map(|(second, count)| format!("{:.1},{:.1}", x(second as f64 + 0.5), y(*count as f64)))
        .collect();
    let _ = writeln!(svg, "<polyline class=\"line\" points=\"{}\"/>", points.join(" "));
    for (count, at) in [(most, TOP), (most / 2.0, y(most / 2.0)), (0.0, HEIGHT - BOTTOM)] {
        let _ = writeln!(
            svg,
            "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{count:.0}/s</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    for step in 0..=8 {
        let second = seconds * f64::from(step) / 8.0;
        let _ = writeln!(
            svg,
            "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{}\">{second:.0} s</text>",
            x(second),
            HEIGHT - 6.0,
            if step == 8 { "end" } else { "middle" }
        );
    }
    svg + "</svg>\n"
}

/// Text as HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_lie_where_the_faults_were() {
        let band = Band {
            name: "pause",
            target: "<node1>".into(),
            colour: 3,
            from_s: 5.0,
            undone_s: 6.0,
            ready_s: 7.0,
        };
        let svg = svg(&[100; 10], &[band]);
        assert!(svg.contains("<rect x=\"588.0\""), "{svg}");
        assert!(svg.contains("pause &lt;node1&gt;") && !svg.contains("<node1>"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 2);
    }

    #[test]
    fn a_run_without_operations_has_a_picture() {
        assert!(svg(&[], &[]).ends_with("</svg>\n"));
    }
}
