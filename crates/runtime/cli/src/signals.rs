//! Signals by name or number, as people and programs write them.

use std::str::FromStr as _;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

/// The first and last realtime signal as the C library counts them: it keeps 32 and 33 for itself.
const REALTIME: (i32, i32) = (34, 64);

/// SIGTERM, TERM, term, 15, RTMIN+3, SIGRTMAX-1.
///
/// # Errors
/// If there is no such signal.
pub(crate) fn parse(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        if (0..=REALTIME.1).contains(&number) {
            return Ok(number);
        }
        bail!("unknown signal {text:?}: must be between 0 and {}", REALTIME.1);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = realtime(name) {
        return Ok(number);
    }
    let name = match name {
        "POLL" => "IO",
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        other => other,
    };
    match Signal::from_str(&format!("SIG{name}")) {
        Ok(signal) => Ok(signal as i32),
        Err(_) => bail!("unknown signal {text:?}"),
    }
}

fn realtime(name: &str) -> Option<i32> {
    let number = if let Some(offset) = name.strip_prefix("RTMIN") {
        REALTIME.0.checked_add(offset_of(offset, '+')?)?
    } else if let Some(offset) = name.strip_prefix("RTMAX") {
        REALTIME.1.checked_sub(offset_of(offset, '-')?)?
    } else {
        return None;
    };
    (REALTIME.0..=REALTIME.1).contains(&number).then_some(number)
}

fn offset_of(text: &str, sign: char) -> Option<i32> {
    if text.is_empty() { Some(0) } else { text.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (text, number) in [
            ("15", 15),
            ("SIGTERM", 15),
            ("TERM", 15),
            ("term", 15),
            ("sigKill", 9),
            ("0", 0),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax-14", 50),
            ("RTMAX", 64),
            ("CLD", 17),
            ("SIGPOLL", 29),
        ] {
            assert_eq!(parse(text).expect(text), number, "{text}");
        }
        for text in
            ["", "BOGUS", "-9", "65", "RTMIN-1", "RTMIN+31", "RTMAX+1", "RTMIN+x", "SIG", "SIGSIGTERM"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
