//! The log in the two forms that runc's callers read: JSON lines `{"level","msg","time"}`, of which they take the
//! last error, and text like `time="..." level=error msg="..."`.
//!
//! A tracing subscriber of our own: the runtime starts several times per container, and there are no spans.

use std::{
    ffi::{OsStr, OsString},
    fmt::{self, Write as _},
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tracing::{
    Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::{
    args::{Global, LogFormat, LogLevel},
    output, time,
};

/// Where messages go, and how.
#[derive(Debug)]
pub(crate) struct Log {
    /// None: stderr.
    file: Option<File>,
    format: LogFormat,
    level: Level,
}

#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    msg: &'a str,
    time: &'a str,
}

impl Log {
    /// Opens the log now: later the path might lead elsewhere.
    ///
    /// # Errors
    /// If the file can't be opened.
    pub(crate) fn open(global: &Global) -> Result<Self> {
        let file = match &global.log {
            Some(path) if path != Path::new("/dev/stderr") => {
                let path = file_of(path)?;
                let file = OpenOptions::new().append(true).create(true).open(path);
                Some(file.with_context(|| path.display().to_string())?)
            }
            _ => None,
        };
        let level = match global.log_level {
            _ if global.debug => Level::DEBUG,
            Some(LogLevel::Debug) => Level::DEBUG,
            None | Some(LogLevel::Info) => Level::INFO,
            Some(LogLevel::Warning) => Level::WARN,
            Some(LogLevel::Error) => Level::ERROR,
        };
        Ok(Self { file, format: global.log_format, level })
    }

    /// Sends what is logged with tracing here.
    pub(crate) fn install(self) -> Arc<Self> {
        let log = Arc::new(self);
        // It fails only if there is one already, and we are the first.
        tracing::subscriber::set_global_default(Shared(log.clone())).ok();
        log
    }

    /// Why the command failed: to the log, and to stderr for people.
    pub(crate) fn fatal(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() {
            output::complain(&format!("{message}\n"));
        }
    }

    fn write(&self, level: &str, message: &str) {
        let time = time::now();
        let mut line = match self.format {
            LogFormat::Json => {
                serde_json::to_string(&Line { level, msg: message, time: &time }).unwrap_or_default()
            }
            LogFormat::Text => format!("time={time:?} level={level} msg={message:?}"),
        };
        line.push('\n');
        // One write(2), so that lines of several processes don't mix. If it fails there is nowhere to say so.
        match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()).ok(),
            None => io::stderr().write_all(line.as_bytes()).ok(),
        };
    }
}

/// The file, which crun's callers may write as `file:PATH`; its other destinations we don't have.
fn file_of(log: &Path) -> Result<&Path> {
    let bytes = log.as_os_str().as_bytes();
    for other in ["journald:", "syslog:"] {
        if bytes.starts_with(other.as_bytes()) {
            bail!("{}: the log can only be a file", log.display());
        }
    }
    Ok(bytes.strip_prefix(b"file:").map_or(log, |path| Path::new(OsStr::from_bytes(path))))
}

/// A wrong command line hasn't been parsed, yet its error belongs into the log that it names.
pub(crate) fn usage(args: impl Iterator<Item = OsString>, error: &str) {
    let mut args = args.skip_while(|arg| arg != "--log").skip(1);
    let Some(path) = args.next() else { return };
    let message = error.lines().next().unwrap_or_default().trim_start_matches("error: ");
    if let Ok(file) = OpenOptions::new().append(true).create(true).open(path) {
        Log { file: Some(file), format: LogFormat::Json, level: Level::ERROR }.write("error", message);
    }
}

struct Shared(Arc<Log>);

impl Subscriber for Shared {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.0.level
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let mut text = Text::default();
        event.record(&mut text);
        self.0.write(level, &format!("{}{}", text.message, text.fields));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// An event's message, and its other fields as ` name=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
        written.expect("writing to a String doesn't fail");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn both_forms() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("log");
        let file = || Some(OpenOptions::new().append(true).create(true).open(&path).expect("open"));
        Log { file: file(), format: LogFormat::Json, level: Level::INFO }.write("error", "no \"x\"\nat all");
        Log { file: file(), format: LogFormat::Text, level: Level::INFO }.write("error", "no \"x\"");
        let text = fs::read_to_string(&path).expect("read");
        let (json, plain) = text.split_once('\n').expect("two lines");
        assert!(json.starts_with(r#"{"level":"error","msg":"no \"x\"\nat all","time":"2"#), "{json}");
        assert!(plain.ends_with("level=error msg=\"no \\\"x\\\"\"\n"), "{plain}");
    }

    #[test]
    fn where_it_goes() {
        for (log, file) in [("/l", "/l"), ("file:/l", "/l"), ("files", "files")] {
            assert_eq!(file_of(Path::new(log)).expect(log), Path::new(file));
        }
        for log in ["journald:x", "syslog:x"] {
            assert!(file_of(Path::new(log)).is_err(), "{log}");
        }
    }

    #[test]
    fn a_wrong_command_line_is_logged() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("log");
        let args = ["corten", "--log", path.to_str().expect("UTF-8"), "bogus"].map(OsString::from);
        usage(args.into_iter(), "error: unrecognized subcommand 'bogus'\n\nUsage: ...");
        let text = fs::read_to_string(&path).expect("read");
        assert!(text.contains(r#""msg":"unrecognized subcommand 'bogus'""#), "{text}");
    }
}
