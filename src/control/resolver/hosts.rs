//! Files of the system that are read again when they have changed: `/etc/hosts`, `/etc/resolv.conf`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use hickory_resolver::Hosts;

/// The longest hosts file that is read, in bytes.
const HOSTS_BYTES_MAX: u64 = 16 << 20;

/// Tells whether a file is another than at the last look.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    seen: Option<Stamp>,
}

#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    seconds: i64,
    nanos: i64,
}

impl Watched {
    /// A file not yet looked at.
    pub fn new(path: impl Into<PathBuf>) -> Watched {
        Watched { path: path.into(), seen: None }
    }

    /// True if it was changed, replaced, made or removed since the last call; at the first, if it is there.
    pub fn has_changed(&mut self) -> bool {
        let stamp = fs::metadata(&self.path).ok().map(|meta| Stamp {
            inode: meta.ino(),
            bytes: meta.size(),
            seconds: meta.mtime(),
            nanos: meta.mtime_nsec(),
        });
        let changed = stamp != self.seen;
        self.seen = stamp;
        changed
    }
}

/// A hosts file.
#[derive(Debug)]
pub struct HostsFile {
    watched: Watched,
    /// What it says.
    pub hosts: Hosts,
}

impl HostsFile {
    /// The file at `path`, read at the first refresh.
    pub fn new(path: impl Into<PathBuf>) -> HostsFile {
        HostsFile { watched: Watched::new(path), hosts: Hosts::default() }
    }

    /// Reads it again if it has changed. One that cannot be read names no host.
    pub fn refresh(&mut self) {
        if self.watched.has_changed() {
            self.hosts = self.read().unwrap_or_default();
        }
    }

    fn read(&self) -> io::Result<Hosts> {
        let mut hosts = Hosts::default();
        let file = fs::File::open(&self.watched.path)?;
        hosts.read_hosts_conf(io::Read::take(file, HOSTS_BYTES_MAX))?;
        Ok(hosts)
    }
}
