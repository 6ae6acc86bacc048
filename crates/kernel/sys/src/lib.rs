//! Every Linux system call that Corten makes, safe and typed.
