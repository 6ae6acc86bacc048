//! Intel RDT and its like through resctrl(8)'s file system: cache and memory bandwidth as groups of tasks.
//!
//! A group is a directory, its limits are in its `schemata`, its members in `tasks`; what `mon_groups` holds is
//! only measured. The file system must be mounted by the host; a kernel without it refuses the config.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    error::Doing,
    plan::{Plan, RdtPlan},
    undo::Undo,
};

mod stats;

pub use stats::{Bandwidth, Cache, Occupancy, Rdt, Traffic};

/// A container's groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Groups {
    /// Whose `tasks` each process of the container is written to, in order.
    tasks: Vec<PathBuf>,
    /// What goes with the container: made by us, and nobody else's.
    own: Vec<PathBuf>,
}

/// The resource control groups that the config asks for.
pub(crate) fn make(id: &str, plan: &Plan, undo: &mut Undo<'static>) -> Result<Option<Groups>> {
    let Some(rdt) = &plan.rdt else { return Ok(None) };
    let groups = prepare(&root()?, id, rdt)?;
    undo.push("remove the resource control group", {
        let groups = groups.clone();
        move || groups.remove()
    });
    Ok(Some(groups))
}

/// Where resctrl is mounted.
fn root() -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").doing(|| "read our mounts".to_owned())?;
    mounted(&text).ok_or_else(|| Error::Unsupported {
        field: "linux.intelRdt",
        why: "no resctrl file system is mounted on this machine (mount -t resctrl resctrl /sys/fs/resctrl)"
            .to_owned(),
    })
}

fn mounted(mountinfo: &str) -> Option<PathBuf> {
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next() == Some("resctrl")).then(|| left.split(' ').nth(4).map(PathBuf::from))?
    };
    mountinfo.lines().find_map(mount)
}

/// Makes or finds the groups below `root`, a resctrl mount. What was made is taken back if it can't be finished.
fn prepare(root: &Path, id: &str, plan: &RdtPlan) -> Result<Groups> {
    let mut made = Vec::new();
    prepare_in(root, id, plan, &mut made).inspect_err(|_| {
        for path in made.iter().rev() {
            fs::remove_dir(path).ok(); // because the first failure is the one to tell
        }
    })
}

fn prepare_in(root: &Path, id: &str, plan: &RdtPlan, made: &mut Vec<PathBuf>) -> Result<Groups> {
    let group = match plan.clos.as_deref() {
        None if ["info", "mon_groups", "mon_data"].contains(&id) => {
            let why =
                "a container of this id needs linux.intelRdt.closID: resctrl has a directory of that name";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why))
                .doing(|| format!("make a resource control group for {id}"));
        }
        None => root.join(id),
        Some("/") => root.to_owned(),
        Some(clos) => root.join(clos),
    };
    let doing = || format!("use the resource control group {}", group.display());
    let found = group.is_dir();
    if !found {
        if plan.clos.is_some() && plan.schemata.is_empty() {
            let why = "it doesn't exist, and without a schema it has to";
            return Err(io::Error::new(io::ErrorKind::NotFound, why)).doing(doing);
        }
        fs::create_dir(&group).map_err(|e| explain(root, e)).doing(doing)?;
        made.push(group.clone());
    }
    let schemata = group.join("schemata");
    if found && plan.clos.is_some() {
        let is = fs::read_to_string(&schemata).doing(|| format!("read {}", schemata.display()))?;
        for wanted in &plan.schemata {
            if let Some(line) = differs(&is, wanted) {
                let why = format!("it exists with other schemata than {line:?}: {:?}", is.trim());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why)).doing(doing);
            }
        }
    } else {
        for text in &plan.schemata {
            fs::write(&schemata, format!("{text}\n"))
                .map_err(|e| explain(root, e))
                .doing(|| format!("write {text:?} to {}", schemata.display()))?;
        }
    }
    let mut tasks = vec![group.clone()];
    if plan.monitoring {
        let monitor = group.join("mon_groups").join(id);
        fs::create_dir(&monitor)
            .map_err(|e| explain(root, e))
            .doing(|| format!("make the monitoring group {}", monitor.display()))?;
        made.push(monitor.clone());
        tasks.push(monitor);
    }
    // A group with a name of its own may have got other members meanwhile: it stays.
    let own = made.iter().filter(|path| plan.clos.is_none() || **path != group).cloned().collect();
    Ok(Groups { tasks, own })
}

/// The kernel says more in a file.
fn explain(root: &Path, error: io::Error) -> io::Error {
    match fs::read_to_string(root.join("info/last_cmd_status")) {
        Ok(status) if !status.trim().is_empty() && status.trim() != "ok" => {
            io::Error::new(error.kind(), format!("{error} ({})", status.trim()))
        }
        _ => error,
    }
}

/// The first line of `wanted` that isn't what the group has. A line may name only some of the domains, with or
/// without leading zeroes.
fn differs<'w>(is: &str, wanted: &'w str) -> Option<&'w str> {
    fn parse(line: &str) -> Option<(&str, Vec<(&str, &str)>)> {
        let (resource, domains) = line.trim().split_once(':')?;
        let domains = domains.split(';').filter_map(|domain| {
            let (id, value) = domain.trim().split_once('=')?;
            let shorter = value.trim().trim_start_matches('0');
            Some((id.trim(), if shorter.is_empty() { "0" } else { shorter }))
        });
        Some((resource.trim(), domains.collect()))
    }
    let is: Vec<_> = is.lines().filter_map(parse).collect();
    wanted.lines().find(|line| {
        let Some((resource, domains)) = parse(line) else { return !line.trim().is_empty() };
        let Some((_, has)) = is.iter().find(|(name, _)| *name == resource) else { return true };
        let same = |(id, value): &(&str, &str)| {
            has.iter().any(|(other, is)| other == id && is.eq_ignore_ascii_case(value))
        };
        !domains.iter().all(same)
    })
}

impl Groups {
    /// Puts a process into them; what it clones from then on is born there.
    pub(crate) fn enter(&self, pid: i32) -> Result<()> {
        for group in &self.tasks {
            let tasks = group.join("tasks");
            fs::write(&tasks, pid.to_string()).doing(|| format!("write {pid} to {}", tasks.display()))?;
        }
        Ok(())
    }

    /// Changes a line of the schemata.
    pub(crate) fn change(&self, line: &str) -> Result<()> {
        let Some(group) = self.tasks.first() else { return Ok(()) };
        let schemata = group.join("schemata");
        // The group may be the mount's root itself, or a directory in it.
        let root = [Some(group.as_path()), group.parent()].into_iter().flatten();
        let root = root.into_iter().find(|root| root.join("info").is_dir()).unwrap_or(group);
        fs::write(&schemata, format!("{line}\n"))
            .map_err(|e| explain(root, e))
            .doing(|| format!("write {line:?} to {}", schemata.display()))
    }

    /// Removes what is ours.
    pub(crate) fn remove(&self) -> Result<()> {
        for path in self.own.iter().rev() {
            match fs::remove_dir(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(e).doing(|| format!("remove the resource control group {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree as resctrl would show it; what the kernel does by itself in a new directory is done by `populate`.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("temp dir");
        fs::create_dir_all(root.path().join("mon_groups")).expect("mkdir");
        fs::write(root.path().join("schemata"), "    L3:0=7ff;1=7ff\n    MB:0=100;1=100\n").expect("write");
        fs::write(root.path().join("tasks"), "").expect("write");
        root
    }

    fn plan(clos: Option<&str>, schemata: &[&str], monitoring: bool) -> RdtPlan {
        let schemata = schemata.iter().map(|&text| text.to_owned()).collect();
        RdtPlan { clos: clos.map(str::to_owned), schemata, monitoring }
    }

    #[test]
    fn a_group_of_its_own_is_made_and_removed() {
        let root = tree();
        let group = root.path().join("c1");
        let groups =
            prepare(root.path(), "c1", &plan(None, &["L3:0=f\nMB:0=50", "L3:0=ff"], false)).expect("made");
        assert_eq!(
            fs::read_to_string(group.join("schemata")).expect("schemata"),
            "L3:0=ff\n",
            "the last one counts"
        );
        groups.enter(42).expect("enter");
        assert_eq!(fs::read_to_string(group.join("tasks")).expect("tasks"), "42");
        for name in ["schemata", "tasks"] {
            fs::remove_file(group.join(name)).expect("the kernel's files go with the directory");
        }
        groups.remove().expect("remove");
        assert!(!group.exists());
        groups.remove().expect("a second time is fine");
    }

    #[test]
    fn a_named_group_without_schema_must_exist() {
        let root = tree();
        let error = prepare(root.path(), "c1", &plan(Some("gold"), &[], false)).expect_err("it doesn't");
        assert_eq!(error.errno(), None);
        assert!(
            crate::error::chain(&error).contains("gold: it doesn't exist"),
            "{}",
            crate::error::chain(&error)
        );
        assert!(!root.path().join("gold").exists());
        fs::create_dir(root.path().join("gold")).expect("mkdir");
        fs::write(root.path().join("gold/schemata"), "L3:0=1\n").expect("write");
        let groups = prepare(root.path(), "c1", &plan(Some("gold"), &[], false)).expect("it does");
        assert_eq!(groups.own, [""; 0].map(PathBuf::from), "it isn't ours");
    }

    #[test]
    fn a_named_group_that_exists_must_have_the_schema() {
        let root = tree();
        fs::create_dir(root.path().join("gold")).expect("mkdir");
        fs::write(root.path().join("gold/schemata"), "    L3:0=07f;1=0ff\n    MB:0= 20;1= 70\n")
            .expect("write");
        for same in ["L3:0=7f", "L3:1=FF;0=7f\nMB:0=20;1=70"] {
            prepare(root.path(), "c1", &plan(Some("gold"), &[same], false)).expect(same);
        }
        for other in ["L3:0=7e", "L2:0=1", "L3:2=ff", "MB:1=71"] {
            prepare(root.path(), "c1", &plan(Some("gold"), &[other], false)).expect_err(other);
        }
        let is = fs::read_to_string(root.path().join("gold/schemata")).expect("read");
        assert!(is.contains("L3:0=07f"), "it isn't changed: {is}");
    }

    #[test]
    fn a_named_group_that_we_made_stays() {
        let root = tree();
        let groups = prepare(root.path(), "c1", &plan(Some("gold"), &["L3:0=1"], false)).expect("made");
        groups.remove().expect("remove");
        assert!(root.path().join("gold").is_dir());
    }

    #[test]
    fn monitoring_in_the_default_group() {
        let root = tree();
        let groups = prepare(root.path(), "c1", &plan(Some("/"), &[], true)).expect("made");
        let monitor = root.path().join("mon_groups/c1");
        assert!(monitor.is_dir());
        groups.enter(7).expect("enter");
        for tasks in [root.path().join("tasks"), monitor.join("tasks")] {
            assert_eq!(fs::read_to_string(tasks).expect("tasks"), "7");
        }
        fs::remove_file(monitor.join("tasks")).expect("the kernel's file goes with the directory");
        groups.remove().expect("remove");
        assert!(!monitor.exists() && root.path().is_dir());
    }

    #[test]
    fn what_was_made_is_taken_back() {
        let root = tree();
        // There's no mon_groups in it, as on a machine that can't monitor.
        prepare(root.path(), "c1", &plan(None, &[], true)).expect_err("no mon_groups");
        assert!(!root.path().join("c1").exists());
    }

    #[test]
    fn a_line_can_be_changed() {
        let root = tree();
        let groups = prepare(root.path(), "c1", &plan(Some("gold"), &["L3:0=1"], false)).expect("made");
        groups.change("L3:0=f").expect("change");
        assert_eq!(fs::read_to_string(root.path().join("gold/schemata")).expect("schemata"), "L3:0=f\n");
    }

    #[test]
    fn where_it_is_mounted() {
        let text = "20 1 0:5 / /proc rw shared:1 - proc proc rw\n21 1 0:6 / /sys/fs/resctrl rw - resctrl resctrl rw\n";
        assert_eq!(mounted(text), Some(PathBuf::from("/sys/fs/resctrl")));
        assert_eq!(mounted("20 1 0:5 / /proc rw - proc proc rw\n"), None);
    }
}
