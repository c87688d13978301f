//! Files of the system that are read again when they have changed: `/etc/hosts`, `/etc/resolv.conf`.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use hickory_resolver::Hosts;

use crate::net::shortage::Shortage;

/// So much of a hosts file is read, in bytes.
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

    /// Lets the next look find it changed: it could not be read now.
    fn look_again(&mut self) {
        self.seen = None;
    }

    /// True if it has changed and can be read, as far as this machine goes; else the next look will find it changed.
    pub fn is_to_be_read(&mut self) -> bool {
        if !self.has_changed() {
            return false;
        }
        let is_short = fs::File::open(&self.path).is_err_and(|error| Shortage::of(&error).is_some());
        if is_short {
            self.look_again();
        }
        !is_short
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

    /// Reads it again if it has changed. One that cannot be read names no host, but where it is for want of descriptors or
    /// memory: then it says what it said, until it can be read.
    pub fn refresh(&mut self) {
        if !self.watched.has_changed() {
            return;
        }
        match self.read() {
            Ok(hosts) => self.hosts = hosts,
            Err(error) if Shortage::of(&error).is_some() => self.watched.look_again(),
            Err(_) => self.hosts = Hosts::default(),
        }
    }

    fn read(&self) -> io::Result<Hosts> {
        let mut bytes = Vec::new();
        fs::File::open(&self.watched.path)?.take(HOSTS_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > HOSTS_BYTES_MAX {
            // What the bound cuts off may leave half a name, which is another name.
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
            bytes.truncate(whole);
        }
        let mut hosts = Hosts::default();
        // One comment in an old encoding must not cost every host.
        hosts.read_hosts_conf(String::from_utf8_lossy(&bytes).as_bytes())?;
        Ok(hosts)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::str::FromStr;
    use std::time::{Duration, SystemTime};

    use hickory_resolver::proto::op::Query;
    use hickory_resolver::proto::rr::Name;

    use super::super::ask::FAMILIES;
    use super::*;
    use crate::control::access_log::tempfolder::Folder;

    /// The addresses of `name`, IPv6 first.
    fn addresses(file: &HostsFile, name: &str) -> Vec<String> {
        let name = Name::from_str(name).unwrap();
        let found =
            FAMILIES.iter().filter_map(|family| file.hosts.lookup_static_host(&Query::query(name.clone(), *family)));
        let records = found.flat_map(|lookup| lookup.answers().to_vec());
        records.filter_map(|record| record.data.ip_addr()).map(|ip: IpAddr| ip.to_string()).collect()
    }

    /// A hosts file that holds `bytes`, read.
    fn reading(folder: &Folder, bytes: &[u8]) -> HostsFile {
        fs::write(folder.join("hosts"), bytes).unwrap();
        let mut file = HostsFile::new(folder.join("hosts"));
        assert!(addresses(&file, "a.test").is_empty(), "not before the first refresh");
        file.refresh();
        file
    }

    #[test]
    fn a_line_gives_its_address_to_every_name_in_it() {
        let folder = Folder::new("hosts");
        for (case, text, name, found) in [
            ("plain", "192.0.2.1 a.test\n", "a.test", &["192.0.2.1"][..]),
            ("no line end", "192.0.2.1 a.test", "a.test", &["192.0.2.1"]),
            ("an alias", "192.0.2.1\ta.test  b.test\tc\n", "b.test", &["192.0.2.1"]),
            ("the last alias", "192.0.2.1\ta.test  b.test\tc\r\n", "c", &["192.0.2.1"]),
            ("with the dot of the root", "192.0.2.1 a.test\n", "a.test.", &["192.0.2.1"]),
            ("another case", "192.0.2.1 A.Test\n", "a.tEST", &["192.0.2.1"]),
            ("not a part of a name", "192.0.2.1 a.test\n", "test", &[]),
            ("a comment", "#192.0.2.1 a.test\n", "a.test", &[]),
            ("a comment behind blanks", "  # 192.0.2.1 a.test\n", "a.test", &[]),
            ("a comment behind it", "192.0.2.1 a.test # b.test\n", "a.test", &["192.0.2.1"]),
            ("in the comment behind it", "192.0.2.1 a.test # b.test\n", "b.test", &[]),
            ("a comment without a blank", "192.0.2.1 a.test#b.test\n", "a.test", &["192.0.2.1"]),
            ("IPv6", "2001:db8::1 a.test\n", "a.test", &["2001:db8::1"]),
            ("both families", "192.0.2.1 a.test\n2001:db8::1 a.test\n", "a.test", &["2001:db8::1", "192.0.2.1"]),
            ("two lines", "192.0.2.1 a.test\n192.0.2.2 b.test a.test\n", "a.test", &["192.0.2.1", "192.0.2.2"]),
            ("an editor's mark", "\u{feff}192.0.2.1 a.test\n", "a.test", &["192.0.2.1"]),
            ("nothing", "", "a.test", &[]),
        ] {
            assert_eq!(addresses(&reading(&folder, text.as_bytes()), name), found, "{case}");
        }
    }

    #[test]
    fn a_line_of_nonsense_costs_no_other_line() {
        let folder = Folder::new("hosts");
        let label = "x".repeat(64);
        for line in [
            &b"b.test 192.0.2.9"[..],
            b"192.0.2.999 a.test",
            b"192.0.2 a.test",
            b"192.0.2.9/24 a.test",
            b"[2001:db8::9] a.test",
            b"fe80::9%eth0 a.test",
            b"192.0.2.9",
            b" \t ",
            b"\0\0\0",
            format!("192.0.2.9 {label}.test").as_bytes(),
            b"192.0.2.9 ..test",
            // Latin-1, as an editor of another age left it.
            b"# B\xfcro",
            b"192.0.2.9 b\xfcro",
            b"\xff\xfe",
        ] {
            let text = [b"192.0.2.1 a.test\n", line, b"\n192.0.2.2 c.test\n"].concat();
            let file = reading(&folder, &text);
            let found = ["a.test", "c.test", "b.test"].map(|name| addresses(&file, name));
            assert_eq!(found, [vec!["192.0.2.1"], vec!["192.0.2.2"], vec![]], "{:?}", line.escape_ascii().to_string());
        }
    }

    #[test]
    fn names_beside_one_that_is_none_keep_their_address() {
        let folder = Folder::new("hosts");
        let file = reading(&folder, b"192.0.2.1 ..x a.test\n");
        assert_eq!(addresses(&file, "a.test"), ["192.0.2.1"]);
    }

    #[test]
    fn it_is_read_again_whenever_it_has_changed_and_only_then() {
        let folder = Folder::new("hosts");
        let path = folder.join("hosts");
        let first = SystemTime::now() - Duration::from_secs(1000);
        // Of one length, and all of one age unless a case says so: each case differs in one thing alone.
        let write = |path: &std::path::Path, last: u8, more: &str, age: SystemTime| {
            fs::write(path, format!("192.0.2.{last} a.test\n{more}")).unwrap();
            fs::File::options().append(true).open(path).unwrap().set_modified(age).unwrap();
        };
        let mut file = HostsFile::new(&path);
        file.refresh();
        assert!(addresses(&file, "a.test").is_empty(), "there is none yet");

        write(&path, 1, "", first);
        file.refresh();
        assert_eq!(addresses(&file, "a.test"), ["192.0.2.1"], "made");

        file.hosts = Hosts::default();
        file.refresh();
        assert!(addresses(&file, "a.test").is_empty(), "not read again");

        write(&path, 2, "", first + Duration::from_nanos(1_000_000));
        file.refresh();
        assert_eq!(addresses(&file, "a.test"), ["192.0.2.2"], "changed within a second");
        write(&path, 3, "", first + Duration::from_secs(1));
        file.refresh();
        assert_eq!(addresses(&file, "a.test"), ["192.0.2.3"], "changed a second later");
        write(&path, 4, "\n", first + Duration::from_secs(1));
        file.refresh();
        assert_eq!(addresses(&file, "a.test"), ["192.0.2.4"], "of another length");
        write(&folder.join("new"), 5, "\n", first + Duration::from_secs(1));
        fs::rename(folder.join("new"), &path).unwrap();
        file.refresh();
        assert_eq!(addresses(&file, "a.test"), ["192.0.2.5"], "another in its place");

        fs::remove_file(&path).unwrap();
        file.refresh();
        assert!(addresses(&file, "a.test").is_empty(), "removed");
        fs::create_dir(&path).unwrap();
        file.refresh();
        assert!(addresses(&file, "a.test").is_empty(), "a folder");
        fs::remove_dir(&path).unwrap();
        write(&path, 6, "", first);
        file.refresh();
        assert_eq!(addresses(&file, "a.test"), ["192.0.2.6"], "back again");
    }

    #[test]
    fn of_one_that_is_too_long_the_whole_lines_within_the_bound_count() {
        let folder = Folder::new("hosts");
        let (head, tail) = (b"192.0.2.1 a.test\n#", b"\n192.0.2.2 tail");
        let filler = vec![b'x'; HOSTS_BYTES_MAX as usize - head.len() - tail.len()];
        for (case, more, found) in [
            ("at the bound", &b""[..], &["192.0.2.2"][..]),
            // What is left of the name within the bound is none of the file's.
            ("one more", b"s", &[]),
            ("far more", b"s\n192.0.2.3 tail\n192.0.2.4 far\n", &[]),
        ] {
            let file = reading(&folder, &[head, &filler[..], tail, more].concat());
            assert_eq!(addresses(&file, "a.test"), ["192.0.2.1"], "{case}");
            assert_eq!(addresses(&file, "tail"), found, "{case}");
            assert!(addresses(&file, "far").is_empty(), "{case}");
        }
        assert!(addresses(&reading(&folder, &vec![b'#'; HOSTS_BYTES_MAX as usize + 1]), "a.test").is_empty());
    }
}
