//! What the kernel says of this process and its threads.

use std::fs;
use std::time::Duration;

use crate::telemetry::metrics::scrape::ProcessFacts;

/// The process: each figure where the kernel tells it.
pub fn facts() -> ProcessFacts {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    ProcessFacts {
        cpu: cpu_of(&stat),
        memory_bytes: resident_of(&status),
        fds: fds(),
        fds_max: fds_max_of(&limits),
        started_s: None,
    }
}

fn fds() -> Option<u64> {
    // Since Linux 6.2 the folder's length is their number; before, they have to be counted one by one.
    match fs::metadata("/proc/self/fd").ok()?.len() {
        // The folder's own descriptor, open while it is read, is one of them.
        0 => Some((fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1)),
        number => Some(number),
    }
}

/// CPU time of one of this process's threads.
pub fn thread_cpu(thread: i32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}

/// User and system time. The kernel counts them in hundredths of a second for all programs.
fn cpu_of(stat: &str) -> Option<Duration> {
    // The name may hold anything, parentheses too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().ok());
    Some(Duration::from_millis(10 * (ticks.next()?? + ticks.next()??)))
}

fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn fds_max_of(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood_and_others_are_none() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 12 34 0 0 20 0 3 0 100 1 2";
        assert_eq!(cpu_of(stat), Some(Duration::from_millis(460)));
        assert_eq!(resident_of("VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(fds_max_of("Max open files            1024                 4096                 files"), Some(1024));
        assert_eq!(fds_max_of("Max open files            unlimited            unlimited            files"), None);
        for nonsense in ["", "7 (a", "7 (a) S", "VmRSS: x kB"] {
            assert_eq!((cpu_of(nonsense), resident_of(nonsense), fds_max_of(nonsense)), (None, None, None));
        }
    }

    #[test]
    fn this_process_is_known() {
        let facts = facts();
        assert!(facts.memory_bytes.unwrap() > 1 << 20 && facts.fds.unwrap() > 2);
        assert!(facts.fds.unwrap() < facts.fds_max.unwrap());
        assert!(thread_cpu(std::process::id() as i32).is_some() && thread_cpu(-1).is_none());
    }
}
