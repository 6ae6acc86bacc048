//! `ps`: the pids as JSON, or what ps(1) says about them.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use corten_container::Runtime;

use super::print_json;
use crate::{
    args::{Format, Ps},
    output,
};

#[inline(never)]
pub(crate) fn ps(runtime: &Runtime, args: &Ps) -> Result<()> {
    let pids = runtime.processes(&args.id)?;
    if args.format == Format::Json {
        return print_json(&pids);
    }
    let standard = ["-ef".to_owned()];
    let options = if args.options.is_empty() { &standard[..] } else { &args.options };
    let found = Command::new("ps").args(options).output().context("cannot run ps")?;
    if !found.status.success() {
        bail!("ps failed ({}): {}", found.status, String::from_utf8_lossy(&found.stderr).trim());
    }
    output::print(&lines_of(&String::from_utf8_lossy(&found.stdout), &pids)?).map(drop)
}

/// The head line of ps's output, and the lines of some processes.
fn lines_of(output: &str, pids: &[i32]) -> Result<String> {
    let head = output.lines().next().unwrap_or_default();
    let column = head.split_whitespace().position(|word| word == "PID");
    let column = column.context("ps's output has no column PID")?;
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    let lines: Vec<_> = std::iter::once(head).chain(output.lines().skip(1).filter(ours)).collect();
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let output =
            "UID   PID  PPID CMD\nroot    1     0 init\nroot   17     1 sh -c 1\nroot  171     1 other\n";
        assert_eq!(lines_of(output, &[17]).expect("lines"), "UID   PID  PPID CMD\nroot   17     1 sh -c 1\n");
        assert!(lines_of("CMD\nsh\n", &[17]).is_err());
    }
}
