//! Why a profile can't be compiled.

/// Why a profile can't be compiled.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An action that has no errno was given one.
    #[error("linux.seccomp{at}: errnoRet is not allowed with action {action}")]
    Errno {
        /// JSON path below linux.seccomp.
        at: String,
        /// The action.
        action: &'static str,
    },
    /// The errno is beyond what the kernel can return.
    #[error("linux.seccomp{at}: errnoRet {errno} is out of range (0 to {max})")]
    ErrnoRange {
        /// JSON path below linux.seccomp.
        at: String,
        /// The errno asked for.
        errno: u32,
        /// The largest that can be.
        max: u32,
    },
    /// System calls have six arguments.
    #[error("linux.seccomp.syscalls[{rule}].args[{arg}].index: {index} is out of range (0 to 5)")]
    Argument {
        /// Index of the rule.
        rule: usize,
        /// Index in its args.
        arg: usize,
        /// The index asked for.
        index: usize,
    },
    /// A name that isn't known, where [`Options::fail_unknown`](crate::Options::fail_unknown) is set.
    #[error("linux.seccomp.syscalls[{rule}].names: unknown system call {name:?}")]
    Unknown {
        /// Index of the rule.
        rule: usize,
        /// The name.
        name: String,
    },
    /// NOTIFY can't be the default: the write(2) that hands over the listener would wait for itself.
    #[error("linux.seccomp{at}: SCMP_ACT_NOTIFY is not allowed here, the container could never be started")]
    Notify {
        /// JSON path below linux.seccomp.
        at: String,
    },
    /// Listener metadata without a listener.
    #[error("linux.seccomp.listenerMetadata is set but listenerPath is not")]
    Metadata,
    /// A notification without a listener: [`compile`](crate::compile) lets it be, who loads the filter may not.
    #[error("linux.seccomp.listenerPath is not set, but a rule says SCMP_ACT_NOTIFY: nobody would answer")]
    NoListener,
    /// We have no table of system calls for any architecture that this machine can run.
    #[error("linux.seccomp: no system call table for {native}")]
    Native {
        /// The architecture we are built for.
        native: &'static str,
    },
    /// The kernel takes 4096 instructions.
    #[error("linux.seccomp: the profile compiles to {length} BPF instructions, the kernel allows 4096")]
    TooLong {
        /// The length.
        length: usize,
    },
}
