//! Signals: CRI's enumeration, names in image configurations, and the kernel's numbers.

use corten_cri_api::v1::Signal;

/// Names and numbers, for x86 and ARM alike. Synonyms come last: a number is called by its first name.
const SIGNALS: [(&str, i32); 35] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("KILL", 9),
    ("PIPE", 13),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("CLD", 17),
    ("IOT", 6),
    ("POLL", 29),
    ("UNUSED", 31),
];
/// As libc has them for programs: two of the kernel's are its own.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a CRI signal; `None` where the client leaves the choice to us.
pub(crate) fn number(signal: Signal) -> Option<i32> {
    match signal {
        Signal::RuntimeDefault => None,
        named => parse(named.as_str_name().strip_prefix("SIGNAL_")?),
    }
}

/// The CRI signal of a number.
pub(crate) fn of_number(number: i32) -> Signal {
    let name = match number {
        RTMIN => "RTMIN".to_owned(),
        RTMAX => "RTMAX".to_owned(),
        n if n > RTMIN && n <= RTMIN + 15 => format!("RTMINPLUS{}", n - RTMIN),
        n if n > RTMIN && n < RTMAX => format!("RTMAXMINUS{}", RTMAX - n),
        n => SIGNALS.iter().find(|(_, m)| *m == n).map_or(String::new(), |(name, _)| (*name).to_owned()),
    };
    Signal::from_str_name(&format!("SIGNAL_SIG{name}")).unwrap_or(Signal::RuntimeDefault)
}

/// The number of a signal as images name it: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
pub(crate) fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(rest, "PLUS", '+').map(|n| RTMIN + n);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(rest, "MINUS", '-').map(|n| RTMAX - n);
    }
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

fn real_time(rest: &str, word: &str, sign: char) -> Option<i32> {
    if rest.is_empty() {
        return Some(0);
    }
    let digits = rest.strip_prefix(word).or_else(|| rest.strip_prefix(sign))?;
    digits.parse().ok().filter(|n| (0..=RTMAX - RTMIN).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_cri_have_a_number_and_come_back() {
        for value in 1..=65 {
            let signal = Signal::try_from(value).expect("65 of them");
            let number = number(signal).unwrap_or_else(|| panic!("{signal:?}"));
            let back = of_number(number);
            assert_eq!(super::number(back), Some(number), "{signal:?} came back as {back:?}");
        }
    }

    #[test]
    fn as_images_write_them() {
        assert_eq!(parse("SIGTERM"), Some(15));
        assert_eq!(parse("quit"), Some(3));
        assert_eq!(parse("9"), Some(9));
        assert_eq!(parse("SIGRTMIN+3"), Some(37));
        assert_eq!(parse("RTMAX-1"), Some(63));
        for wrong in ["0", "65", "SIGFOO", "", "RTMIN+99", "-1"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
