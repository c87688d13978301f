//! What a process has used: scheduler run time and resident memory, from /proc.

use std::fs;
use std::io;

/// Run time of all living threads of the processes, in nanoseconds (first field of schedstat).
///
/// The kernel brings the figure up to date when a thread leaves the CPU or at its next tick: read it after a
/// pause of some milliseconds. Threads that ended in between take their time with them.
///
/// # Errors
/// The process does not exist, or /proc can't be read.
pub fn cpu_ns(pids: &[u32]) -> io::Result<u64> {
    let mut total = 0;
    for pid in pids {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end between listing and reading.
            if let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) {
                total += first_number(&text).ok_or_else(|| malformed("schedstat"))?;
            }
        }
    }
    Ok(total)
}

/// Memory of processes in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident set, shared pages counted in full.
    pub rss_kib: u64,
    /// Proportional set: shared pages divided by their users.
    pub pss_kib: u64,
}

/// Sum of the memory of `pids`.
///
/// # Errors
/// The process does not exist, or /proc can't be read.
pub fn memory(pids: &[u32]) -> io::Result<Memory> {
    let mut sum = Memory::default();
    for pid in pids {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        sum.rss_kib += field(&rollup, "Rss:").ok_or_else(|| malformed("smaps_rollup"))?;
        sum.pss_kib += field(&rollup, "Pss:").ok_or_else(|| malformed("smaps_rollup"))?;
    }
    Ok(sum)
}

fn field(text: &str, name: &str) -> Option<u64> {
    first_number(text.lines().find_map(|line| line.strip_prefix(name))?)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn malformed(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc: {file} has an unknown form"))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn work_of_a_process_shows_in_its_run_time() {
        // A process of its own: in this one other tests come and go, and take their threads' time with them.
        let mut child = Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; echo done; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = child.id();
        let (once, twice) = (cpu_ns(&[pid]).unwrap(), cpu_ns(&[pid, pid]).unwrap());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(line, "done\n");
        assert!(once > 1_000_000, "{once} ns");
        assert!(twice >= 2 * once, "{twice} ns");
        assert!(cpu_ns(&[pid]).is_err());
    }

    #[test]
    fn memory_is_read_by_field_name() {
        let rollup = "00400000-7fff [rollup]\nRss:     1234 kB\nPss:      567 kB\nPss_Dirty:   1 kB\n";
        assert_eq!(field(rollup, "Rss:"), Some(1234));
        assert_eq!(field(rollup, "Pss:"), Some(567));
        assert_eq!(field(rollup, "Swap:"), None);
        assert!(memory(&[std::process::id()]).unwrap().rss_kib > 100);
    }
}
