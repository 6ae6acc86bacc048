//! A program's `main` without the start-up of Rust's standard library.
//!
//! That finds out where the stack ends (from /proc/self/maps, with glibc's `sscanf`), and makes a second stack for a handler that
//! says so when the first has overflowed: some twenty system calls and 60 KiB of code, for each start of a program that lives for
//! milliseconds. Without it an overflow is a plain SIGSEGV. The rest of what it does is done here. (`std::env::args` needs none
//! of it: glibc gives the arguments to whoever is in .init_array.)

use std::io;

use crate::check;

/// Makes `fn() -> u8`, whose result is the exit code, the program's `main`. The crate is to be `#![no_main]`.
#[macro_export]
macro_rules! main {
    ($main:path) => {
        const _: () = {
            // SAFETY: nothing else has this name, as the crate has no `main` of Rust's.
            #[unsafe(no_mangle)]
            extern "C" fn main() -> ::core::ffi::c_int {
                $crate::start::begin($main)
            }
        };
    };
}

/// What [`crate::main!`] calls.
///
/// # Panics
/// If one of the first three descriptors is closed, and /dev/null can't be opened in its place.
pub fn begin(main: fn() -> u8) -> libc::c_int {
    fill_standard_descriptors().expect("the first three descriptors are open, or can be");
    // Who writes to a pipe that nobody reads from is told so by the write.
    crate::signal::ignore(libc::SIGPIPE).expect("there is a SIGPIPE");
    main().into()
}

/// What we open must not become anybody's standard input, output or error by getting its number.
fn fill_standard_descriptors() -> io::Result<()> {
    let mut standard = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the pointer and length are of the same array.
    while let Err(e) = check(unsafe { libc::poll(standard.as_mut_ptr(), 3, 0) }.into()) {
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(e);
        }
    }
    for _ in standard.iter().filter(|at| at.revents & libc::POLLNVAL != 0) {
        // It gets the lowest number that is free: theirs, one after the other. SAFETY: the path is a NUL-terminated string.
        check(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) }.into())?;
    }
    Ok(())
}
