//! Names of the services and methods on the wire.

/// containerd's Task service as containerd 1.x and as 2.x calls it: the messages are the same.
pub const TASK: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];
/// containerd's service for pods.
pub const SANDBOX: &str = "containerd.runtime.sandbox.v1.Sandbox";
/// Corten's own service.
pub const CORTEN: &str = "corten.shim.v1.Shim";
/// Where containerd takes events.
pub const EVENTS: &str = "containerd.services.events.ttrpc.v1.Events";

/// The typeurl of a message from containerd's API: the full name alone, without a host before it.
#[must_use]
pub fn any(type_name: &str, message: &impl prost::Message) -> prost_types::Any {
    prost_types::Any { type_url: type_name.to_owned(), value: message.encode_to_vec() }
}
