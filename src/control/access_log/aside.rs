//! Files that were set aside: `access.jsonl.20261123T081500.000042Z`, and with `.gz` once they are compressed.
//!
//! Their names are all that is known of them, so that a restart, or a crash at any point, loses track of none.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::line::show_time;
use crate::base::clock::{Clock, UnixTime};

/// Added to the name of a compressed file, and of one that is being compressed.
const GZIP: &str = ".gz";
const PART: &str = ".gz.part";

/// Bytes that are compressed in one go, and how many times as long is then waited: this takes a quarter of a core at
/// most, and none from whom it would delay.
const PIECE_BYTES: usize = 256 << 10;
const REST: u32 = 3;

/// A file that was set aside, in whatever form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Aside {
    /// When.
    pub at: UnixTime,
    /// Its name without endings.
    pub name: PathBuf,
}

/// The name of `path` set aside at `at`.
pub fn name(path: &Path, at: UnixTime) -> PathBuf {
    let time: String = show_time(at).chars().filter(|letter| !matches!(letter, '-' | ':')).collect();
    with(path, &format!(".{time}"))
}

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Everything of `path` that was set aside, the oldest first; each once, in however many forms it is there.
///
/// # Errors
/// If the folder cannot be read.
pub fn list(path: &Path) -> io::Result<Vec<Aside>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let own = path.file_name().unwrap_or_default().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?.file_name();
        let time = entry.as_encoded_bytes().strip_prefix(own).and_then(|rest| rest.strip_prefix(b"."));
        let Some(at) = time.and_then(|time| std::str::from_utf8(time).ok()).and_then(time_of) else { continue };
        found.push(Aside { at, name: name(path, at) });
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// `20261123T081500.000042Z`, with or without an ending.
fn time_of(text: &str) -> Option<UnixTime> {
    let (time, ending) = text.split_at_checked(23)?;
    if !["", GZIP, PART].contains(&ending) {
        return None;
    }
    let shape = b"########T######.######Z";
    let fits = |(byte, wanted): (u8, &u8)| if *wanted == b'#' { byte.is_ascii_digit() } else { byte == *wanted };
    if !time.bytes().zip(shape).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| time[from..to].parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = number(9, 11)? * 3600 + number(11, 13)? * 60 + number(13, 15)?;
    let at = UnixTime((days(year, month, day) * 86_400 + seconds) * 1_000_000 + number(16, 22)?);
    // What we would not write ourselves is not ours.
    let ours: String = show_time(at).chars().filter(|letter| !matches!(letter, '-' | ':')).collect();
    (ours == time).then_some(at)
}

/// Days from 1970 to a date; the inverse of what `line` does.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, in_era) = (year / 400, year % 400);
    let month = if month > 2 { month - 3 } else { month + 9 };
    let in_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + in_era * 365 + in_era / 4 - in_era / 100 + in_year - 719_468
}

/// Removes the oldest, all but `keep`.
///
/// # Errors
/// The first one that cannot be removed; the others are, as far as they can be.
pub fn prune(path: &Path, keep: usize) -> io::Result<()> {
    let found = list(path)?;
    let mut outcome = Ok(());
    for old in &found[..found.len().saturating_sub(keep)] {
        for ending in ["", GZIP, PART] {
            match fs::remove_file(with(&old.name, ending)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => outcome = outcome.and(Err(error)),
                _ => {}
            }
        }
    }
    outcome
}

/// Compresses all that is not yet, the oldest first. False once `stop` is closed.
///
/// # Errors
/// The first file that fails; it is left as it was.
pub fn compress_all(path: &Path, stop: &Receiver<()>, clock: &Clock) -> io::Result<bool> {
    for aside in list(path)? {
        let (packed, part) = (with(&aside.name, GZIP), with(&aside.name, PART));
        // The name of the packed one is given last, so with it the other is of no use any more.
        if packed.exists() {
            remove(&aside.name)?;
            remove(&part)?;
            continue;
        }
        let packing = compress(&aside.name, &part, stop, clock);
        match packing {
            Ok(true) => {
                fs::rename(&part, &packed)?;
                remove(&aside.name)?;
            }
            Ok(false) => {
                remove(&part)?;
                return Ok(false);
            }
            Err(error) => {
                remove(&part)?;
                // It was pruned meanwhile.
                if error.kind() != io::ErrorKind::NotFound {
                    return Err(error);
                }
            }
        }
    }
    Ok(true)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn compress(from: &Path, to: &Path, stop: &Receiver<()>, clock: &Clock) -> io::Result<bool> {
    let mut source = File::open(from)?;
    let target = File::create(to)?;
    target.set_permissions(source.metadata()?.permissions())?;
    let mut encoder = GzEncoder::new(target, Compression::default());
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let begun = clock.now();
        let count = source.read(&mut piece)?;
        if count == 0 {
            break;
        }
        encoder.write_all(&piece[..count])?;
        if let Err(RecvTimeoutError::Disconnected) = stop.recv_timeout((clock.now() - begun) * REST) {
            return Ok(false);
        }
    }
    encoder.finish()?.sync_all()?;
    Ok(true)
}

/// How long the thread that compresses may take to notice that it should end.
pub const NOTICE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn folder() -> tempfolder::Folder {
        tempfolder::Folder::new("aside")
    }

    use super::super::tempfolder;

    #[test]
    fn names_sort_by_time_and_are_read_back() {
        let path = Path::new("/var/log/access.jsonl");
        let times = [0, 1, 999_999, 1_000_000, 951_782_400_000_000, 1_795_421_700_000_042, 4_107_542_399_999_999];
        let names: Vec<PathBuf> = times.iter().map(|at| name(path, UnixTime(*at))).collect();
        assert_eq!(names[5], Path::new("/var/log/access.jsonl.20261123T081500.000042Z"));
        assert!(names.is_sorted());
        for (name, at) in names.iter().zip(times) {
            let text = name.to_str().unwrap().strip_prefix("/var/log/access.jsonl.").unwrap();
            for ending in ["", ".gz", ".gz.part"] {
                assert_eq!(time_of(&format!("{text}{ending}")), Some(UnixTime(at)));
            }
            for other in ["x", ".g", ".gz.", ".bak", ".gz.part2"] {
                assert_eq!(time_of(&format!("{text}{other}")), None);
            }
            assert!((0..text.len()).all(|at| time_of(&text[..at]).is_none()));
        }
        for text in [
            "20261323T081500.000042Z",
            "20260230T081500.000042Z",
            "20261123T241500.000042Z",
            "20261123T086000.000042Z",
            "20261123t081500.000042Z",
            "19691231T235959.000000Z",
            "2026112éT081500.00004Z",
            "20261123T081500.00004é",
            "+0261123T081500.000042Z",
        ] {
            assert_eq!(time_of(text), None, "{text}");
        }
    }

    #[test]
    fn the_oldest_go_and_what_is_not_ours_stays() {
        let folder = folder();
        let path = folder.join("a.log");
        for at in 1..=4 {
            fs::write(name(&path, UnixTime(at)), "x").unwrap();
        }
        // One that a crash left in two forms counts once.
        fs::write(with(&name(&path, UnixTime(1)), GZIP), "x").unwrap();
        let others =
            ["a.log", "a.log.1", "a.log.bak", "b.log.19700101T000000.000001Z", "a.log.19700101T000000.000001Z.x"];
        others.iter().for_each(|other| fs::write(folder.join(other), "x").unwrap());
        prune(&path, 4).unwrap();
        assert_eq!(list(&path).unwrap().len(), 4);
        prune(&path, 2).unwrap();
        let left: Vec<u64> = list(&path).unwrap().into_iter().map(|aside| aside.at.0).collect();
        assert_eq!(left, [3, 4]);
        assert!(others.iter().all(|other| folder.join(other).exists()));
        assert!(!with(&name(&path, UnixTime(1)), GZIP).exists());
    }

    #[test]
    fn compressing_goes_on_wherever_a_crash_left_it() {
        let folder = folder();
        let path = folder.join("a.log");
        let clock = Clock::new();
        let (go, stop) = sync_channel(0);
        let text = "a line\n".repeat(100_000);
        let plain = |at| name(&path, UnixTime(at));
        fs::write(plain(1), &text).unwrap();
        // Half done; done and not yet removed; done.
        fs::write(plain(2), &text).unwrap();
        fs::write(with(&plain(2), PART), "half").unwrap();
        fs::write(plain(3), &text).unwrap();
        fs::write(with(&plain(3), GZIP), "whole").unwrap();
        fs::write(with(&plain(4), GZIP), "whole").unwrap();
        assert!(compress_all(&path, &stop, &clock).unwrap());
        for at in 1..=4 {
            assert!(!plain(at).exists() && !with(&plain(at), PART).exists(), "{at}");
        }
        for at in [1, 2] {
            let mut back = String::new();
            let packed = File::open(with(&plain(at), GZIP)).unwrap();
            flate2::read::GzDecoder::new(packed).read_to_string(&mut back).unwrap();
            assert!(back == text, "{at}");
        }
        assert_eq!(fs::read(with(&plain(3), GZIP)).unwrap(), b"whole");

        // Told to end, it leaves what it has not finished.
        fs::write(plain(5), &text).unwrap();
        drop(go);
        assert!(!compress_all(&path, &stop, &clock).unwrap());
        assert!(plain(5).exists() && !with(&plain(5), PART).exists() && !with(&plain(5), GZIP).exists());
    }
}
