//! Runs a container from a bundle: `run ROOT BUNDLE ID`, or a program in a running one: `run ROOT exec ID ARG...`.
//! ROOT is the directory that keeps the containers' state.

use std::{error::Error, process::ExitCode};

use corten_container::{CreateOptions, ExecOptions, Outcome, RunOptions, Runtime, protect_executable};

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let mut text = error.to_string();
            let mut next = error.source();
            while let Some(cause) = next {
                text = format!("{text}: {cause}");
                next = cause.source();
            }
            eprintln!("{text}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<u8, Box<dyn Error>> {
    // First thing: it may execute this program again, from where a container can't overwrite it.
    protect_executable()?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.as_slice() {
        [root, verb, id, program @ ..] if verb == "exec" => {
            let runtime = Runtime::new(root);
            let mut process = runtime.process(id)?;
            process.set_args(Some(program.to_vec()));
            runtime.exec(id, &ExecOptions::new(process))?
        }
        [root, bundle, id] => {
            let create = CreateOptions { bundle: bundle.into(), ..CreateOptions::default() };
            Runtime::new(root).run(id, &create, &RunOptions::default())?
        }
        _ => return Err("usage: run ROOT BUNDLE ID | run ROOT exec ID ARG...".into()),
    };
    Ok(match outcome {
        Outcome::Exited(code) => u8::try_from(code)?,
        Outcome::Detached(_) => 0,
    })
}
