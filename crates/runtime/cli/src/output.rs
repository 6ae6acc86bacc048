//! Standard output and error as pipes that may be closed: whoever read as far as it wanted (`| head -1`) isn't told
//! of it by a panic.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

/// Writes to stdout; false if nobody reads there any more.
///
/// # Errors
/// Any other: a full disk, for example.
pub(crate) fn print(text: &str) -> Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to stdout"),
    }
}

/// Writes to stderr, if anybody reads there.
pub(crate) fn complain(text: &str) {
    io::stderr().write_all(text.as_bytes()).ok(); // because there is nobody else to tell
}
