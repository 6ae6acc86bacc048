//! From `linux.resources` to what is written into which file: pure, in two translations, [`v1`] and [`v2`].
//!
//! As in runc, 0 means "not given" where 0 can't be a limit (shares, quota, period, memory, weight), because
//! many callers write it so; pids.limit 0 is a limit: written as 1, which
//! the container's init takes up, since nobody can be born in a cgroup whose limit is 0.

pub mod v1;
pub mod v2;

use std::borrow::Cow;

use oci_spec::runtime::{LinuxHugepageLimit, LinuxResources, LinuxThrottleDevice};

use crate::{Controllers, Error, Result};

/// A value for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Whose file it is.
    pub controller: Controllers,
    /// The file's name.
    pub file: Cow<'static, str>,
    /// What to write.
    pub value: String,
    /// Which limit that is, as a path in config.json below `linux.resources`.
    pub limit: &'static str,
}

/// What to write, with what is known about the order and the files that some kernels lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Just this.
    Write(Write),
    /// Not if there is no such file.
    IfThere(Write),
    /// The first for which there is a file.
    FirstThere(Vec<Write>),
    /// Both; one limits the other, so if the kernel refuses the first (EINVAL), the other way round.
    EitherOrder(Write, Write),
    /// Only the second word of the file's content; the first stays as it is.
    SecondWord(Write),
}

impl Write {
    fn new(
        controller: Controllers,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
        limit: &'static str,
    ) -> Self {
        Self { controller, file: file.into(), value: value.to_string(), limit }
    }
}

/// The controllers that a hybrid machine needs on its v2 half for these limits: the rest are on v1.
pub(crate) fn hybrid_controllers(resources: &LinuxResources) -> Controllers {
    let hugepages = resources.hugepage_limits().iter().flatten().any(|limit| limit.limit() != 0);
    if hugepages { Controllers::HUGETLB } else { Controllers::empty() }
}

/// -1 as "max", which all files of v2 and pids.max of v1 want.
fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// A value that isn't 0.
pub(crate) fn given<T: PartialEq + From<u8>>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::from(0))
}

/// A list of CPUs or nodes that isn't empty.
pub(crate) fn given_list(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|list| !list.is_empty())
}

fn pids(resources: &LinuxResources) -> Option<Step> {
    let limit = resources.pids().as_ref()?.limit();
    Some(Step::Write(Write::new(
        Controllers::PIDS,
        "pids.max",
        or_max(if limit == 0 { 1 } else { limit }),
        "pids.limit",
    )))
}

fn rdma(resources: &LinuxResources, steps: &mut Vec<Step>) {
    for (device, limit) in resources.rdma().iter().flatten() {
        let mut value = device.clone();
        for (name, count) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
            if let Some(count) = count {
                value += &format!(" {name}={count}");
            }
        }
        steps.push(Step::Write(Write::new(Controllers::RDMA, "rdma.max", value, "rdma")));
    }
}

/// `major:minor prefix rate`, one step per device.
fn throttle(
    devices: &Option<Vec<LinuxThrottleDevice>>,
    file: &'static str,
    prefix: &str,
    limit: &'static str,
) -> impl Iterator<Item = Step> {
    devices.iter().flatten().map(move |device| {
        let value = format!("{}:{} {prefix}{}", device.major(), device.minor(), device.rate());
        Step::Write(Write::new(Controllers::IO, file, value, limit))
    })
}

/// The kernel's name of a huge page size must be a plain word: it becomes part of a file name.
fn page_size(limit: &LinuxHugepageLimit) -> Result<&str> {
    let size = limit.page_size();
    if !size.is_empty() && size.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(size);
    }
    Err(Error::Limit {
        limit: "hugepageLimits.pageSize".to_owned(),
        reason: format!("{size:?} is not a size like 2MB"),
    })
}

/// The limits of huge pages, for files `hugetlb.<size>.<suffix>` and, where there are such, of reservations.
///
/// A limit of 0 where there is no such file (no such page size, or no controller) is met already.
pub(crate) fn hugetlb(resources: &LinuxResources, suffix: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = page_size(limit)?;
        let write = |middle: &str| {
            let file = format!("hugetlb.{size}.{middle}{suffix}");
            Write::new(Controllers::HUGETLB, file, limit.limit(), "hugepageLimits")
        };
        steps.push(Step::IfThere(write("rsvd.")));
        steps.push(if limit.limit() == 0 { Step::IfThere(write("")) } else { Step::Write(write("")) });
    }
    Ok(steps)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).expect("resources")
    }

    /// `file=value`, with ? for "if there", | between alternatives and & between a pair.
    pub(crate) fn show(steps: &[Step]) -> Vec<String> {
        let one = |write: &Write| format!("{}={}", write.file, write.value);
        let all = |writes: &[Write], by: &str| writes.iter().map(one).collect::<Vec<_>>().join(by);
        let show = |step: &Step| match step {
            Step::Write(write) => one(write),
            Step::IfThere(write) => format!("?{}", one(write)),
            Step::FirstThere(writes) => all(writes, "|"),
            Step::EitherOrder(a, b) => all(&[a.clone(), b.clone()], "&"),
            Step::SecondWord(write) => format!("{}=~ {}", write.file, write.value),
        };
        steps.iter().map(show).collect()
    }
}
