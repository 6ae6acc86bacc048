//! `update`: limits from flags, or from a file.

use std::{fs, io::Read as _, path::Path};

use anyhow::{Context as _, Result, bail};
use corten_container::Runtime;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use crate::args::Update;

#[inline(never)]
pub(crate) fn update(runtime: &Runtime, args: &Update) -> Result<()> {
    let schemata = schemata(args, Path::new("/sys/fs/resctrl/info"))?;
    let resources = match &args.resources {
        Some(path) => from_file(path)?,
        None => from_flags(args)?,
    };
    if !schemata.is_empty() {
        runtime.update_schemata(&args.id, &schemata)?;
    }
    Ok(runtime.update(&args.id, &resources)?)
}

/// The lines for Intel RDT; runc's words where the machine hasn't got it (`info` is in the mounted resctrl).
fn schemata<'a>(args: &'a Update, info: &Path) -> Result<Vec<&'a str>> {
    let cache = args.l3_cache_schema.as_deref().filter(|line| !line.is_empty());
    let bandwidth = args.mem_bw_schema.as_deref().filter(|line| !line.is_empty());
    let has = |name: &str| info.join(name).exists();
    if cache.is_some() && !["L3", "L3CODE", "L3DATA"].iter().any(|name| has(name)) {
        bail!("Intel RDT/CAT: l3 cache schema is not enabled (there is no resctrl for it on this machine)");
    }
    if bandwidth.is_some() && !has("MB") {
        bail!(
            "Intel RDT/MBA: memory bandwidth schema is not enabled (there is no resctrl for it on this machine)"
        );
    }
    Ok(cache.into_iter().chain(bandwidth).collect())
}

fn from_file(path: &Path) -> Result<LinuxResources> {
    if path != Path::new("-") {
        let json = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        return Ok(corten_bundle::parse(&json, path)?);
    }
    let mut json = Vec::new();
    std::io::stdin().read_to_end(&mut json).context("cannot read resources from stdin")?;
    Ok(corten_bundle::parse(&json, Path::new("stdin"))?)
}

/// Only what was given: what isn't there stays as it is.
fn from_flags(args: &Update) -> Result<LinuxResources> {
    let mut resources = empty();
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(args.cpu_share)
        .set_quota(args.cpu_quota)
        .set_period(args.cpu_period)
        .set_burst(args.cpu_burst)
        .set_realtime_period(args.cpu_rt_period)
        .set_realtime_runtime(args.cpu_rt_runtime)
        .set_idle(args.cpu_idle)
        .set_cpus(args.cpuset_cpus.clone())
        .set_mems(args.cpuset_mems.clone());
    resources.set_cpu(Some(cpu));
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(bytes("--memory", args.memory.as_deref())?)
        .set_reservation(bytes("--memory-reservation", args.memory_reservation.as_deref())?)
        .set_swap(bytes("--memory-swap", args.memory_swap.as_deref())?);
    resources.set_memory(Some(memory));
    let kernel = [("--kernel-memory", &args.kernel_memory), ("--kernel-memory-tcp", &args.kernel_memory_tcp)];
    for (flag, value) in kernel {
        if bytes(flag, value.as_deref())?.is_some() {
            tracing::warn!("{flag} is ignored: the kernel has no such limit any more");
        }
    }
    if let Some(limit) = args.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    if let Some(weight) = args.blkio_weight {
        let mut io = LinuxBlockIo::default();
        io.set_weight(Some(weight));
        resources.set_block_io(Some(io));
    }
    Ok(resources)
}

/// No limits: the type's default has device rules.
fn empty() -> LinuxResources {
    let mut resources = LinuxResources::default();
    resources.set_devices(None);
    resources
}

/// 1024, 64k, 1.5g, 2GiB; -1 is no limit.
fn bytes(flag: &str, text: Option<&str>) -> Result<Option<i64>> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || format!("{flag} {text:?}: must be a number of bytes, like 1048576 or 512m, or -1");
    let lower = text.trim().to_ascii_lowercase();
    if lower == "-1" {
        return Ok(Some(-1));
    }
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let factor: i64 = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => bail!(wrong()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: i64 = whole.parse().ok().with_context(wrong)?;
    // Six digits of fraction are more than anyone writes.
    let digits = format!("{fraction:0<6}");
    let millionths: i64 = digits.get(..6).and_then(|digits| digits.parse().ok()).with_context(wrong)?;
    let value =
        whole.checked_mul(factor).and_then(|value| value.checked_add(factor / 1000 * millionths / 1000));
    value.map(Some).with_context(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", 0),
            ("1024", 1024),
            ("-1", -1),
            ("64k", 65536),
            ("1.5g", 1_610_612_736),
            ("2GiB", 2 << 30),
            ("512m", 512 << 20),
            ("10B", 10),
        ] {
            let value = bytes("--memory", Some(text)).expect(text).expect("given");
            // A fraction is rounded down by less than a page.
            assert!((0..4096).contains(&(expected - value).abs()), "{text}: {value}");
        }
        for text in ["", "x", "1x", "-2", "1.x", "99999999999g", ".5"] {
            assert!(bytes("--memory", Some(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn resource_control_needs_a_machine_with_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (cache, bandwidth) = (Some("L3:0=f".to_owned()), Some("MB:0=50".to_owned()));
        let args = Update { l3_cache_schema: cache, mem_bw_schema: bandwidth, ..Update::default() };
        let refused = schemata(&args, dir.path()).expect_err("without").to_string();
        assert!(refused.starts_with("Intel RDT/CAT: l3 cache schema is not enabled"), "{refused}");
        fs::create_dir(dir.path().join("L3")).expect("mkdir");
        let refused = schemata(&args, dir.path()).expect_err("without").to_string();
        assert!(refused.starts_with("Intel RDT/MBA: memory bandwidth schema is not enabled"), "{refused}");
        fs::create_dir(dir.path().join("MB")).expect("mkdir");
        assert_eq!(schemata(&args, dir.path()).expect("with"), ["L3:0=f", "MB:0=50"]);
        assert!(schemata(&Update::default(), dir.path()).expect("none").is_empty());
    }

    #[test]
    fn what_is_not_given_is_not_there() {
        let args = Update { pids_limit: Some(-1), cpu_share: Some(5), ..Update::default() };
        let json = serde_json::to_value(from_flags(&args).expect("fine")).expect("JSON");
        assert_eq!(json, serde_json::json!({"cpu": {"shares": 5}, "memory": {}, "pids": {"limit": -1}}));
    }
}
