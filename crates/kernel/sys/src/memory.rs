//! Giving memory back.

/// Returns the free pages of the heap to the kernel, malloc_trim(3): for processes that are idle for long after a
/// burst, and of which there are many.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers, and glibc locks its arenas itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has all threads share one heap, mallopt(3), M_ARENA_MAX: for processes whose other threads are few and short-lived. To be called
/// before there are any.
pub fn one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
