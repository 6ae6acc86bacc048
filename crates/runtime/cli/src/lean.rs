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
    let lean = command_name(words).and_then(|(at, name)| match name {
        "create" => only(at, words, Command::Create),
        "start" => only(at, words, Command::Start),
        "run" => only(at, words, Command::Run),
        "state" => only(at, words, Command::State),
        "kill" => only(at, words, Command::Kill),
        "delete" => only(at, words, Command::Delete),
        "exec" => only(at, words, |args| Command::Exec(Box::new(args))),
        "list" => only(at, words, Command::List),
        "pause" => only(at, words, Command::Pause),
        "resume" => only(at, words, Command::Resume),
        _ => None,
    });
    lean.map_or_else(|| full(words), Ok)
}

/// With everything described.
#[cold]
#[inline(never)]
fn full(words: &[OsString]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(words)
}

/// The first word that is neither a global flag nor the value of one, and where it is; None if there are words we don't expect.
fn command_name(words: &[OsString]) -> Option<(usize, &str)> {
    let mut words = words.iter().enumerate().skip(1);
    while let Some((at, word)) = words.next() {
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
            _ => return Some((at, word)),
        }
    }
    None
}

/// The command whose name is `at` that place, as if the program were nothing else: its flags and the global ones are one
/// set anyway, which may be given before and after the name. None if that isn't possible, whatever the reason.
#[inline(never)]
fn only<A: Args>(at: usize, words: &[OsString], command: fn(A) -> Command) -> Option<Cli> {
    // The only flag that is to come before.
    if words.iter().skip(at).any(|word| word.as_encoded_bytes().starts_with(b"--rootless")) {
        return None;
    }
    let described = A::augment_args(Global::augment_args(clap::Command::new("corten")));
    let described = described.args_override_self(true);
    let others = words.iter().enumerate().filter(|(index, _)| *index != at).map(|(_, word)| word);
    let mut matches = described.try_get_matches_from(others).ok()?;
    let global = Global::from_arg_matches_mut(&mut matches).ok()?;
    let command = command(A::from_arg_matches_mut(&mut matches).ok()?);
    Some(Cli { global, command: Some(command), version: false })
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
            "--root run run x",
            "--root /r state --root /s x",
            "--debug start x",
            "resume -- x",
            "exec x exec exec",
            "exec x sh --rootless true",
            "--root /a --root /b state x",
            "--log /a create x --log=/b --bundle /a --bundle /b --log /c",
            "--systemd-cgroup --debug --debug run -d -d x --no-pivot --no-pivot",
            "exec -t -t -e A=1 -e B=2 --user 1 --user 2 --cap a --cap b --cgroup x --cgroup y x sh -c true",
            "--rootless true --rootless=auto delete --force --force x",
            "list -f table -f json",
        ] {
            let (lean, full) =
                (parse(&words(line)).expect(line), Cli::try_parse_from(words(line)).expect(line));
            assert_eq!(format!("{lean:?}"), format!("{full:?}"), "{line}");
        }
    }

    #[test]
    fn errors_too() {
        for line in [
            "create",
            "create x y",
            "state --bogus x",
            "bogus",
            "--bogus state x",
            "--root",
            "list -f xml",
            "state --rootless true x",
            "create x --rootless=auto",
            "state x y",
        ] {
            let (lean, full) = (parse(&words(line)), Cli::try_parse_from(words(line)));
            let kind = |result: Result<Cli, clap::Error>| result.expect_err(line).kind();
            assert_eq!(kind(lean), kind(full), "{line}");
        }
        assert!(parse(&words("state --help")).is_err_and(|error| !error.use_stderr()));
    }
}
