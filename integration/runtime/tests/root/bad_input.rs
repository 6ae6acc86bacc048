//! What is wrong is refused with a message that names it, and leaves nothing behind; a retry with what is right works.

use anyhow::{Result, ensure};
use integration_support::{Bundle, Kind, run};
use serde_json::{Value, json};

use crate::{T, has, has_one};

crate::each_runtime!(
    no_config,
    config_that_is_no_json,
    ill_typed_members,
    unknown_members_are_ignored,
    no_rootfs,
    no_process_arguments,
    relative_cwd,
    unknown_namespace,
    duplicate_namespace,
    unknown_rlimit,
    unknown_seccomp_action,
    no_oci_version,
    a_rootfs_that_is_a_file,
    a_directory_on_a_file_and_the_other_way_round,
    a_retry_works,
    ours_names_every_problem_at_once,
);
crate::each_runtime!(@one corten_alone Corten
    a_config_that_is_a_fifo too_little_memory_to_begin_with exec_names_what_it_was_asked_for
    a_namespace_of_another_type_is_named a_caller_that_ignores_its_children
);

fn no_config(t: &T<'_>) -> Result<()> {
    let dir = t.scope.make_dir("nothing")?;
    let mut command = t.rt.command();
    command.arg("run").arg("--bundle").arg(dir).arg("x");
    has(&run(&mut command)?.err()?.stderr, "config.json")
}

fn config_that_is_no_json(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["exit", "0"]).write()?;
    std::fs::write(bundle.dir().join("config.json"), "{\"ociVersion\": ")?;
    let finished = t.rt.run(&bundle)?.err()?;
    ensure!(!finished.stderr.is_empty());
    Ok(())
}

fn ill_typed_members(t: &T<'_>) -> Result<()> {
    let wrong: [(&str, Value); 6] = [
        ("/process/args", json!("not a list")),
        ("/process/user/uid", json!("root")),
        ("/mounts", json!({"not": "a list"})),
        ("/linux/resources/memory/limit", json!("lots")),
        ("/linux/namespaces", json!(["pid"])),
        ("/root", json!("rootfs")),
    ];
    for (n, (pointer, value)) in wrong.into_iter().enumerate() {
        if t.rt.kind() == Kind::Crun && [1, 3].contains(&n) {
            continue; // crun's parser takes numbers that are strings
        }
        let bundle =
            Bundle::workload(t.scope, &format!("w{n}"), &["exit", "0"]).set(pointer, value).write()?;
        let finished = t.rt.run(&bundle)?.err()?;
        ensure!(!finished.stderr.is_empty(), "{pointer}: no word of why");
    }
    Ok(())
}

fn unknown_members_are_ignored(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["echo", "fine"]).set("/fromTheFuture", json!({"a": [1]}));
    let out =
        t.out(bundle.set("/process/fromTheFuture", json!(true)).set("/linux/fromTheFuture", json!("x")))?;
    ensure!(out == "fine\n");
    Ok(())
}

fn no_rootfs(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["exit", "0"]).write_config_only()?;
    let finished = t.rt.run(&bundle)?.err()?;
    has(&finished.stderr, "rootfs")
}

fn no_process_arguments(t: &T<'_>) -> Result<()> {
    t.refused(t.workload(&[]).set("/process/args", json!([]))).map(drop)
}

fn relative_cwd(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8 takes it as it is") {
        return Ok(());
    }
    has_one(&t.refused(t.workload(&["exit", "0"]).set("/process/cwd", json!("tmp")))?, &["cwd", "Cwd"])
}

fn unknown_namespace(t: &T<'_>) -> Result<()> {
    let said = t.refused(t.workload(&["exit", "0"]).push("/linux/namespaces", json!({"type": "dream"})))?;
    has_one(&said, &["dream", "namespace"])
}

fn duplicate_namespace(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8 takes the last one") {
        return Ok(());
    }
    let said = t.refused(t.workload(&["exit", "0"]).push("/linux/namespaces", json!({"type": "pid"})))?;
    has_one(&said, &["pid", "duplicate"])
}

fn unknown_rlimit(t: &T<'_>) -> Result<()> {
    let limits = json!([{"type": "RLIMIT_DREAMS", "soft": 1, "hard": 1}]);
    has(&t.refused(t.workload(&["exit", "0"]).set("/process/rlimits", limits))?, "RLIMIT_DREAMS")
}

fn unknown_seccomp_action(t: &T<'_>) -> Result<()> {
    let said = t.refused(
        t.workload(&["exit", "0"]).set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_DREAM"})),
    )?;
    has_one(&said, &["SCMP_ACT_DREAM", "seccomp"])
}

fn no_oci_version(t: &T<'_>) -> Result<()> {
    if t.rt.kind() != Kind::Corten {
        integration_support::skip("the peers don't look at ociVersion");
        return Ok(());
    }
    has(&t.refused(t.workload(&["exit", "0"]).without("/ociVersion"))?, "ociVersion")
}

fn a_rootfs_that_is_a_file(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["exit", "0"]).write_config_only()?;
    std::fs::write(bundle.rootfs(), "")?;
    has_one(&t.rt.run(&bundle)?.err()?.stderr, &["not a directory", "Not a directory"])
}

fn a_retry_works(t: &T<'_>) -> Result<()> {
    let good = t.workload(&["echo", "at last"]);
    let bad = good.clone().mount("bind", "/nothing/here", "/data", &["bind"]);
    t.refused(bad)?;
    ensure!(t.out(good)? == "at last\n");
    Ok(())
}

fn ours_names_every_problem_at_once(t: &T<'_>) -> Result<()> {
    if t.rt.kind() != Kind::Corten {
        integration_support::skip("the peers stop at the first problem");
        return Ok(());
    }
    // What has the wrong type ends the reading; all that is well-typed and makes no sense is told at once.
    let bundle = t.workload(&["exit", "0"]).set("/process/cwd", json!("tmp")).set("/process/args", json!([]));
    let said = t.refused(bundle.push("/linux/namespaces", json!({"type": "pid"})))?;
    for problem in ["cwd", "args", "namespaces"] {
        has(&said, problem)?;
    }
    Ok(())
}

/// Docker's users make this mistake, and Docker looks for ENOTDIR's words to explain it.
fn a_directory_on_a_file_and_the_other_way_round(t: &T<'_>) -> Result<()> {
    let dir = t.scope.make_dir("source")?;
    let file = dir.join("file");
    std::fs::write(&file, "")?;
    let (dir, file) = (dir.to_string_lossy().into_owned(), file.to_string_lossy().into_owned());
    for (name, source, other) in [("a", &dir, &file), ("b", &file, &dir)] {
        let bundle =
            Bundle::workload(t.scope, name, &["exit", "0"]).mount("bind", other, "/there", &["bind"]);
        let said = t.refused(bundle.mount("bind", source, "/there", &["bind"]))?.to_lowercase();
        has(&said, "not a directory")?;
        has(&said, &source.to_lowercase())?;
        has(&said, "there")?;
    }
    Ok(())
}

fn a_config_that_is_a_fifo(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["exit", "0"]).write()?;
    let config = bundle.dir().join("config.json");
    std::fs::remove_file(&config)?;
    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU)?;
    has(&t.rt.run(&bundle)?.err()?.stderr, "it isn't a regular file")
}

/// runc refuses such a limit.
fn too_little_memory_to_begin_with(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["exit", "0"]).set("/linux/resources/memory", json!({"limit": 4096})).write()?;
    let dir = bundle.dir().to_string_lossy().into_owned();
    let finished = t.rt.call(&["create", "--bundle", &dir, bundle.id()])?.err()?;
    // Where init is born in its cgroup it may not even be born.
    has_one(
        &finished.stderr,
        &["container init was OOM-killed (memory limit too low?)", "annot allocate memory"],
    )
}

/// Not config.json, which says something else.
fn exec_names_what_it_was_asked_for(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    let said = container.exec(&["--cwd", "relative"], &["/bin/workload", "exit", "0"])?.err()?.stderr;
    has(&said, "process.cwd: relative is not absolute")?;
    ensure!(!said.contains("config.json"), "{said}");
    container.delete(&["--force"])
}

fn a_namespace_of_another_type_is_named(t: &T<'_>) -> Result<()> {
    let other = std::path::Path::new("/proc/self/ns/uts");
    let said = t.refused(t.workload(&["exit", "0"]).namespace("network", Some(other)))?;
    has(&said, "of type uts, not network")
}

/// With SIGCHLD ignored, as daemons may leave it to us, the kernel doesn't keep how children end.
fn a_caller_that_ignores_its_children(t: &T<'_>) -> Result<()> {
    let hook = json!([{"path": "/bin/true"}]);
    let bundle = t.workload(&["exit", "17"]).set("/hooks", json!({"createRuntime": hook})).write()?;
    let ours = t.rt.command();
    let mut command = std::process::Command::new("env");
    command.arg("--ignore-signal=CHLD").arg(ours.get_program()).args(ours.get_args());
    let finished = run(command.arg("run").arg("--bundle").arg(bundle.dir()).arg(bundle.id()))?;
    ensure!(finished.code() == 17, "{finished:?}");
    Ok(())
}
