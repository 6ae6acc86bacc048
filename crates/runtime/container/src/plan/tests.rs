//! Plans of whole configs, and what is refused.
