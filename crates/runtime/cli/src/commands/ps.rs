//! `ps`: the container's processes as ps(1) shows them, or their pids as JSON.

use std::process::Command;

use anyhow::{Context, Result, bail};
use corten_container::Runtime;

use crate::args::{Format, Ps};

pub(crate) fn run(runtime: &Runtime, options: &Ps) -> Result<()> {
    let pids = runtime.processes(&options.id)?;
    if options.format == Format::Json {
        return super::print(&serde_json::to_string(&pids)?);
    }
    let default = ["-ef".to_owned()];
    let arguments = if options.options.is_empty() { &default[..] } else { &options.options[..] };
    let output = Command::new("ps").args(arguments).output().context("can't start ps (Debian: procps)")?;
    if !output.status.success() {
        bail!("ps {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim_end());
    }
    super::print(filter(&String::from_utf8_lossy(&output.stdout), &pids)?.trim_end())
}

/// The header and the lines whose PID is one of `pids`.
fn filter(text: &str, pids: &[i32]) -> Result<String> {
    let header = text.lines().next().unwrap_or_default();
    let column =
        header.split_whitespace().position(|name| name == "PID").context("ps printed no PID column")?;
    let mut out = format!("{header}\n");
    for line in text.lines().skip(1) {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            out.push_str(line);
            out.push('\n');
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn only_the_containers_lines_are_left() {
        let text = "UID   PID  CMD\nroot    1 init\nroot   12 sleep 12\n";
        assert_eq!(filter(text, &[12]).expect("a PID column"), "UID   PID  CMD\nroot   12 sleep 12\n");
        assert!(filter("COMMAND\n", &[]).is_err());
    }
}
