//! Tables, sizes and ages for people.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use corten_cri_api::v1::ContainerState;

/// Prints to standard output. That nobody reads on (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("write to standard output")
        }
        _ => Ok(()),
    }
}

/// Prints a JSON value, indented.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<()> {
    print(&format!("{value:#}\n"))
}

/// Columns as wide as their widest cell, two spaces between.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    pub(crate) fn print(&self) -> Result<()> {
        print(&self.to_string())
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                // What a container calls itself must not reach the terminal as a control sequence.
                let cell: String = cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
                write!(line, "{cell:width$}  ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The part of an id that people read.
pub(crate) fn short(id: &str) -> String {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.chars().take(12).collect()
}

/// Bytes in decimal units, as registries and disks count.
pub(crate) fn size(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Bytes in binary units, as memory is counted.
pub(crate) fn memory(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn scaled(bytes: u64, step: f64, units: &[&str]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    // 999.95 would be shown as 1000.0.
    while value >= step - 0.05 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{value:.1}{}", units[unit]) }
}

/// Now, in nanoseconds since 1970, as CRI counts.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// How long ago, in the two words that matter.
pub(crate) fn ago(then: i64, now: i64) -> String {
    if then <= 0 { "-".to_owned() } else { format!("{} ago", span(now.saturating_sub(then))) }
}

/// A time span in its largest unit.
fn span(nanoseconds: i64) -> String {
    let seconds = (nanoseconds / 1_000_000_000).max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Names of a container's states, by number.
pub(crate) const CONTAINER_STATES: [&str; 4] = ["created", "running", "exited", "unknown"];
/// Names of a pod's states, by number.
pub(crate) const POD_STATES: [&str; 2] = ["ready", "not ready"];

/// A container's state in words.
pub(crate) fn state(status: &corten_cri_api::v1::ContainerStatus, now: i64) -> String {
    match status.state() {
        ContainerState::ContainerCreated => "Created".to_owned(),
        ContainerState::ContainerRunning => format!("Up {}", span(now.saturating_sub(status.started_at))),
        ContainerState::ContainerExited => {
            let why = if matches!(status.reason.as_str(), "" | "Completed" | "Error") {
                ""
            } else {
                &status.reason
            };
            let comma = if why.is_empty() { "" } else { ", " };
            format!("Exited ({}{comma}{why}) {}", status.exit_code, ago(status.finished_at, now))
        }
        ContainerState::ContainerUnknown => "Unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use corten_cri_api::v1::ContainerStatus;

    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_do_not_pass() {
        let mut table = Table::new(&["ID", "NAME"]);
        table.row(["1234".into(), "a\x1b[31mb".into()]);
        table.row(["1".into(), "ü".into()]);
        assert_eq!(table.to_string(), "ID    NAME\n1234  a?[31mb\n1     ü\n");
    }

    #[test]
    fn sizes_have_one_decimal() {
        assert_eq!(size(0), "0B");
        assert_eq!(size(999), "999B");
        assert_eq!(size(1000), "1.0kB");
        assert_eq!(size(999_960), "1.0MB");
        assert_eq!(size(12_345_678), "12.3MB");
        assert_eq!(memory(1 << 20), "1.0MiB");
        assert_eq!(memory(u64::MAX), "16.0EiB");
    }

    #[test]
    fn states_in_words() {
        const SECOND: i64 = 1_000_000_000;
        let mut status = ContainerStatus { started_at: SECOND, ..ContainerStatus::default() };
        status.set_state(ContainerState::ContainerRunning);
        assert_eq!(state(&status, 181 * SECOND), "Up 3m");
        status.set_state(ContainerState::ContainerExited);
        status.finished_at = 100 * SECOND;
        status.exit_code = 137;
        status.reason = "OOMKilled".into();
        assert_eq!(state(&status, 105 * SECOND), "Exited (137, OOMKilled) 5s ago");
        assert_eq!(ago(0, SECOND), "-");
        assert_eq!(ago(2 * SECOND, SECOND), "0s ago", "clocks may differ");
    }

    #[test]
    fn ids_are_cut() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short("ab"), "ab");
    }
}
