//! Man pages and shell completions, from the same description as `--help`. Not part of `corten`: an example and the
//! tests use it.

use std::{io, path::Path};

use clap::Command;
use clap_complete::Shell;

/// corten.1, and corten-<command>.1 for each command.
///
/// # Errors
/// If a file can't be written.
pub(crate) fn man(directory: &Path, description: Command) -> io::Result<()> {
    clap_mangen::generate_to(description, directory)
}

/// Completions for bash, zsh and fish, under the names by which these find them.
///
/// # Errors
/// If a file can't be written.
pub(crate) fn completions(directory: &Path, mut description: Command) -> io::Result<()> {
    for (shell, name) in [(Shell::Bash, "corten"), (Shell::Zsh, "_corten"), (Shell::Fish, "corten.fish")] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut description, "corten", &mut script);
        std::fs::write(directory.join(name), script)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    /// The commands, each with its long flags.
    fn commands() -> Vec<(String, Vec<String>)> {
        let flags = |command: &Command| -> Vec<String> {
            command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned)).collect()
        };
        Cli::command()
            .get_subcommands()
            .map(|command| (command.get_name().to_owned(), flags(command)))
            .collect()
    }

    #[test]
    fn every_command_has_its_page() {
        let dir = tempfile::tempdir().expect("temp dir");
        man(dir.path(), Cli::command()).expect("pages");
        let page = |name: &str| fs::read_to_string(dir.path().join(name)).expect(name).replace('\\', "");
        let overview = page("corten.1");
        assert!(commands().len() >= 18);
        for (command, flags) in commands() {
            assert!(overview.contains(&format!("corten-{command}(1)")), "{command}");
            let page = page(&format!("corten-{command}.1"));
            for flag in flags {
                assert!(page.contains(&format!("--{flag}")), "{command} --{flag}");
            }
        }
    }

    #[test]
    fn every_command_is_completed_in_every_shell() {
        let dir = tempfile::tempdir().expect("temp dir");
        completions(dir.path(), Cli::command()).expect("scripts");
        for name in ["corten", "_corten", "corten.fish"] {
            let script = fs::read_to_string(dir.path().join(name)).expect(name);
            for (command, flags) in commands() {
                assert!(script.contains(&command), "{name}: {command}");
                for flag in flags {
                    // fish writes `-l flag`.
                    let known = [format!("--{flag}"), format!("-l {flag}")];
                    assert!(known.iter().any(|flag| script.contains(flag)), "{name}: {command} --{flag}");
                }
            }
        }
    }
}
