//! CVE-2022-29162 (and crun's CVE-2022-27650): `exec --cap` made capabilities inheritable, so that a program with
//! inheritable file capabilities got them however little the user was to have.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::T;

crate::attack!([corten Corten, runc Runc, crun Crun] (exec_adds_no_inheritable_capabilities));

/// Seen to fail with `capabilities` of the command line adding to the inheritable set too: "CapInh: 00000000a80435fb".
fn exec_adds_no_inheritable_capabilities(t: &T<'_>) -> Result<()> {
    let container = t.start(t.sh("sleep 100000").set("/process/noNewPrivileges", json!(false)))?;
    let out = container.exec(&["--cap", "CAP_NET_ADMIN"], &["/bin/workload", "caps"])?.ok()?.stdout;
    for set in ["CapInh", "CapAmb"] {
        ensure!(out.contains(&format!("{set}: 0000000000000000")), "{out}");
    }
    container.delete(&["--force"])
}
