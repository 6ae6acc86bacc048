//! Which devices a container may use: `linux.resources.devices`, a list of rules of which later ones override
//! earlier ones.
//!
//! v1 has files for rules, v2 wants a BPF program. Both are made from the same [`Table`]: what is the case for a
//! device that isn't listed, and the list of those for which it is otherwise.

mod bpf;

use std::path::Path;

use corten_sys::bpf as sys;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

pub use bpf::{Program, program};

use crate::{Cgroup, Controllers, Error, Result, file};

/// A set of `r`, `w` and `m` (mknod).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access(u8);

impl Access {
    /// Make the node.
    pub const MKNOD: Self = Self(1);
    /// Read.
    pub const READ: Self = Self(2);
    /// Write.
    pub const WRITE: Self = Self(4);
    /// All three.
    pub const ALL: Self = Self(7);

    /// As BPF_DEVCG_ACC_*.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The known letters, and whether there are others.
    fn parse(text: Option<&str>) -> (Self, bool) {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return (Self::ALL, false) };
        text.chars().fold((Self(0), false), |(set, unknown), letter| match letter {
            'm' => (Self(set.0 | Self::MKNOD.0), unknown),
            'r' => (Self(set.0 | Self::READ.0), unknown),
            'w' => (Self(set.0 | Self::WRITE.0), unknown),
            _ => (set, true),
        })
    }

    pub(crate) fn letters(self) -> String {
        [('r', Self::READ), ('w', Self::WRITE), ('m', Self::MKNOD)]
            .into_iter()
            .filter(|(_, bit)| self.0 & bit.0 != 0)
            .map(|(letter, _)| letter)
            .collect()
    }
}

/// Block or character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `b`
    Block,
    /// `c`
    Char,
}

/// A device, or with `None` all of that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Block or character.
    pub kind: Kind,
    /// Driver.
    pub major: Option<u32>,
    /// Instance.
    pub minor: Option<u32>,
}

impl Device {
    fn covers(&self, other: &Self) -> bool {
        let covers = |one: Option<u32>, other: Option<u32>| one.is_none() || one == other;
        self.kind == other.kind && covers(self.major, other.major) && covers(self.minor, other.minor)
    }

    /// As devices.allow wants it: `c 1:3`.
    pub(crate) fn text(&self) -> String {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let kind = if self.kind == Kind::Block { 'b' } else { 'c' };
        format!("{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// What the rules come to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// What holds for devices that aren't listed.
    pub allow_by_default: bool,
    /// What is allowed, or with `allow_by_default` denied; each device once, in the order of the rules, which the kernel's
    /// devices.list then has too.
    pub exceptions: Vec<(Device, Access)>,
}

/// What every container may use: making any node, and the devices that runtime-spec puts into every /dev.
const ALWAYS: [(Kind, Option<u32>, Option<u32>, Access); 9] = [
    (Kind::Char, None, None, Access::MKNOD),
    (Kind::Block, None, None, Access::MKNOD),
    (Kind::Char, Some(1), Some(3), Access::ALL),
    (Kind::Char, Some(1), Some(8), Access::ALL),
    (Kind::Char, Some(1), Some(7), Access::ALL),
    (Kind::Char, Some(5), Some(0), Access::ALL),
    (Kind::Char, Some(1), Some(5), Access::ALL),
    (Kind::Char, Some(1), Some(9), Access::ALL),
    (Kind::Char, Some(136), None, Access::ALL),
];

/// /dev/ptmx.
const PTMX: (Kind, Option<u32>, Option<u32>, Access) = (Kind::Char, Some(5), Some(2), Access::ALL);

impl Table {
    /// Works out the rules of a config, then adds what every container may use.
    ///
    /// # Errors
    /// [`Error::Limit`] for a rule that makes no sense, or takes back a part of what a wildcard allowed.
    pub fn of_container(rules: &[LinuxDeviceCgroup]) -> Result<Self> {
        let mut table = Self::default();
        for (index, rule) in rules.iter().enumerate() {
            table.rule(rule).map_err(|reason| Error::Limit {
                limit: format!("linux.resources.devices[{index}]"),
                reason,
            })?;
        }
        for (kind, major, minor, access) in ALWAYS.into_iter().chain([PTMX]) {
            table.add(true, Device { kind, major, minor }, access)?;
        }
        Ok(table)
    }

    fn rule(&mut self, rule: &LinuxDeviceCgroup) -> Result<(), String> {
        let (mut access, unknown) = Access::parse(rule.access().as_deref());
        if unknown {
            let text = rule.access().as_deref().unwrap_or_default();
            if access == Access(0) {
                return Err(format!("access {text:?} must be of r, w and m"));
            }
            // runc looks over it. Nothing is allowed by it, and what was meant to be denied is.
            if !rule.allow() {
                access = Access::ALL;
            }
            tracing::warn!("linux.resources.devices: access {text:?} is taken as {:?}", access.letters());
        }
        let number = |number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(number) => {
                u32::try_from(number).map(Some).map_err(|_| format!("device number {number} is out of range"))
            }
        };
        let (major, minor) = (number(rule.major())?, number(rule.minor())?);
        let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::B => Kind::Block,
            LinuxDeviceType::C | LinuxDeviceType::U => Kind::Char,
            LinuxDeviceType::P => return Err("a FIFO is no device".to_owned()),
            // All devices of both kinds; the kernel ignores numbers and access then.
            LinuxDeviceType::A => {
                *self = Self { allow_by_default: rule.allow(), exceptions: Vec::new() };
                return Ok(());
            }
        };
        self.add(rule.allow(), Device { kind, major, minor }, access).map_err(|error| error.to_string())
    }

    fn add(&mut self, allow: bool, device: Device, access: Access) -> Result<()> {
        if allow != self.allow_by_default {
            match self.exceptions.iter_mut().find(|(known, _)| *known == device) {
                Some((_, granted)) => *granted = Access(granted.0 | access.0),
                None => self.exceptions.push((device, access)),
            }
            return Ok(());
        }
        // Taking back exceptions. One that is wider than what is taken back can't be split.
        let wider = self.exceptions.iter().find(|(known, granted)| {
            *known != device && known.covers(&device) && !device.covers(known) && granted.0 & access.0 != 0
        });
        // Where nothing but making nodes overlaps it's our own rule for everyone, which is meant to stay.
        if let Some((known, _)) = wider.filter(|(_, granted)| *granted != Access::MKNOD) {
            let reason = format!("cannot take a part back of the rule for {}", known.text());
            return Err(Error::Limit { limit: device.text(), reason });
        }
        for (_, granted) in self.exceptions.iter_mut().filter(|(known, _)| device.covers(known)) {
            *granted = Access(granted.0 & !access.0);
        }
        self.exceptions.retain(|(_, granted)| granted.0 != 0);
        Ok(())
    }
}

impl Cgroup {
    /// Puts the device rules in force, in place of those that were.
    pub(crate) fn set_devices(&self, resources: &LinuxResources) -> Result<()> {
        let Some(rules) = resources.devices() else { return Ok(()) };
        match (self.v1(Controllers::DEVICES), self.v2()) {
            (Some(dir), _) => set_v1(dir, &Table::of_container(rules)?),
            (None, Some(dir)) => attach(dir, &Table::of_container(rules)?),
            (None, None) => Ok(()),
        }
    }

    /// The same for a container that runs: what it may use before and after it may use all the time.
    pub(crate) fn update_devices(&self, resources: &LinuxResources) -> Result<()> {
        match (self.v1(Controllers::DEVICES), resources.devices()) {
            (Some(dir), Some(rules)) if !rules.is_empty() => change_v1(dir, &Table::of_container(rules)?),
            (None, Some(rules)) if !rules.is_empty() => self.set_devices(resources),
            _ => Ok(()), // They aren't given.
        }
    }
}

/// One descriptor per file, one write(2) per rule.
fn set_v1(dir: &Path, table: &Table) -> Result<()> {
    let (all, rest) = if table.allow_by_default {
        ("devices.allow", "devices.deny")
    } else {
        ("devices.deny", "devices.allow")
    };
    file::write(&dir.join(all), "a")?;
    file::write_each(&dir.join(rest), table.exceptions.iter().map(line))
}

fn line((device, access): &(Device, Access)) -> String {
    format!("{} {}", device.text(), access.letters())
}

/// Allows what is new, then denies what is no longer allowed. (Where the default changes there is no such way.)
fn change_v1(dir: &Path, table: &Table) -> Result<()> {
    let before = file::read(&dir.join("devices.list"))?;
    if table.allow_by_default || before.lines().any(|line| line.starts_with('a')) {
        return set_v1(dir, table);
    }
    let wanted: Vec<String> = table.exceptions.iter().map(line).collect();
    file::write_each(&dir.join("devices.allow"), wanted.iter().cloned())?;
    // A rule as the kernel lists it, with less access wanted: all of it is denied, then that less is allowed again.
    let stale = before.lines().filter(|line| !wanted.iter().any(|wanted| wanted == line));
    let stale: Vec<&str> = stale.collect();
    let narrowed = |line: &&String| {
        stale.iter().any(|stale| stale.rsplit_once(' ').map(|s| s.0) == line.rsplit_once(' ').map(|s| s.0))
    };
    file::write_each(&dir.join("devices.deny"), stale.iter().map(|line| (*line).to_owned()))?;
    file::write_each(&dir.join("devices.allow"), wanted.iter().filter(narrowed).cloned())
}

/// Attaches the program, in place of an older one of ours.
fn attach(dir: &Path, table: &Table) -> Result<()> {
    let error = |operation| move |source| Error::DeviceProgram { operation, path: dir.to_owned(), source };
    let cgroup = std::fs::File::open(dir).map_err(Error::io("open", dir))?;
    let program = sys::load_cgroup_device(&program(table)).map_err(error("load"))?;
    let old = sys::attached_cgroup_device(&cgroup).map_err(error("find"))?;
    sys::attach_cgroup_device(&program, &cgroup, old.as_ref()).map_err(error("attach"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(json: &str) -> Result<Vec<String>> {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).expect("rules");
        let mut table = Table::default();
        for rule in &rules {
            table.rule(rule).map_err(|reason| Error::Limit { limit: String::new(), reason })?;
        }
        let default = if table.allow_by_default { "allow" } else { "deny" };
        let exceptions =
            table.exceptions.iter().map(|(device, access)| format!("{} {}", device.text(), access.letters()));
        Ok(std::iter::once(default.to_owned()).chain(exceptions).collect())
    }

    #[test]
    fn rules() {
        for (json, expected) in [
            ("[]", &["deny"][..]),
            (r#"[{"allow":false,"access":"rwm"}]"#, &["deny"]),
            (r#"[{"allow":true}]"#, &["allow"]),
            (r#"[{"allow":true,"type":"a","major":-1,"minor":-1,"access":"rwm"}]"#, &["allow"]),
            (
                r#"[{"allow":false},{"allow":true,"type":"c","major":1,"minor":3,"access":"r"},
                    {"allow":true,"type":"c","major":1,"minor":3,"access":"w"},
                    {"allow":true,"type":"b","major":8,"access":"m"}]"#,
                &["deny", "c 1:3 rw", "b 8:* m"],
            ),
            (
                r#"[{"allow":true,"type":"c","major":1,"minor":3},{"allow":true,"type":"c","major":1,"minor":5},
                    {"allow":false,"type":"c","major":1,"minor":3,"access":"w"}]"#,
                &["deny", "c 1:3 rm", "c 1:5 rwm"],
            ),
            (r#"[{"allow":true,"type":"c","major":1,"minor":3},{"allow":false,"type":"c"}]"#, &["deny"]),
            (r#"[{"allow":true},{"allow":false,"type":"b","major":8}]"#, &["allow", "b 8:* rwm"]),
            (r#"[{"allow":true,"type":"c","major":1},{"allow":false}]"#, &["deny"]),
            (
                r#"[{"allow":true,"type":"c","major":1,"minor":3,"access":"rwa"},
                    {"allow":true,"type":"c","major":1,"minor":5},
                    {"allow":false,"type":"c","major":1,"minor":5,"access":"rx"}]"#,
                &["deny", "c 1:3 rw"],
            ),
        ] {
            assert_eq!(table(json).expect(json), expected, "{json}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for json in [
            r#"[{"allow":true,"type":"c","access":"x"}]"#,
            r#"[{"allow":true,"type":"p"}]"#,
            r#"[{"allow":true,"type":"c","major":-2}]"#,
            r#"[{"allow":true,"type":"c","major":1},{"allow":false,"type":"c","major":1,"minor":3}]"#,
        ] {
            assert!(table(json).is_err(), "{json}");
        }
    }

    #[test]
    fn every_container_gets_the_standard_devices() {
        let table = Table::of_container(&[]).expect("no rules");
        assert!(!table.allow_by_default);
        let null = Device { kind: Kind::Char, major: Some(1), minor: Some(3) };
        assert!(table.exceptions.contains(&(null, Access::ALL)));
        assert_eq!(table.exceptions.len(), ALWAYS.len() + 1);
    }

    #[test]
    fn a_privileged_container_keeps_all() {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(r#"[{"allow":true}]"#).expect("rules");
        let table = Table::of_container(&rules).expect("rules");
        assert_eq!(table, Table { allow_by_default: true, exceptions: Vec::new() });
    }
}
