//! Generated messages, in modules as their protobuf packages nest.

macro_rules! generated {
    ($file:literal) => {
        include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/generated/", $file));
    };
}

/// containerd's API.
#[allow(missing_docs, unreachable_pub, rustdoc::all, clippy::all, reason = "generated from proto/containerd")]
pub mod containerd {
    pub mod types {
        generated!("containerd.types.rs");
    }
    pub mod v1 {
        pub mod types {
            generated!("containerd.v1.types.rs");
        }
    }
    pub mod task {
        pub mod v3 {
            generated!("containerd.task.v3.rs");
        }
    }
    pub mod events {
        generated!("containerd.events.rs");
    }
    pub mod runc {
        pub mod v1 {
            generated!("containerd.runc.v1.rs");
        }
    }
    pub mod runtime {
        pub mod bootstrap {
            pub mod v1 {
                generated!("containerd.runtime.bootstrap.v1.rs");
            }
        }
        pub mod sandbox {
            pub mod v1 {
                generated!("containerd.runtime.sandbox.v1.rs");
            }
        }
    }
    pub mod services {
        pub mod events {
            pub mod ttrpc {
                pub mod v1 {
                    generated!("containerd.services.events.ttrpc.v1.rs");
                }
            }
        }
    }
}

/// What containerd's CRI plugin gives a shim: a pod's configuration, and the options of a runtime.
#[allow(missing_docs, unreachable_pub, rustdoc::all, clippy::all, reason = "generated from proto/containerd")]
pub mod cri {
    pub mod v1 {
        generated!("runtime.v1.rs");
    }
    pub mod runtimeoptions {
        generated!("runtimeoptions.v1.rs");
    }
}

/// Resource usage, as Task.Stats carries it.
#[allow(
    missing_docs,
    unreachable_pub,
    rustdoc::all,
    clippy::all,
    reason = "generated from proto/containerd/metrics"
)]
pub mod cgroups {
    pub mod v1 {
        generated!("io.containerd.cgroups.v1.rs");
    }
    pub mod v2 {
        generated!("io.containerd.cgroups.v2.rs");
    }
}

/// Errors on the wire.
#[allow(
    missing_docs,
    unreachable_pub,
    rustdoc::all,
    clippy::all,
    reason = "generated from proto/containerd/ttrpc"
)]
pub mod google {
    pub mod rpc {
        generated!("google.rpc.rs");
    }
}

/// What frames carry.
#[allow(
    missing_docs,
    unreachable_pub,
    rustdoc::all,
    clippy::all,
    reason = "generated from proto/containerd/ttrpc"
)]
pub mod ttrpc {
    generated!("ttrpc.rs");
}

/// Corten's own service.
#[allow(
    missing_docs,
    unreachable_pub,
    rustdoc::all,
    clippy::all,
    reason = "generated from proto/corten/shim"
)]
pub mod corten {
    pub mod shim {
        pub mod v1 {
            generated!("corten.shim.v1.rs");
        }
    }
}
