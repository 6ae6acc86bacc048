//! `cortenctl images` and `cortenctl rmi`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use corten_cri_api::v1::{Image, ImageSpec, ImageStatusRequest, ListImagesRequest, RemoveImageRequest};

use super::Batch;
use crate::{
    args::Output,
    client::{Answer, Client},
    find, json,
    show::{Table, print_json, short, size},
};

/// All images.
pub(crate) async fn all(client: &Client) -> Result<Vec<Image>> {
    let answer = client.images().list_images(ListImagesRequest { filter: None }).await;
    Ok(answer.or_say(|| "list the images".into())?.images)
}

pub(crate) async fn list(client: &Client, output: Output) -> Result<()> {
    let mut images = all(client).await?;
    images.sort_by(|a, b| (&a.repo_tags, &a.id).cmp(&(&b.repo_tags, &b.id)));
    if output == Output::Json {
        return print_json(&images.iter().map(|image| json::message(image, &[])).collect());
    }
    let mut table = Table::new(&["IMAGE", "TAG", "IMAGE ID", "SIZE"]);
    for image in &images {
        for (name, tag) in names(image) {
            table.row([name, tag, short(&image.id), size(image.size)]);
        }
    }
    table.print()
}

/// Repository and tag, a pair for each tag; an image without tags has its repositories' names.
fn names(image: &Image) -> Vec<(String, String)> {
    let none = || "<none>".to_owned();
    let tags = image.repo_tags.iter().filter_map(|tag| tag.rsplit_once(':'));
    let tags: Vec<_> = tags.map(|(name, tag)| (name.to_owned(), tag.to_owned())).collect();
    if !tags.is_empty() {
        return tags;
    }
    let digests = image.repo_digests.iter().filter_map(|digest| digest.split_once('@'));
    let names: Vec<_> = digests.map(|(name, _)| (name.to_owned(), none())).collect();
    if names.is_empty() { vec![(none(), none())] } else { names }
}

pub(crate) async fn remove(client: &Client, names: Vec<String>) -> Result<ExitCode> {
    let mut batch = Batch::default();
    for name in names {
        batch.take(&name, remove_one(client, &name).await)?;
    }
    Ok(batch.code())
}

async fn remove_one(client: &Client, name: &str) -> Result<()> {
    // CRI removes what isn't there without a word, and images from under containers: people want to know.
    let Some(image) = find(client, name).await? else {
        bail!("there is no image {name:?} (`cortenctl images` lists them)");
    };
    let users: Vec<String> = find::containers(client)
        .await?
        .into_iter()
        .filter(|container| container.image_id == image.id || container.image_ref == image.id)
        .map(|container| short(&container.id))
        .collect();
    if !users.is_empty() {
        bail!("the image {name} is used by the containers {}: remove them first", users.join(", "));
    }
    let spec = ImageSpec { image: image.id, ..ImageSpec::default() };
    let answer = client.images().remove_image(RemoveImageRequest { image: Some(spec) }).await;
    answer.or_say(|| format!("remove the image {name}")).map(drop)
}

/// The image that a person means: a reference, an id, or the beginning of an id.
pub(crate) async fn find(client: &Client, name: &str) -> Result<Option<Image>> {
    let spec = ImageSpec { image: name.to_owned(), ..ImageSpec::default() };
    let status = client.images().image_status(ImageStatusRequest { image: Some(spec), verbose: false }).await;
    if let Ok(Some(image)) = status.map(|answer| answer.into_inner().image) {
        return Ok(Some(image));
    }
    let beginning = |image: &Image| image.id.strip_prefix("sha256:").unwrap_or(&image.id).starts_with(name);
    let mut fitting: Vec<Image> = all(client).await?.into_iter().filter(beginning).collect();
    match fitting.len() {
        0 | 1 => Ok(fitting.pop()),
        _ => bail!("{name:?} could be any of {} images", fitting.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_a_row_for_each_tag() {
        let strings = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect::<Vec<_>>();
        let mut image = Image {
            repo_tags: strings(&["host:5000/app:v1", "host:5000/app:v2"]),
            repo_digests: strings(&["host:5000/app@sha256:00"]),
            ..Image::default()
        };
        assert_eq!(names(&image)[1], ("host:5000/app".to_owned(), "v2".to_owned()));
        image.repo_tags.clear();
        assert_eq!(names(&image), [("host:5000/app".to_owned(), "<none>".to_owned())]);
    }
}
