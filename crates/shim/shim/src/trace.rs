//! Where the shim's own messages go: containerd's fifo `log` in the current directory if there is one, else the file
//! `shim.log`, which comes into being with the first message. Small, because there is a shim per pod.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Installs it for the process.
pub(crate) fn install(debug: bool) {
    let level = if debug { Level::DEBUG } else { Level::WARN };
    // Only fails when there is one already, which then is as good.
    let _ = tracing::subscriber::set_global_default(Lines { level });
}

struct Lines {
    level: Level,
}

thread_local! {
    /// A message about writing a message would never end.
    static WRITING: Cell<bool> = const { Cell::new(false) };
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if WRITING.replace(true) {
            return;
        }
        let seconds = corten_task_api::time::now_ns() / 1_000_000_000;
        let mut line = Line(format!("time={seconds} level={}", event.metadata().level()));
        event.record(&mut line);
        line.0.push('\n');
        write(&line.0);
        WRITING.set(false);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A log that can't be written must not disturb containers: errors are dropped.
fn write(line: &str) {
    let fifo = Path::new("log");
    let is_fifo = fifo.metadata().is_ok_and(|m| m.file_type().is_fifo());
    let mut options = OpenOptions::new();
    if is_fifo {
        // Fails at once when nobody reads.
        options.write(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
    } else {
        options.append(true).create(true).mode(0o640);
    }
    if let Ok(mut file) = options.open(if is_fifo { fifo } else { Path::new("shim.log") }) {
        let _ = file.write_all(line.as_bytes());
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " msg={:?}", format!("{value:?}")),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
