//! Containers from a program with threads: `threads ROOT BUNDLE ID [BUNDLE ID]...` runs them side by side.
//!
//! A process with threads can't become a container, so each container has a process of its own, with one: this program
//! again. What doesn't clone (state, kill, pause, delete, ...) works from any thread.

use std::{env, error::Error, process::Command, thread};

use corten_container::{CreateOptions, Outcome, RunOptions, Runtime, protect_executable};

/// The first argument of the process for one container.
const ALONE: &str = "in-a-process-of-its-own";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.as_slice() {
        [alone, root, bundle, id] if alone == ALONE => one(root, bundle, id),
        [root, bundles @ ..] if !bundles.is_empty() && bundles.len() % 2 == 0 => all(root, bundles),
        _ => Err("usage: threads ROOT BUNDLE ID [BUNDLE ID]...".into()),
    }
}

fn one(root: &str, bundle: &str, id: &str) -> Result<(), Box<dyn Error>> {
    // May execute this program again, with these arguments; the one with the threads meets no container.
    protect_executable()?;
    let create = CreateOptions { bundle: bundle.into(), ..CreateOptions::default() };
    match Runtime::new(root).run(id, &create, &RunOptions::default())? {
        Outcome::Exited(0) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn all(root: &str, bundles: &[String]) -> Result<(), Box<dyn Error>> {
    let program = env::current_exe()?;
    thread::scope(|scope| {
        for pair in bundles.chunks(2) {
            let program = &program;
            scope.spawn(move || match Command::new(program).args([ALONE, root]).args(pair).status() {
                Ok(status) => println!("{pair:?}: {status}"),
                Err(error) => println!("{pair:?}: {error}"),
            });
        }
        // Here, beside threads, it is refused rather than tried.
        let refused = Runtime::new(root).run("here", &CreateOptions::default(), &RunOptions::default());
        println!("{}", refused.expect_err("there are threads"));
    });
    Ok(())
}
