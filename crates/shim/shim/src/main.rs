//! `containerd-shim-corten-v2`: see the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use corten_shim::args::{Args, Verb};
use corten_shim::{delete, pod_init, serve, start, trace};

fn main() -> ExitCode {
    let result = Args::parse(std::env::args_os().skip(1)).map_err(anyhow::Error::from).and_then(run);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("containerd-shim-corten-v2: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    match args.verb {
        Verb::Version => {
            println!("containerd-shim-corten-v2 {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Verb::Start => start::run(&args),
        Verb::Delete => delete::run(&args),
        Verb::Serve => {
            trace::install(args.debug);
            serve::run(args)
        }
        Verb::PodInit => pod_init::run(),
    }
}
