//! The systemd driver: systemd makes the cgroup, as a transient unit, and knows its limits; what it can't express is
//! written into the files as without it.
//!
//! A container's unit is a scope, for which systemd wants a process. The caller gives it one that does nothing, in
//! place of init: then the cgroup is there before init is, and init is born in it like everywhere else.

mod bus;
mod gvariant;
mod message;
mod name;
mod properties;
mod value;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use crate::{Cgroup, Error, Layout, Result, devices};
use bus::{Bus, Failure, Object};
use message::Kind;
use name::Name;
use value::Value;

/// For integration/fuzz: whatever is understood can be said again.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let same = |value: &Value| {
        let (mut encoded, mut again) = (Vec::new(), Vec::new());
        value.encode(&mut encoded);
        let values = value::Reader::new(&encoded, false).values(&value.signature());
        values.iter().flatten().for_each(|value| value.encode(&mut again));
        assert!(encoded == again, "{value:?} isn't what it was");
    };
    if let Ok(Some((message, length))) = message::parse(bytes) {
        assert!(message::parse(&bytes[..length - 1]) == Ok(None), "a part of a message is one");
        message.arguments.iter().for_each(same);
    }
    let text = String::from_utf8_lossy(bytes);
    gvariant::parse(&text).iter().for_each(same);
    if let Ok(name) = Name::parse(&text, "id", "system.slice") {
        assert!(name.place().is_relative(), "{name:?}");
    }
}

/// How long systemd may take to start or stop a unit.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whose systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manager {
    /// The machine's.
    System,
    /// The user's.
    User,
}

/// A unit that is to be, with what it takes to make it.
#[derive(Debug, Clone)]
pub struct Unit {
    name: Name,
    manager: Manager,
    /// Where its cgroup is going to be.
    place: PathBuf,
    annotations: Vec<(String, Value)>,
    description: String,
}

/// A unit that was made, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    name: String,
    manager: Manager,
}

const SYSTEMD: Object = Object {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

impl Unit {
    /// The unit of `cgroups_path` (`slice:prefix:name`; empty: `:corten:<id>`). Of the annotations,
    /// `org.systemd.property.*` are properties for it.
    ///
    /// # Errors
    /// [`Error::UnitPath`], [`Error::Annotation`]; [`Error::NoSystemd`]; for a user [`Error::Bus`].
    pub fn new(
        manager: Manager,
        cgroups_path: &str,
        id: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Self> {
        if !bus::booted() {
            return Err(Error::NoSystemd);
        }
        let (slice, root) = match manager {
            Manager::System => ("system.slice", String::new()),
            Manager::User => ("user.slice", manager_place()?),
        };
        let name = Name::parse(cgroups_path, id, slice)?;
        let place = name::absolute(&root, &name.place());
        let annotations = gvariant::properties(annotations)?;
        Ok(Self { name, manager, place, annotations, description: format!("corten container {id}") })
    }

    /// Where its cgroup is going to be, from the root of each hierarchy.
    #[must_use]
    pub fn place(&self) -> &std::path::Path {
        &self.place
    }

    /// Whether it takes a process to make it.
    #[must_use]
    pub fn needs_process(&self) -> bool {
        !self.name.is_slice()
    }

    fn error(&self, operation: &'static str) -> impl FnOnce(Failure) -> Error {
        let unit = self.name.unit.clone();
        move |failure| error(operation, unit, failure)
    }

    /// Has systemd make it, with `pid` in it; returns its cgroup.
    pub(crate) fn start(&self, pid: i32, resources: &LinuxResources) -> Result<Cgroup> {
        let layout = Layout::detect()?;
        let mut bus = Bus::connect(self.manager)?;
        let version = version(&mut bus).map_err(self.error("tell its version for"))?;
        let mut wanted = self.properties(pid, layout.is_unified());
        wanted.extend(properties::of(resources, layout.is_unified(), version)?);
        if let Some(rules) = resources.devices() {
            wanted.extend(properties::devices(&devices::Table::of_container(rules)?, layout.is_unified())?);
        }
        wanted.extend(self.annotations.iter().cloned());
        let unit = &self.name.unit;
        let arguments = [
            Value::string(unit),
            Value::string("replace"),
            properties::list(wanted),
            Value::Array("(sa(sv))".to_owned(), Vec::new()),
        ];
        let mut watch = JobWatch::new(&mut bus, unit).map_err(self.error("watch"))?;
        let mut answer = watch.bus.call(SYSTEMD.method("StartTransientUnit"), &arguments);
        if matches!(&answer, Err(Failure::Refused { name, .. }) if name.ends_with(".UnitExists")) {
            // A namesake that failed is still remembered; one that lives isn't touched by this.
            reset_failed(watch.bus, unit);
            answer = watch.bus.call(SYSTEMD.method("StartTransientUnit"), &arguments);
        }
        let job = job(answer).map_err(self.error("start"))?;
        watch.wait(&job, "start")?;
        let place = self.real_place(&mut bus)?;
        let mut cgroup = Cgroup::in_layout(&layout, &place)?;
        cgroup.unit = Some(Made { name: unit.clone(), manager: self.manager });
        Ok(cgroup)
    }

    /// Where systemd has put it: it knows best.
    fn real_place(&self, bus: &mut Bus) -> Result<PathBuf> {
        let interface = if self.name.is_slice() {
            "org.freedesktop.systemd1.Slice"
        } else {
            "org.freedesktop.systemd1.Scope"
        };
        let path = name::object(&self.name.unit);
        let place = get(bus, &path, interface, "ControlGroup").map_err(self.error("tell the cgroup of"))?;
        Ok(if place.is_empty() { self.place.clone() } else { place.into() })
    }

    /// What every unit of ours has.
    fn properties(&self, pid: i32, unified: bool) -> Vec<(String, Value)> {
        let mut all = vec![
            ("Description", Value::string(&self.description)),
            ("DefaultDependencies", Value::Bool(false)),
            ("CPUAccounting", Value::Bool(true)),
            ("MemoryAccounting", Value::Bool(true)),
            ("TasksAccounting", Value::Bool(true)),
            (if unified { "IOAccounting" } else { "BlockIOAccounting" }, Value::Bool(true)),
        ];
        if self.name.is_slice() {
            // A slice can't be delegated; which one it is in, its name says.
            let wants = vec![Value::string(&self.name.slice)];
            all.push(("Wants", Value::Array("s".to_owned(), wants)));
        } else {
            all.push(("Slice", Value::string(&self.name.slice)));
            all.push(("Delegate", Value::Bool(true)));
            all.push(("PIDs", Value::Array("u".to_owned(), vec![Value::U32(pid.cast_unsigned())])));
        }
        all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Made {
    /// Tells systemd of changed limits.
    pub(crate) fn update(&self, resources: &LinuxResources, unified: bool) -> Result<()> {
        let failed = |failure| error("change", self.name.clone(), failure);
        let mut bus = Bus::connect(self.manager)?;
        let version = version(&mut bus).map_err(failed)?;
        let mut wanted = properties::of(resources, unified, version)?;
        if let Some(rules) = resources.devices().as_ref().filter(|rules| !rules.is_empty()) {
            wanted.extend(properties::devices(&devices::Table::of_container(rules)?, unified)?);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        // Only until the machine is rebooted: the unit doesn't live longer.
        let arguments = [Value::string(&self.name), Value::Bool(true), properties::list(wanted)];
        bus.call(SYSTEMD.method("SetUnitProperties"), &arguments).map(drop).map_err(failed)
    }

    /// Ends the unit and makes systemd forget it; none of that name is fine.
    pub(crate) fn stop(&self) -> Result<()> {
        let mut bus = Bus::connect(self.manager)?;
        let failed = |failure| error("stop", self.name.clone(), failure);
        let mut watch = JobWatch::new(&mut bus, &self.name).map_err(failed)?;
        let arguments = [Value::string(&self.name), Value::string("replace")];
        let answer = watch.bus.call(SYSTEMD.method("StopUnit"), &arguments);
        if matches!(&answer, Err(Failure::Refused { name, .. }) if name.ends_with(".NoSuchUnit")) {
            return Ok(()); // A scope goes with its last process.
        }
        let job = job(answer).map_err(failed)?;
        let stopped = watch.wait(&job, "stop");
        reset_failed(&mut bus, &self.name);
        stopped
    }
}

/// Waits for what systemd makes of a request; asked for before the request, so that none is missed.
struct JobWatch<'a> {
    bus: &'a mut Bus,
    unit: String,
}

impl<'a> JobWatch<'a> {
    fn new(bus: &'a mut Bus, unit: &str) -> Result<Self, Failure> {
        // Only the jobs of this unit: on a busy machine there are many.
        let rule = format!(
            "type='signal',sender='{}',interface='{}',member='JobRemoved',arg2='{unit}'",
            SYSTEMD.destination, SYSTEMD.interface
        );
        bus.add_match(&rule)?;
        bus.call(SYSTEMD.method("Subscribe"), &[])?;
        Ok(Self { bus, unit: unit.to_owned() })
    }

    fn wait(&mut self, job: &str, operation: &'static str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let signal = self.bus.signal(deadline);
            let signal = signal.map_err(|e| error(operation, self.unit.clone(), Failure::Io(e)))?;
            if signal.kind != Kind::Signal("JobRemoved".to_owned()) {
                continue;
            }
            // Number, object, unit, result.
            let [_, object, _, result] = signal.arguments.as_slice() else { continue };
            if object.as_str() != Some(job) {
                continue;
            }
            return match result.as_str() {
                // Skipped: there was nothing to do.
                Some("done" | "skipped") => Ok(()),
                result => Err(Error::Systemd {
                    operation,
                    unit: self.unit.clone(),
                    reason: format!("the job's result is {:?}", result.unwrap_or("unknown")),
                }),
            };
        }
    }
}

fn error(operation: &'static str, unit: String, failure: Failure) -> Error {
    match failure {
        Failure::Refused { name, text } => {
            let short = name.rsplit('.').next().unwrap_or_default();
            Error::Systemd { operation, unit, reason: format!("{text} ({short})") }
        }
        Failure::Io(source) => Error::Systemd { operation, unit, reason: source.to_string() },
    }
}

/// The job that a request has become.
fn job(answer: Result<Vec<Value>, Failure>) -> Result<String, Failure> {
    let answer = answer?;
    let job = answer.first().and_then(Value::as_str).unwrap_or_default();
    Ok(job.to_owned())
}

/// That it isn't failed, or isn't at all, is no error.
fn reset_failed(bus: &mut Bus, unit: &str) {
    bus.call(SYSTEMD.method("ResetFailedUnit"), &[Value::string(unit)]).ok();
}

fn get(bus: &mut Bus, path: &str, interface: &str, property: &str) -> Result<String, Failure> {
    let method = message::Method {
        destination: SYSTEMD.destination,
        path,
        interface: "org.freedesktop.DBus.Properties",
        member: "Get",
    };
    let answer = bus.call(method, &[Value::string(interface), Value::string(property)])?;
    Ok(answer.first().and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// 252 of `252.39-1~deb12u1`.
fn version(bus: &mut Bus) -> Result<u32, Failure> {
    let text = get(bus, SYSTEMD.path, SYSTEMD.interface, "Version")?;
    Ok(properties::version(&text))
}

/// The cgroup of the user's systemd.
fn manager_place() -> Result<String> {
    let mut bus = Bus::connect(Manager::User)?;
    let place = get(&mut bus, SYSTEMD.path, SYSTEMD.interface, "ControlGroup");
    place.map_err(|failure| error("tell the cgroup of", "user manager".to_owned(), failure))
}
