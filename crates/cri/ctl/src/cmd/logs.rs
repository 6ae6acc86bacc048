//! `cortenctl logs`.

use anyhow::{Context, Result, bail};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::follow;
use crate::{
    args::{Logs, Output},
    client::Client,
    find,
    log::{Line, Log, Stream, tail},
    show,
};

pub(crate) async fn logs(client: &Client, args: Logs, output: Output) -> Result<()> {
    let container = find::container(client, &args.container).await?;
    let status = find::status(client, &container.id).await?;
    if status.log_path.is_empty() {
        bail!("container {} keeps no log: it was created without a log path", args.container);
    }
    let since = args.since.as_deref().map(|text| moment(text, show::now())).transpose()?;
    let recent = |lines: Vec<Line>| -> Vec<Line> {
        lines.into_iter().filter(|line| since.is_none_or(|since| written(line) >= since)).collect()
    };
    let print = |lines: &[Line]| match output {
        Output::Json => {
            let text: String = lines.iter().map(|line| format!("{}\n", as_json(line))).collect();
            show::print(&text).map(|()| true)
        }
        Output::Table if args.timestamps => follow::write_with(lines, |line| format!("{} ", line.time)),
        Output::Table => follow::write(lines),
    };
    let mut log = Log::new(status.log_path.as_ref());
    let lines = log.read().with_context(|| format!("read the log {}", status.log_path))?;
    let mut going = print(&tail(recent(lines), args.tail))?;
    if args.follow {
        if going {
            follow::until_exit(client, &container.id, &mut log, follow::Interrupt::Quit, |lines| {
                print(&recent(lines))
            })
            .await?;
        }
    } else if going {
        going = print(&recent(log.finish()))?;
        let _ = going;
    }
    Ok(())
}

fn as_json(line: &Line) -> serde_json::Value {
    let stream = match line.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    json!({"time": line.time, "stream": stream, "text": String::from_utf8_lossy(&line.text)})
}

/// When a line was written, in nanoseconds since 1970; the end of time if that can't be read.
fn written(line: &Line) -> i64 {
    OffsetDateTime::parse(&line.time, &Rfc3339).map_or(i64::MAX, nanoseconds)
}

fn nanoseconds(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos()).unwrap_or(i64::MAX)
}

/// A time in RFC 3339, or an age: `90s`, `10m`, `2h`, `1d`, `1h30m`.
fn moment(text: &str, now: i64) -> Result<i64> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(nanoseconds(time));
    }
    let wrong =
        || format!("--since {text:?} is neither a time such as 2026-01-31T12:00:00Z nor an age such as 10m");
    let (mut seconds, mut digits) = (0_i64, String::new());
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                digits.push(c);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => bail!(wrong()),
        };
        let count: i64 = digits.parse().with_context(wrong)?;
        digits.clear();
        seconds = count.checked_mul(unit).and_then(|more| seconds.checked_add(more)).with_context(wrong)?;
    }
    if text.is_empty() || !digits.is_empty() {
        bail!(wrong());
    }
    Ok(now.saturating_sub(seconds.saturating_mul(1_000_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ages() {
        const SECOND: i64 = 1_000_000_000;
        assert_eq!(moment("1970-01-01T00:01:00Z", 0).expect("time"), 60 * SECOND);
        assert_eq!(moment("1h30m", 6000 * SECOND).expect("age"), 600 * SECOND);
        for wrong in ["", "10", "m", "1x", "yesterday"] {
            assert!(moment(wrong, 0).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lines_know_their_time() {
        let line = |time: &str| Line { time: time.into(), stream: Stream::Stdout, text: Vec::new() };
        assert_eq!(written(&line("1970-01-01T01:00:01.000000002+01:00")), 1_000_000_002);
        assert_eq!(written(&line("?")), i64::MAX, "better too much than nothing");
    }
}
