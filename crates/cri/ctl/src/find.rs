//! Finds containers and pods by what people type: a name, an id, or the beginning of an id.

use anyhow::{Result, bail};
use corten_cri_api::v1::{
    Container, ContainerStatus, ContainerStatusRequest, ListContainersRequest, ListPodSandboxRequest,
    PodSandbox,
};

use crate::{
    client::{Answer, Client},
    show::short,
};

/// All containers, the newest first.
pub(crate) async fn containers(client: &Client) -> Result<Vec<Container>> {
    let answer = client.runtime().list_containers(ListContainersRequest { filter: None }).await;
    let mut containers = answer.or_say(|| "list the containers".into())?.containers;
    containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    Ok(containers)
}

/// All pods, the newest first.
pub(crate) async fn pods(client: &Client) -> Result<Vec<PodSandbox>> {
    let answer = client.runtime().list_pod_sandbox(ListPodSandboxRequest { filter: None }).await;
    let mut pods = answer.or_say(|| "list the pods".into())?.items;
    pods.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
    Ok(pods)
}

/// The container that a person means.
pub(crate) async fn container(client: &Client, wanted: &str) -> Result<Container> {
    match pick(containers(client).await?, wanted)? {
        Some(container) => Ok(container),
        None => bail!("there is no container {wanted:?} (`cortenctl ps -a` lists them)"),
    }
}

/// The pod that a person means.
pub(crate) async fn pod(client: &Client, wanted: &str) -> Result<PodSandbox> {
    match pick(pods(client).await?, wanted)? {
        Some(pod) => Ok(pod),
        None => bail!("there is no pod {wanted:?} (`cortenctl pods` lists them)"),
    }
}

/// The status of a container by its full id.
pub(crate) async fn status(client: &Client, id: &str) -> Result<ContainerStatus> {
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let answer = client.runtime().container_status(request).await;
    let answer = answer.or_say(|| format!("get the status of container {}", short(id)))?;
    Ok(answer.status.unwrap_or_default())
}

/// What has an id and a name.
pub(crate) trait Named {
    fn id(&self) -> &str;
    fn name(&self) -> &str;
}

impl Named for Container {
    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        self.metadata.as_ref().map_or("", |metadata| &metadata.name)
    }
}

impl Named for PodSandbox {
    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        self.metadata.as_ref().map_or("", |metadata| &metadata.name)
    }
}

/// The one that `wanted` means: an id, else a name, else the beginning of an id; None if it means none.
pub(crate) fn pick<T: Named>(all: Vec<T>, wanted: &str) -> Result<Option<T>> {
    let ways: [fn(&T, &str) -> bool; 3] = [
        |item, wanted| item.id() == wanted,
        |item, wanted| item.name() == wanted,
        |item, wanted| !wanted.is_empty() && item.id().starts_with(wanted),
    ];
    for fits in ways {
        let ids: Vec<&str> = all.iter().filter(|item| fits(item, wanted)).map(Named::id).collect();
        match ids[..] {
            [] => {}
            [_] => return Ok(all.into_iter().find(|item| fits(item, wanted))),
            _ => bail!(
                "{wanted:?} could be any of {}",
                ids.iter().map(|id| short(id)).collect::<Vec<_>>().join(", ")
            ),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Item(&'static str, &'static str);

    impl Named for Item {
        fn id(&self) -> &str {
            self.0
        }

        fn name(&self) -> &str {
            self.1
        }
    }

    fn find(wanted: &str) -> Result<Option<&'static str>> {
        let all = vec![Item("abc1", "web"), Item("abd2", "db"), Item("ff00", "abc"), Item("ee00", "db")];
        pick(all, wanted).map(|found| found.map(|item| item.0))
    }

    #[test]
    fn ids_before_names_before_beginnings() {
        assert_eq!(find("abc1").expect("id"), Some("abc1"));
        assert_eq!(find("web").expect("name"), Some("abc1"));
        assert_eq!(find("abc").expect("name that begins an id, too"), Some("ff00"));
        assert_eq!(find("abd").expect("beginning"), Some("abd2"));
        assert_eq!(find("x").expect("none"), None);
        assert_eq!(find("").expect("nothing"), None);
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        let error = find("ab").expect_err("two").to_string();
        assert!(error.contains("abc1") && error.contains("abd2"), "{error}");
        assert!(find("db").is_err(), "two of the same name");
    }
}
