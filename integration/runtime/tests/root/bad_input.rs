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
    a_retry_works,
    ours_names_every_problem_at_once,
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
