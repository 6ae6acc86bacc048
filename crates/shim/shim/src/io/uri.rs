//! What the strings for stdin, stdout and stderr mean.

use std::path::PathBuf;

use corten_task_api::ttrpc::Status;

use crate::error::invalid;

/// CRI's usual limit.
const MAX_LINE: usize = 16384;
/// What "no limit" is: a line is held in memory until it ends.
const NO_LIMIT: usize = 16 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Uri {
    Null,
    Fifo(PathBuf),
    File(PathBuf),
    Cri { path: PathBuf, max_line: usize },
    Binary(Program),
}

/// A logger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<String>,
    /// It says that it is ready by a byte; else by closing its end, which dying does, too.
    pub(super) says_ready: bool,
}

impl Uri {
    pub(super) fn parse(text: &str) -> Result<Self, Status> {
        if text.is_empty() {
            return Ok(Self::Null);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return absolute(text, text).map(Self::Fifo);
        };
        match scheme {
            "fifo" => absolute(rest, text).map(Self::Fifo),
            "file" => absolute(rest, text).map(Self::File),
            "cri" => {
                // From the right: a log's path may contain a question mark.
                let (path, max_line) = match rest.rsplit_once("?max-line=") {
                    Some((path, number)) => (path, max_line(number, text)?),
                    None => (rest, MAX_LINE),
                };
                Ok(Self::Cri { path: absolute(path, text)?, max_line })
            }
            "binary" | "binary-v2" => {
                let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
                let arguments = query.split('&').filter(|pair| !pair.is_empty()).flat_map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    [unescape(key, true), unescape(value, true)]
                });
                Ok(Self::Binary(Program {
                    path: absolute(&unescape(path, false), text)?,
                    arguments: arguments.collect(),
                    says_ready: scheme == "binary-v2",
                }))
            }
            _ => {
                Err(invalid(format!("stdio {text:?}: expected a fifo's path, file://, binary:// or cri://")))
            }
        }
    }
}

/// `%41` is A; in a query `+` is a space.
fn unescape(text: &str, query: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |at: usize| tail.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = &tail[2..];
            }
            _ => {
                bytes.push(if query && *first == b'+' { b' ' } else { *first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn absolute(path: &str, whole: &str) -> Result<PathBuf, Status> {
    if path.starts_with('/') {
        return Ok(path.into());
    }
    Err(invalid(format!("stdio {whole:?}: the path isn't absolute")))
}

fn max_line(number: &str, whole: &str) -> Result<usize, Status> {
    let number: i64 = number.parse().map_err(|e| invalid(format!("stdio {whole:?}: max-line: {e}")))?;
    Ok(usize::try_from(number).ok().filter(|n| *n > 0).map_or(NO_LIMIT, |n| n.min(NO_LIMIT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdio_strings() {
        assert_eq!(Uri::parse("").unwrap(), Uri::Null);
        assert_eq!(Uri::parse("/run/x").unwrap(), Uri::Fifo("/run/x".into()));
        assert_eq!(Uri::parse("file:///x").unwrap(), Uri::File("/x".into()));
        assert_eq!(Uri::parse("cri:///a?b").unwrap(), Uri::Cri { path: "/a?b".into(), max_line: MAX_LINE });
        assert_eq!(Uri::parse("cri:///a?max-line=10").unwrap(), Uri::Cri { path: "/a".into(), max_line: 10 });
        assert_eq!(
            Uri::parse("cri:///a?max-line=-1").unwrap(),
            Uri::Cri { path: "/a".into(), max_line: NO_LIMIT }
        );
        let program = |path: &str, arguments: &[&str], says_ready| {
            let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
            Uri::Binary(Program { path: path.into(), arguments, says_ready })
        };
        assert_eq!(Uri::parse("binary:///l").unwrap(), program("/l", &[], false));
        assert_eq!(
            Uri::parse("binary-v2:///a%20b?-c=x%3Dy+z&flag").unwrap(),
            program("/a b", &["-c", "x=y z", "flag", ""], true)
        );
        for bad in ["relative", "cri://relative", "binary://x", "gopher:///x", "cri:///a?max-line=x"] {
            assert!(Uri::parse(bad).is_err(), "{bad}");
        }
    }
}
