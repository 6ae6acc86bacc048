//! Annotations that change what is made: the few of crun's that engines write. As in crun it is their presence that counts.

/// The process keeps the supplementary groups of whoever calls the runtime, in the place of `additionalGids`: podman's
/// `--group-add keep-groups`.
pub(crate) const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
/// Whether they are to be kept: unless it says "0", as in crun.
pub(crate) fn keeps_groups(value: Option<&String>) -> bool {
    value.is_some_and(|value| value != "0")
}

/// A system call that nobody knows is an error in `linux.seccomp`.
pub(crate) const STRICT_SECCOMP: &str = "run.oci.seccomp_fail_unknown_syscall";
