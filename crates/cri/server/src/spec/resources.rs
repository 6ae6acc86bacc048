//! Limits: from CRI's to the runtime's, and what holds after an update.

use corten_cri_api::v1::LinuxContainerResources;
use serde_json::{Map, Value, json};

/// The `linux.resources` section without devices. Zero and empty mean "not asked for", as CRI has it.
pub(crate) fn to_oci(resources: &LinuxContainerResources) -> Value {
    let mut cpu = Map::new();
    let mut put = |key: &str, value: i64| {
        if value != 0 {
            cpu.insert(key.to_owned(), json!(value));
        }
    };
    put("shares", resources.cpu_shares);
    put("quota", resources.cpu_quota);
    put("period", resources.cpu_period);
    for (key, set) in [("cpus", &resources.cpuset_cpus), ("mems", &resources.cpuset_mems)] {
        if !set.is_empty() {
            cpu.insert(key.to_owned(), json!(set));
        }
    }
    let mut memory = Map::new();
    if resources.memory_limit_in_bytes != 0 {
        memory.insert("limit".to_owned(), json!(resources.memory_limit_in_bytes));
    }
    if resources.memory_swap_limit_in_bytes != 0 {
        memory.insert("swap".to_owned(), json!(resources.memory_swap_limit_in_bytes));
    }
    // The kubelet sends a limit of 0 for every page size, even where no controller could enforce one.
    let huge = resources.hugepage_limits.iter().filter(|huge| huge.limit != 0);
    let huge: Vec<Value> = huge.map(|h| json!({"pageSize": h.page_size, "limit": h.limit})).collect();
    let mut all = Map::new();
    if !cpu.is_empty() {
        all.insert("cpu".to_owned(), Value::Object(cpu));
    }
    if !memory.is_empty() {
        all.insert("memory".to_owned(), Value::Object(memory));
    }
    if !huge.is_empty() {
        all.insert("hugepageLimits".to_owned(), json!(huge));
    }
    if !resources.unified.is_empty() {
        let unified: std::collections::BTreeMap<_, _> = resources.unified.iter().collect();
        all.insert("unified".to_owned(), json!(unified));
    }
    Value::Object(all)
}

/// What holds after `update`: what it doesn't mention stays as it was.
pub(crate) fn effective(
    before: &LinuxContainerResources,
    update: &LinuxContainerResources,
) -> LinuxContainerResources {
    fn number(before: i64, update: i64) -> i64 {
        if update == 0 { before } else { update }
    }
    fn text(before: &str, update: &str) -> String {
        if update.is_empty() { before } else { update }.to_owned()
    }
    let mut unified = before.unified.clone();
    unified.extend(update.unified.clone());
    LinuxContainerResources {
        cpu_period: number(before.cpu_period, update.cpu_period),
        cpu_quota: number(before.cpu_quota, update.cpu_quota),
        cpu_shares: number(before.cpu_shares, update.cpu_shares),
        memory_limit_in_bytes: number(before.memory_limit_in_bytes, update.memory_limit_in_bytes),
        memory_swap_limit_in_bytes: number(
            before.memory_swap_limit_in_bytes,
            update.memory_swap_limit_in_bytes,
        ),
        // Only set at the start: a running process' score isn't the runtime's to change.
        oom_score_adj: before.oom_score_adj,
        cpuset_cpus: text(&before.cpuset_cpus, &update.cpuset_cpus),
        cpuset_mems: text(&before.cpuset_mems, &update.cpuset_mems),
        hugepage_limits: if update.hugepage_limits.is_empty() {
            before.hugepage_limits.clone()
        } else {
            update.hugepage_limits.clone()
        },
        unified,
    }
}
