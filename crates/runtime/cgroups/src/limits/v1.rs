//! Limits as files of cgroup v1.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources};

use super::{Step, Write, given, given_list, pids, rdma, throttle};
use crate::{Controllers, Error, Result};

/// What to write, in order. Huge pages are apart: see [`hugetlb`].
///
/// # Errors
/// [`Error::Limit`] for what v1 doesn't have.
pub fn writes(resources: &LinuxResources) -> Result<Vec<Step>> {
    let mut steps = Vec::with_capacity(8);
    if let Some(cpu) = resources.cpu() {
        cpu_time(cpu, &mut steps);
        cpuset(cpu, &mut steps);
    }
    if let Some(limits) = resources.memory() {
        memory(limits, &mut steps)?;
    }
    steps.extend(pids(resources));
    if let Some(io) = resources.block_io() {
        block_io(io, &mut steps);
    }
    if let Some(limits) = resources.network() {
        network(limits, &mut steps);
    }
    rdma(resources, &mut steps);
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        let reason = "this machine has cgroup v1; unified limits are for v2".to_owned();
        return Err(Error::Limit { limit: "linux.resources.unified".to_owned(), reason });
    }
    Ok(steps)
}

/// The limits of huge pages.
///
/// # Errors
/// [`Error::Limit`] if a page size can't be one.
pub fn hugetlb(resources: &LinuxResources) -> Result<Vec<Step>> {
    super::hugetlb(resources, "limit_in_bytes")
}

fn cpu_time(cpu: &LinuxCpu, steps: &mut Vec<Step>) {
    let write = |file, value: String, limit| Write::new(Controllers::CPU, file, value, limit);
    if let Some(idle) = cpu.idle() {
        steps.push(Step::Write(write("cpu.idle", idle.to_string(), "cpu.idle")));
    }
    // The kernel refuses shares for an idle cgroup.
    if let Some(shares) = given(cpu.shares()).filter(|_| cpu.idle() != Some(1)) {
        steps.push(Step::Write(write("cpu.shares", shares.to_string(), "cpu.shares")));
    }
    let period = given(cpu.period()).map(|value| write("cpu.cfs_period_us", value.to_string(), "cpu.period"));
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let quota = quota.map(|value| write("cpu.cfs_quota_us", value.max(-1).to_string(), "cpu.quota"));
    match (period, quota) {
        // A shorter period may be refused while the old quota stands.
        (Some(period), Some(quota)) => steps.push(Step::EitherOrder(period, quota)),
        (one, other) => steps.extend(one.into_iter().chain(other).map(Step::Write)),
    }
    if let Some(burst) = cpu.burst() {
        let burst = write("cpu.cfs_burst_us", burst.to_string(), "cpu.burst");
        steps.push(if burst.value == "0" { Step::IfThere(burst) } else { Step::Write(burst) });
    }
    let period = given(cpu.realtime_period()).map(|value| value.to_string());
    let period = period.map(|value| write("cpu.rt_period_us", value, "cpu.realtimePeriod"));
    let runtime = cpu.realtime_runtime().filter(|value| *value != 0).map(|value| value.to_string());
    let runtime = runtime.map(|value| write("cpu.rt_runtime_us", value, "cpu.realtimeRuntime"));
    match (period, runtime) {
        // A period shorter than the old runtime is refused.
        (Some(period), Some(runtime)) => steps.push(Step::EitherOrder(period, runtime)),
        (one, other) => steps.extend(one.into_iter().chain(other).map(Step::Write)),
    }
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

fn memory(memory: &LinuxMemory, steps: &mut Vec<Step>) -> Result<()> {
    let write = |file, value: String, limit| Write::new(Controllers::MEMORY, file, value, limit);
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = memory.swap().filter(|swap| *swap != 0);
    let max = limit.map(|limit| write("memory.limit_in_bytes", limit.to_string(), "memory.limit"));
    let total = swap.map(|swap| write("memory.memsw.limit_in_bytes", swap.to_string(), "memory.swap"));
    match (max, total) {
        // memsw >= limit always; which goes first depends on whether they rise or fall.
        (Some(max), Some(total)) => steps.push(Step::EitherOrder(max, total)),
        // No limit on memory but one on memory and swap can't be.
        (Some(max), None) if max.value == "-1" => {
            steps.push(Step::IfThere(write("memory.memsw.limit_in_bytes", "-1".to_owned(), "memory.swap")));
            steps.push(Step::Write(max));
        }
        (max, total) => steps.extend(max.into_iter().chain(total).map(Step::Write)),
    }
    if let Some(reservation) = memory.reservation().filter(|value| *value != 0) {
        let value = reservation.to_string();
        steps.push(Step::Write(write("memory.soft_limit_in_bytes", value, "memory.reservation")));
    }
    if memory.disable_oom_killer() == Some(true) {
        steps.push(Step::Write(write("memory.oom_control", "1".to_owned(), "memory.disableOOMKiller")));
    }
    match memory.swappiness() {
        Some(value @ 0..=100) => {
            steps.push(Step::Write(write("memory.swappiness", value.to_string(), "memory.swappiness")));
        }
        // Go's -1 in an unsigned field: "not given".
        Some(u64::MAX) | None => {}
        Some(value) => {
            let reason = format!("{value} is out of range (0 to 100)");
            return Err(Error::Limit { limit: "linux.resources.memory.swappiness".to_owned(), reason });
        }
    }
    Ok(())
}

fn block_io(io: &LinuxBlockIo, steps: &mut Vec<Step>) {
    let write = |file, value: String, limit| Write::new(Controllers::IO, file, value, limit);
    if let Some(weight) = given(io.weight()) {
        let weight = |file| write(file, weight.to_string(), "blockIO.weight");
        steps.push(Step::FirstThere(vec![weight("blkio.weight"), weight("blkio.bfq.weight")]));
    }
    if let Some(weight) = given(io.leaf_weight()) {
        steps.push(Step::Write(write("blkio.leaf_weight", weight.to_string(), "blockIO.leafWeight")));
    }
    for device in io.weight_device().iter().flatten() {
        let value = |weight: u16| format!("{}:{} {weight}", device.major(), device.minor());
        if let Some(weight) = given(device.weight()) {
            let weight = |file| write(file, value(weight), "blockIO.weightDevice.weight");
            steps.push(Step::FirstThere(vec![
                weight("blkio.weight_device"),
                weight("blkio.bfq.weight_device"),
            ]));
        }
        if let Some(weight) = given(device.leaf_weight()) {
            let limit = "blockIO.weightDevice.leafWeight";
            steps.push(Step::Write(write("blkio.leaf_weight_device", value(weight), limit)));
        }
    }
    for (devices, file, limit) in [
        (io.throttle_read_bps_device(), "blkio.throttle.read_bps_device", "blockIO.throttleReadBpsDevice"),
        (io.throttle_write_bps_device(), "blkio.throttle.write_bps_device", "blockIO.throttleWriteBpsDevice"),
        (io.throttle_read_iops_device(), "blkio.throttle.read_iops_device", "blockIO.throttleReadIOPSDevice"),
        (
            io.throttle_write_iops_device(),
            "blkio.throttle.write_iops_device",
            "blockIO.throttleWriteIOPSDevice",
        ),
    ] {
        steps.extend(throttle(devices, file, "", limit));
    }
}

fn network(network: &LinuxNetwork, steps: &mut Vec<Step>) {
    if let Some(class) = given(network.class_id()) {
        steps.push(Step::Write(Write::new(
            Controllers::NET_CLS,
            "net_cls.classid",
            class,
            "network.classID",
        )));
    }
    for priority in network.priorities().iter().flatten() {
        let value = format!("{} {}", priority.name(), priority.priority());
        steps.push(Step::Write(Write::new(
            Controllers::NET_PRIO,
            "net_prio.ifpriomap",
            value,
            "network.priorities",
        )));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::testing::{resources, show};

    #[test]
    fn table() {
        for (json, expected) in [
            ("{}", &[][..]),
            (r#"{"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","mems":""}}"#, &[]),
            (
                r#"{"cpu":{"shares":512,"quota":-1,"period":100000,"burst":5000,"cpus":"0-1","mems":"0"}}"#,
                &[
                    "cpu.shares=512",
                    "cpu.cfs_period_us=100000&cpu.cfs_quota_us=-1",
                    "cpu.cfs_burst_us=5000",
                    "cpuset.cpus=0-1",
                    "cpuset.mems=0",
                ],
            ),
            (r#"{"cpu":{"quota":5000}}"#, &["cpu.cfs_quota_us=5000"]),
            (r#"{"cpu":{"shares":512,"idle":1}}"#, &["cpu.idle=1"]),
            (
                r#"{"cpu":{"realtimePeriod":1000000,"realtimeRuntime":5000}}"#,
                &["cpu.rt_period_us=1000000&cpu.rt_runtime_us=5000"],
            ),
            (
                r#"{"memory":{"limit":1024,"swap":2048,"reservation":512,"swappiness":0,"disableOOMKiller":true}}"#,
                &[
                    "memory.limit_in_bytes=1024&memory.memsw.limit_in_bytes=2048",
                    "memory.soft_limit_in_bytes=512",
                    "memory.oom_control=1",
                    "memory.swappiness=0",
                ],
            ),
            (
                r#"{"memory":{"limit":-1,"kernel":5,"kernelTCP":6}}"#,
                &["?memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"],
            ),
            (r#"{"memory":{"limit":0,"swap":0,"disableOOMKiller":false}}"#, &[]),
            (r#"{"pids":{"limit":0}}"#, &["pids.max=1"]),
            (r#"{"pids":{"limit":-1}}"#, &["pids.max=max"]),
            (r#"{"blockIO":{"weight":0}}"#, &[]),
            (
                r#"{"blockIO":{"weight":500,"leafWeight":10,"weightDevice":[{"major":8,"minor":0,"weight":5,"leafWeight":6}],
                    "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":100}],
                    "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":7}]}}"#,
                &[
                    "blkio.weight=500|blkio.bfq.weight=500",
                    "blkio.leaf_weight=10",
                    "blkio.weight_device=8:0 5|blkio.bfq.weight_device=8:0 5",
                    "blkio.leaf_weight_device=8:0 6",
                    "blkio.throttle.read_bps_device=8:0 100",
                    "blkio.throttle.write_iops_device=8:16 7",
                ],
            ),
            (
                r#"{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]}}"#,
                &["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"],
            ),
            (
                r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10}}}"#,
                &["rdma.max=mlx5_1 hca_handle=3 hca_object=10"],
            ),
        ] {
            assert_eq!(show(&writes(&resources(json)).expect(json)), expected, "{json}");
        }
    }

    #[test]
    fn huge_pages() {
        let json =
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0},{"pageSize":"1GB","limit":1073741824}]}"#;
        assert_eq!(
            show(&hugetlb(&resources(json)).expect("limits")),
            [
                "?hugetlb.2MB.rsvd.limit_in_bytes=0",
                "?hugetlb.2MB.limit_in_bytes=0",
                "?hugetlb.1GB.rsvd.limit_in_bytes=1073741824",
                "hugetlb.1GB.limit_in_bytes=1073741824",
            ]
        );
        let bad = resources(r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":0}]}"#);
        assert!(matches!(hugetlb(&bad), Err(Error::Limit { .. })));
    }

    #[test]
    fn what_v1_cannot_is_an_error() {
        for json in [r#"{"unified":{"memory.high":"5"}}"#, r#"{"memory":{"swappiness":101}}"#] {
            assert!(matches!(writes(&resources(json)), Err(Error::Limit { .. })), "{json}");
        }
    }
}
