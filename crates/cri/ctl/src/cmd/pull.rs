//! `cortenctl pull`.

use std::io::IsTerminal;

use anyhow::{Context, Result};

use super::progress::{self, Credentials, Mode};
use crate::{
    args::{Output, Pull},
    client::Client,
    show::print,
};

pub(crate) async fn pull(client: &Client, args: Pull, output: Output) -> Result<()> {
    let auth = match args.username {
        Some(username) => Some(Credentials { username, password: password()? }),
        None => None,
    };
    let mode = match () {
        () if args.json || output == Output::Json => Mode::Json,
        () if args.quiet => Mode::Quiet,
        () if std::io::stderr().is_terminal() => Mode::Bars,
        () => Mode::Lines,
    };
    let id = progress::pull(client, &args.image, auth, mode).await?;
    if mode == Mode::Json { Ok(()) } else { print(&format!("{id}\n")) }
}

/// From standard input: command lines are visible to everyone.
fn password() -> Result<String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("read the password from standard input")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
