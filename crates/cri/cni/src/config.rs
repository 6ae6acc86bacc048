//! Network configurations: files in a directory, the first valid one by name is the pods' network.
//!
//! They are read at each use: a handful of small files, and an edit is live at once.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// A network: plugins that run one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Version of the spec that it is written for.
    pub cni_version: String,
    /// The configuration forbids CHECK.
    #[serde(default)]
    pub disable_check: bool,
    /// The plugins' configurations in order of ADD; each has a `type`.
    pub plugins: Vec<Map<String, Value>>,
}

impl Network {
    /// Reads a configuration: a list of plugins, or a single one.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Config`]: both name `file`.
    pub fn parse(text: &[u8], file: &Path) -> Result<Self> {
        let mut json: Map<String, Value> =
            serde_json::from_slice(text).map_err(|source| Error::Json { file: file.to_owned(), source })?;
        let wrong = |problem: String| Error::Config { file: file.to_owned(), problem };
        let string = |key: &str| match json.get(key) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value.clone())),
            Some(_) => Err(wrong(format!("{key:?} is not a string"))),
        };
        let name = string("name")?.ok_or_else(|| wrong("\"name\" is missing".into()))?;
        let cni_version = string("cniVersion")?.unwrap_or_else(|| "0.2.0".into());
        if !is_name(&name) {
            return Err(wrong(format!("the name {name:?} has characters other than A-Z a-z 0-9 . _ -")));
        }
        version(&cni_version).ok_or_else(|| wrong(format!("cniVersion {cni_version:?} is not a version")))?;
        // Some write it as a string.
        let disable_check = matches!(json.get("disableCheck"), Some(Value::Bool(true)))
            || string("disableCheck").is_ok_and(|v| v.as_deref() == Some("true"));
        let plugins = match json.remove("plugins") {
            None => vec![json],
            Some(Value::Array(plugins)) => plugins
                .into_iter()
                .enumerate()
                .map(|(i, plugin)| match plugin {
                    Value::Object(plugin) => Ok(plugin),
                    _ => Err(wrong(format!("plugins[{i}] is not an object"))),
                })
                .collect::<Result<_>>()?,
            Some(_) => return Err(wrong("\"plugins\" is not a list".into())),
        };
        if plugins.is_empty() {
            return Err(wrong("\"plugins\" is empty".into()));
        }
        for (i, plugin) in plugins.iter().enumerate() {
            match plugin.get("type").and_then(Value::as_str) {
                None | Some("") => return Err(wrong(format!("plugin {i} has no \"type\""))),
                Some(name) if name.contains('/') => {
                    return Err(wrong(format!("plugin {i} has the type {name:?}, which is a path")));
                }
                Some(_) => {}
            }
        }
        Ok(Self { name, cni_version, disable_check, plugins })
    }

    /// Whether the network is written for this version of the spec or a later one.
    pub(crate) fn at_least(&self, major: u32, minor: u32) -> bool {
        version(&self.cni_version).is_some_and(|v| v >= (major, minor))
    }
}

/// The `type` of a plugin; parsing has checked that it's there.
pub(crate) fn plugin_type(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// The network of the pods: the first valid configuration in `dir` by name, and what is wrong with those before it.
///
/// # Errors
/// [`Error::NoConfig`], [`Error::Read`]; if there are only broken ones, the first one's error.
pub fn load(dir: &Path) -> Result<(Network, Vec<Error>)> {
    let mut broken = Vec::new();
    for file in files(dir)? {
        let network = fs::read(&file)
            .map_err(|source| Error::Read { path: file.clone(), source })
            .and_then(|text| Network::parse(&text, &file));
        match network {
            Ok(network) => return Ok((network, broken)),
            Err(error) => broken.push(error),
        }
    }
    Err(broken.into_iter().next().unwrap_or(Error::NoConfig { dir: dir.to_owned() }))
}

/// The configuration files in `dir`, by name.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source: io::Error| Error::Read { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoConfig { dir: dir.to_owned() });
        }
        Err(e) => return Err(failed(e)),
    };
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>().map_err(failed)?;
    files.retain(|file| {
        let extension = file.extension().and_then(|e| e.to_str());
        matches!(extension, Some("conf" | "conflist" | "json")) && !file.is_dir()
    });
    files.sort();
    Ok(files)
}

/// A letter or digit, then letters, digits, `.`, `_`, `-`: the spec's names.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(str::parse::<u32>);
    let version = (parts.next()?.ok()?, parts.next()?.ok()?);
    Some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        r#"{"cniVersion":"1.0.0","name":"good","plugins":[{"type":"bridge"},{"type":"portmap"}]}"#;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temp dir");
        for (name, text) in files {
            fs::write(dir.path().join(name), text).expect("write");
        }
        dir
    }

    #[test]
    fn the_first_valid_one_by_name_counts() {
        let dir = dir(&[
            ("00-broken.conflist", "{"),
            ("05-notes.txt", GOOD),
            ("10-good.conflist", GOOD),
            ("20-other.conf", r#"{"name":"other","type":"bridge"}"#),
        ]);
        let (network, broken) = load(dir.path()).expect("load");
        assert_eq!(network.name, "good");
        assert_eq!(network.plugins.len(), 2);
        assert_eq!(broken.len(), 1);
        assert!(broken[0].to_string().contains("00-broken.conflist"), "{}", broken[0]);
    }

    #[test]
    fn a_single_plugin_is_a_list_of_one() {
        let network =
            Network::parse(br#"{"name":"n","type":"bridge","mtu":9}"#, Path::new("x.conf")).expect("parse");
        assert_eq!(plugin_type(&network.plugins[0]), "bridge");
        assert_eq!(network.plugins[0]["mtu"], 9);
        assert_eq!(network.cni_version, "0.2.0");
        assert!(!network.at_least(0, 4));
    }

    #[test]
    fn missing_empty_and_broken_directories_are_told_apart() {
        let empty = dir(&[]);
        let missing = load(&empty.path().join("nope")).expect_err("missing");
        assert!(matches!(&missing, Error::NoConfig { dir } if dir.ends_with("nope")), "{missing}");
        assert!(matches!(load(empty.path()), Err(Error::NoConfig { .. })));
        let broken = dir(&[("10-a.conflist", r#"{"name":"a"}"#)]);
        let error = load(broken.path()).expect_err("broken").to_string();
        assert!(error.contains("10-a.conflist") && error.contains("type"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            (r#"{"plugins":[{"type":"x"}]}"#, "\"name\" is missing"),
            (r#"{"name":"a b","type":"x"}"#, "characters other than"),
            (r#"{"name":"a","cniVersion":"one","type":"x"}"#, "not a version"),
            (r#"{"name":"a","plugins":[]}"#, "empty"),
            (r#"{"name":"a","plugins":{}}"#, "not a list"),
            (r#"{"name":"a","plugins":[1]}"#, "plugins[0] is not an object"),
            (r#"{"name":"a","plugins":[{"type":"../../sh"}]}"#, "which is a path"),
            (r#"{"name":1,"type":"x"}"#, "\"name\" is not a string"),
        ];
        for (text, expected) in cases {
            let error = Network::parse(text.as_bytes(), Path::new("/c/n.conf")).expect_err(text).to_string();
            assert!(error.contains(expected) && error.contains("/c/n.conf"), "{text}: {error}");
        }
    }
}
