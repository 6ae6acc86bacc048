//! CRI's log format: `<RFC 3339 time> <stream> <F|P> <content>`, one entry a line. Lines that are too long are cut into
//! entries marked P (partial) and a last one marked F (full). Byte exact: only the newline is taken away.

/// Cuts a stream of bytes into entries.
#[derive(Debug)]
pub(crate) struct Splitter {
    stream: &'static str,
    max_line: usize,
    /// The beginning of a line whose end hasn't come yet; at most `max_line` bytes.
    pending: Vec<u8>,
    /// The last entry was partial, so the next belongs to the same line.
    in_line: bool,
}

impl Splitter {
    pub(crate) fn new(stream: &'static str, max_line: usize) -> Self {
        Self { stream, max_line: max_line.max(1), pending: Vec::new(), in_line: false }
    }

    /// Whether entries of the current line have been written already.
    pub(crate) fn in_line(&self) -> bool {
        self.in_line
    }

    /// Appends to `out` the entries that `bytes` complete.
    pub(crate) fn push(&mut self, bytes: &[u8], time: &str, out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some(end) = memchr(rest) {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            self.part(line, time, out);
            let pending = std::mem::take(&mut self.pending);
            self.entry("F", &pending, time, out);
        }
        self.part(rest, time, out);
    }

    /// The stream has ended: what it had begun becomes a partial entry.
    pub(crate) fn finish(&mut self, time: &str, out: &mut Vec<u8>) {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            self.entry("P", &pending, time, out);
        }
    }

    /// A piece of a line without its newline: what exceeds the limit is written, the rest kept.
    fn part(&mut self, mut piece: &[u8], time: &str, out: &mut Vec<u8>) {
        while self.pending.len() + piece.len() > self.max_line {
            let (head, tail) = piece.split_at(self.max_line - self.pending.len());
            let mut whole = std::mem::take(&mut self.pending);
            whole.extend_from_slice(head);
            self.entry("P", &whole, time, out);
            piece = tail;
        }
        self.pending.extend_from_slice(piece);
    }

    fn entry(&mut self, tag: &str, content: &[u8], time: &str, out: &mut Vec<u8>) {
        for field in [time, self.stream, tag] {
            out.extend_from_slice(field.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(content);
        out.push(b'\n');
        self.in_line = tag == "P";
    }
}

pub(crate) fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| *b == b'\n')
}

/// Nanoseconds since 1970 as RFC 3339 in UTC with nine digits of fraction.
pub(crate) fn rfc3339(ns: i64) -> String {
    let (seconds, fraction) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 1970 to the civil calendar: years begin in March, eras have 400 of them.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(max: usize, chunks: &[&str]) -> Vec<String> {
        let mut splitter = Splitter::new("stdout", max);
        let mut out = Vec::new();
        for chunk in chunks {
            splitter.push(chunk.as_bytes(), "T", &mut out);
        }
        splitter.finish("T", &mut out);
        String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|l| l.strip_prefix("T stdout ").unwrap().to_owned())
            .collect()
    }

    #[test]
    fn lines_are_full_wherever_they_were_cut() {
        assert_eq!(split(100, &["one\ntw", "o", "\n\nfour\n"]), ["F one", "F two", "F ", "F four"]);
    }

    #[test]
    fn long_lines_are_cut_at_the_limit() {
        assert_eq!(split(4, &["abcdefghij\nxyz\n"]), ["P abcd", "P efgh", "F ij", "F xyz"]);
        assert_eq!(split(4, &["abcd", "\nefgh\n"]), ["F abcd", "F efgh"]);
        assert_eq!(split(4, &["abcd", "e"]), ["P abcd", "P e"]);
    }

    #[test]
    fn a_last_line_without_newline_is_partial() {
        assert_eq!(split(100, &["a\nb"]), ["F a", "P b"]);
        assert_eq!(split(100, &["a\n"]), ["F a"]);
        assert_eq!(split(100, &[]), Vec::<String>::new());
    }

    #[test]
    fn bytes_are_kept_as_they_are() {
        let mut splitter = Splitter::new("stderr", 100);
        let mut out = Vec::new();
        splitter.push(b"\xff\0\r\n", "T", &mut out);
        assert_eq!(out, b"T stderr F \xff\0\r\n");
    }

    #[test]
    fn whatever_the_chunks_the_content_is_the_same() {
        let text = "alpha\nbeta gamma delta\n\nepsilon";
        for max in [1, 3, 5, 16] {
            for size in 1..text.len() {
                let chunks: Vec<_> =
                    text.as_bytes().chunks(size).map(|c| std::str::from_utf8(c).unwrap()).collect();
                assert_eq!(split(max, &chunks), split(max, &[text]), "max {max}, chunks of {size}");
            }
        }
    }

    #[test]
    fn times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(rfc3339(1_700_000_000_123_456_789), "2023-11-14T22:13:20.123456789Z");
        assert_eq!(rfc3339(4_102_444_799_999_999_999), "2099-12-31T23:59:59.999999999Z");
    }
}
