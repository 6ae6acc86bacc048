//! What resctrl says of a group: its limits, and where it is monitored what it uses.
//!
//! The names of the fields are runc's, which cAdvisor and others read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::Groups;

/// A container's share of caches and memory bandwidth. What the machine doesn't have is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rdt {
    /// What limits of the L3 cache can be.
    #[serde(rename = "l3_cache_info", skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// The machine's own limit of the L3 cache.
    #[serde(rename = "l3_cache_schema_root", skip_serializing_if = "String::is_empty")]
    pub cache_root: String,
    /// The group's limit of the L3 cache.
    #[serde(rename = "l3_cache_schema", skip_serializing_if = "String::is_empty")]
    pub cache_schema: String,
    /// What limits of the memory bandwidth can be.
    #[serde(rename = "mem_bw_info", skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// The machine's own limit of the memory bandwidth.
    #[serde(rename = "mem_bw_schema_root", skip_serializing_if = "String::is_empty")]
    pub bandwidth_root: String,
    /// The group's limit of the memory bandwidth.
    #[serde(rename = "mem_bw_schema", skip_serializing_if = "String::is_empty")]
    pub bandwidth_schema: String,
    /// Memory bandwidth used, of each L3 cache.
    #[serde(rename = "mbm_stats", skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<Traffic>,
    /// Cache used, of each L3 cache.
    #[serde(rename = "cmt_stats", skip_serializing_if = "Vec::is_empty")]
    pub occupancy: Vec<Occupancy>,
}

/// What limits of the L3 cache can be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// All bits that may be set.
    pub cbm_mask: String,
    /// How many have to be, at least.
    pub min_cbm_bits: u64,
    /// How many groups there can be.
    pub num_closids: u64,
}

/// What limits of the memory bandwidth can be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Bandwidth {
    /// Granularity, in percent.
    pub bandwidth_gran: u64,
    /// Whether the delay is linear (1) or not (0).
    pub delay_linear: u64,
    /// The least that can be asked for, in percent.
    pub min_bandwidth: u64,
    /// How many groups there can be.
    pub num_closids: u64,
}

/// What went to memory and back, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// In all.
    pub mbm_total_bytes: u64,
    /// Of it, memory of the same NUMA node.
    pub mbm_local_bytes: u64,
}

/// How much of a cache is in use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Occupancy {
    /// In bytes.
    pub llc_occupancy: u64,
}

impl Groups {
    /// What resctrl says of them now.
    pub(crate) fn stats(&self) -> Rdt {
        let (Some(group), Some(monitor)) = (self.tasks.first(), self.tasks.last()) else {
            return Rdt::default();
        };
        let Some(root) = [Some(group.as_path()), group.parent()]
            .into_iter()
            .flatten()
            .find(|dir| dir.join("info").is_dir())
        else {
            return Rdt::default();
        };
        let (own, all) = (text(&group.join("schemata")), text(&root.join("schemata")));
        let info = |name: &str| root.join("info").join(name);
        let (cache, bandwidth) = (info("L3"), info("MB"));
        let mut stats = Rdt {
            cache: cache.is_dir().then(|| Cache {
                cbm_mask: text(&cache.join("cbm_mask")).trim().to_owned(),
                min_cbm_bits: number(&cache, "min_cbm_bits").unwrap_or(0),
                num_closids: number(&cache, "num_closids").unwrap_or(0),
            }),
            cache_root: schema(&all, "L3"),
            cache_schema: schema(&own, "L3"),
            bandwidth: bandwidth.is_dir().then(|| Bandwidth {
                bandwidth_gran: number(&bandwidth, "bandwidth_gran").unwrap_or(0),
                delay_linear: number(&bandwidth, "delay_linear").unwrap_or(0),
                min_bandwidth: number(&bandwidth, "min_bandwidth").unwrap_or(0),
                num_closids: number(&bandwidth, "num_closids").unwrap_or(0),
            }),
            bandwidth_root: schema(&all, "MB"),
            bandwidth_schema: schema(&own, "MB"),
            ..Rdt::default()
        };
        for domain in domains(&monitor.join("mon_data")) {
            let counts = (number(&domain, "mbm_total_bytes"), number(&domain, "mbm_local_bytes"));
            if counts != (None, None) {
                stats.traffic.push(Traffic {
                    mbm_total_bytes: counts.0.unwrap_or(0),
                    mbm_local_bytes: counts.1.unwrap_or(0),
                });
            }
            stats
                .occupancy
                .extend(number(&domain, "llc_occupancy").map(|llc_occupancy| Occupancy { llc_occupancy }));
        }
        stats
    }
}

/// `mon_L3_00`, `mon_L3_01`, ... in order.
fn domains(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data).into_iter().flatten().flatten();
    let domain = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("mon_L3_");
    let mut found: Vec<_> = entries.filter(domain).map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// A file that isn't there, or is going, says nothing.
fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A number; none where the kernel says "Unavailable" or "Error".
fn number(dir: &Path, name: &str) -> Option<u64> {
    text(&dir.join(name)).trim().parse().ok()
}

/// The line of a resource: `L3:0=ff;1=ff`.
fn schema(schemata: &str, resource: &str) -> String {
    let is = |line: &&str| line.split_once(':').is_some_and(|(name, _)| name.trim() == resource);
    schemata.lines().map(str::trim).find(is).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            fs::write(path, content).expect("write");
        }
    }

    #[test]
    fn a_monitored_group() {
        let root = tempfile::tempdir().expect("temp dir");
        write(
            root.path(),
            &[
                ("info/L3/cbm_mask", "7ff\n"),
                ("info/L3/min_cbm_bits", "1\n"),
                ("info/L3/num_closids", "16\n"),
                ("info/MB/bandwidth_gran", "10\n"),
                ("info/MB/delay_linear", "1\n"),
                ("info/MB/min_bandwidth", "10\n"),
                ("info/MB/num_closids", "8\n"),
                ("schemata", "    MB:0=100;1=100\n    L3:0=7ff;1=7ff\n"),
                ("c1/schemata", "    MB:0= 20;1= 70\n    L3:0=f;1=f0\n"),
                ("c1/mon_groups/c1/mon_data/mon_L3_01/llc_occupancy", "8192\n"),
                ("c1/mon_groups/c1/mon_data/mon_L3_01/mbm_total_bytes", "Unavailable\n"),
                ("c1/mon_groups/c1/mon_data/mon_L3_00/llc_occupancy", "4096\n"),
                ("c1/mon_groups/c1/mon_data/mon_L3_00/mbm_total_bytes", "700\n"),
                ("c1/mon_groups/c1/mon_data/mon_L3_00/mbm_local_bytes", "500\n"),
            ],
        );
        let group = root.path().join("c1");
        let groups = Groups { tasks: vec![group.clone(), group.join("mon_groups/c1")], own: Vec::new() };
        assert_eq!(
            serde_json::to_value(groups.stats()).expect("JSON"),
            serde_json::json!({
                "l3_cache_info": {"cbm_mask": "7ff", "min_cbm_bits": 1, "num_closids": 16},
                "l3_cache_schema_root": "L3:0=7ff;1=7ff",
                "l3_cache_schema": "L3:0=f;1=f0",
                "mem_bw_info": {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8},
                "mem_bw_schema_root": "MB:0=100;1=100",
                "mem_bw_schema": "MB:0= 20;1= 70",
                "mbm_stats": [{"mbm_total_bytes": 700, "mbm_local_bytes": 500}],
                "cmt_stats": [{"llc_occupancy": 4096}, {"llc_occupancy": 8192}],
            })
        );
    }

    #[test]
    fn a_machine_that_can_do_less() {
        let root = tempfile::tempdir().expect("temp dir");
        write(root.path(), &[("info/last_cmd_status", "ok\n"), ("schemata", "L2:0=f\n")]);
        let groups = Groups { tasks: vec![root.path().to_owned()], own: Vec::new() };
        assert_eq!(serde_json::to_value(groups.stats()).expect("JSON"), serde_json::json!({}));
        let gone = Groups { tasks: vec![root.path().join("gone/c1")], own: Vec::new() };
        assert_eq!(gone.stats(), Rdt::default());
    }
}
