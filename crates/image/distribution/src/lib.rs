//! Registry client: references, resolve, fetch, push, authentication, mirrors.
#![forbid(unsafe_code)]
