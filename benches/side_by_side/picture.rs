//! A picture of what a job costs, as SVG: a group of bars for each cell.

use std::fmt::Write;

use crate::contender::Contender;
use crate::measured::Measured;
use crate::numbers::Rounds;
use crate::settings::Cell;
use crate::stage::Stage;
use crate::throughput::rounds;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 480.0;
/// Where the bars are: between these.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 980.0;
const TOP: f64 = 96.0;
const BOTTOM: f64 = 410.0;

const STYLE: &str = "text{font-family:sans-serif;fill:#222}.s{font-size:12px}.v{font-size:11px;text-anchor:middle}\
.c{font-size:13px;text-anchor:middle}.t{font-size:17px;font-weight:bold}.r{text-anchor:end}";

const fn colour(contender: Contender) -> &'static str {
    match contender {
        Contender::Bare => "#9aa5b1",
        Contender::BareHyper => "#c9d1d9",
        Contender::Worker => "#0b6e99",
        Contender::WorkerRedis => "#d1495b",
        Contender::Node => "#66a182",
        Contender::FastStream => "#edae49",
    }
}

struct Scale {
    /// The largest number that fits.
    most: f64,
    step: f64,
}

impl Scale {
    /// A number far above all others would make them flat: its bar is cut.
    fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_unstable_by(f64::total_cmp);
        let fits = |pair: &[f64]| pair[1] <= pair[0] * 2.5;
        let cut = numbers.windows(2).rposition(|pair| !fits(pair)).filter(|&place| place * 3 > numbers.len());
        let largest = cut.map_or(numbers.last(), |place| numbers.get(place)).copied().unwrap_or(1.0);
        let step = [5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0].into_iter().find(|step| largest / step <= 8.0);
        let step = step.unwrap_or(1000.0);
        Self { most: (largest * 1.12 / step).ceil() * step, step }
    }

    fn y(&self, number: f64) -> f64 {
        BOTTOM - (number / self.most).min(1.0) * (BOTTOM - TOP)
    }
}

pub(crate) fn draw(stage: &Stage, measured: &Measured) -> String {
    let (cells, contenders) = (measured.cells(), &stage.settings.contenders);
    let cpu = |cell, contender| rounds(&measured.throughput, cell, contender, |run| run.cpu_us);
    let all = cells.iter().flat_map(|&cell| contenders.iter().filter_map(move |&who| cpu(cell, who).median()));
    let scale = Scale::of(all.collect());
    let mut svg = head(measured);
    legend(&mut svg, contenders);
    axis(&mut svg, &scale);
    let group = (RIGHT - LEFT) / cells.len() as f64;
    let bar = (group - 30.0) / contenders.len() as f64;
    for (n, &cell) in cells.iter().enumerate() {
        let left = LEFT + group * n as f64 + 15.0;
        for (place, &contender) in contenders.iter().enumerate() {
            let at = left + bar * place as f64;
            draw_bar(&mut svg, &scale, (at, bar * 0.86), colour(contender), &cpu(cell, contender));
        }
        name(&mut svg, left + (group - 30.0) / 2.0, cell);
    }
    svg.push_str("</svg>\n");
    svg
}

fn head(measured: &Measured) -> String {
    let machine = &measured.machine;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
         <style>{STYLE}</style>\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"30\" class=\"t\">What a job costs: microseconds of processor time, less is better</text>\n\
         <text x=\"{LEFT}\" y=\"{}\" class=\"s\">The median round; the line in a bar is from the least to the most. \
         {}, {} cores of {}, RabbitMQ {}</text>\n",
        HEIGHT - 12.0,
        machine.date,
        machine.cores,
        machine.cpu.replace('&', "&amp;").replace('<', "&lt;"),
        machine.rabbitmq,
    )
}

fn legend(svg: &mut String, contenders: &[Contender]) {
    for (place, &contender) in contenders.iter().enumerate() {
        let x = LEFT + place as f64 * 125.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"46\" width=\"14\" height=\"14\" fill=\"{}\"/><text x=\"{}\" y=\"58\" class=\"s\">{}</text>",
            colour(contender),
            x + 20.0,
            contender.name(),
        );
    }
}

fn axis(svg: &mut String, scale: &Scale) {
    let lines = (scale.most / scale.step).round() as u32;
    for line in 0..=lines {
        let number = f64::from(line) * scale.step;
        let y = scale.y(number);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" class=\"s r\">{number}</text>",
            LEFT - 8.0,
            y + 4.0,
        );
    }
    let _ = writeln!(
        svg,
        "<text transform=\"translate(22 {}) rotate(-90)\" class=\"c\">microseconds a job</text>",
        f64::midpoint(TOP, BOTTOM)
    );
}

fn draw_bar(svg: &mut String, scale: &Scale, (x, width): (f64, f64), colour: &str, cpu: &Rounds) {
    let Some(((median, least), most)) = cpu.median().zip(cpu.least()).zip(cpu.most()) else { return };
    let (y, middle) = (scale.y(median), x + width / 2.0);
    let (low, high) = (scale.y(least), scale.y(most));
    let _ = write!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\
         <text x=\"{middle:.1}\" y=\"{:.1}\" class=\"v\">{median:.0}</text>",
        BOTTOM - y,
        high - 6.0,
    );
    if median > scale.most {
        // Cut: a white stroke says so.
        let (low, high) = (TOP + 22.0, TOP + 14.0);
        let _ = write!(
            svg,
            "<path d=\"M{:.1} {low} L{:.1} {high}\" stroke=\"#fff\" stroke-width=\"5\"/>",
            x - 2.0,
            x + width + 2.0
        );
    } else {
        let _ = write!(
            svg,
            "<line x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"{low:.1}\" y2=\"{high:.1}\" stroke=\"#222\"/>"
        );
    }
    svg.push('\n');
}

fn name(svg: &mut String, middle: f64, cell: Cell) {
    let _ = writeln!(
        svg,
        "<text x=\"{middle:.1}\" y=\"{:.1}\" class=\"c\">{} in flight,</text>\
         <text x=\"{middle:.1}\" y=\"{:.1}\" class=\"c\">endpoint takes {} ms</text>",
        BOTTOM + 20.0,
        cell.prefetch,
        BOTTOM + 37.0,
        cell.latency.as_millis(),
    );
}
