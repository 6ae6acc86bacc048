//! Creates, limits, watches, freezes, kills and removes one cgroup: v2, v1 and hybrid.
#![forbid(unsafe_code)]
