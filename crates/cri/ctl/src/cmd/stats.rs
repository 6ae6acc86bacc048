//! `cortenctl stats`.

use std::{collections::HashMap, time::Duration};

use anyhow::Result;
use corten_cri_api::v1::{ContainerStats, ListContainerStatsRequest, UInt64Value};

use crate::{
    args::Output,
    client::{Answer, Client},
    find, json,
    show::{Table, memory, print_json, short, size},
};

pub(crate) async fn stats(client: &Client, names: Vec<String>, output: Output) -> Result<()> {
    let mut wanted = Vec::new();
    for name in &names {
        wanted.push(find::container(client, name).await?.id);
    }
    let mut all = sample(client).await?;
    let mut cores: HashMap<String, u64> =
        all.iter().filter_map(|s| Some((id(s).to_owned(), told(s)?))).collect();
    if cores.len() < all.len() {
        // A rate needs two samples; the daemon hasn't two yet.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let later = sample(client).await?;
        for (before, after) in all.iter().filter_map(|s| Some((s, later.iter().find(|l| id(l) == id(s))?))) {
            cores.entry(id(after).to_owned()).or_insert(rate(before, after));
        }
        all = later;
    }
    all.retain(|stats| wanted.is_empty() || wanted.iter().any(|wanted| wanted == id(stats)));
    if output == Output::Json {
        return print_json(&all.iter().map(|stats| json::message(stats, &[])).collect());
    }
    let mut table = Table::new(&["CONTAINER ID", "NAME", "CPU", "MEMORY", "WRITTEN"]);
    for stats in &all {
        let name = stats.attributes.as_ref().and_then(|a| Some(a.metadata.as_ref()?.name.clone()));
        let used = stats.memory.as_ref().and_then(|memory| memory.working_set_bytes);
        let written = stats.writable_layer.as_ref().and_then(|layer| layer.used_bytes);
        table.row([
            short(id(stats)),
            name.unwrap_or_default(),
            cores.get(id(stats)).map_or_else(|| "-".into(), |&cores| percent(cores)),
            used.map_or_else(|| "-".into(), |bytes| memory(bytes.value)),
            written.map_or_else(|| "-".into(), |bytes| size(bytes.value)),
        ]);
    }
    table.print()
}

async fn sample(client: &Client) -> Result<Vec<ContainerStats>> {
    let answer = client.runtime().list_container_stats(ListContainerStatsRequest { filter: None }).await;
    Ok(answer.or_say(|| "ask what the containers use".into())?.stats)
}

fn id(stats: &ContainerStats) -> &str {
    stats.attributes.as_ref().map_or("", |attributes| &attributes.id)
}

/// Billionths of a CPU, if the daemon tells.
fn told(stats: &ContainerStats) -> Option<u64> {
    stats.cpu.as_ref()?.usage_nano_cores.map(|UInt64Value { value }| value)
}

/// Billionths of a CPU between two samples.
fn rate(before: &ContainerStats, after: &ContainerStats) -> u64 {
    let point = |stats: &ContainerStats| {
        let cpu = stats.cpu.as_ref()?;
        Some((u64::try_from(cpu.timestamp).ok()?, cpu.usage_core_nano_seconds?.value))
    };
    let Some(((then, used_then), (now, used_now))) = point(before).zip(point(after)) else { return 0 };
    let (used, elapsed) = (used_now.saturating_sub(used_then), now.saturating_sub(then));
    let cores = u128::from(used) * 1_000_000_000 / u128::from(elapsed.max(1));
    u64::try_from(cores).unwrap_or(u64::MAX)
}

fn percent(nano_cores: u64) -> String {
    let tenths = nano_cores / 1_000_000;
    format!("{}.{}%", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use corten_cri_api::v1::CpuUsage;

    use super::*;

    fn at(seconds: i64, used: u64) -> ContainerStats {
        let cpu = CpuUsage {
            timestamp: seconds * 1_000_000_000,
            usage_core_nano_seconds: Some(UInt64Value { value: used }),
            ..CpuUsage::default()
        };
        ContainerStats { cpu: Some(cpu), ..ContainerStats::default() }
    }

    #[test]
    fn a_rate_is_the_difference_over_the_time() {
        assert_eq!(rate(&at(1, 0), &at(3, 1_000_000_000)), 500_000_000);
        assert_eq!(percent(500_000_000), "50.0%");
        assert_eq!(rate(&at(1, 5), &at(1, 5)), 0);
    }
}
