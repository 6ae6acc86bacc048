//! A container's life, step by step and twice over, from one process: `life ROOT BUNDLE ID`. The bundle's program has to
//! stay until it is killed, and its rootfs needs an `echo`.

use std::error::Error;

use corten_container::{CreateOptions, ExecOptions, Runtime, protect_executable};

const SIGKILL: i32 = 9;

fn main() -> Result<(), Box<dyn Error>> {
    protect_executable()?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [root, bundle, id] = args.as_slice() else { return Err("usage: life ROOT BUNDLE ID".into()) };
    let runtime = Runtime::new(root);
    for _ in 0..2 {
        life(&runtime, bundle, id)?;
    }
    println!("{} containers", runtime.list()?.len());
    Ok(())
}

fn life(runtime: &Runtime, bundle: &str, id: &str) -> Result<(), corten_container::Error> {
    let status = || runtime.state(id).map(|state| state.status);
    let create = CreateOptions { bundle: bundle.into(), ..CreateOptions::default() };
    runtime.create(id, &create)?;
    println!("{}", status()?);
    runtime.start(id)?;
    println!("{}", status()?);

    let mut process = runtime.process(id)?;
    process.set_args(Some(vec!["echo".to_owned(), "inside".to_owned()]));
    println!("{:?}", runtime.exec(id, &ExecOptions::new(process))?);

    runtime.pause(id)?;
    println!("{}", status()?);
    runtime.resume(id)?;
    runtime.kill(id, SIGKILL, false)?;
    // Waits for its end; as a child of this process it stays a zombie until this process ends or collects it.
    runtime.delete(id, true)
}
