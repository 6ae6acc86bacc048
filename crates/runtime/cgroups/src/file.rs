//! Reading and writing the small files of a cgroup directory. Every error names the file, and the value.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    path::Path,
};

use crate::{Error, Result};

/// Writes a value in one write(2): that is how the kernel parses it.
pub(crate) fn write(path: &Path, value: &str) -> Result<()> {
    try_write(path, value).map_err(|source| Error::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// Writes a value; the plain error is for callers that know an answer to some errors.
pub(crate) fn try_write(path: &Path, value: &str) -> io::Result<()> {
    // Not created: where there is no such file the kernel has no such knob, and must not say EPERM for it.
    let mut file = OpenOptions::new().write(true).open(path)?;
    loop {
        match file.write(value.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// Reads a whole file, as text.
pub(crate) fn read(path: &Path) -> Result<String> {
    read_all(path).map_err(Error::io("read", path))
}

/// Most of these files are a line: what comes in one go and leaves so much room is all there is. (The kernel ends a read early
/// only where the next line of its own doesn't fit.)
fn read_all(path: &Path) -> io::Result<String> {
    const ROOM: usize = 1024;
    let mut file = fs::File::open(path)?;
    let mut text = vec![0; ROOM];
    let read = loop {
        match file.read(&mut text) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    text.truncate(read);
    if read > ROOM / 2 {
        file.read_to_end(&mut text)?;
    }
    String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads a whole file; `None` if there is no such file or the cgroup is gone.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>> {
    match read_all(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Whether the error says that there is no such file, or (ENODEV) that its cgroup has been removed meanwhile.
/// (EOPNOTSUPP is what a file of a controller says that is switched off, such as PSI.)
pub(crate) fn is_gone(error: &io::Error) -> bool {
    use nix::libc::{ENODEV, ENOENT, EOPNOTSUPP};
    matches!(error.raw_os_error(), Some(ENOENT | ENODEV | EOPNOTSUPP))
}

/// A number, where "max" is `u64::MAX`.
pub(crate) fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        // v1 says -1 for no limit in some files.
        "-1" => Some(u64::MAX),
        digits => digits.parse().ok(),
    }
}

/// The number after `key ` in a flat keyed file.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(key)?.strip_prefix(' ')?))
}

/// Writes several values through one descriptor, one write(2) each.
pub(crate) fn write_each(path: &Path, values: impl Iterator<Item = String>) -> Result<()> {
    let mut file = OpenOptions::new().write(true).open(path).map_err(Error::io("open", path))?;
    for value in values {
        file.write_all(value.as_bytes()).map_err(|source| Error::Write {
            path: path.to_owned(),
            value,
            source,
        })?;
    }
    Ok(())
}
