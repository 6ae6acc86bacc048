//! `list`: a table, JSON or only names.

use std::path::Path;

use anyhow::{Context as _, Result};
use corten_container::{Runtime, State};

use crate::{
    args::{Format, List, default_root},
    output,
};

#[inline(never)]
pub(crate) fn list(runtime: &Runtime, root: &Path, args: &List) -> Result<()> {
    // Where nothing was ever created there's nothing to list, but a directory that somebody names should be there.
    if root != default_root() {
        root.metadata().with_context(|| format!("--root {}", root.display()))?;
    }
    let states = runtime.list()?;
    let text = match args.format {
        _ if args.quiet => states.iter().map(|state| format!("{}\n", state.id)).collect(),
        // As in runc, not indented.
        Format::Json => serde_json::to_string(&states)? + "\n",
        Format::Table => table(&states),
    };
    output::print(&text).map(drop)
}

fn table(states: &[State]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |state: &State| {
        [
            state.id.clone(),
            state.pid.to_string(),
            state.status.to_string(),
            state.bundle.display().to_string(),
            state.created.clone(),
            state.owner.clone(),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(states.iter().map(row)).collect();
    let mut text = String::new();
    for cells in &rows {
        for (column, cell) in cells.iter().enumerate() {
            let widest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            let last = column == cells.len() - 1;
            text += &if last {
                format!("{cell}\n")
            } else {
                format!("{cell:<width$}", width = (widest + 3).max(12))
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use corten_container::Status;

    use super::*;

    #[test]
    fn columns() {
        let state = State {
            oci_version: "1.3.0".to_owned(),
            id: "a-rather-long-name".to_owned(),
            pid: 42,
            status: Status::Running,
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-11-23T21:19:05Z".to_owned(),
            annotations: Default::default(),
            owner: "root".to_owned(),
        };
        let lines = [
            "ID                   PID         STATUS      BUNDLE      CREATED                OWNER",
            "a-rather-long-name   42          running     /b          2026-11-23T21:19:05Z   root",
        ];
        assert_eq!(table(&[state]).lines().collect::<Vec<_>>(), lines);
    }
}
