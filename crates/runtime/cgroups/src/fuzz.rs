//! The parsers of the kernel's files, for integration/fuzz.

use crate::{Controllers, Layout, file, stats};

/// Takes the bytes for each of the files that are read. None of them may panic.
pub fn files(bytes: &[u8]) {
    Layout::from_mountinfo(bytes).ok(); // because most bytes are none
    let text = String::from_utf8_lossy(bytes);
    // A hierarchy without a controller is named for people, not to be read again.
    let known = Controllers::parse(&text) - Controllers::NAMED;
    assert_eq!(Controllers::parse(&known.names()), known, "what is named isn't understood");
    file::keyed(&text, "populated");
    file::number(&text);
    stats::fuzz(&text);
}

/// What a message bus answers, text of properties in annotations, and units' names.
pub fn systemd(bytes: &[u8]) {
    crate::systemd::fuzz(bytes);
}
