//! Loads an OCI bundle (runtime-spec, "Filesystem Bundle") and reports everything wrong with its config.json.
//!
//! Nothing here touches the host: only config.json is read. Whether the rootfs is there, a device exists or a
//! namespace can be joined is for who runs the bundle to find out.
//!
//! ```
//! use corten_bundle::{Bundle, Error};
//!
//! let dir = tempfile::tempdir()?;
//! let config = r#"{"ociVersion": "1.3.0", "root": {"path": "rootfs"}, "hostname": "web",
//!     "process": {"cwd": "relative", "args": []}}"#;
//! std::fs::write(dir.path().join("config.json"), config)?;
//! let bundle = Bundle::load(dir.path())?;
//! assert_eq!(bundle.rootfs(), dir.path().join("rootfs"));
//! // All that is wrong with it, not only the first.
//! let problems: Vec<String> = bundle.problems().iter().map(ToString::to_string).collect();
//! assert!(problems.iter().any(|problem| problem.starts_with("process.cwd")), "{problems:?}");
//! assert!(problems.iter().any(|problem| problem.starts_with("process.args")), "{problems:?}");
//!
//! std::fs::write(dir.path().join("config.json"), r#"{"process": {"args": "sh"}}"#)?;
//! let error = Bundle::load(dir.path()).expect_err("args is a list");
//! assert!(matches!(&error, Error::Json { field, .. } if field == "process.args"), "{error:?}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod error;
mod mend;
mod place;
mod unknown;
mod validate;

pub use error::{Error, Problem, Result};
use oci_spec::runtime::Spec;
use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
pub use unknown::unknown_fields;
pub use validate::validate;

/// A directory with a config.json, loaded.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The directory, absolute.
    pub path: PathBuf,
    /// config.json.
    pub spec: Spec,
}

impl Bundle {
    /// Reads `dir/config.json`, which must be a regular file. Doesn't [`validate`] it.
    ///
    /// # Errors
    /// [`Error::Read`], also for more than 64 MiB; [`Error::Json`], which says at which line, column and field.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        Self::load_with(dir.as_ref(), Path::new("config.json"), read)
    }

    /// [`Self::load`] with the config from where the caller says instead of config.json; relative to `dir`. May be a pipe, whose
    /// end is waited for.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_as(dir: impl AsRef<Path>, config: impl AsRef<Path>) -> Result<Self> {
        Self::load_with(dir.as_ref(), config.as_ref(), read_any)
    }

    fn load_with(dir: &Path, config: &Path, read: fn(&Path) -> io::Result<Vec<u8>>) -> Result<Self> {
        let path = std::path::absolute(dir).map_err(|source| Error::Read { path: dir.to_owned(), source })?;
        let config = path.join(config);
        let json = read(&config).map_err(|source| Error::Read { path: config.clone(), source })?;
        let spec = parse(&json, &config)?;
        Ok(Self { path, spec })
    }

    /// All that is wrong with the config; empty if it can be run as far as one can tell without the host.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        validate(&self.spec)
    }

    /// `root.path`, absolute; the bundle itself if there is no `root`.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.spec.root().as_ref().map_or_else(|| self.path.clone(), |root| self.path.join(root.path()))
    }
}

/// The most that a config may have, in bytes: a hundred times what anybody has written, and no danger to a machine.
const LIMIT: u64 = 64 << 20;

/// Reads a file, and nothing else: a fifo could be waited at for ever.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it isn't a regular file"));
    }
    read_file(file, meta.len())
}

/// Reads whatever there is to read, a pipe to its end. /dev/zero has none.
fn read_any(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() {
        return read_file(file, meta.len());
    }
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT { Err(too_large()) } else { Ok(bytes) }
}

/// A sparse file may say that it is as large as no memory is.
fn read_file(mut file: fs::File, size: u64) -> io::Result<Vec<u8>> {
    if size > LIMIT {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default().saturating_add(1));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cold]
fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 64 MiB")
}

/// Parses any JSON document of the runtime-spec (config.json, process.json, resources), naming line, column and
/// field if it can't be. Capabilities that are not known are left out with a warning. `path` is only for the messages.
///
/// # Errors
/// [`Error::Json`].
pub fn parse<T: serde::de::DeserializeOwned>(json: &[u8], path: &Path) -> Result<T> {
    // As text, all of it at once: serde_json would look at each string.
    let text = std::str::from_utf8(json).map_err(|_| not_text(json));
    text.and_then(serde_json::from_str).or_else(|source| mended(json, path, source))
}

/// JSON that isn't UTF-8 is wrong where serde_json says it is.
#[cold]
fn not_text(json: &[u8]) -> serde_json::Error {
    let ignored = serde_json::from_slice::<serde_json::Value>(json);
    ignored.err().unwrap_or_else(|| serde::de::Error::custom("it isn't UTF-8"))
}

/// The document without what is only new, or why it can't be.
#[cold]
#[inline(never)]
fn mended<T: serde::de::DeserializeOwned>(json: &[u8], path: &Path, source: serde_json::Error) -> Result<T> {
    if let Some((document, unknown)) = mend::mended(json)
        && let Ok(parsed) = serde_json::from_value(document)
    {
        if !unknown.is_empty() {
            tracing::warn!("{}: unknown capabilities are left out: {}", path.display(), unknown.join(", "));
        }
        return Ok(parsed);
    }
    let field = place::field_at(json, source.line(), source.column());
    Err(Error::Json { path: path.to_owned(), field, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(json: &str) -> Result<Bundle> {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join("config.json"), json).expect("write");
        Bundle::load(dir.path())
    }

    #[test]
    fn loads_and_resolves() {
        let bundle = load(r#"{"ociVersion":"1.0.0","root":{"path":"fs"}}"#).expect("loads");
        assert_eq!(bundle.rootfs(), bundle.path.join("fs"));
        let absolute = load(r#"{"root":{"path":"/fs"}}"#).expect("loads");
        assert_eq!(absolute.rootfs(), Path::new("/fs"));
    }

    #[test]
    fn errors_name_file_field_and_line() {
        for (json, expected) in [
            ("{\n \"process\": {\"user\": {\"uid\": \"root\"}}}", "at process.user.uid"),
            (
                "{\"linux\": {\"namespaces\": [{\"type\": \"pid\"}, {\"type\": \"disk\"}]}}",
                "at linux.namespaces[1].type",
            ),
            ("{\"root\": [}", "at root"),
            ("{\"process\": {\"args\": [\"x\"]}}", "at process"),
            ("not JSON", "config.json"),
        ] {
            let error = load(json).expect_err(json);
            assert!(
                error.to_string().contains("config.json") && error.to_string().ends_with(expected),
                "{json}: {error}"
            );
            let source = std::error::Error::source(&error).expect("a source").to_string();
            assert!(source.contains("line"), "{source}");
        }
    }

    #[test]
    fn what_is_not_text_is_refused_where_it_is_not() {
        let error =
            parse::<Spec>(b"{\n\"hostname\": \"\xff\"}", Path::new("config.json")).expect_err("no text");
        let source = std::error::Error::source(&error).expect("a source").to_string();
        assert!(error.to_string().contains("config.json") && source.contains("line 2"), "{error}: {source}");
    }

    #[test]
    fn unknown_capabilities_are_left_out() {
        let config = |names: &str| {
            format!(
                r#"{{"process":{{"cwd":"/","user":{{"uid":0,"gid":0}},"capabilities":{{"bounding":[{names}]}}}}}}"#
            )
        };
        let bundle = load(&config(r#""CAP_KILL","CAP_FROM_THE_FUTURE","KILLALL""#)).expect("loads");
        let process = bundle.spec.process().as_ref().expect("a process");
        let bounding =
            process.capabilities().as_ref().and_then(|sets| sets.bounding().clone()).expect("a set");
        assert_eq!(bounding.len(), 1);
        for names in ["5", r#""CAP_FROM_THE_FUTURE", {}"#] {
            load(&config(names)).expect_err(names);
        }
    }

    #[test]
    fn every_scheduler_flag_has_its_name() {
        let flags =
            "RESET_ON_FORK FLAG_RESET_ON_FORK FLAG_RECLAIM FLAG_DL_OVERRUN FLAG_KEEP_POLICY FLAG_KEEP_PARAMS
            FLAG_UTIL_CLAMP_MIN FLAG_UTIL_CLAMP_MAX";
        for flag in flags.split_whitespace() {
            let process = format!(
                r#"{{"cwd":"/","user":{{"uid":0,"gid":0}},"scheduler":{{"policy":"SCHED_DEADLINE","flags":["SCHED_{flag}"]}}}}"#
            );
            load(&format!(r#"{{"process":{process}}}"#)).expect(flag);
            parse::<oci_spec::runtime::Process>(process.as_bytes(), Path::new("process.json")).expect(flag);
        }
    }

    #[test]
    fn a_process_without_a_user_is_roots() {
        let bundle = load(r#"{"process":{"cwd":"/","args":["x"]}}"#).expect("loads");
        assert_eq!(bundle.spec.process().as_ref().expect("a process").user().uid(), 0);
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("temp dir");
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("config.json")).expect("symlink");
        let error = Bundle::load(dir.path()).expect_err("a device");
        let Error::Read { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.to_string(), "it isn't a regular file");
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let sparse = fs::File::create(dir.path().join("config.json")).expect("create");
        sparse.set_len(3 << 40).expect("a sparse file");
        for result in [Bundle::load(dir.path()), Bundle::load_as(dir.path(), "/dev/zero")] {
            let Err(Error::Read { source, .. }) = result else { panic!("{result:?}") };
            assert_eq!(source.to_string(), "it is larger than 64 MiB");
        }
    }

    #[test]
    fn a_config_that_was_asked_for_may_come_through_a_pipe() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (reader, mut writer) = io::pipe().expect("pipe");
        io::Write::write_all(&mut writer, br#"{"ociVersion":"1.0.0","hostname":"piped"}"#).expect("write");
        drop(writer);
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let bundle = Bundle::load_as(dir.path(), path).expect("loads");
        assert_eq!(bundle.spec.hostname().as_deref(), Some("piped"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Bundle::load("/nonexistent").expect_err("no bundle");
        assert_eq!(error.to_string(), "cannot read /nonexistent/config.json");
    }
}
