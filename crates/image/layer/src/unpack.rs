//! Placeholder while the interface settles.
