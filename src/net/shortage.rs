//! What this machine may run out of: errors of a socket that are neither a client's fault nor a provider's, and how far up
//! descriptors may be used for what.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use nix::errno::Errno;

/// What there is none left of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// Descriptors of this process (`RLIMIT_NOFILE`).
    Descriptors,
    /// Open files of the whole system (`fs.file-max`).
    Files,
    /// Memory of the kernel for sockets.
    Sockets,
}

impl Shortage {
    /// The shortage that `error` comes of, if it does.
    pub fn of(error: &io::Error) -> Option<Shortage> {
        match Errno::from_raw(error.raw_os_error()?) {
            Errno::EMFILE => Some(Shortage::Descriptors),
            Errno::ENFILE => Some(Shortage::Files),
            Errno::ENOBUFS | Errno::ENOMEM => Some(Shortage::Sockets),
            _ => None,
        }
    }

    /// Machine-readable.
    pub fn code(self) -> &'static str {
        match self {
            Shortage::Descriptors => "descriptors_exhausted",
            Shortage::Files => "files_exhausted",
            Shortage::Sockets => "socket_memory_exhausted",
        }
    }

    /// What the operator can do.
    pub fn remedy(self) -> &'static str {
        match self {
            Shortage::Descriptors => {
                "raise the limit of open files (LimitNOFILE, ulimit -Hn), or lower limits.connections_max"
            }
            Shortage::Files => "raise fs.file-max, or find the process that has so many files open",
            Shortage::Sockets => "give the machine or the container more memory, or lower limits.connections_max",
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shortage::Descriptors => "Ringway has no descriptors left",
            Shortage::Files => "the system has no open files left",
            Shortage::Sockets => "the kernel has no memory left for sockets",
        })
    }
}

impl From<Shortage> for io::Error {
    fn from(shortage: Shortage) -> io::Error {
        match shortage {
            Shortage::Descriptors => Errno::EMFILE.into(),
            Shortage::Files => Errno::ENFILE.into(),
            Shortage::Sockets => Errno::ENOBUFS.into(),
        }
    }
}

/// How far up descriptors may be used for what.
///
/// A new descriptor has the lowest number that is free, so its number tells how many are in use at least, without a
/// question. Clients leave some to providers, without which serving them comes to nothing; and both leave some to names,
/// logs and whoever looks in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// With one from here on, no further client is accepted.
    pub clients: RawFd,
    /// From here on none is for a provider.
    pub providers: RawFd,
}

/// What is left to names, logs and whoever looks in.
const OWN: u64 = 16;
/// What clients leave to providers: an eighth of all, within these.
const LEFT: (u64, u64) = (16, 1024);

impl Shares {
    /// The shares of `limit` descriptors, where `accepts` may be under way when the first is told to wait.
    pub fn of(limit: u64, accepts: usize) -> Shares {
        let own = OWN.min(limit / 8);
        let left = (limit / 8).clamp(LEFT.0, LEFT.1) + accepts as u64 + own;
        let fd = |number: u64| RawFd::try_from(number).unwrap_or(RawFd::MAX);
        Shares { clients: fd(limit - left.min(limit / 2)), providers: fd(limit - own) }
    }
}

impl Default for Shares {
    /// No bounds but the system's.
    fn default() -> Shares {
        Shares { clients: RawFd::MAX, providers: RawFd::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_told_from_what_peers_do() {
        for (errno, shortage) in [
            (Errno::EMFILE, Some(Shortage::Descriptors)),
            (Errno::ENFILE, Some(Shortage::Files)),
            (Errno::ENOBUFS, Some(Shortage::Sockets)),
            (Errno::ENOMEM, Some(Shortage::Sockets)),
            (Errno::ECONNABORTED, None),
            (Errno::ECONNREFUSED, None),
            (Errno::EADDRNOTAVAIL, None),
        ] {
            assert_eq!(Shortage::of(&errno.into()), shortage, "{errno}");
            if let Some(shortage) = shortage {
                assert_eq!(Shortage::of(&shortage.into()), Some(shortage));
            }
        }
        assert_eq!(Shortage::of(&io::Error::other("x")), None);
    }

    #[test]
    fn clients_leave_some_to_providers_and_both_to_the_rest() {
        for (limit, accepts, clients, providers) in [
            (64, 8, 32, 56),
            (128, 8, 88, 112),
            (1024, 8, 872, 1008),
            (20_000, 16, 18_944, 19_984),
            (1 << 20, 64, (1 << 20) - 1104, (1 << 20) - 16),
            (u64::MAX, 8, RawFd::MAX, RawFd::MAX),
            (0, 8, 0, 0),
        ] {
            assert_eq!(Shares::of(limit, accepts), Shares { clients, providers }, "{limit}");
        }
    }
}
