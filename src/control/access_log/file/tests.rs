use super::super::tempfolder::Folder;
use super::*;
use crate::base::clock::Clock;

const SECOND: u64 = 1_000_000;

fn settings(path: &Path) -> AccessLog {
    AccessLog {
        target: LogTarget::File(path.into()),
        rotate_bytes: None,
        rotate_every: None,
        keep: 100,
        compress: false,
    }
}

fn open_at(settings: &AccessLog, at: u64) -> LogFile {
    LogFile::open(settings.clone(), UnixTime(at)).unwrap()
}

/// What is in the files that were set aside, oldest first, and in the file itself.
fn texts(path: &Path) -> Vec<String> {
    let mut texts: Vec<String> =
        aside::list(path).unwrap().iter().map(|aside| fs::read_to_string(&aside.name).unwrap()).collect();
    texts.push(fs::read_to_string(path).unwrap());
    texts
}

/// Takes so many bytes at a time and altogether, then fails.
struct Full {
    taken: Vec<u8>,
    each: usize,
    room: usize,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.each).min(self.room);
        if count == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        self.room -= count;
        self.taken.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_disk_that_is_full_at_any_byte_loses_and_splits_no_line() {
    let text = b"one\ntwo\nthree\n";
    for room in 0..=text.len() {
        for each in [1, 3, 100] {
            let mut buffer = Buffer::new(Full { taken: Vec::new(), each, room });
            buffer.lines.extend_from_slice(text);
            assert_eq!(buffer.flush().is_ok(), room == text.len(), "{room}");
            assert_eq!(buffer.unwritten(), 3 - text[..room].iter().filter(|byte| **byte == b'\n').count(), "{room}");
            assert_eq!(buffer.out.taken, text[..room]);
            // More room.
            buffer.out.room = 100;
            buffer.flush().unwrap();
            assert_eq!(buffer.out.taken, text);
            assert_eq!(buffer.unwritten(), 0);
        }
    }
}

#[test]
fn a_line_half_written_begins_anew_in_another_file() {
    let text = b"one\ntwo\nthree\n";
    for room in 0..text.len() {
        let mut buffer = Buffer::new(Full { taken: Vec::new(), each: 100, room });
        buffer.lines.extend_from_slice(text);
        buffer.flush().unwrap_err();
        let old = std::mem::take(&mut buffer.out.taken);
        buffer.replace(Full { taken: Vec::new(), each: 100, room: 100 });
        buffer.flush().unwrap();
        let whole = old.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        assert_eq!([&old[..whole], &buffer.out.taken].concat(), text, "{room}");
    }
}

#[test]
fn a_file_is_set_aside_before_it_grows_beyond_its_size() {
    let folder = Folder::new("size");
    let path = folder.join("a.log");
    let settings = AccessLog { rotate_bytes: Some(8), ..settings(&path) };
    let mut log = open_at(&settings, 0);
    for line in ["aaa\n", "bbb\n", "c\n", "a long line\n", "d\n", "eeeeee\n"] {
        log.push(line.as_bytes(), UnixTime(5)).unwrap();
    }
    log.flush().unwrap();
    // At the size, one past it, a line that is larger than any file may be, and both sides of it.
    assert_eq!(texts(&path), ["aaa\nbbb\n", "c\n", "a long line\n", "d\n", "eeeeee\n"]);
    drop(log);
    // What is there counts after a restart.
    let mut log = open_at(&settings, 9);
    log.push(b"f\n", UnixTime(9)).unwrap();
    log.flush().unwrap();
    assert_eq!(texts(&path)[4..], ["eeeeee\n", "f\n"]);
}

#[test]
fn a_file_is_set_aside_when_its_time_is_over() {
    let folder = Folder::new("time");
    let path = folder.join("a.log");
    let settings = AccessLog { rotate_every: Some(Duration::from_secs(60)), ..settings(&path) };
    let mut log = open_at(&settings, 59 * SECOND);
    assert_eq!(log.due_in(UnixTime(59 * SECOND)), Some(Duration::from_secs(1)));
    log.push(b"one\n", UnixTime(59 * SECOND)).unwrap();
    log.rotate_if_due(UnixTime(60 * SECOND - 1)).unwrap();
    log.push(b"two\n", UnixTime(60 * SECOND - 1)).unwrap();
    log.rotate_if_due(UnixTime(60 * SECOND)).unwrap();
    assert_eq!(log.due_in(UnixTime(60 * SECOND)), Some(Duration::from_secs(60)));
    // Nothing came for two minutes: no empty file.
    log.rotate_if_due(UnixTime(180 * SECOND)).unwrap();
    log.push(b"three\n", UnixTime(180 * SECOND)).unwrap();
    // A clock that was set back changes nothing.
    log.rotate_if_due(UnixTime(10 * SECOND)).unwrap();
    log.push(b"four\n", UnixTime(10 * SECOND)).unwrap();
    log.rotate_if_due(UnixTime(240 * SECOND)).unwrap();
    log.flush().unwrap();
    assert_eq!(texts(&path), ["one\ntwo\n", "three\nfour\n", ""]);
    drop(log);

    // The lines of an earlier time are set aside after a restart, by when they were written.
    fs::write(&path, "old\n").unwrap();
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    File::options().write(true).open(&path).unwrap().set_modified(hour_ago).unwrap();
    let now = Clock::new().unix();
    let mut log = LogFile::open(settings, now).unwrap();
    log.rotate_if_due(now).unwrap();
    assert_eq!(texts(&path)[2..], ["old\n", ""]);
}

#[test]
fn a_clock_set_back_neither_overwrites_nor_reorders() {
    let folder = Folder::new("back");
    let path = folder.join("a.log");
    let settings = AccessLog { rotate_bytes: Some(2), ..settings(&path) };
    let mut log = open_at(&settings, 100);
    for (at, line) in [(100, "a\n"), (100, "b\n"), (100, "c\n"), (7, "d\n"), (7, "e\n")] {
        log.push(line.as_bytes(), UnixTime(at)).unwrap();
    }
    log.flush().unwrap();
    drop(log);
    let mut log = open_at(&settings, 3);
    log.push(b"f\n", UnixTime(3)).unwrap();
    log.flush().unwrap();
    assert_eq!(texts(&path), ["a\n", "b\n", "c\n", "d\n", "e\n", "f\n"]);
}

#[test]
fn only_as_many_are_kept_as_should_be() {
    let folder = Folder::new("keep");
    let path = folder.join("a.log");
    let mut log = open_at(&AccessLog { rotate_bytes: Some(2), keep: 2, ..settings(&path) }, 1);
    for line in ["a\n", "b\n", "c\n", "d\n", "e\n"] {
        log.push(line.as_bytes(), UnixTime(1)).unwrap();
    }
    log.flush().unwrap();
    assert_eq!(texts(&path), ["c\n", "d\n", "e\n"]);
}

#[test]
fn a_torn_end_is_closed_before_the_next_line() {
    let folder = Folder::new("torn");
    let path = folder.join("a.log");
    for (before, after) in [("", "x\n"), ("a\n", "a\nx\n"), ("a\nb", "a\nb\nx\n"), ("\n", "\nx\n")] {
        fs::write(&path, before).unwrap();
        let mut log = open_at(&settings(&path), 0);
        log.push(b"x\n", UnixTime(0)).unwrap();
        log.sync().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), after);
    }
}

#[test]
fn a_place_whose_file_was_moved_is_opened_anew() {
    let folder = Folder::new("reopen");
    let (path, moved) = (folder.join("a.log"), folder.join("a.log.1"));
    let mut log = open_at(&settings(&path), 0);
    log.push(b"one\n", UnixTime(0)).unwrap();
    fs::rename(&path, &moved).unwrap();
    log.push(b"two\n", UnixTime(0)).unwrap();
    log.reopen(UnixTime(0)).unwrap();
    log.push(b"three\n", UnixTime(0)).unwrap();
    log.flush().unwrap();
    assert_eq!(fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    // One that cannot be opened leaves all as it is.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    log.reopen(UnixTime(0)).unwrap_err();
    log.push(b"four\n", UnixTime(0)).unwrap();
    log.flush().unwrap();
}

#[test]
fn a_file_that_cannot_be_set_aside_goes_on_and_is_tried_again_later() {
    let folder = Folder::new("stuck");
    let inner = folder.join("inner");
    fs::create_dir(&inner).unwrap();
    let path = inner.join("a.log");
    let mut log = open_at(&AccessLog { rotate_bytes: Some(2), ..settings(&path) }, 0);
    log.push(b"a\n", UnixTime(0)).unwrap();
    // Without its folder there is neither an old name nor a place for a new file.
    let away = folder.join("away");
    fs::rename(&inner, &away).unwrap();
    assert!(matches!(log.push(b"b\n", UnixTime(1)), Err(Trouble::Rotate(_))));
    log.push(b"c\n", UnixTime(2)).unwrap();
    log.flush().unwrap();
    assert_eq!(fs::read_to_string(away.join("a.log")).unwrap(), "a\nb\nc\n");
    fs::rename(&away, &inner).unwrap();
    log.push(b"d\n", UnixTime(2 + ROTATE_AGAIN.as_micros() as u64)).unwrap();
    log.flush().unwrap();
    assert_eq!(texts(&path), ["a\nb\nc\n", "d\n"]);
}

#[test]
fn a_pipe_that_nobody_reads_is_opened_without_waiting() {
    let folder = Folder::new("pipe");
    let path = folder.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let mut log = open_at(&AccessLog { rotate_bytes: Some(1), ..settings(&path) }, 0);
    log.push(b"a\n", UnixTime(0)).unwrap();
    log.push(b"b\n", UnixTime(0)).unwrap();
    log.sync().unwrap();
    // Not a file of a disk: it stays where it is.
    assert!(aside::list(&path).unwrap().is_empty());
}

#[test]
fn a_file_that_takes_no_more_is_set_aside_all_the_same() {
    let folder = Folder::new("takes-no-more");
    let path = folder.join("a.log");
    let settings = AccessLog { rotate_every: Some(Duration::from_secs(60)), ..settings(&path) };
    let mut log = open_at(&settings, 0);
    log.push(b"one\n", UnixTime(0)).unwrap();
    log.flush().unwrap();
    // As at the limit of a file's size: this file fails, another would not.
    log.buffer.out = File::open(&path).unwrap();
    log.push(b"two\n", UnixTime(1)).unwrap();
    assert!(log.flush().is_err());
    log.rotate_if_due(UnixTime(60 * SECOND)).unwrap();
    log.flush().unwrap();
    assert_eq!(texts(&path), ["one\n", "two\n"]);
    // And where the next fails from the start, what was set aside is not pushed out by empty files.
    log.rotate_if_due(UnixTime(120 * SECOND)).unwrap();
    log.buffer.out = File::open(&path).unwrap();
    log.push(b"three\n", UnixTime(121 * SECOND)).unwrap();
    assert!(log.flush().is_err());
    for minute in 3..9 {
        log.rotate_if_due(UnixTime(minute * 60 * SECOND)).unwrap();
    }
    assert_eq!(texts(&path), ["one\n", "two\n", ""]);
    assert_eq!(log.unwritten(), 1);
}
