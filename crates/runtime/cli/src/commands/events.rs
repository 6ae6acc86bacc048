//! `events`: runc's JSON lines, which containerd and cAdvisor read.

use std::{ops::ControlFlow, time::Duration};

use anyhow::{Context as _, Result, bail};
use corten_container::{
    Event, Interface, Runtime, Usage,
    stats::{IoDevice, Pressure, Psi, Share},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{args::Events, output};

#[inline(never)]
pub(crate) fn events(runtime: &Runtime, args: &Events) -> Result<()> {
    let interval = duration(&args.interval)?;
    if args.stats {
        let usage = runtime.usage(&args.id)?;
        return line(&args.id, "stats", Some(data(&usage))).map(drop);
    }
    let mut failed = None;
    runtime.watch(&args.id, interval, args.pressure, &mut |event| {
        let written = match event {
            Event::Stats(usage) => line(&args.id, "stats", Some(data(&usage))),
            Event::Oom => line(&args.id, "oom", None),
            Event::Pressure(resource) => line(&args.id, "pressure", Some(json!({"resource": resource}))),
        };
        match written {
            Ok(true) => ControlFlow::Continue(()),
            // Nobody listens any more.
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// One line, in runc's order: there are readers that look for `{"type":"oom","id":"x"}` with grep.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

fn line(id: &str, kind: &str, data: Option<Value>) -> Result<bool> {
    let text = serde_json::to_string(&Line { kind, id, data })?;
    output::print(&format!("{text}\n"))
}

/// A duration as Go writes it: 5s, 1m30s, 250ms, 1.5h.
fn duration(text: &str) -> Result<Duration> {
    let wrong = || format!("--interval {text:?}: must be a duration, like 5s or 1m30s");
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').with_context(wrong)?;
        let (number, after) = rest.split_at(end);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => bail!(wrong()),
        };
        total += number.parse::<f64>().ok().with_context(wrong)? * seconds;
        rest = after;
    }
    match Duration::try_from_secs_f64(total) {
        Ok(interval) if !interval.is_zero() => Ok(interval),
        Ok(_) => bail!("--interval {text:?}: duration interval must be greater than 0"),
        Err(_) => bail!(wrong()),
    }
}

/// What runc calls data, with its names; `rdma`, `misc`, `burst` and `cost` are ours.
fn data(usage: &Usage) -> Value {
    let (stats, extended) = (&usage.stats, &usage.extended);
    json!({
        "cpu": cpu(usage),
        "cpuset": cpuset(usage),
        "memory": memory(usage),
        "pids": {"current": stats.pids.current, "limit": limit(stats.pids.limit)},
        "blkio": blkio(usage),
        "hugetlb": stats.hugetlb.iter().map(|(size, pages)| {
            (size.clone(), json!({"usage": pages.usage, "max": limit(pages.limit), "failcnt": pages.failures}))
        }).collect::<Map<_, _>>(),
        "rdma": extended.rdma.iter().map(|(device, found)| {
            let found = found.iter().map(|(name, pair)| (name.clone(), used(*pair)));
            (device.clone(), Value::Object(found.collect()))
        }).collect::<Map<_, _>>(),
        "misc": extended.misc.iter().map(|(name, pair)| (name.clone(), used(*pair))).collect::<Map<_, _>>(),
        "intel_rdt": usage.rdt.as_ref().map_or_else(|| json!({}), |rdt| json!(rdt)),
        "network_interfaces": usage.interfaces.iter().map(interface).collect::<Vec<_>>(),
    })
}

/// runc writes no limit as 0 for counts, and as the largest number for bytes.
fn limit(value: u64) -> u64 {
    if value == u64::MAX { 0 } else { value }
}

fn used(share: Share) -> Value {
    json!({"usage": share.usage, "max": share.limit})
}

fn cpu(usage: &Usage) -> Value {
    let (cpu, extended) = (&usage.stats.cpu, &usage.extended);
    with_psi(
        json!({
            "usage": {"total": cpu.usage, "percpu": extended.per_cpu, "kernel": cpu.system, "user": cpu.user},
            "throttling": {
                "periods": cpu.periods, "throttledPeriods": cpu.throttled_periods, "throttledTime": cpu.throttled_time
            },
            "burst": {"bursts": extended.bursts, "burstTime": extended.burst_time},
        }),
        cpu.psi,
    )
}

fn cpuset(usage: &Usage) -> Value {
    let mut set = Map::new();
    for (name, value) in &usage.extended.cpuset {
        let value = match name.as_str() {
            "cpus" | "mems" => json!(numbers(value)),
            _ => json!(value.parse::<i64>().unwrap_or_default()),
        };
        set.insert(name.clone(), value);
    }
    Value::Object(set)
}

/// `0-2,5` as numbers.
fn numbers(list: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

fn memory(usage: &Usage) -> Value {
    let memory = &usage.stats.memory;
    let [tcp, tcp_max, tcp_limit, tcp_failures] = usage.extended.kernel_tcp;
    with_psi(
        json!({
            "cache": memory.cache,
            "usage": {
                "limit": memory.limit, "usage": memory.usage, "max": memory.max_usage, "failcnt": memory.failures
            },
            "swap": {"limit": memory.swap_limit, "usage": memory.swap_usage, "failcnt": 0},
            "kernel": {"limit": 0, "usage": memory.kernel, "failcnt": 0},
            "kernelTCP": {"limit": tcp_limit, "usage": tcp, "max": tcp_max, "failcnt": tcp_failures},
            "raw": memory.stat,
        }),
        memory.psi,
    )
}

fn blkio(usage: &Usage) -> Value {
    let io = &usage.stats.io;
    let entries = |of: fn(&IoDevice) -> [(&'static str, u64); 2]| -> Vec<Value> {
        let entry = |device: &IoDevice| {
            let (major, minor) = (device.major, device.minor);
            of(device).map(|(op, value)| json!({"major": major, "minor": minor, "op": op, "value": value}))
        };
        io.devices.iter().flat_map(entry).collect()
    };
    with_psi(
        json!({
            "ioServiceBytesRecursive": entries(|d| [("Read", d.read_bytes), ("Write", d.write_bytes)]),
            "ioServicedRecursive": entries(|d| [("Read", d.reads), ("Write", d.writes)]),
            "cost": usage.extended.io_cost,
        }),
        io.psi,
    )
}

fn with_psi(mut value: Value, psi: Option<Psi>) -> Value {
    let pressure = |p: Pressure| json!({"avg10": p.avg10, "avg60": p.avg60, "avg300": p.avg300, "total": p.total / 1000});
    if let (Some(psi), Some(object)) = (psi, value.as_object_mut()) {
        object.insert("psi".to_owned(), json!({"some": pressure(psi.some), "full": pressure(psi.full)}));
    }
    value
}

/// With the names of Go's fields, as runc has them.
fn interface(found: &Interface) -> Value {
    let ([rx, rx_packets, rx_errors, rx_dropped], [tx, tx_packets, tx_errors, tx_dropped]) =
        (found.received, found.sent);
    json!({
        "Name": found.name,
        "RxBytes": rx, "RxPackets": rx_packets, "RxErrors": rx_errors, "RxDropped": rx_dropped,
        "TxBytes": tx, "TxPackets": tx_packets, "TxErrors": tx_errors, "TxDropped": tx_dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [("5s", 5000), ("1m30s", 90_000), ("250ms", 250), ("1.5h", 5_400_000)] {
            assert_eq!(duration(text).expect(text), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "0s", "5", "s", "-5s", "5 s", "5y", "1e400h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn runc_names() {
        let mut usage = Usage::default();
        usage.stats.cpu.usage = 7;
        usage.stats.cpu.psi =
            Some(Psi { some: Pressure { total: 5000, ..Pressure::default() }, ..Psi::default() });
        usage.stats.memory.limit = 1024;
        usage.stats.pids.limit = u64::MAX;
        usage.stats.io.devices = vec![IoDevice { major: 8, minor: 16, read_bytes: 3, ..IoDevice::default() }];
        usage.extended.cpuset.insert("cpus".to_owned(), "0-2,5".to_owned());
        usage.extended.misc.insert("sev".to_owned(), Share { usage: 1, limit: 2 });
        let data = data(&usage);
        assert_eq!(data["cpu"]["usage"]["total"], 7);
        assert_eq!(data["cpu"]["psi"]["some"]["total"], 5);
        assert_eq!(data["memory"]["usage"]["limit"], 1024);
        assert_eq!(data["pids"]["limit"], 0);
        let read = json!({"major": 8, "minor": 16, "op": "Read", "value": 3});
        assert_eq!(data["blkio"]["ioServiceBytesRecursive"][0], read);
        assert_eq!(data["cpuset"]["cpus"], json!([0, 1, 2, 5]));
        assert_eq!(data["misc"]["sev"], json!({"usage": 1, "max": 2}));
    }
}
