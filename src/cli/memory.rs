//! How much memory this process may use, and how much of it each worker.
//!
//! Read once, at start: a container's limit (cgroup version 2 or 1, each level of it) or, if that is less, the machine's
//! memory.

use std::fs;
use std::path::Path;

use crate::config::Limits;
use crate::config::schema::LimitsSchema;
use crate::telemetry::log::{self, Event};

/// What all workers together may hold, of what the process may use: half. The other half is the kernel's for sockets, small
/// things, what the allocator cannot give back, and the program itself.
const SHARE: u64 = 2;

/// What each of `workers` may hold, of the `usable` bytes that the process may use, and what the operator should know of
/// that.
fn share(limits: &Limits, workers: usize, usable: Option<u64>) -> (usize, Option<Event>) {
    let written = limits.memory_max as u64;
    let fits = usable.map_or(u64::MAX, |usable| usable / SHARE / workers.max(1) as u64);
    let each = written.min(fits).max(LimitsSchema::MEMORY_MAX.min);
    let mib = |bytes: u64| bytes >> 20;
    let text = format!(
        "each of {workers} workers may hold {} MiB in buffers (limits.memory_max), for this process may use {} MiB",
        mib(each),
        mib(usable.unwrap_or_default())
    );
    let event = match () {
        () if each > fits => {
            Some(log::warn("serve", format!("{text}, which is too little: let there be fewer (cores)")))
        }
        () if each < 2 * limits.body_bytes_max as u64 => {
            let body = mib(limits.body_bytes_max as u64);
            let text = format!("{text}; bodies of {body} MiB hardly find room in that: lower limits.body_bytes_max");
            Some(log::warn("serve", text))
        }
        () if each < written => Some(log::info("serve", text)),
        () => None,
    };
    (each as usize, event)
}

/// What each of `workers` may hold; says in the log what the operator should know of that.
pub fn ceiling(limits: &Limits, workers: usize) -> usize {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let (each, event) = share(limits, workers, usable(read));
    event.into_iter().for_each(Event::say);
    each
}

/// What this process may use; `None` if nobody says. `read` gives the text of a file.
fn usable(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let groups = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        match controllers {
            "" => Some(("/sys/fs/cgroup", "memory.max", path)),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some(("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path))
            }
            _ => None,
        }
    });
    let limits = groups.flat_map(|(mount, file, path)| {
        // Each level has its own. Inside a container the path may be one that is not seen there, and the mount its own level.
        let levels = Path::new(path.trim_start_matches('/')).ancestors().map(Path::to_owned);
        levels.map(move |level| Path::new(mount).join(level).join(file)).collect::<Vec<_>>()
    });
    let limits = limits.filter_map(|path| read(&path)?.trim().parse::<u64>().ok());
    limits.chain(machine(&read)).min()
}

/// The machine's memory.
fn machine(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let text = read(Path::new("/proc/meminfo"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_least_limit_of_any_level_counts() {
        let meminfo = "MemTotal:        8388608 kB\nMemFree: 1 kB\n";
        for (name, groups, files, usable_mib) in [
            ("none", "0::/\n", [("/sys/fs/cgroup/memory.max", "max\n"), ("", "")], 8192),
            ("its own", "0::/a/b\n", [("/sys/fs/cgroup/a/b/memory.max", "268435456\n"), ("", "")], 256),
            (
                "a level above it",
                "0::/a/b\n",
                [("/sys/fs/cgroup/a/b/memory.max", "max\n"), ("/sys/fs/cgroup/a/memory.max", "536870912\n")],
                512,
            ),
            (
                "a container's, seen as the root",
                "0::/../x\n",
                [("/sys/fs/cgroup/memory.max", "1073741824\n"), ("", "")],
                1024,
            ),
            (
                "version 1",
                "9:cpu,cpuacct:/x\n4:memory:/a\n0::/\n",
                [
                    ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "134217728\n"),
                    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ],
                128,
            ),
            ("nonsense", "x\n:\n", [("", ""), ("", "")], 8192),
        ] {
            let read = |path: &Path| match path.to_str()? {
                "/proc/self/cgroup" => Some(groups.to_owned()),
                "/proc/meminfo" => Some(meminfo.to_owned()),
                path => files.iter().find(|(own, _)| *own == path).map(|(_, text)| (*text).to_owned()),
            };
            assert_eq!(usable(read), Some(usable_mib * MIB), "{name}");
        }
        assert_eq!(usable(|_| None), None);
        assert!(usable(|path| fs::read_to_string(path).ok()).is_some_and(|bytes| bytes > 64 * MIB), "this machine");
    }

    #[test]
    fn workers_share_half_and_what_does_not_fit_is_said() {
        let mut limits = fixture(&[1], &[("m", &[(0, None)])]).limits;
        limits.body_bytes_max = 32 << 20;
        for (written_mib, workers, usable_mib, each_mib, said) in [
            (2048, 2, Some(256), 64, Some("each of 2 workers may hold 64 MiB")),
            (2048, 2, Some(255), 63, Some("lower limits.body_bytes_max")),
            (2048, 4, Some(64), 16, Some("let there be fewer")),
            (2048, 2, Some(8191), 2047, Some("for this process may use 8191 MiB")),
            (2048, 2, Some(8192), 2048, None),
            (2048, 2, None, 2048, None),
            (64, 2, Some(256), 64, None),
            (63, 2, Some(65_536), 63, Some("lower limits.body_bytes_max")),
        ] {
            limits.memory_max = written_mib << 20;
            let (each, event) = share(&limits, workers, usable_mib.map(|mib: u64| mib * MIB));
            let name = format!("{written_mib} for {workers} of {usable_mib:?}");
            assert_eq!(each >> 20, each_mib, "{name}");
            assert_eq!(event.is_some(), said.is_some(), "{name}: {event:?}");
            assert!(said.is_none_or(|said| event.unwrap().text.contains(said)), "{name}");
        }
    }
}
