//! The file that lines go to: whole lines in order, set aside by size and time, taken up again after a full disk.
//!
//! A line is either written to its end or still here. What the disk does not take stays in the buffer and is tried again
//! later, from the byte on where it stopped; meanwhile nothing more is taken in.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::aside;
use crate::base::clock::UnixTime;
use crate::config::{AccessLog, LogTarget};

/// Lines are gathered up to this before they are written.
const WRITE_BYTES: usize = 64 << 10;

/// After a file could not be set aside, when that is tried again.
const ROTATE_AGAIN: Duration = Duration::from_secs(10);

/// What went wrong.
#[derive(Debug)]
pub enum Trouble {
    /// Lines could not be written. They are kept, and should be tried again before more are given.
    Write(io::Error),
    /// The file could not be set aside; lines go on to it. Or older ones could not be removed.
    Rotate(io::Error),
}

/// Lines on their way to `W`.
#[derive(Debug)]
pub struct Buffer<W> {
    out: W,
    lines: Vec<u8>,
    /// How much of `lines` was written.
    written: usize,
}

impl<W: Write> Buffer<W> {
    fn new(out: W) -> Buffer<W> {
        Buffer { out, lines: Vec::with_capacity(WRITE_BYTES + 4096), written: 0 }
    }

    /// Writes all there is.
    ///
    /// # Errors
    /// As the system has it. What was not written is kept, and tried first when this is called again.
    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.lines.len() {
            match self.out.write(&self.lines[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.lines.clear();
        self.written = 0;
        Ok(())
    }

    /// Lines that were not written to their end.
    fn unwritten(&self) -> usize {
        self.lines[self.written..].iter().filter(|byte| **byte == b'\n').count()
    }

    /// Goes on with another file, in which a line that was half written begins anew.
    fn replace(&mut self, out: W) {
        let from = self.lines[..self.written].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.lines.drain(..from);
        self.written = 0;
        self.out = out;
    }
}

/// The log's file.
#[derive(Debug)]
pub struct LogFile {
    buffer: Buffer<File>,
    /// Its place, if it is a file of a disk that can be set aside.
    path: Option<PathBuf>,
    /// Bytes in it, those on their way included.
    bytes: u64,
    /// Which multiple of `rotate_every` its lines belong to.
    period: u64,
    settings: AccessLog,
    /// The time in the name of the file that was set aside last.
    last: UnixTime,
    /// Files that were set aside.
    pub rotations: u64,
    /// Not before that is one set aside.
    rotate_from: UnixTime,
}

impl LogFile {
    /// Opens what `settings` say, at `now`.
    ///
    /// # Errors
    /// If it cannot be opened for appending.
    pub fn open(settings: AccessLog, now: UnixTime) -> io::Result<LogFile> {
        let (file, path) = match &settings.target {
            LogTarget::File(path) => {
                let file = open(path)?;
                let is_file = file.metadata()?.is_file();
                (file, is_file.then(|| path.clone()))
            }
            LogTarget::Stdout => (File::from(io::stdout().as_fd().try_clone_to_owned()?), None),
            LogTarget::Stderr => (File::from(io::stderr().as_fd().try_clone_to_owned()?), None),
        };
        let last = path.as_deref().and_then(|path| aside::list(path).ok()?.pop()).map_or(UnixTime(0), |last| last.at);
        let buffer = Buffer::new(file);
        let (rotations, rotate_from) = (0, UnixTime(0));
        let mut log = LogFile { buffer, path, bytes: 0, period: 0, settings, last, rotations, rotate_from };
        log.begin(now)?;
        Ok(log)
    }

    /// Takes stock of a file that was just opened.
    fn begin(&mut self, now: UnixTime) -> io::Result<()> {
        self.period = self.period_of(now);
        let Some(path) = &self.path else { return Ok(()) };
        let metadata = self.buffer.out.metadata()?;
        self.bytes = metadata.len();
        if self.bytes == 0 {
            return Ok(());
        }
        // What was written before a restart may belong to the time before.
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified = UnixTime(u64::try_from(modified.as_micros()).unwrap_or(u64::MAX));
        // A process that was killed may have left half a line: the next one must not become its end.
        let mut last = [0];
        let mut reader = File::open(path)?;
        reader.seek(SeekFrom::End(-1))?;
        if reader.read(&mut last)? == 1 && last != *b"\n" {
            self.buffer.lines.insert(0, b'\n');
            self.bytes += 1;
        }
        self.period = self.period_of(modified.min(now));
        Ok(())
    }

    fn period_of(&self, time: UnixTime) -> u64 {
        self.settings.rotate_every.map_or(0, |every| time.0 / (every.as_micros() as u64).max(1))
    }

    /// How long until the file is due to be set aside, if it ever is.
    pub fn due_in(&self, now: UnixTime) -> Option<Duration> {
        let every = self.settings.rotate_every?.as_micros() as u64;
        let next = self.period.saturating_add(1).saturating_mul(every);
        Some(Duration::from_micros(next.saturating_sub(now.0)))
    }

    /// Takes in a line.
    ///
    /// # Errors
    /// What went wrong besides: the line is kept in any case.
    pub fn push(&mut self, line: &[u8], now: UnixTime) -> Result<(), Trouble> {
        let is_full = self.settings.rotate_bytes.is_some_and(|max| self.bytes + line.len() as u64 > max);
        let mut outcome = Ok(());
        if self.bytes > 0 && is_full && now >= self.rotate_from {
            outcome = self.set_aside(now);
        }
        self.buffer.lines.extend_from_slice(line);
        self.bytes += line.len() as u64;
        if self.buffer.lines.len() >= WRITE_BYTES {
            outcome = self.flush().and(outcome);
        }
        outcome
    }

    /// Writes what was taken in.
    ///
    /// # Errors
    /// [`Trouble::Write`].
    pub fn flush(&mut self) -> Result<(), Trouble> {
        self.buffer.flush().map_err(Trouble::Write)
    }

    /// Flushes, and waits until the disk has it.
    ///
    /// # Errors
    /// As the system has it.
    pub fn sync(&mut self) -> io::Result<()> {
        self.buffer.flush()?;
        match self.path {
            Some(_) => self.buffer.out.sync_data(),
            None => Ok(()),
        }
    }

    /// Lines that were taken in and are not yet written.
    pub fn unwritten(&self) -> usize {
        self.buffer.unwritten()
    }

    /// Sets the file aside if its time is over.
    ///
    /// # Errors
    /// As far as it was due.
    pub fn rotate_if_due(&mut self, now: UnixTime) -> Result<(), Trouble> {
        let period = self.period_of(now);
        if period <= self.period || now < self.rotate_from {
            return Ok(());
        }
        if self.bytes == 0 {
            self.period = period;
            return Ok(());
        }
        self.set_aside(now)
    }

    /// Opens the file's place anew: someone has moved what was there.
    ///
    /// # Errors
    /// As the system has it; lines go on to the same file then.
    pub fn reopen(&mut self, now: UnixTime) -> io::Result<()> {
        let LogTarget::File(path) = &self.settings.target else { return Ok(()) };
        // What does not fit there goes to the new one.
        let _ = self.buffer.flush();
        let file = open(path)?;
        self.path = file.metadata()?.is_file().then(|| path.clone());
        self.buffer.replace(file);
        self.bytes = 0;
        self.begin(now)?;
        self.bytes += self.buffer.lines.len() as u64;
        Ok(())
    }

    /// Gives the file a name with the time in it, and begins a new one in its place. A crash in between leaves the lines
    /// under their new name, and the place empty.
    fn set_aside(&mut self, now: UnixTime) -> Result<(), Trouble> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        // What does not fit there goes to the new one.
        let _ = self.buffer.flush();
        if self.buffer.out.metadata().is_ok_and(|file| file.len() == 0) {
            // Nothing has got into it: where the disk is full, empty files would push out those that hold lines.
            self.period = self.period_of(now);
            return Ok(());
        }
        let outcome = self.begin_another(&path, now);
        if outcome.is_err() {
            self.rotate_from = UnixTime(now.0.saturating_add(ROTATE_AGAIN.as_micros() as u64));
        }
        outcome.map_err(Trouble::Rotate)
    }

    fn begin_another(&mut self, path: &Path, now: UnixTime) -> io::Result<()> {
        // Whatever the clock does, later files sort behind earlier ones.
        let mut at = UnixTime(now.0.max(self.last.0 + 1));
        while aside::name(path, at).symlink_metadata().is_ok() {
            at.0 += 1;
        }
        let aside = aside::name(path, at);
        let renamed = match fs::rename(path, &aside) {
            // Someone else has moved it.
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            renamed => {
                renamed?;
                true
            }
        };
        match open(path) {
            Ok(file) => {
                if renamed && let Ok(metadata) = self.buffer.out.metadata() {
                    // Who could read the one may read the other.
                    let _ = file.set_permissions(metadata.permissions());
                }
                self.buffer.replace(file);
            }
            Err(error) => {
                if renamed {
                    let _ = fs::rename(&aside, path);
                }
                return Err(error);
            }
        }
        self.last = at;
        self.bytes = self.buffer.lines.len() as u64;
        self.period = self.period_of(now);
        self.rotations += 1;
        aside::prune(path, self.settings.keep)
    }
}

/// For appending. Also a pipe that nobody reads: it fills, which is better than to wait here for a reader.
fn open(path: &Path) -> io::Result<File> {
    let is_pipe = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    OpenOptions::new().create(!is_pipe).append(true).read(is_pipe).open(path)
}

#[cfg(test)]
mod tests;
