//! Where log lines go: the `--log` file (JSON lines are what containerd's and Docker's shims parse), or standard error.
//!
//! A subscriber of our own: tracing-subscriber would double the size of the smallest thing that this program does.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::args::{Global, LogFormat};

/// Installs the logger.
pub(crate) fn init(global: &Global) -> Result<()> {
    let max = if global.debug { Level::DEBUG } else { Level::INFO };
    let file = global.log.as_ref().map(|path| {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.with_context(|| format!("can't open the log file {}", path.display()))
    });
    let logger = Logger { max, json: global.log_format == LogFormat::Json, file: file.transpose()? };
    tracing::subscriber::set_global_default(logger).context("a logger is installed already")
}

struct Logger {
    max: Level,
    json: bool,
    file: Option<File>,
}

impl Subscriber for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.max && metadata.is_event()
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let line = line(self.json, *event.metadata().level(), &message.0, SystemTime::now());
        // One write for a line: others may append to the same file. There is nobody to tell that it failed.
        match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()).ok(),
            None => std::io::stderr().write_all(line.as_bytes()).ok(),
        };
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The message, with the other fields behind it.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string can't fail.
        if field.name() == "message" {
            self.0.insert_str(0, &format!("{value:?}"));
        } else {
            write!(self.0, " {}={value:?}", field.name()).ok();
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

fn line(json: bool, level: Level, message: &str, now: SystemTime) -> String {
    let level = match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    };
    let time = timestamp(now);
    if json {
        let message = serde_json::Value::from(message);
        return format!("{{\"level\":\"{level}\",\"msg\":{message},\"time\":\"{time}\"}}\n");
    }
    format!("time=\"{time}\" level={level} msg={message:?}\n")
}

/// RFC 3339 in UTC, to the second, as logrus prints it.
fn timestamp(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// The Gregorian date of a day since 1970-01-01 (the year starts in March: the leap day comes last).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
    (era * 400 + year_of_era + year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates() {
        assert_eq!(timestamp(UNIX_EPOCH), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(951_782_400)), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(1_798_761_599)), "2026-12-31T23:59:59Z");
    }

    #[test]
    fn a_json_line_survives_quotes_and_newlines() {
        let line = line(true, Level::ERROR, "exec: \"x\":\nnot found", UNIX_EPOCH);
        let value: serde_json::Value = serde_json::from_str(line.trim_end()).expect("JSON");
        assert_eq!(value["level"], "error");
        assert_eq!(value["msg"], "exec: \"x\":\nnot found");
        assert_eq!(line.matches('\n').count(), 1);
    }
}
