//! Creates and pins network namespaces and runs CNI plugins.
#![forbid(unsafe_code)]
