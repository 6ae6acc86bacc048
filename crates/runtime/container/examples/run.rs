//! Runs a container from a bundle: `run BUNDLE ID`, or `run BUNDLE ID exec ARG...` in a running one.

use std::{error::Error, path::PathBuf, process::ExitCode};

use corten_container::{CreateOptions, ExecOptions, Outcome, RunOptions, Runtime};

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
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = Runtime::new("/run/corten-example");
    let outcome = match args.as_slice() {
        [_, id, verb, program @ ..] if verb == "exec" => {
            let mut process = runtime.process(id)?;
            process.set_args(Some(program.to_vec()));
            runtime.exec(id, &ExecOptions::new(process))?
        }
        [bundle, id] => {
            let create = CreateOptions { bundle: PathBuf::from(bundle), ..CreateOptions::default() };
            runtime.run(id, &create, &RunOptions::default())?
        }
        _ => return Err("usage: run BUNDLE ID [exec ARG...]".into()),
    };
    Ok(match outcome {
        Outcome::Exited(code) => u8::try_from(code)?,
        Outcome::Detached(_) => 0,
    })
}
