//! The kinds of guests: what runs as PID 1, and what the kernel is told.

/// A kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guest {
    /// A few lines of shell as PID 1: nobody else manages cgroups. cgroup v2 alone, AppArmor.
    Plain,
    /// systemd, with D-Bus and logind, on cgroup v2 alone.
    Systemd,
    /// systemd on cgroup v1 alone, the way Kubernetes nodes were for years.
    V1,
    /// systemd with its own processes in a v2 hierarchy, and all controllers on v1.
    Hybrid,
    /// As `Plain`, with SELinux (permissive, a policy of our own) in place of AppArmor.
    Selinux,
}

impl Guest {
    /// All of them; those that take longest first.
    pub(super) const ALL: [Self; 5] = [Self::Plain, Self::Systemd, Self::V1, Self::Hybrid, Self::Selinux];

    /// For people, and for names of files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Systemd => "systemd",
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::Selinux => "selinux",
        }
    }

    /// The one of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|guest| guest.name() == name)
    }

    /// What runs as PID 1.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Plain | Self::Selinux => "/sbin/vm-init",
            Self::Systemd | Self::V1 | Self::Hybrid => "/lib/systemd/systemd",
        }
    }

    /// What the kernel is told besides what all are told.
    pub(super) fn kernel_arguments(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Systemd => "systemd.unified_cgroup_hierarchy=1",
            Self::V1 => "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1",
            Self::Hybrid => "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=0",
            Self::Selinux => "security=selinux selinux=1 enforcing=0",
        }
    }
}
