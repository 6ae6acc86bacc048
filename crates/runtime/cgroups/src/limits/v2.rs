//! Limits as files of cgroup v2, for which config.json's v1 units have to be converted.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::{Step, Write, given, given_list, or_max, pids, rdma, throttle};
use crate::{Controllers, Error, Result};

/// What to write, in order. Swappiness, the OOM killer switch and the network classes have no file on v2 and are
/// left out, as in the other runtimes.
///
/// # Errors
/// [`Error::Limit`] for what v2 doesn't have or what contradicts itself.
pub fn writes(resources: &LinuxResources) -> Result<Vec<Step>> {
    let mut steps = Vec::with_capacity(8);
    steps.extend(pids(resources));
    if let Some(limits) = resources.memory() {
        memory(limits, &mut steps)?;
    }
    if let Some(io) = resources.block_io() {
        block_io(io, &mut steps)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_time(cpu, &mut steps)?;
        cpuset(cpu, &mut steps);
    }
    steps.extend(hugetlb(resources)?);
    rdma(resources, &mut steps);
    unified(resources, &mut steps)?;
    Ok(steps)
}

/// The limits of huge pages.
///
/// # Errors
/// [`Error::Limit`] if a page size can't be one.
pub fn hugetlb(resources: &LinuxResources) -> Result<Vec<Step>> {
    super::hugetlb(resources, "max")
}

/// cpu.weight (1 to 10000) of cpu.shares (2 to 262144): a curve through the minima, defaults (1024 is 100) and
/// maxima of both.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the result is within 1 to 10000")]
#[allow(clippy::cast_precision_loss, reason = "shares are clamped to 262144")]
pub fn cpu_weight(shares: u64) -> u64 {
    if shares == 0 {
        return 0;
    }
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10f64.powf(exponent).ceil() as u64
}

/// io.weight (1 to 10000) of blkio.weight (10 to 1000).
#[must_use]
pub fn io_weight(weight: u16) -> u64 {
    if weight == 0 { 0 } else { 1 + u64::from(weight.max(10) - 10) * 9999 / 990 }
}

/// memory.swap.max: the spec's `swap` is memory and swap together.
///
/// # Errors
/// [`Error::Limit`] if swap is less than memory, or memory is not limited.
pub fn swap(limit: i64, swap: i64) -> Result<Option<i64>> {
    let error = |reason: String| Error::Limit { limit: "linux.resources.memory.swap".to_owned(), reason };
    match (limit, swap) {
        // Unlimited memory with nothing said about swap.
        (-1, 0) => Ok(Some(-1)),
        (_, 0) => Ok(None),
        (_, ..=-1) => Ok(Some(-1)),
        (0 | -1, _) => Err(error("it includes memory, so memory.limit must be set too".to_owned())),
        (limit, swap) if swap < limit => Err(error(format!("{swap} is less than memory.limit, {limit}"))),
        (limit, swap) => Ok(Some(swap - limit)),
    }
}

fn memory(memory: &LinuxMemory, steps: &mut Vec<Step>) -> Result<()> {
    let mut write = |file, value, limit| {
        steps.push(Step::Write(Write::new(Controllers::MEMORY, file, or_max(value), limit)));
    };
    let limit = memory.limit().unwrap_or(0);
    let swap = swap(limit, memory.swap().unwrap_or(0))?;
    if limit != 0 {
        write("memory.max", limit, "memory.limit");
    }
    if let Some(reservation) = memory.reservation().filter(|value| *value != 0) {
        write("memory.low", reservation, "memory.reservation");
    }
    if let Some(swap) = swap {
        let swap = Write::new(Controllers::MEMORY, "memory.swap.max", or_max(swap), "memory.swap");
        // A kernel without swap has no such file, and then no swap is used, whatever the limit.
        let harmless = matches!(&*swap.value, "0" | "max");
        steps.push(if harmless { Step::IfThere(swap) } else { Step::Write(swap) });
    }
    Ok(())
}

fn cpu_time(cpu: &LinuxCpu, steps: &mut Vec<Step>) -> Result<()> {
    let write = |file, value: String, limit| Write::new(Controllers::CPU, file, value, limit);
    for (set, name) in [
        (cpu.realtime_runtime().is_some_and(|value| value != 0), "cpu.realtimeRuntime"),
        (given(cpu.realtime_period()).is_some(), "cpu.realtimePeriod"),
    ] {
        if set {
            let reason = "the kernel has no realtime limits on cgroup v2".to_owned();
            return Err(Error::Limit { limit: format!("linux.resources.{name}"), reason });
        }
    }
    if let Some(idle) = cpu.idle() {
        steps.push(Step::Write(write("cpu.idle", idle.to_string(), "cpu.idle")));
    }
    // The kernel refuses a weight for an idle cgroup.
    if let Some(shares) = given(cpu.shares()).filter(|_| cpu.idle() != Some(1)) {
        steps.push(Step::Write(write("cpu.weight", cpu_weight(shares).to_string(), "cpu.shares")));
    }
    let quota = cpu.quota().filter(|quota| *quota != 0).map(or_max);
    match (quota, given(cpu.period())) {
        (Some(quota), None) => steps.push(Step::Write(write("cpu.max", quota, "cpu.quota"))),
        (Some(quota), Some(period)) => {
            steps.push(Step::Write(write("cpu.max", format!("{quota} {period}"), "cpu.quota")));
        }
        (None, Some(period)) => {
            steps.push(Step::SecondWord(write("cpu.max", period.to_string(), "cpu.period")))
        }
        (None, None) => {}
    }
    if let Some(burst) = cpu.burst() {
        let burst = write("cpu.max.burst", burst.to_string(), "cpu.burst");
        steps.push(if burst.value == "0" { Step::IfThere(burst) } else { Step::Write(burst) });
    }
    Ok(())
}

fn cpuset(cpu: &LinuxCpu, steps: &mut Vec<Step>) {
    for (list, file, limit) in
        [(cpu.cpus(), "cpuset.cpus", "cpu.cpus"), (cpu.mems(), "cpuset.mems", "cpu.mems")]
    {
        if let Some(list) = given_list(list) {
            steps.push(Step::Write(Write::new(Controllers::CPUSET, file, list, limit)));
        }
    }
}

fn block_io(io: &LinuxBlockIo, steps: &mut Vec<Step>) -> Result<()> {
    let write = |file, value: String, limit| Write::new(Controllers::IO, file, value, limit);
    if given(io.leaf_weight()).is_some() {
        let reason = "there are no leaf weights on cgroup v2".to_owned();
        return Err(Error::Limit { limit: "linux.resources.blockIO.leafWeight".to_owned(), reason });
    }
    // BFQ keeps v1's scale; io.cost has one of its own.
    if let Some(weight) = given(io.weight()) {
        steps.push(Step::FirstThere(vec![
            write("io.bfq.weight", weight.to_string(), "blockIO.weight"),
            write("io.weight", format!("default {}", io_weight(weight)), "blockIO.weight"),
        ]));
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = given(device.weight()) {
            let value = |weight: u64| format!("{}:{} {weight}", device.major(), device.minor());
            let limit = "blockIO.weightDevice.weight";
            steps.push(Step::FirstThere(vec![
                write("io.bfq.weight", value(weight.into()), limit),
                write("io.weight", value(io_weight(weight)), limit),
            ]));
        }
    }
    for (devices, prefix, limit) in [
        (io.throttle_read_bps_device(), "rbps=", "blockIO.throttleReadBpsDevice"),
        (io.throttle_write_bps_device(), "wbps=", "blockIO.throttleWriteBpsDevice"),
        (io.throttle_read_iops_device(), "riops=", "blockIO.throttleReadIOPSDevice"),
        (io.throttle_write_iops_device(), "wiops=", "blockIO.throttleWriteIOPSDevice"),
    ] {
        steps.extend(throttle(devices, "io.max", prefix, limit));
    }
    Ok(())
}

/// `unified` goes into the files word for word, also into those that we know nothing of.
fn unified(resources: &LinuxResources, steps: &mut Vec<Step>) -> Result<()> {
    let sorted: BTreeMap<_, _> = resources.unified().iter().flatten().collect();
    for (file, value) in sorted {
        let error = |reason: &str| Error::Limit {
            limit: format!("linux.resources.unified[{file:?}]"),
            reason: reason.to_owned(),
        };
        if file.is_empty() || file.contains('/') {
            return Err(error("it must be a file name"));
        }
        let Some((controller, _)) = file.split_once('.') else {
            return Err(error("it must be a file name of a controller, like memory.high"));
        };
        if controller == "cgroup" {
            return Err(error("the cgroup.* files belong to the runtime"));
        }
        // A controller newer than we are: whether there is such a file will show.
        let controller = Controllers::parse(controller);
        for line in value.lines() {
            steps.push(Step::Write(Write::new(controller, file.clone(), line, "unified")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::testing::{resources, show};

    #[test]
    fn table() {
        for (json, expected) in [
            ("{}", &[][..]),
            (
                r#"{"cpu":{"shares":1024,"quota":50000,"period":100000,"burst":0,"cpus":"0","mems":"0"}}"#,
                &[
                    "cpu.weight=100",
                    "cpu.max=50000 100000",
                    "?cpu.max.burst=0",
                    "cpuset.cpus=0",
                    "cpuset.mems=0",
                ],
            ),
            (r#"{"cpu":{"quota":-1,"period":100000}}"#, &["cpu.max=max 100000"]),
            (r#"{"cpu":{"quota":7000}}"#, &["cpu.max=7000"]),
            (r#"{"cpu":{"period":7000}}"#, &["cpu.max=~ 7000"]),
            (r#"{"cpu":{"idle":1,"shares":2}}"#, &["cpu.idle=1"]),
            (
                r#"{"memory":{"limit":1024,"swap":1024,"reservation":512,"swappiness":60}}"#,
                &["memory.max=1024", "memory.low=512", "?memory.swap.max=0"],
            ),
            (r#"{"memory":{"limit":1024,"swap":3072}}"#, &["memory.max=1024", "memory.swap.max=2048"]),
            (r#"{"memory":{"limit":-1}}"#, &["memory.max=max", "?memory.swap.max=max"]),
            (r#"{"memory":{"limit":1024,"swap":-1}}"#, &["memory.max=1024", "?memory.swap.max=max"]),
            (r#"{"pids":{"limit":-1}}"#, &["pids.max=max"]),
            (r#"{"pids":{"limit":0}}"#, &["pids.max=1"]),
            (
                r#"{"blockIO":{"weight":1000,"weightDevice":[{"major":8,"minor":0,"weight":10}],
                    "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":100}]}}"#,
                &[
                    "io.bfq.weight=1000|io.weight=default 10000",
                    "io.bfq.weight=8:0 10|io.weight=8:0 1",
                    "io.max=8:0 wbps=100",
                ],
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
                &["?hugetlb.2MB.rsvd.max=4194304", "hugetlb.2MB.max=4194304"],
            ),
            (r#"{"unified":{"memory.high":"5","new.thing":"x y"}}"#, &["memory.high=5", "new.thing=x y"]),
        ] {
            assert_eq!(show(&writes(&resources(json)).expect(json)), expected, "{json}");
        }
    }

    #[test]
    fn weights() {
        for (shares, weight) in [
            (0, 0),
            (1, 1),
            (2, 1),
            (10, 4),
            (102, 17),
            (1000, 99),
            (1024, 100),
            (2048, 174),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(cpu_weight(shares), weight, "shares {shares}");
        }
        for (weight, io) in [(0, 0), (5, 1), (10, 1), (500, 4950), (1000, 10_000)] {
            assert_eq!(io_weight(weight), io, "weight {weight}");
        }
    }

    #[test]
    fn what_v2_cannot_is_an_error() {
        for json in [
            r#"{"cpu":{"realtimeRuntime":1}}"#,
            r#"{"cpu":{"realtimePeriod":1}}"#,
            r#"{"memory":{"swap":1024}}"#,
            r#"{"memory":{"limit":2048,"swap":1024}}"#,
            r#"{"memory":{"limit":-1,"swap":1024}}"#,
            r#"{"blockIO":{"leafWeight":10}}"#,
            r#"{"unified":{"cgroup.procs":"1"}}"#,
            r#"{"unified":{"../x":"1"}}"#,
            r#"{"unified":{"high":"1"}}"#,
        ] {
            assert!(matches!(writes(&resources(json)), Err(Error::Limit { .. })), "{json}");
        }
    }
}
