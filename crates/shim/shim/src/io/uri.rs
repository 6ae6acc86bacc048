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
            _ => Err(invalid(format!("stdio {text:?}: expected a fifo's path, file:// or cri://"))),
        }
    }
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
        for bad in ["relative", "cri://relative", "binary:///x", "cri:///a?max-line=x"] {
            assert!(Uri::parse(bad).is_err(), "{bad}");
        }
    }
}
