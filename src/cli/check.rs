//! `ringway check` and `ringway schema`, and how a configuration gets from disk into memory.
//!
//! The place where the pure `config` meets the real environment, files and CPUs.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::base::clock::Clock;
use crate::config::Config;
use crate::config::compile::{PemFault, Sources, compile};
use crate::config::schema::{FILE_BYTES_MAX, json_schema};
use crate::net::tls::{Faulty, KeyPair, check_authorities, check_key_pair};

/// The longest secret or certificate file read, in bytes.
const SOURCE_BYTES_MAX: usize = 1 << 20;

/// The process's environment, the file system, and the CPUs this process may run on.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealSources;

impl Sources for RealSources {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        read_bounded(path, SOURCE_BYTES_MAX)
    }

    fn cores(&self) -> Vec<usize> {
        // A machine with more CPUs than the set holds makes the call fail; one worker is better than none.
        let set = sched_getaffinity(Pid::from_raw(0));
        let Ok(set) = set else { return vec![0] };
        (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
    }

    fn key_pair(&self, chain: &str, key: &str) -> Result<(), PemFault> {
        let pair = KeyPair { chain: chain.as_bytes(), key: key.as_bytes() };
        check_key_pair(&pair, Clock::new().unix()).map_err(at_fault)
    }

    fn authorities(&self, authorities: &str, revoked: Option<&str>) -> Result<(), PemFault> {
        check_authorities(authorities.as_bytes(), revoked.map(str::as_bytes)).map_err(at_fault)
    }
}

fn at_fault(faulty: Faulty) -> PemFault {
    match faulty {
        Faulty::Chain(_, what) | Faulty::Authorities(what) | Faulty::Other(what) => PemFault::First(what),
        Faulty::Key(_, what) | Faulty::Revoked(what) => PemFault::Second(what),
    }
}

/// Reads and compiles a configuration file.
///
/// # Errors
/// The report for the operator, ready to print: every fault of the file, or why it cannot be read.
pub fn load(path: &Path) -> Result<Config, String> {
    let shown = path.display();
    let text =
        read_bounded(path, FILE_BYTES_MAX).map_err(|error| format!("ringway: {shown} cannot be read: {error}\n"))?;
    let base = path.parent().unwrap_or(Path::new(""));
    compile(&text, base, &RealSources).map_err(|errors| errors.render(&shown.to_string()))
}

/// `ringway check`: one line on stdout if the file is sound, else the report on stderr and exit code 2.
pub fn check(path: &Path) -> ExitCode {
    match load(path) {
        Ok(config) => {
            println!("{}: ok: {}", path.display(), summary(&config));
            ExitCode::SUCCESS
        }
        Err(report) => {
            eprint!("{report}");
            ExitCode::from(2)
        }
    }
}

/// `ringway schema`: the JSON Schema of the configuration file on stdout.
pub fn schema() -> ExitCode {
    print!("{}", json_schema());
    ExitCode::SUCCESS
}

/// `1 listener, 2 keys, 3 providers, 4 models`; the default route counts as a model.
fn summary(config: &Config) -> String {
    let models = config.models.len() + usize::from(config.default_model.is_some());
    let counts = [
        (config.listeners.len(), "listener"),
        (config.keys.len(), "key"),
        (config.providers.len(), "provider"),
        (models, "model"),
    ];
    let count = |(count, noun): (usize, &str)| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    counts.map(count).join(", ")
}

/// The text of a file of at most `bytes_max`; a device without end is refused, not read.
fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(io::Error::other(format!("it is longer than {bytes_max} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
        io::Error::new(io::ErrorKind::InvalidData, format!("it is not UTF-8 in line {line}"))
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A folder of its own for one test, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("ringway-check-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).expect("temporary folder");
            Folder(path)
        }

        fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, bytes).expect("temporary file");
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const SOUND: &str = r#"
[[listeners]]
address = "127.0.0.1:0"
[[keys]]
name = "a"
secret = { file = "key" }
[[providers]]
name = "p"
[[providers.endpoints]]
url = "http://127.0.0.1:1"
[[models]]
name = "m"
route = [{ provider = "p" }]
[[models]]
name = "*"
route = [{ provider = "p" }]
"#;

    #[test]
    fn a_sound_file_loads_with_paths_from_its_own_folder() {
        let folder = Folder::new("sound");
        folder.write("key", b"sk-1\n");
        let config = load(&folder.write("ringway.toml", SOUND.as_bytes())).expect("sound");
        assert_eq!(summary(&config), "1 listener, 1 key, 1 provider, 2 models");
        assert_eq!(check(&folder.0.join("ringway.toml")), ExitCode::SUCCESS);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_the_files_name() {
        let folder = Folder::new("unreadable");
        let long = vec![b'#'; FILE_BYTES_MAX + 1];
        for (path, what) in [
            (folder.0.join("absent"), "absent cannot be read: No such file"),
            (folder.0.clone(), "cannot be read: Is a directory"),
            (folder.write("latin1", b"# a\n# \xe9\n"), "latin1 cannot be read: it is not UTF-8 in line 2"),
            (folder.write("long", &long), "long cannot be read: it is longer than 4194304 bytes"),
            (PathBuf::from("/dev/zero"), "/dev/zero cannot be read: it is longer than"),
            (
                folder.write("faulty", SOUND.as_bytes()),
                "faulty has 1 error\n\n  6:19  keys[0].secret.file  the file cannot be read: No such",
            ),
        ] {
            let report = load(&path).expect_err(what);
            assert!(report.starts_with("ringway: ") && report.ends_with('\n') && report.contains(what), "{report}");
            assert_eq!(check(&path), ExitCode::from(2));
        }
    }

    #[test]
    fn this_process_runs_on_some_cpu() {
        let cores = RealSources.cores();
        assert!(!cores.is_empty() && cores.is_sorted(), "{cores:?}");
    }

    #[test]
    fn the_schema_in_the_repository_is_the_current_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ringway.schema.json");
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(&path, json_schema()).expect("schema file");
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == json_schema(), "config/ringway.schema.json is stale: run the tests with UPDATE_SCHEMA=1");
    }
}
