//! Signals by name or number.

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

/// The number that `text` means: `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN`, `SIGRTMIN+3`, `RTMAX-1`.
pub(crate) fn parse(text: &str) -> Result<i32> {
    let number = match text.parse::<i32>() {
        Ok(number) => number,
        Err(_) => by_name(text).with_context(|| format!("unknown signal {text:?}"))?,
    };
    if !(0..=nix::libc::SIGRTMAX()).contains(&number) {
        bail!("unknown signal {text:?}");
    }
    Ok(number)
}

fn by_name(text: &str) -> Option<i32> {
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return Some(nix::libc::SIGRTMIN() + offset(rest, '+')?);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return Some(nix::libc::SIGRTMAX() - offset(rest, '-')?);
    }
    let name = match name {
        "POLL" => "IO",
        "CLD" => "CHLD",
        other => other,
    };
    format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32)
}

fn offset(text: &str, sign: char) -> Option<i32> {
    if text.is_empty() {
        return Some(0);
    }
    text.strip_prefix(sign)?.parse().ok().filter(|n| (0..=30).contains(n))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_and_numbers() {
        for text in ["9", "KILL", "SIGKILL", "sigkill", "Kill"] {
            assert_eq!(parse(text).expect("a signal"), 9, "{text}");
        }
        assert_eq!(parse("0").expect("a signal"), 0);
        assert_eq!(parse("SIGRTMIN+3").expect("a signal"), 37);
        assert_eq!(parse("RTMAX-1").expect("a signal"), 63);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for text in ["", "SIG", "NOPE", "-1", "65", "RTMIN-1", "RTMIN+99"] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
