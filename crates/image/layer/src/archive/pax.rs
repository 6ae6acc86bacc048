//! Extended headers: PAX records and GNU's long names.

use super::Time;

/// What the headers in front of an entry's own header say about it.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The entry is sparse in one of the PAX ways.
    pub(super) sparse: bool,
    /// Bytes of extended headers so far.
    pub(super) bytes: u64,
    any: bool,
}

impl Extended {
    pub(super) fn is_empty(&self) -> bool {
        !self.any
    }

    pub(super) fn set_name(&mut self, content: Vec<u8>) {
        self.count(&content);
        self.name = Some(until_nul(content));
    }

    pub(super) fn set_link(&mut self, content: Vec<u8>) {
        self.count(&content);
        self.link = Some(until_nul(content));
    }

    fn count(&mut self, content: &[u8]) {
        self.any = true;
        self.bytes += content.len() as u64;
    }

    /// Adds the records of a PAX header. An empty value takes a field back to what the entry's own header says.
    pub(super) fn add_pax(&mut self, content: &[u8]) -> Result<(), String> {
        self.count(content);
        let mut rest = content;
        // Some writers pad the content with NULs.
        while !rest.is_empty() && rest[0] != 0 {
            let (key, value, after) = record(rest).ok_or("malformed PAX record")?;
            rest = after;
            let shown = String::from_utf8_lossy(key);
            match key {
                b"path" => self.name = text(value)?,
                b"linkpath" => self.link = text(value)?,
                b"size" => self.size = number(&shown, value)?,
                b"uid" => self.uid = number(&shown, value)?,
                b"gid" => self.gid = number(&shown, value)?,
                b"mtime" => self.mtime = time(&shown, value)?,
                b"atime" => self.atime = time(&shown, value)?,
                _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.retain(|(other, _)| other != name);
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn until_nul(mut content: Vec<u8>) -> Vec<u8> {
    if let Some(end) = content.iter().position(|byte| *byte == 0) {
        content.truncate(end);
    }
    content
}

/// The first record, `<length> <key>=<value>\n`, and what follows it. The length counts the whole record, so values may hold anything.
fn record(content: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = content.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&content[..space]).ok()?.parse().ok()?;
    let record = content.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    (equals > 0).then_some((&record[..equals], &record[equals + 1..], &content[length..]))
}

fn text(value: &[u8]) -> Result<Option<Vec<u8>>, String> {
    if value.contains(&0) {
        return Err("a path in a PAX record holds a NUL".to_owned());
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn number(key: &str, value: &[u8]) -> Result<Option<u64>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok()).map(Some).ok_or_else(|| format!("PAX {key} is not a number"))
}

/// Decimal seconds with a fraction, perhaps negative: `-1.25` is 1.25 s before 1970.
fn time(key: &str, value: &[u8]) -> Result<Option<Time>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let parse = || {
        let text = std::str::from_utf8(value).ok()?;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let seconds: i64 = whole.parse().ok()?;
        let nanoseconds: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
        if whole.starts_with('-') && nanoseconds > 0 {
            return Some(Time { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds });
        }
        Some(Time { seconds, nanoseconds })
    };
    parse().map(Some).ok_or_else(|| format!("PAX {key} is not a time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_and_nuls() {
        let mut extended = Extended::default();
        let value = b"\x01\n\x00=\n";
        let body = [b"SCHILY.xattr.security.capability=".as_slice(), value, b"\n"].concat();
        let record = [format!("{} ", body.len() + 3).as_bytes(), &body].concat();
        extended.add_pax(&record).expect("a valid record");
        assert_eq!(extended.xattrs, [(b"security.capability".to_vec(), value.to_vec())]);
    }

    #[test]
    fn malformed_records_are_errors() {
        for content in [&b"x"[..], b"5 a=b", b"99999 a=b\n", b"7 path\n", b"-1 a=b\n", b"2 a=b\n", b"6 =b\nx"]
        {
            assert!(Extended::default().add_pax(content).is_err(), "{content:?}");
        }
    }

    #[test]
    fn times_have_fractions_and_signs() {
        let parse = |value: &str| time("mtime", value.as_bytes());
        assert_eq!(parse("1.5"), Ok(Some(Time { seconds: 1, nanoseconds: 500_000_000 })));
        assert_eq!(parse("7"), Ok(Some(Time { seconds: 7, nanoseconds: 0 })));
        assert_eq!(parse("-1.25"), Ok(Some(Time { seconds: -2, nanoseconds: 750_000_000 })));
        assert_eq!(parse("1.1234567899"), Ok(Some(Time { seconds: 1, nanoseconds: 123_456_789 })));
        assert_eq!(parse(""), Ok(None));
        assert!(parse("1.x").is_err());
        assert!(parse("soon").is_err());
    }
}
