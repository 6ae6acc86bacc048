//! What criu's log says of a failure.

use std::{fs, path::Path};

/// So many of its errors are quoted: the first says what was wrong, the others what came of it.
const LINES: usize = 4;

/// The errors in a log, without their times, in one line; empty if there are none, or no log.
pub(super) fn errors(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        // "(00.033352) Error (criu/vdso.c:381): vdso: ...", sometimes with a pid before.
        if let Some((_, error)) = line.split_once("Error (") {
            let said = error.split_once("): ").map_or(error, |(_, said)| said).trim();
            if !lines.contains(&said) {
                lines.push(said);
            }
        }
    }
    lines.truncate(LINES);
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_quoted_once_and_without_their_place() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("dump.log");
        let text = "(00.01) vdso: fine\n(00.02) Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds\n\
            (00.02)    7: Error (criu/mount.c:1): mnt: No: such\n(00.03) Error (criu/mount.c:1): mnt: No: such\n";
        fs::write(&path, text).expect("write");
        assert_eq!(errors(&path), "vdso: Unexpected rt vDSO area bounds; mnt: No: such");
        assert_eq!(errors(&dir.path().join("none")), "");
    }
}
