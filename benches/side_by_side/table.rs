//! The tables on the terminal.

use crate::contender::Contender;
use crate::latency;
use crate::settings::Cell;
use crate::stage::Stage;
use crate::support::terminal::{bold, say, thousands};
use crate::throughput::{Run, rounds};

const SPREAD: &str = "the median round (least..most)";

/// One cell's runs.
pub(crate) fn throughput(stage: &Stage, cell: Cell, runs: &[Run]) {
    let jobs = runs.iter().filter(|run| run.cell == cell).map(|run| run.jobs).max().unwrap_or_default();
    say(bold(&format!("\n{cell}: {} jobs; {SPREAD}; CPU from the start of the process on", thousands(jobs as u64))));
    say(format!(
        "  {:<13} {:>22} {:>19} {:>21} {:>9} {:>9} {:>10} {:>9}",
        "", "CPU us a job", "x bare", "jobs/s", "of ideal", "peak MiB", "broker us", "Redis us"
    ));
    let bare = rounds(runs, cell, Contender::Bare, |run| run.cpu_us);
    for &contender in &stage.settings.contenders {
        let of = |number: fn(&Run) -> f64| rounds(runs, cell, contender, number);
        let median = |number: fn(&Run) -> f64| of(number).median().unwrap_or_default();
        let (cpu, speed) = (of(|run| run.cpu_us), of(|run| run.jobs_per_second));
        if cpu.median().is_none() {
            not_run(stage, contender);
            continue;
        }
        let ideal = cell.ideal().zip(speed.median());
        say(format!(
            "  {:<13} {cpu:>22.1} {:>19.2} {speed:>21.0} {:>9} {:>9.1} {:>10.1} {:>9.1}",
            contender.name(),
            cpu.per(&bare),
            ideal.map_or("-".into(), |(ideal, speed)| format!("{:.0} %", speed / ideal * 100.0)),
            median(|run| run.peak_kib as f64 / 1024.0),
            median(|run| run.broker_cpu_us),
            median(|run| run.redis_cpu_us),
        ));
    }
    say("");
}

fn not_run(stage: &Stage, contender: Contender) {
    let why = stage.why_away(contender).unwrap_or("no reason is known");
    say(format!("  {:<13} not run: {why}", contender.name()));
}

/// All contenders' latencies.
pub(crate) fn latency(stage: &Stage, who: &[Contender], runs: &[latency::Run]) {
    say(bold(&format!("\nfrom publishing to the result, milliseconds; {SPREAD}")));
    say(format!("  {:<13} {:>24} {:>24} {:>24} {:>17}", "", "p50", "p99", "p99.9", "p50 x bare"));
    let of = |contender, number: fn(&latency::Run) -> f64| latency::rounds(runs, contender, number);
    let bare = of(Contender::Bare, |run| run.p50_ms);
    for &contender in who.iter().filter(|who| stage.settings.contenders.contains(who)) {
        let p50 = of(contender, |run| run.p50_ms);
        if p50.median().is_none() {
            not_run(stage, contender);
            continue;
        }
        let (p99, p999) = (of(contender, |run| run.p99_ms), of(contender, |run| run.p999_ms));
        let ratio = p50.per(&bare);
        say(format!("  {:<13} {p50:>24.2} {p99:>24.2} {p999:>24.2} {ratio:>17.2}", contender.name()));
    }
}
