//! `list`: a table for people, JSON for programs, ids with -q.

use anyhow::Result;
use corten_container::{Runtime, State};

use crate::args::{Format, List};

pub(crate) fn run(runtime: &Runtime, options: &List) -> Result<()> {
    let states = runtime.list()?;
    if options.quiet {
        let ids: Vec<_> = states.iter().map(|state| state.id.as_str()).collect();
        return if ids.is_empty() { Ok(()) } else { super::print(&ids.join("\n")) };
    }
    if options.format == Format::Json {
        return super::print(&serde_json::to_string(&states)?);
    }
    super::print(table(&states).trim_end())
}

fn table(states: &[State]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |state: &State| {
        let bundle = state.bundle.display().to_string();
        let (pid, status) = (state.pid.to_string(), state.status.to_string());
        [state.id.clone(), pid, status, bundle, state.created.clone(), state.owner.clone()]
    };
    let rows: Vec<_> = std::iter::once(header).chain(states.iter().map(row)).collect();
    columns(&rows)
}

/// Left-aligned columns, three spaces apart.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::columns;

    #[test]
    fn columns_line_up() {
        let rows = [["ID".to_owned(), "PID".to_owned()], ["longer".to_owned(), "7".to_owned()]];
        assert_eq!(columns(&rows), "ID       PID\nlonger   7\n");
    }
}
