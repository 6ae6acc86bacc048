//! `cargo xtask reap`: the parent of a test binary's orphans.

use std::io::Write;
use std::process::{Command, Stdio};

/// Runs a script below the reaper and returns its exit code. `input` is kept open until the script has ended.
fn reap(script: &str, input: Stdio) -> i32 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["reap", "/bin/sh", "-c", script]).stdin(input);
    let mut child = command.spawn().expect("xtask starts");
    let input = child.stdin.take();
    let status = child.wait().expect("xtask ends");
    if let Some(mut input) = input {
        input.flush().expect("a pipe");
    }
    status.code().expect("an exit code")
}

#[test]
fn ends_as_the_program_does() {
    assert_eq!(reap("exit 7", Stdio::piped()), 7);
    assert_eq!(reap("kill -TERM $$", Stdio::piped()), 128 + 15);
}

#[test]
fn kills_the_program_when_its_input_ends() {
    assert_eq!(reap("exec sleep 100000", Stdio::null()), 128 + 9);
}

#[test]
fn orphans_are_its_children_and_are_collected() {
    let script = "
        orphan=$(sh -c 'sleep 100000 >/dev/null & echo $!')
        parent=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$orphan/status)
        kill -KILL $orphan
        [ \"$parent\" = $PPID ] || exit 1
        while [ -e /proc/$orphan ]; do :; done";
    assert_eq!(reap(script, Stdio::piped()), 0);
}
