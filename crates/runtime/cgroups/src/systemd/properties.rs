//! Limits as properties of a unit (systemd.resource-control(5), org.freedesktop.systemd1(5)): pure.
//!
//! What systemd can't express, or not as precisely, is written into the files afterwards. What it can express it must
//! know, or it would write its own idea over ours whenever it sets the unit's limits anew.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxCpu, LinuxResources};

use super::value::Value;
use crate::{
    Error, Result,
    devices::{Device, Kind, Table},
    limits::{given, given_list, v2},
};

/// A property.
pub(super) type Property = (String, Value);

/// As an array of names and values.
pub(super) fn list(properties: Vec<Property>) -> Value {
    let one = |(name, value): Property| Value::Struct(vec![Value::String(name), value.variant()]);
    Value::Array("(sv)".to_owned(), properties.into_iter().map(one).collect())
}

/// The number that a version begins with; 0 for nonsense, which has none of the newer properties.
pub(super) fn version(text: &str) -> u32 {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The properties of limits, for a systemd of this version.
///
/// # Errors
/// [`Error::Limit`] as for the files.
pub(super) fn of(resources: &LinuxResources, unified: bool, version: u32) -> Result<Vec<Property>> {
    let mut all: Vec<(&str, Value)> = Vec::new();
    if let Some(pids) = resources.pids() {
        all.push(("TasksMax", tasks(pids.limit())));
    }
    if let Some(memory) = resources.memory() {
        let limit = memory.limit().unwrap_or(0);
        if limit != 0 {
            all.push((if unified { "MemoryMax" } else { "MemoryLimit" }, or_infinity(limit)));
        }
        if unified {
            let low = memory.reservation().filter(|value| *value != 0);
            let swap = v2::swap(limit, memory.swap().unwrap_or(0))?;
            all.extend(low.map(|value| ("MemoryLow", or_infinity(value))));
            all.extend(swap.map(|value| ("MemorySwapMax", or_infinity(value))));
        }
    }
    if let Some(cpu) = resources.cpu() {
        all.extend(weight(cpu, unified, version));
        all.extend(quota(cpu, version));
        // On v1 systemd leaves cpusets alone.
        if unified && version >= 244 {
            for (list, name) in [(cpu.cpus(), "AllowedCPUs"), (cpu.mems(), "AllowedMemoryNodes")] {
                if let Some(list) = given_list(list) {
                    all.push((name, mask(list, name)?));
                }
            }
        }
    }
    if let Some(value) = resources.block_io().as_ref().and_then(|io| given(io.weight())) {
        all.push(match unified {
            true => ("IOWeight", Value::U64(v2::io_weight(value))),
            false => ("BlockIOWeight", Value::U64(value.into())),
        });
    }
    if unified {
        let sorted: BTreeMap<_, _> = resources.unified().iter().flatten().collect();
        for (file, value) in sorted {
            all.extend(from_file(file, value.trim(), version)?);
        }
    }
    Ok(all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// systemd has no use for a limit of 0 (that is written into the file afterwards).
fn tasks(limit: i64) -> Value {
    if limit == 0 { Value::U64(1) } else { or_infinity(limit) }
}

fn or_infinity(value: i64) -> Value {
    Value::U64(u64::try_from(value).unwrap_or(u64::MAX))
}

fn weight(cpu: &LinuxCpu, unified: bool, version: u32) -> Option<(&'static str, Value)> {
    if unified && cpu.idle() == Some(1) && version >= 252 {
        return Some(("CPUWeight", Value::U64(0)));
    }
    let shares = given(cpu.shares())?;
    Some(match unified {
        true => ("CPUWeight", Value::U64(v2::cpu_weight(shares))),
        false => ("CPUShares", Value::U64(shares)),
    })
}

/// A new period alone is left to the file: systemd would keep the share of time, the kernel keeps the quota.
fn quota(cpu: &LinuxCpu, version: u32) -> Vec<(&'static str, Value)> {
    const DEFAULT_PERIOD: u64 = 100_000;
    let Some(quota) = cpu.quota().filter(|quota| *quota != 0) else { return Vec::new() };
    let period = given(cpu.period());
    let mut all = Vec::new();
    if let Some(period) = period.filter(|_| version >= 242) {
        all.push(("CPUQuotaPeriodUSec", Value::U64(period)));
    }
    let a_second = u64::try_from(quota).map_or(u64::MAX, |quota| {
        let exact = quota.saturating_mul(1_000_000) / period.unwrap_or(DEFAULT_PERIOD);
        // Whole percents are all that systemd takes.
        exact.checked_next_multiple_of(10_000).unwrap_or(u64::MAX)
    });
    all.push(("CPUQuotaPerSecUSec", Value::U64(a_second)));
    all
}

/// `0-2,8` as bits, eight a byte.
fn mask(list: &str, limit: &str) -> Result<Value> {
    let error = || Error::Limit {
        limit: format!("linux.resources.cpu ({limit})"),
        reason: format!("{list:?} is not a list like 0-3,8"),
    };
    let mut bytes: Vec<u8> = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| error());
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(error());
        }
        for bit in usize::from(first)..=usize::from(last) {
            if bytes.len() <= bit / 8 {
                bytes.resize(bit / 8 + 1, 0);
            }
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
    Ok(Value::Array("y".to_owned(), bytes.into_iter().map(Value::Byte).collect()))
}

/// What a file of `unified` is as a property, if it is one.
fn from_file(file: &str, value: &str, version: u32) -> Result<Vec<(&'static str, Value)>> {
    let number = match value {
        "max" => Some(u64::MAX),
        digits => digits.parse::<u64>().ok(),
    };
    let name = match file {
        "memory.max" => "MemoryMax",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        "cpu.idle" if version >= 252 && value == "1" => return Ok(vec![("CPUWeight", Value::U64(0))]),
        "cpu.max" => {
            let mut cpu = LinuxCpu::default();
            let mut words = value.split_whitespace();
            cpu.set_quota(
                words.next().and_then(|quota| if quota == "max" { Some(-1) } else { quota.parse().ok() }),
            );
            cpu.set_period(words.next().and_then(|period| period.parse().ok()));
            return Ok(quota(&cpu, version));
        }
        "cpuset.cpus" if version >= 244 => return Ok(vec![("AllowedCPUs", mask(value, file)?)]),
        "cpuset.mems" if version >= 244 => return Ok(vec![("AllowedMemoryNodes", mask(value, file)?)]),
        _ => return Ok(Vec::new()),
    };
    // What isn't a number the file will refuse.
    Ok(number
        .map(|number| (name, Value::U64(if name == "TasksMax" { number.max(1) } else { number })))
        .into_iter()
        .collect())
}

/// The device rules, of which some can't be told to systemd.
///
/// On v2 it is left out of them then: its program and ours both have to allow, so ours alone decides. On v1 both write
/// the same files, and a unit without rules gets all devices whenever systemd sets it up anew (daemon-reload). There it
/// is told what it can be, and what it does later takes devices away, but never gives any.
///
/// # Errors
/// [`Error::Limit`] for a list of what is denied on v1, which systemd would make "all are allowed" of.
pub(super) fn devices(table: &Table, unified: bool) -> Result<Vec<Property>> {
    devices_among(table, unified, &std::fs::read_to_string("/proc/devices").unwrap_or_default())
}

fn devices_among(table: &Table, unified: bool, groups: &str) -> Result<Vec<Property>> {
    if !unified && table.allow_by_default && !table.exceptions.is_empty() {
        let reason = "systemd can only list what is allowed, and on cgroup v1 would allow all of it again later: \
                      begin with a rule that denies all, or use the cgroupfs driver";
        return Err(Error::Limit { limit: "linux.resources.devices".to_owned(), reason: reason.to_owned() });
    }
    let mut rules = Vec::new();
    let mut untold = Vec::new();
    for (device, access) in &table.exceptions {
        match specifier(device, groups) {
            Some(which) => {
                rules.push(Value::Struct(vec![Value::String(which), Value::String(access.letters())]));
            }
            None => untold.push(device),
        }
    }
    let told = !table.allow_by_default && (!unified || untold.is_empty());
    let rules = told.then_some(rules);
    if rules.is_some() {
        for device in untold {
            tracing::warn!(
                "linux.resources.devices: systemd can't be told of the rule for {}, and takes the device away when it \
                 sets the unit up anew (daemon-reload)",
                device.text()
            );
        }
    }
    let mut all = vec![
        ("DevicePolicy".to_owned(), Value::string(if rules.is_some() { "strict" } else { "auto" })),
        // Empty: what was set before is forgotten.
        ("DeviceAllow".to_owned(), Value::Array("(ss)".to_owned(), Vec::new())),
    ];
    all.extend(rules.map(|rules| ("DeviceAllow".to_owned(), Value::Array("(ss)".to_owned(), rules))));
    Ok(all)
}

fn specifier(device: &Device, groups: &str) -> Option<String> {
    let kind = if device.kind == Kind::Block { "block" } else { "char" };
    match (device.major, device.minor) {
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (Some(major), None) => Some(format!("{kind}-{}", group(device.kind, major, groups)?)),
        (None, None) => Some(format!("{kind}-*")),
        (None, Some(_)) => None,
    }
}

/// The driver's name in /proc/devices, whose two halves begin with "Character devices:" and "Block devices:".
fn group(kind: Kind, major: u32, groups: &str) -> Option<&str> {
    let (chars, blocks) = groups.split_once("Block devices:")?;
    let half = if kind == Kind::Block { blocks } else { chars };
    half.lines().find_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        (number.parse() == Ok(major)).then_some(name.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::testing::resources;

    /// `Name=value`, numbers as such, ∞ for infinity.
    fn show(json: &str, unified: bool, version: u32) -> Vec<String> {
        let value = |value: &Value| match value {
            Value::U64(u64::MAX) => "∞".to_owned(),
            Value::U64(number) => number.to_string(),
            Value::Array(_, bytes) => bytes
                .iter()
                .map(|b| if let Value::Byte(b) = b { format!("{b:08b}") } else { "?".into() })
                .collect(),
            other => format!("{other:?}"),
        };
        let all = of(&resources(json), unified, version).expect(json);
        all.iter().map(|(name, v)| format!("{name}={}", value(v))).collect()
    }

    #[test]
    fn limits_of_v2() {
        for (json, version, expected) in [
            ("{}", 252, &[][..]),
            (
                r#"{"memory":{"limit":1024,"swap":3072,"reservation":512}}"#,
                252,
                &["MemoryMax=1024", "MemoryLow=512", "MemorySwapMax=2048"],
            ),
            (r#"{"memory":{"limit":-1}}"#, 252, &["MemoryMax=∞", "MemorySwapMax=∞"]),
            (r#"{"pids":{"limit":0}}"#, 252, &["TasksMax=1"]),
            (r#"{"pids":{"limit":-1}}"#, 252, &["TasksMax=∞"]),
            (r#"{"cpu":{"shares":1024}}"#, 252, &["CPUWeight=100"]),
            (r#"{"cpu":{"shares":1024,"idle":1}}"#, 252, &["CPUWeight=0"]),
            (r#"{"cpu":{"shares":1024,"idle":1}}"#, 251, &["CPUWeight=100"]),
            (
                r#"{"cpu":{"quota":50000,"period":200000}}"#,
                252,
                &["CPUQuotaPeriodUSec=200000", "CPUQuotaPerSecUSec=250000"],
            ),
            (r#"{"cpu":{"quota":50001}}"#, 241, &["CPUQuotaPerSecUSec=510000"]),
            (r#"{"cpu":{"quota":-1}}"#, 252, &["CPUQuotaPerSecUSec=∞"]),
            (r#"{"cpu":{"period":5000}}"#, 252, &[]),
            (
                r#"{"cpu":{"cpus":"0-2,9","mems":"0"}}"#,
                244,
                &["AllowedCPUs=0000011100000010", "AllowedMemoryNodes=00000001"],
            ),
            (r#"{"cpu":{"cpus":"0"}}"#, 243, &[]),
            (r#"{"blockIO":{"weight":1000}}"#, 252, &["IOWeight=10000"]),
            (
                r#"{"unified":{"memory.high":"5","memory.min":"max","pids.max":"0","cpu.max":"max 5000","misc.max":"x 1"}}"#,
                252,
                &[
                    "CPUQuotaPeriodUSec=5000",
                    "CPUQuotaPerSecUSec=∞",
                    "MemoryHigh=5",
                    "MemoryMin=∞",
                    "TasksMax=1",
                ],
            ),
        ] {
            assert_eq!(show(json, true, version), expected, "{json} {version}");
        }
        assert!(of(&resources(r#"{"cpu":{"cpus":"x"}}"#), true, 252).is_err());
        assert!(of(&resources(r#"{"cpu":{"cpus":"3-1"}}"#), true, 252).is_err());
    }

    #[test]
    fn limits_of_v1() {
        let json = r#"{"memory":{"limit":1024,"swap":2048},"cpu":{"shares":512,"quota":1000,"period":1000,"cpus":"0"},
            "blockIO":{"weight":500},"pids":{"limit":7}}"#;
        let expected = [
            "TasksMax=7",
            "MemoryLimit=1024",
            "CPUShares=512",
            "CPUQuotaPeriodUSec=1000",
            "CPUQuotaPerSecUSec=1000000",
            "BlockIOWeight=500",
        ];
        assert_eq!(show(json, false, 252), expected);
    }

    #[test]
    fn versions() {
        for (text, number) in [("252.39-1~deb12u1", 252), ("v255", 0), ("257", 257), ("", 0)] {
            assert_eq!(version(text), number, "{text}");
        }
    }

    const GROUPS: &str = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n";

    #[test]
    fn device_rules() {
        let device = |kind, major, minor| specifier(&Device { kind, major, minor }, GROUPS);
        for (found, expected) in [
            (device(Kind::Char, Some(1), Some(3)), Some("/dev/char/1:3")),
            (device(Kind::Char, Some(136), None), Some("char-pts")),
            (device(Kind::Block, Some(8), None), Some("block-sd")),
            (device(Kind::Block, Some(1), None), None),
            (device(Kind::Block, None, None), Some("block-*")),
            (device(Kind::Char, None, Some(3)), None),
        ] {
            assert_eq!(found.as_deref(), expected);
        }
    }

    /// The policy, and how many rules; `None` if it's refused.
    fn policy(json: &str, unified: bool) -> Option<(String, usize)> {
        let rules: Vec<oci_spec::runtime::LinuxDeviceCgroup> = serde_json::from_str(json).expect(json);
        let table = Table::of_container(&rules).expect(json);
        let all = devices_among(&table, unified, GROUPS).ok()?;
        let policy = all.first().and_then(|(_, value)| value.as_str()).expect("a policy").to_owned();
        let count = |(_, value): &Property| if let Value::Array(_, rules) = value { rules.len() } else { 0 };
        Some((policy, all.iter().map(count).sum()))
    }

    #[test]
    fn systemd_never_gives_devices_on_v1() {
        let always = Table::of_container(&[]).expect("no rules").exceptions.len();
        let strict = |more: usize| Some(("strict".to_owned(), always + more));
        let auto = || Some(("auto".to_owned(), 0));
        let disk = r#"{"allow":true,"type":"b","major":8,"access":"r"}"#;
        for (json, v1, v2) in [
            ("[]".to_owned(), strict(0), strict(0)),
            (format!("[{disk}]"), strict(1), strict(1)),
            // No driver has this major; no word says "this minor of every major".
            (format!(r#"[{disk},{{"allow":true,"type":"b","major":9}}]"#), strict(1), auto()),
            (format!(r#"[{disk},{{"allow":true,"type":"c","minor":3}}]"#), strict(1), auto()),
            (r#"[{"allow":true}]"#.to_owned(), auto(), auto()),
            (r#"[{"allow":true},{"allow":false,"type":"b","major":8}]"#.to_owned(), None, auto()),
        ] {
            assert_eq!(policy(&json, false), v1, "{json}");
            assert_eq!(policy(&json, true), v2, "{json}");
        }
    }
}
