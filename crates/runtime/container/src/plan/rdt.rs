//! `linux.intelRdt`: which resource control group, with which schemata (runtime-spec, config-linux "IntelRdt").

use oci_spec::runtime::Linux;

use super::Problems;

/// What is asked of resctrl.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RdtPlan {
    /// `closID`; None is a group named after the container, "/" the default group.
    pub(crate) clos: Option<String>,
    /// What is written to `schemata`, one write each, in this order.
    pub(crate) schemata: Vec<String>,
    /// Whether there's a monitoring group of its own.
    pub(crate) monitoring: bool,
}

pub(super) fn plan(linux: &Linux, problems: &mut Problems) -> Option<RdtPlan> {
    let rdt = linux.intel_rdt().as_ref()?;
    let clos = rdt.clos_id().clone().filter(|clos| !clos.is_empty());
    if let Some(clos) = clos.as_deref().filter(|clos| *clos != "/") {
        let reserved = ["info", "mon_groups", "mon_data", ".", ".."];
        if clos.contains('/') || reserved.contains(&clos) {
            problems.add("linux.intelRdt.closID", format_args!("{clos:?} can't be the name of a group"));
        }
    }
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (l3, bandwidth) = (given(rdt.l3_cache_schema()), given(rdt.mem_bw_schema()));
    if let Some(text) = &bandwidth
        && (!text.starts_with("MB:") || text.contains('\n'))
    {
        problems.add(
            "linux.intelRdt.memBwSchema",
            format_args!("{text:?} must be one line that begins with MB:"),
        );
    }
    if let Some(text) = &l3
        && text.lines().any(|line| !(line.starts_with("L3") || line.starts_with("MB:")))
    {
        problems.add("linux.intelRdt.l3CacheSchema", format_args!("{text:?} must begin with L3"));
    }
    let mut schemata = Vec::new();
    // memBwSchema is what counts for MB. What is left of an l3CacheSchema of MB lines alone is nothing.
    let lines = |text: String| text.lines().filter(|l| !l.starts_with("MB:")).collect::<Vec<_>>().join("\n");
    let l3 = if bandwidth.is_some() { l3.map(lines).filter(|l| !l.is_empty()) } else { l3 };
    let combined: Vec<String> = l3.into_iter().chain(bandwidth).collect();
    if !combined.is_empty() {
        schemata.push(combined.join("\n"));
    }
    for (i, line) in rdt.schemata().iter().flatten().enumerate() {
        if !line.contains(':') {
            problems
                .add(&format!("linux.intelRdt.schemata[{i}]"), format_args!("{line:?} names no resource"));
        }
    }
    let last = rdt.schemata().as_deref().unwrap_or_default().join("\n");
    if !last.is_empty() {
        schemata.push(last);
    }
    Some(RdtPlan { clos, schemata, monitoring: rdt.enable_monitoring().unwrap_or(false) })
}
