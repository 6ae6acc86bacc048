//! Names: `slice:prefix:name` of a cgroupsPath, units, and the places in the tree that they stand for (systemd.slice(5)).

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A unit's name and the slice that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    /// `prefix-name.scope`, or a slice.
    pub(crate) unit: String,
    /// `system.slice`, ...
    pub(crate) slice: String,
}

impl Name {
    /// Of `slice:prefix:name`; an empty path is `:corten:<id>`, an empty slice `default`.
    pub(crate) fn parse(path: &str, id: &str, default: &str) -> Result<Self> {
        let whole = if path.is_empty() { format!(":corten:{id}") } else { path.to_owned() };
        let error = |reason: &str| Error::UnitPath { path: path.to_owned(), reason: reason.to_owned() };
        let parts: Vec<&str> = whole.split(':').collect();
        let [slice, prefix, name] = parts.as_slice() else {
            return Err(error("it must be slice:prefix:name"));
        };
        if name.is_empty() || !whole.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b)) {
            return Err(error(
                "it must be slice:prefix:name, of what names of units are made of, with a name",
            ));
        }
        let unit = match *name {
            slice if slice.ends_with(".slice") => slice.to_owned(),
            name if prefix.is_empty() => format!("{name}.scope"),
            name => format!("{prefix}-{name}.scope"),
        };
        let slice = match *slice {
            "" => default,
            "-" => "-.slice",
            other => other,
        };
        if expand(slice).is_none() || unit.ends_with(".slice") && expand(&unit).is_none() {
            return Err(error("it doesn't have a name of a slice, like a-b.slice"));
        }
        Ok(Self { unit, slice: slice.to_owned() })
    }

    /// Whether the unit is a slice, which needs no process and is in the slice that its name says.
    pub(crate) fn is_slice(&self) -> bool {
        self.unit.ends_with(".slice")
    }

    /// Where the unit's cgroup is, below that of the manager.
    pub(crate) fn place(&self) -> PathBuf {
        if self.is_slice() {
            return expand(&self.unit).unwrap_or_default();
        }
        expand(&self.slice).unwrap_or_default().join(&self.unit)
    }
}

/// `a-b.slice` is `a.slice/a-b.slice`; `-.slice` is the root. `None`: it isn't a slice's name.
fn expand(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(PathBuf::new());
    }
    if name.is_empty() || name.split('-').any(str::is_empty) || name.contains('/') {
        return None;
    }
    let ends = name.match_indices('-').map(|(index, _)| index).chain([name.len()]);
    Some(ends.filter_map(|end| name.get(..end)).map(|part| format!("{part}.slice")).collect())
}

/// The object of a unit: everything but letters and digits is written as `_hex`.
pub(crate) fn object(unit: &str) -> String {
    let mut path = "/org/freedesktop/systemd1/unit/".to_owned();
    for (index, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || byte.is_ascii_digit() && index > 0 {
            path.push(byte.into());
        } else {
            path += &format!("_{byte:02x}");
        }
    }
    path
}

/// As an absolute place in the hierarchies, below the manager's.
pub(crate) fn absolute(manager: &str, below: &Path) -> PathBuf {
    Path::new("/").join(manager.trim_matches('/')).join(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (path, unit, place) in [
            ("", "corten-x.scope", "system.slice/corten-x.scope"),
            (":cri:y", "cri-y.scope", "system.slice/cri-y.scope"),
            ("a-b.slice:cri:y", "cri-y.scope", "a.slice/a-b.slice/cri-y.scope"),
            ("-:p:y", "p-y.scope", "p-y.scope"),
            ("-.slice::y", "y.scope", "y.scope"),
            ("a.slice:p:b-c.slice", "b-c.slice", "b.slice/b-c.slice"),
        ] {
            let name = Name::parse(path, "x", "system.slice").expect(path);
            assert_eq!((&*name.unit, name.place()), (unit, PathBuf::from(place)), "{path}");
        }
        for bad in [
            "/a/b",
            "a:b",
            "a.slice:b:",
            "a:b:c",
            "a--b.slice:p:n",
            "a.slice:p:n:o",
            "-a.slice:p:n",
            "a.slice:p/q:n",
            "::a'b",
        ] {
            assert!(matches!(Name::parse(bad, "x", "s.slice"), Err(Error::UnitPath { .. })), "{bad}");
        }
        assert_eq!(absolute("/user.slice/", Path::new("a")), Path::new("/user.slice/a"));
        assert_eq!(absolute("", Path::new("a")), Path::new("/a"));
    }

    #[test]
    fn objects() {
        assert_eq!(object("cri-1.scope"), "/org/freedesktop/systemd1/unit/cri_2d1_2escope");
        assert_eq!(object("1a.scope"), "/org/freedesktop/systemd1/unit/_31a_2escope");
    }
}
