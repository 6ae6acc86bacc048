//! RuntimeService and ImageService, one file per RPC.
#![forbid(unsafe_code)]
