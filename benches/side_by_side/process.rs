//! What a process has used, as the kernel counts it.

use std::fs::read_to_string;
use std::time::Duration;

use crate::Failed;

/// Ticks a second in `/proc/PID/stat`; Linux shows 100 to programs on every machine.
const TICKS: u64 = 100;

/// Processor time of a process since its start, with that of its children.
pub(crate) fn cpu(pid: u32) -> Result<Duration, Failed> {
    let stat = read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may have spaces.
    let (_, fields) = stat.rsplit_once(") ").ok_or("a line of another kind in /proc/PID/stat")?;
    // utime, stime, and both of the children that have ended: fields 14 to 17, where the state is field 3.
    let ticks: u64 = fields.split(' ').skip(11).take(4).map(str::parse::<u64>).sum::<Result<_, _>>()?;
    let mut used = Duration::from_millis(ticks * 1000 / TICKS);
    for child in children(pid) {
        used += cpu(child).unwrap_or_default();
    }
    Ok(used)
}

fn children(pid: u32) -> Vec<u32> {
    let of_threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = of_threads.filter_map(|thread| read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// The most memory that a process has had, in KiB.
pub(crate) fn peak_kib(pid: u32) -> Result<u64, Failed> {
    of_status(pid, "VmHWM:")
}

/// The memory that a process has now, in KiB.
pub(crate) fn rss_kib(pid: u32) -> Result<u64, Failed> {
    of_status(pid, "VmRSS:")
}

fn of_status(pid: u32, name: &str) -> Result<u64, Failed> {
    let status = read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or(format!("no {name}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
