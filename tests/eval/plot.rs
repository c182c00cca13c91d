//! A plot a person can read: part of the attacks found over false alerts a day.

use std::fmt::Write;

/// False alerts a day that are looked at.
pub const COSTS: [f64; 13] = [0.15, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 40.0];

pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 430.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const COLOURS: [&str; 8] = ["#888888", "#b0813b", "#5b8c5a", "#8a6fb0", "#444444", "#2a6fbb", "#d1495b", "#e0a100"];

fn x(cost: f64) -> f64 {
    let (low, high) = (COSTS[0].ln(), COSTS[COSTS.len() - 1].ln());
    WIDTH * (cost.ln() - low) / (high - low)
}

fn y(recall: f64) -> f64 {
    HEIGHT * (1.0 - recall)
}

/// Panels beside each other, one legend below.
pub fn svg(panels: &[(&str, Vec<Line>)]) -> String {
    let (width, height) = ((WIDTH + LEFT) * panels.len() as f64 + 20.0, HEIGHT + 160.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (i, (title, lines)) in panels.iter().enumerate() {
        let left = LEFT + (WIDTH + LEFT) * i as f64;
        let _ = writeln!(out, "<g transform=\"translate({left} {TOP})\">");
        let _ = writeln!(out, "<text x=\"0\" y=\"-14\" font-size=\"15\" font-weight=\"bold\">{title}</text>");
        axes(&mut out);
        for (line, colour) in lines.iter().zip(COLOURS) {
            let points: Vec<String> = line.points.iter().map(|(c, r)| format!("{:.1},{:.1}", x(*c), y(*r))).collect();
            let ours = line.name.contains('W') || line.name.contains('S');
            let stroke = if ours && !line.name.contains("HBOS") { 3.0 } else { 1.5 };
            let _ = writeln!(
                out,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{stroke}\" points=\"{}\"/>",
                points.join(" ")
            );
        }
        out.push_str("</g>\n");
    }
    for (i, (line, colour)) in panels.iter().flat_map(|p| &p.1).zip(COLOURS).enumerate() {
        let (x, y) = (LEFT + 245.0 * (i % 4) as f64, TOP + HEIGHT + 70.0 + 22.0 * (i / 4) as f64);
        let _ = writeln!(
            out,
            "<line x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"3\"/>",
            x + 24.0
        );
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", x + 30.0, y + 4.0, line.name);
    }
    out + "</svg>\n"
}

fn axes(out: &mut String) {
    let _ = writeln!(out, "<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#999\"/>");
    for recall in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let y = y(recall);
        let _ = writeln!(out, "<line x1=\"0\" x2=\"{WIDTH}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#eee\"/>");
        let _ = writeln!(out, "<text x=\"-8\" y=\"{}\" text-anchor=\"end\">{:.0} %</text>", y + 4.0, recall * 100.0);
    }
    for cost in [0.3, 1.0, 2.0, 5.0, 12.0, 40.0] {
        let x = x(cost);
        let _ = writeln!(out, "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{HEIGHT}\" stroke=\"#eee\"/>");
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{cost}</text>", HEIGHT + 18.0);
    }
    let _ = writeln!(out, "<text x=\"0\" y=\"{}\">attack runs found, over false alerts a day</text>", HEIGHT + 38.0);
}
