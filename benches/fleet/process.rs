//! What the kernel tells of processes and of the machine.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many descriptors as the fleet needs: a socket for each engine, and for each call two.
const DESCRIPTORS: u64 = 200_000;

/// Ticks of the clock that the kernel counts processor time by, in a second.
const TICKS: f64 = 100.0;

/// Lets this process, and those that it starts, open enough.
pub fn allow_descriptors() {
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) };
    // Without the right to raise the limit, what there is has to do.
    if setrlimit(Resource::Nofile, wanted).is_err() {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, ..now });
    }
}

/// Processors and memory, in words.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kilobytes = field(&memory, "MemTotal:").unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    format!("{count} processors ({model}), {} GiB", kilobytes / (1024 * 1024))
}

/// The machine's load, in words.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let words: Vec<_> = load.split(' ').take(3).collect();
    format!("load {}", words.join(" "))
}

/// Resident memory now, and at its highest, in MiB.
pub fn memory(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mebibytes = |key| field(&status, key).unwrap_or_default() / 1024;
    (mebibytes("VmRSS:"), mebibytes("VmHWM:"))
}

/// Processor time that a process has taken.
pub fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may have spaces; user and system time are the 12th and 13th after it.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks: f64 = fields.split(' ').skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
    Duration::from_secs_f64(ticks / TICKS)
}

fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}
