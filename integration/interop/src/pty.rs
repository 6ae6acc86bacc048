//! Clients that want a terminal of their own (`run -t`).

use std::fs::File;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use integration_support::Console;
use nix::pty::{Winsize, openpty};

/// Starts `command` with a terminal of 40 rows and 100 columns as its input and output, and yields the other side.
///
/// # Errors
/// When there are no terminals, or it can't be started.
pub fn on_a_terminal(command: &mut Command) -> Result<(Child, Console)> {
    let size = Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None).context("make a terminal")?;
    let side = || Ok::<_, std::io::Error>(Stdio::from(pty.slave.try_clone()?));
    command.stdin(side()?).stdout(side()?).stderr(side()?);
    let child = command.spawn().with_context(|| format!("start {command:?}"))?;
    // The command keeps its side open as well; without this the terminal would never close.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok((child, Console::new(File::from(pty.master))))
}
