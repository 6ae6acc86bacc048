//! `update`: what isn't named stays as it is.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use corten_container::Runtime;
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};

use crate::args::Update;

pub(crate) fn run(runtime: &Runtime, options: &Update) -> Result<()> {
    let resources = match &options.resources {
        Some(path) => read(path)?,
        None => from_options(options)?,
    };
    Ok(runtime.update(&options.id, &resources)?)
}

fn read(path: &Path) -> Result<LinuxResources> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("can't read the resources from standard input")?;
    } else {
        text = std::fs::read_to_string(path)
            .with_context(|| format!("can't read the resources {}", path.display()))?;
    }
    serde_json::from_str(&text).with_context(|| format!("the resources in {} are wrong", path.display()))
}

/// The options as the document they stand for.
fn from_options(options: &Update) -> Result<LinuxResources> {
    let mut cpu = Map::new();
    put(&mut cpu, "period", options.cpu_period.map(Value::from));
    put(&mut cpu, "quota", options.cpu_quota.map(Value::from));
    put(&mut cpu, "burst", options.cpu_burst.map(Value::from));
    put(&mut cpu, "realtimePeriod", options.cpu_rt_period.map(Value::from));
    put(&mut cpu, "realtimeRuntime", options.cpu_rt_runtime.map(Value::from));
    put(&mut cpu, "shares", options.cpu_share.map(Value::from));
    put(&mut cpu, "cpus", options.cpuset_cpus.clone().map(Value::from));
    put(&mut cpu, "mems", options.cpuset_mems.clone().map(Value::from));
    let mut memory = Map::new();
    put(&mut memory, "limit", bytes(options.memory.as_deref())?);
    put(&mut memory, "reservation", bytes(options.memory_reservation.as_deref())?);
    put(&mut memory, "swap", bytes(options.memory_swap.as_deref())?);

    let mut all = Map::new();
    put(&mut all, "cpu", (!cpu.is_empty()).then_some(Value::Object(cpu)));
    put(&mut all, "memory", (!memory.is_empty()).then_some(Value::Object(memory)));
    put(&mut all, "pids", options.pids_limit.map(|limit| json!({ "limit": limit })));
    put(&mut all, "blockIO", options.blkio_weight.map(|weight| json!({ "weight": weight })));
    if all.is_empty() {
        bail!("update needs --resources FILE or at least one limit");
    }
    serde_json::from_value(Value::Object(all)).context("these limits are wrong")
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value);
    }
}

/// Bytes with an optional binary suffix: 64m, 1g, 1024, -1.
fn bytes(text: Option<&str>) -> Result<Option<Value>> {
    let Some(text) = text else { return Ok(None) };
    let lower = text.to_lowercase();
    let bare = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (number, shift) = match bare.as_bytes().last() {
        Some(b'k') => (&bare[..bare.len() - 1], 10),
        Some(b'm') => (&bare[..bare.len() - 1], 20),
        Some(b'g') => (&bare[..bare.len() - 1], 30),
        Some(b't') => (&bare[..bare.len() - 1], 40),
        _ => (bare, 0),
    };
    let number: i64 = number.parse().ok().with_context(|| format!("{text:?} is not a number of bytes"))?;
    let bytes = number.checked_mul(1 << shift).with_context(|| format!("{text:?} is too large"))?;
    Ok(Some(Value::from(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_binary() {
        for (text, expected) in [("64m", 64 << 20), ("1GiB", 1 << 30), ("2kb", 2048), ("7", 7), ("-1", -1)] {
            assert_eq!(bytes(Some(text)).expect("valid"), Some(Value::from(expected)), "{text}");
        }
        for text in ["", "m", "1.5g", "12x", "99999999999t"] {
            assert!(bytes(Some(text)).is_err(), "{text:?}");
        }
    }
}
