//! The image library against a real registry, a lying one, a full disk and a sudden end. Needs root for overlayfs and tmpfs.

mod auth;
mod disk;
mod faults;
mod interrupted;
mod lifecycle;
mod pulls;
mod shared;
