//! The parsers of the kernel's files, for integration/fuzz.

use crate::{Controllers, Layout, file, stats};

/// Takes the bytes for each of the files that are read. None of them may panic.
pub fn files(bytes: &[u8]) {
    Layout::from_mountinfo(bytes).ok(); // because most bytes are none
    let text = String::from_utf8_lossy(bytes);
    let names = Controllers::parse(&text).names();
    assert_eq!(Controllers::parse(&names).names(), names, "what is named isn't understood");
    file::keyed(&text, "populated");
    file::number(&text);
    stats::fuzz(&text);
}
