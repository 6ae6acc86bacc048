//! `cortenctl doctor`: looks for what keeps pods from running, and says what to do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use corten_cri_api::v1::StatusRequest;
use serde_json::json;

use super::status::daemon_version;
use crate::{
    args::Output,
    client::{Answer, Client},
    show::{Table, print_json},
};

/// The oldest kernel that Corten is made for.
const KERNEL: (u32, u32) = (5, 15);

/// One finding: what was looked at, whether it's well, and what there is to say.
struct Finding(&'static str, bool, String);

pub(crate) async fn doctor(socket: Option<PathBuf>, output: Output) -> Result<ExitCode> {
    let mut findings = daemon(socket).await;
    findings.extend([kernel(), overlay(), namespaces(), cgroups(), forwarding()]);
    let well = findings.iter().all(|Finding(_, well, _)| *well);
    if output == Output::Json {
        let list = findings
            .iter()
            .map(|Finding(what, well, text)| json!({"check": what, "ok": well, "message": text}));
        print_json(&list.collect())?;
    } else {
        let mut table = Table::new(&["CHECK", "", "FOUND"]);
        for Finding(what, well, text) in findings {
            table.row([what.to_owned(), if well { "ok" } else { "FAIL" }.to_owned(), text]);
        }
        table.print()?;
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn daemon(socket: Option<PathBuf>) -> Vec<Finding> {
    let client = match Client::connect(socket).await {
        Ok(client) => client,
        Err(error) => return vec![Finding("daemon", false, format!("{error:#}"))],
    };
    let mut findings = vec![match daemon_version(&client).await {
        Ok(v) => {
            let text = format!("{} {} at {}", v.runtime_name, v.runtime_version, client.socket.display());
            Finding("daemon", true, text)
        }
        Err(error) => Finding("daemon", false, format!("{error:#}")),
    }];
    let status = client.runtime().status(StatusRequest { verbose: false }).await;
    match status.or_say(|| "ask for the daemon's status".into()) {
        Ok(answer) => {
            for condition in answer.status.unwrap_or_default().conditions {
                let name = if condition.r#type == "NetworkReady" { "network" } else { "runtime" };
                let text = format!("{} {} {}", condition.r#type, condition.reason, condition.message);
                findings.push(Finding(name, condition.status, text.trim().to_owned()));
            }
        }
        Err(error) => findings.push(Finding("status", false, format!("{error:#}"))),
    }
    findings
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn kernel() -> Finding {
    let release = read("/proc/sys/kernel/osrelease");
    let new = version(&release).is_some_and(|version| version >= KERNEL);
    let hint = if new { String::new() } else { format!(" (Corten needs {}.{})", KERNEL.0, KERNEL.1) };
    Finding("kernel", new, format!("Linux {release}{hint}"))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn overlay() -> Finding {
    let there = read("/proc/filesystems").lines().any(|line| line.ends_with("\toverlay"));
    let text = if there { "overlay is known" } else { "overlay is not known: modprobe overlay" };
    Finding("file system", there, text.to_owned())
}

fn namespaces() -> Finding {
    let missing: Vec<&str> = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    let text =
        if missing.is_empty() { "all kinds".to_owned() } else { format!("missing: {}", missing.join(", ")) };
    Finding("namespaces", missing.is_empty(), text)
}

fn cgroups() -> Finding {
    let mounts = read("/proc/self/mountinfo");
    let kinds: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .filter_map(|(_, rest)| rest.split(' ').next())
        .collect();
    let text = match (kinds.contains(&"cgroup"), kinds.contains(&"cgroup2")) {
        (false, true) => "v2",
        (true, true) => "hybrid: controllers on v1, v2 beside them",
        (true, false) => "v1",
        (false, false) => return Finding("cgroups", false, "no hierarchy is mounted".to_owned()),
    };
    Finding("cgroups", true, text.to_owned())
}

fn forwarding() -> Finding {
    // The bridge plugin turns it on when the first pod comes, so off is no failure.
    let on = read("/proc/sys/net/ipv4/ip_forward") == "1";
    Finding("forwarding", true, if on { "on" } else { "off until the first pod needs it" }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert!(version("5.4.0").expect("version") < KERNEL);
        assert!(version("5.15.0").expect("version") >= KERNEL);
        assert_eq!(version(""), None);
    }
}
