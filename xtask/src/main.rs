//! `cargo xtask`: everything that is done to this repository.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::{Result, bail};

mod bench;
mod build;
mod check;
#[cfg(feature = "codegen")]
mod codegen;
mod conformance;
mod fuzz;
mod hot;
mod layers;
mod quickstart;
mod run;
mod setup;
mod test;
mod vm;

const HELP: &str = "\
cargo xtask COMMAND

  quickstart           build, start everything privately, run a pod from a real registry, clean up (root)
  test                 all that CI runs: check, root, vm
  test check           the same as `check`
  test root [FILTER]   build, then the privileged tests, one after the other (root)
  test interop [FILTER]  only those with Debian's containerd, podman and Docker (root)
  test vm [plain|systemd] [FILTER]  build, then the runtime's privileged tests on cgroup v2, in virtual machines (root)
  check                format, clippy, layers, unit tests
  layers               fail on a dependency that points upwards
  build                release binaries into target/bin
  fuzz TARGET [SECONDS]  libFuzzer on a target of integration/fuzz
  build failpoints     runtime and shim for tests that kill them at each step, into target/bin/failpoints
  conformance SUITE …  runtime-tools, contest, crun or runc from a built checkout, against expectations (root)
  bench [ROUNDS [RUNS]]  corten beside runc, crun and the floor program, as ratios; memory of an idle pod (root)
  bench shim [PODS [ROUNDS [EXECS]]] | probes [PODS [SECONDS]]
                       the shim: memory of idle pods, execs beside containerd's shim, whether it grows (root)
  hot                  which functions `corten` executes, for the linker: writes crates/runtime/cli/hot.ld (root)
  man [DIR]            corten's man pages, into target/man
  completions [DIR]    corten's completions for bash, zsh and fish, into target/completions
  codegen [--check]    Rust from proto/ (with `cargo run -p xtask --features codegen --`)
";

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    // Not for people: the root lane starts test binaries through it.
    if let ["reap", program, arguments @ ..] = args.as_slice() {
        return test::reap(program, arguments);
    }
    command(&args).map(|()| ExitCode::SUCCESS)
}

fn command(args: &[&str]) -> Result<()> {
    match args {
        ["bench", "shim", options @ ..] => bench::bench_shim(options),
        ["bench", options @ ..] => bench::bench(options),
        ["conformance", options @ ..] => conformance::conformance(options),
        ["build"] => build::build().map(drop),
        ["build", "failpoints"] => build::failpoints(),
        ["fuzz", target] => fuzz::fuzz(target, None),
        ["fuzz", target, seconds] => fuzz::fuzz(target, Some(seconds)),
        ["hot"] => hot::write(),
        ["check"] | ["test", "check"] => check::check(),
        ["quickstart"] => quickstart::quickstart(),
        ["layers"] => layers::check(),
        [kind @ ("man" | "completions")] => reference(kind, &format!("target/{kind}")),
        [kind @ ("man" | "completions"), directory] => reference(kind, directory),
        ["test"] => test::all(),
        ["test", "root", filter @ ..] => test::root(filter),
        ["test", "interop", filter @ ..] => test::interop(filter),
        ["test", "vm", filter @ ..] => vm::vm(filter),
        #[cfg(feature = "codegen")]
        ["codegen", rest @ ..] => codegen::run(rest.contains(&"--check")),
        #[cfg(not(feature = "codegen"))]
        ["codegen", ..] => {
            bail!("say `cargo run -p xtask --features codegen -- codegen`: it needs a protobuf compiler")
        }
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("unknown command: {}\n\n{HELP}", other.join(" ")),
    }
}

/// What describes corten's command line to people and shells, made from the same description as its --help.
fn reference(kind: &str, directory: &str) -> Result<()> {
    run::run(&mut run::cargo(&[
        "run",
        "-q",
        "-p",
        "corten-cli",
        "--example",
        "reference",
        "--",
        kind,
        directory,
    ]))?;
    println!("{directory}");
    Ok(())
}
