//! create, start, exec, kill, delete, pause, update and state of one OCI container.
#![forbid(unsafe_code)]
