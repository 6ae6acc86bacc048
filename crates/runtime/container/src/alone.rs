//! Who clones itself into a container must be alone in its process.

use corten_sys::process::is_single_threaded;

use crate::{Error, Result};

/// Refuses `operation` in a process with more than one thread, before anything exists.
pub(crate) fn alone(operation: &'static str) -> Result<()> {
    match is_single_threaded() {
        Ok(false) => Err(Error::Threads { operation }),
        // Where unshare(2) is forbidden nothing can be told from it.
        Ok(true) | Err(_) => Ok(()),
    }
}
