//! The crate as others embed it: its examples really run, from processes that aren't `corten`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};
use corten_container::{CreateOptions, Error, ExecOptions, Runtime, Status};
use integration_support::{
    Bundle, Finished, Scope, require, require_binary, require_program, require_root, run, wait_for,
};

/// An example, which `cargo test -p corten-container` builds; None, counted as skipped, where it isn't.
fn example(name: &str) -> Option<PathBuf> {
    // target/debug/deps/root-... beside target/debug/examples
    let target = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    let path = target.join("examples").join(name);
    let can = require_root()
        && require_binary("workload")
        && require_program("busybox")
        && require(
            path.exists(),
            &format!("needs the example {name}: cargo build -p corten-container --examples"),
        );
    can.then_some(path)
}

/// The scope's root directory for states, which must be empty in the end.
fn root(scope: &Scope) -> PathBuf {
    let root = scope.path("root");
    scope.expect_empty(&root);
    root
}

fn call(example: &Path, root: &Path, args: &[&str]) -> Result<Finished> {
    run(Command::new(example).arg(root).args(args))
}

/// From now on this process has a second thread, whatever the test harness does.
fn beside_a_thread<T>(work: impl FnOnce() -> T) -> T {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || wait.recv());
        let result = work();
        drop(done);
        result
    })
}

#[test]
fn a_container_from_a_bundle() {
    let Some(example) = example("run") else { return };
    Scope::test("embed-run", |scope| {
        let bundle = Bundle::sh(scope, "a", "echo $$ in the container; exit 7").write()?;
        let out = call(&example, &root(scope), &[bundle.dir().to_str().unwrap(), bundle.id()])?;
        ensure!(out.code() == 7 && out.stdout == "1 in the container\n", "{out:?}");
        let out = call(&example, &root(scope), &["/nonexistent", bundle.id()])?;
        ensure!(out.code() == 125 && out.stderr.contains("/nonexistent/config.json"), "{out:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_process_is_as_before_after_each_operation() {
    let Some(example) = example("life") else { return };
    Scope::test("embed-life", |scope| {
        let bundle = Bundle::sh(scope, "a", "exec sleep 1000").write()?;
        let out = call(&example, &root(scope), &[bundle.dir().to_str().unwrap(), bundle.id()])?.ok()?;
        // The second time wouldn't come if exec left the process in the first one's PID namespace.
        let once = "created\nrunning\ninside\nExited(0)\npaused\n";
        ensure!(out.stdout == format!("{once}{once}0 containers\n"), "{out:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_program_with_threads() {
    let Some(example) = example("threads") else { return };
    Scope::test("embed-threads", |scope| {
        let bundles = ["a", "b"].map(|name| Bundle::sh(scope, name, &format!("echo from {name}")).write());
        let [a, b] = bundles;
        let (a, b) = (a?, b?);
        let args = [a.dir().to_str().unwrap(), a.id(), b.dir().to_str().unwrap(), b.id()];
        let out = call(&example, &root(scope), &args)?.ok()?;
        for line in ["from a", "from b", "cannot create a container: this process has more than one thread"] {
            ensure!(out.stdout.contains(line), "{line}: {out:?}");
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn any_thread_may_do_what_does_not_clone() {
    let Some(example) = example("run") else { return };
    Scope::test("embed-any", |scope| {
        let root = root(scope);
        let bundle = Bundle::sh(scope, "a", "exec sleep 1000").write()?;
        let (runtime, id) = (Runtime::new(&root), bundle.id());
        let mut child = Command::new(&example).arg(&root).arg(bundle.dir()).arg(id).spawn()?;
        wait_for("the container to run", || {
            runtime.state(id).is_ok_and(|state| state.status == Status::Running)
        })?;
        beside_a_thread(|| -> Result<()> {
            let create = CreateOptions { bundle: bundle.dir().to_owned(), ..CreateOptions::default() };
            let refused = runtime.create("other", &create);
            ensure!(matches!(refused, Err(Error::Threads { .. })), "{refused:?}");
            let refused = runtime.exec(id, &ExecOptions::new(runtime.process(id)?));
            ensure!(matches!(refused, Err(Error::Threads { .. })), "{refused:?}");
            ensure!(runtime.list()?.len() == 1 && !runtime.processes(id)?.is_empty());
            runtime.pause(id)?;
            runtime.resume(id)?;
            Ok(runtime.kill(id, 9, false)?)
        })?;
        ensure!(child.wait()?.code() == Some(137), "the signal's exit code");
        Ok(())
    })
    .unwrap();
}
