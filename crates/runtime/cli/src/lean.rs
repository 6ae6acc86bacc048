//! Parsing with a description of only the command that was asked for.
//!
//! Describing all commands with all their flags to clap takes longer than most of them run, and the runtime is
//! started for each probe of each container. So the command's name is looked for first; whatever looks unusual
//! goes to the full description, which also has all the help.

use std::ffi::OsString;

use clap::{Args, FromArgMatches as _, Parser as _};

use crate::args::{Cli, Command, Global};

/// The program's command line.
///
/// # Errors
/// clap's; also for help.
pub(crate) fn parse(words: &[OsString]) -> Result<Cli, clap::Error> {
    let Some(name) = command_name(words) else { return Cli::try_parse_from(words) };
    match name {
        "create" => only("create", words, Command::Create),
        "start" => only("start", words, Command::Start),
        "run" => only("run", words, Command::Run),
        "state" => only("state", words, Command::State),
        "kill" => only("kill", words, Command::Kill),
        "delete" => only("delete", words, Command::Delete),
        "exec" => only("exec", words, |args| Command::Exec(Box::new(args))),
        "list" => only("list", words, Command::List),
        "pause" => only("pause", words, Command::Pause),
        "resume" => only("resume", words, Command::Resume),
        _ => Cli::try_parse_from(words),
    }
}

/// The first word that is neither a global flag nor the value of one; None if there are words we don't expect.
fn command_name(words: &[OsString]) -> Option<&str> {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        let word = word.to_str()?;
        let (flag, value) = word.split_once('=').map_or((word, None), |(flag, value)| (flag, Some(value)));
        match flag {
            "--debug" | "--systemd-cgroup" if value.is_none() => {}
            "--log" | "--log-format" | "--log-level" | "--root" | "--rootless" | "--cgroup-manager" => {
                if value.is_none() {
                    words.next()?;
                }
            }
            _ if word.starts_with('-') => return None,
            _ => return Some(word),
        }
    }
    None
}

fn only<A: Args>(
    name: &'static str,
    words: &[OsString],
    command: fn(A) -> Command,
) -> Result<Cli, clap::Error> {
    let described = clap::Command::new("corten").disable_help_subcommand(true).subcommand_required(true);
    let described = Global::augment_args(described).subcommand(A::augment_args(clap::Command::new(name)));
    let matches = described.try_get_matches_from(words)?;
    let global = Global::from_arg_matches(&matches)?;
    let (_, matches) = matches.subcommand().expect("a subcommand is required");
    Ok(Cli { global, command: Some(command(A::from_arg_matches(matches)?)), version: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        format!("corten {line}").split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_same_as_the_full_description() {
        for line in [
            "state x",
            "--root /r --log=/l --log-format json --systemd-cgroup create --bundle /b --pid-file /p x",
            "create x -b /b --debug",
            "run -d --no-pivot --preserve-fds 3 x",
            "--cgroup-manager=disabled --log-level error create --config c.json x",
            "--cgroup-manager systemd run -f c.json x",
            "delete -f --regex ^web-",
            "kill --regex web KILL",
            "exec -t -e A=1 --cgroup cpu:/x x sh -c true --root /y",
            "exec --process /p --detach --root /z x",
            "kill --all x 9",
            "kill x",
            "delete x -f",
            "list -q -f json",
            "--rootless auto pause x",
        ] {
            let (lean, full) =
                (parse(&words(line)).expect(line), Cli::try_parse_from(words(line)).expect(line));
            assert_eq!(format!("{lean:?}"), format!("{full:?}"), "{line}");
        }
    }

    #[test]
    fn errors_too() {
        for line in
            ["create", "create x y", "state --bogus x", "bogus", "--bogus state x", "--root", "list -f xml"]
        {
            let (lean, full) = (parse(&words(line)), Cli::try_parse_from(words(line)));
            let kind = |result: Result<Cli, clap::Error>| result.expect_err(line).kind();
            assert_eq!(kind(lean), kind(full), "{line}");
        }
        assert!(parse(&words("state --help")).is_err_and(|error| !error.use_stderr()));
    }
}
