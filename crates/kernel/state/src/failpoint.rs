//! Failpoints: named places between two steps of an operation, at which a test has the process killed, stopped or
//! failed, to see what is left behind.
//!
//! ```text
//! CORTEN_FAILPOINT=<name>=<action>   the first time this process comes to <name>:
//!                                      kill   it dies at once, as of SIGKILL
//!                                      stop   it is stopped, until SIGCONT
//!                                      error  the step fails
//! CORTEN_FAILPOINT_TRACE=<file>      the name of each point that is passed is appended to it, one a line
//! ```
//!
//! All of this exists only with the cargo feature `failpoints`, which no shipped binary has: without it [`hit`] is a
//! constant, and nothing is left of a point. A crate lists its points with [`crate::failpoints!`], in one place, so
//! that a test can go through all of them and prove that each was reached.

/// Lists a crate's failpoints: an enum whose variants know their names.
///
/// Each has `hit()`, to be called where the point is, and there's `ALL` for tests.
#[macro_export]
macro_rules! failpoints {
    (
        $(#[$meta:meta])*
        $vis:vis enum $enum:ident { $( $(#[$doc:meta])* $point:ident = $name:literal, )+ }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $enum { $( $(#[$doc])* $point, )+ }

        impl $enum {
            /// All of them, in the order in which they're listed.
            pub const ALL: &'static [Self] = &[$( Self::$point, )+];

            /// What `CORTEN_FAILPOINT` calls it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$point => $name, )+ }
            }

            /// The process has come here.
            ///
            /// # Errors
            /// When a test wants it so.
            #[inline]
            pub fn hit(self) -> std::io::Result<()> {
                $crate::failpoint::hit(self.name())
            }
        }
    };
}

/// The process has come to the point of this name.
///
/// # Errors
/// When a test wants it so.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn hit(_name: &'static str) -> std::io::Result<()> {
    Ok(())
}

#[cfg(feature = "failpoints")]
pub use armed::{hit, trace};

/// The file to which names are appended: for who closes descriptors that it doesn't know.
#[cfg(not(feature = "failpoints"))]
pub const fn trace() -> Option<std::os::fd::BorrowedFd<'static>> {
    None
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::{
        env,
        fs::{File, OpenOptions},
        io::{self, Write},
        os::fd::{AsFd, BorrowedFd},
        sync::{
            OnceLock,
            atomic::{AtomicBool, Ordering},
        },
    };

    use nix::sys::signal::{Signal, raise};

    #[derive(Clone, Copy)]
    enum Action {
        Kill,
        Stop,
        Error,
    }

    struct Setup {
        armed: Option<(String, Action)>,
        fired: AtomicBool,
        /// Opened once, by the first process: a clone of it may see other files.
        trace: Option<File>,
    }

    static SETUP: OnceLock<Setup> = OnceLock::new();

    impl Setup {
        /// What the environment says. A typing mistake in a test must not make it pass: it ends the process.
        fn new() -> Self {
            let armed = env::var("CORTEN_FAILPOINT").ok().map(|text| match text.split_once('=') {
                Some((name, "kill")) => (name.to_owned(), Action::Kill),
                Some((name, "stop")) => (name.to_owned(), Action::Stop),
                Some((name, "error")) => (name.to_owned(), Action::Error),
                _ => panic!("CORTEN_FAILPOINT is {text:?}: expected <name>=kill, stop or error"),
            });
            let trace = env::var_os("CORTEN_FAILPOINT_TRACE").map(|path| {
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(path)
                    .expect("CORTEN_FAILPOINT_TRACE can't be written")
            });
            Self { armed, fired: AtomicBool::new(false), trace }
        }
    }

    /// The file to which names are appended: for who closes descriptors that it doesn't know.
    pub fn trace() -> Option<BorrowedFd<'static>> {
        SETUP.get_or_init(Setup::new).trace.as_ref().map(File::as_fd)
    }

    /// The process has come to the point of this name.
    ///
    /// # Errors
    /// When a test wants it so.
    pub fn hit(name: &'static str) -> io::Result<()> {
        let setup = SETUP.get_or_init(Setup::new);
        if let Some(mut trace) = setup.trace.as_ref() {
            trace.write_all(format!("{name}\n").as_bytes())?;
        }
        let Some((_, action)) = setup.armed.as_ref().filter(|(armed, _)| armed == name) else {
            return Ok(());
        };
        if setup.fired.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        match action {
            Action::Kill => {
                raise(Signal::SIGKILL)?;
                // PID 1 of a namespace survives its own signals, but not this.
                std::process::abort();
            }
            Action::Stop => raise(Signal::SIGSTOP).map_err(io::Error::from),
            Action::Error => Err(io::Error::other(format!("failpoint {name}"))),
        }
    }
}
