//! Reads the log files that CRI specifies: `<RFC 3339 time> <stdout|stderr> <F|P> <text>`, where P is a part of a
//! line that the next records of the stream go on with. A log file may be renamed (rotated) while we follow it.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Where a program wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// A line of a container, put together from its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// When its first part was written, as it stands in the file.
    pub(crate) time: String,
    pub(crate) stream: Stream,
    /// Without the line break.
    pub(crate) text: Vec<u8>,
}

/// Puts records together to lines.
#[derive(Debug, Default)]
struct Joiner {
    /// The lines that have begun, one for each stream.
    open: [Option<Line>; 2],
}

impl Joiner {
    /// Takes a record; returns the line that it completes. What isn't a record is dropped.
    fn push(&mut self, record: &[u8]) -> Option<Line> {
        let mut fields = record.splitn(4, |&byte| byte == b' ');
        let time = std::str::from_utf8(fields.next()?).ok()?;
        let stream = match fields.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        // Tags are separated by colons; the first one says whether the line is complete.
        let partial = fields.next()?.starts_with(b"P");
        let text = fields.next().unwrap_or_default();
        let open = &mut self.open[stream as usize];
        let line = open.get_or_insert_with(|| Line { time: time.to_owned(), stream, text: Vec::new() });
        line.text.extend_from_slice(text);
        if partial { None } else { open.take() }
    }

    /// The lines that have begun, when no more will come.
    fn rest(&mut self) -> impl Iterator<Item = Line> {
        self.open.iter_mut().filter_map(Option::take)
    }
}

/// A log file that is read to its end again and again.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// A record whose end isn't written yet.
    begun: Vec<u8>,
    joiner: Joiner,
}

impl Log {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, begun: Vec::new(), joiner: Joiner::default() }
    }

    /// The lines that were completed since the last call. A file that isn't there (yet) has none.
    pub(crate) fn read(&mut self) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        loop {
            // Asked before the read: what is written to a renamed file until its writer reopens is still ours.
            let replaced = self.replaced()?;
            self.drain(&mut lines)?;
            if !replaced {
                return Ok(lines);
            }
            self.file = None;
            self.begun.clear();
        }
    }

    /// What is left of lines that never were completed.
    pub(crate) fn finish(&mut self) -> Vec<Line> {
        self.joiner.rest().collect()
    }

    /// Whether the path now leads to another file than the open one.
    fn replaced(&self) -> io::Result<bool> {
        let Some(open) = &self.file else { return Ok(false) };
        let open = open.get_ref().metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(named) => Ok((open.dev(), open.ino()) != (named.dev(), named.ino())),
            // Renamed, and not made anew yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn drain(&mut self, lines: &mut Vec<Line>) -> io::Result<()> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(BufReader::with_capacity(64 << 10, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if file.get_ref().metadata()?.len() < file.stream_position()? {
            // Truncated in place.
            file.seek(SeekFrom::Start(0))?;
            self.begun.clear();
        }
        while file.by_ref().read_until(b'\n', &mut self.begun)? > 0 {
            if self.begun.pop_if(|last| *last == b'\n').is_some() {
                lines.extend(self.joiner.push(&self.begun));
                self.begun.clear();
            }
        }
        Ok(())
    }
}

/// The last `count` of some lines.
pub(crate) fn tail(lines: Vec<Line>, count: Option<usize>) -> Vec<Line> {
    let mut lines = VecDeque::from(lines);
    while count.is_some_and(|count| lines.len() > count) {
        lines.pop_front();
    }
    lines.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect()
    }

    fn append(path: &Path, text: &str) {
        let mut file = File::options().append(true).create(true).open(path).expect("open");
        file.write_all(text.as_bytes()).expect("write");
    }

    #[test]
    fn parts_are_joined_for_each_stream() {
        let mut joiner = Joiner::default();
        assert_eq!(joiner.push(b"t1 stdout P a b"), None);
        let err = joiner.push(b"t2 stderr F oops").expect("complete");
        assert_eq!((err.stream, err.text.as_slice()), (Stream::Stderr, b"oops".as_slice()));
        let out = joiner.push(b"t3 stdout F  c").expect("complete");
        assert_eq!((out.time.as_str(), out.text.as_slice()), ("t1", b"a b c".as_slice()));
        assert_eq!(joiner.push(b"t4 stdout F ").expect("empty line").text, b"");
        assert_eq!(joiner.push(b"garbage"), None);
        assert_eq!(joiner.push(b"t5 stdout P end"), None);
        assert_eq!(joiner.rest().count(), 1);
    }

    #[test]
    fn a_log_is_followed_over_rotation_and_half_written_records() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("0.log");
        let mut log = Log::new(&path);
        assert!(log.read().expect("not there yet").is_empty());
        append(&path, "t stdout F 1\nt stdout F 2");
        assert_eq!(texts(&log.read().expect("read")), ["1"]);
        append(&path, "2\nt stdout P 3");
        assert_eq!(texts(&log.read().expect("read")), ["22"]);
        append(&path, "\n");
        std::fs::rename(&path, dir.path().join("0.log.old")).expect("rename");
        append(&dir.path().join("0.log.old"), "t stdout P 4\n");
        assert!(log.read().expect("read").is_empty());
        append(&path, "t stdout F 5\nt stdout F 6\n");
        assert_eq!(texts(&log.read().expect("read")), ["345", "6"]);
        std::fs::write(&path, "t stdout F 7\n").expect("truncate");
        assert_eq!(texts(&log.read().expect("read")), ["7"]);
    }

    #[test]
    fn tail_keeps_the_last() {
        let line = |text: &str| Line { time: "t".into(), stream: Stream::Stdout, text: text.into() };
        let lines = || vec![line("1"), line("2"), line("3")];
        assert_eq!(texts(&tail(lines(), Some(2))), ["2", "3"]);
        assert_eq!(tail(lines(), None).len(), 3);
        assert!(tail(lines(), Some(0)).is_empty());
    }
}
