//! containerd's Task, Sandbox and Events services and Corten's own, over ttrpc (prost messages, our frames).
#![forbid(unsafe_code)]
