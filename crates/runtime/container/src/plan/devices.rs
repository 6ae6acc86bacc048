//! Device nodes: those that every container has, and `linux.devices[]` (runtime-spec, config-linux "Devices").

use std::ffi::CString;

use oci_spec::runtime::{Linux, LinuxDeviceType};

use super::{Mount, MountKind, Problems};

/// What kind of node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    Char,
    Block,
    Fifo,
}

/// A node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) path: CString,
    pub(crate) kind: DeviceKind,
    pub(crate) major: u64,
    pub(crate) minor: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Device {
    /// Whether it is as in every container.
    pub(crate) fn is_default(&self) -> bool {
        defaults().contains(self)
    }
}

const DEFAULT: [(&std::ffi::CStr, u64, u64); 6] = [
    (c"/dev/null", 1, 3),
    (c"/dev/zero", 1, 5),
    (c"/dev/full", 1, 7),
    (c"/dev/random", 1, 8),
    (c"/dev/urandom", 1, 9),
    (c"/dev/tty", 5, 0),
];

/// All device nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    pub(crate) make: Vec<Device>,
    /// /dev is a directory of the host's, which we mustn't fill.
    pub(crate) host_dev: bool,
    /// What would have had to be made there.
    pub(crate) left_out: Vec<String>,
}

pub(super) fn plan(linux: &Linux, mounts: &[Mount], problems: &mut Problems) -> Devices {
    let of_the_host = mounts.iter().any(|mount| {
        let destination = mount.destination.to_bytes();
        destination.strip_suffix(b"/").unwrap_or(destination) == b"/dev"
            && matches!(mount.kind, MountKind::Bind { .. })
    });
    let mut devices = if of_the_host { Vec::new() } else { defaults() };
    let mut left_out = Vec::new();
    for (i, device) in linux.devices().as_deref().unwrap_or_default().iter().enumerate() {
        let at = format!("linux.devices[{i}]");
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Char,
            LinuxDeviceType::B => DeviceKind::Block,
            LinuxDeviceType::P => DeviceKind::Fifo,
            LinuxDeviceType::A => {
                problems.add(&at, "type a is no type of a device node");
                continue;
            }
        };
        if !device.path().is_absolute() {
            problems.add(&at, format_args!("path {} is not absolute", device.path().display()));
        }
        if of_the_host && device.path().starts_with("/dev") {
            left_out.push(device.path().display().to_string());
            continue;
        }
        let mut number = |name: &str, n: i64| {
            u64::try_from(n).unwrap_or_else(|_| {
                if kind != DeviceKind::Fifo {
                    problems.add(&at, format_args!("{name} {n} is negative"));
                }
                0
            })
        };
        let (major, minor) = (number("major", device.major()), number("minor", device.minor()));
        let device = Device {
            path: problems.c_path(&at, device.path()),
            kind,
            major,
            minor,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or_default(),
            gid: device.gid().unwrap_or_default(),
        };
        // What the config says about a default device wins.
        devices.retain(|other| other.path != device.path);
        devices.push(device);
    }
    Devices { make: devices, host_dev: of_the_host, left_out }
}

fn defaults() -> Vec<Device> {
    let device = |&(path, major, minor): &(&std::ffi::CStr, u64, u64)| Device {
        path: path.to_owned(),
        kind: DeviceKind::Char,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    DEFAULT.iter().map(device).collect()
}
