//! `cortenctl run`: pull, pod, container, and then its output until it ends.

use std::{io::IsTerminal, process::ExitCode};

use anyhow::Result;
use corten_cri_api::v1::{
    CreateContainerRequest, ImageSpec, ImageStatusRequest, PodSandboxConfig, PodSandboxStatusRequest,
    RunPodSandboxRequest, StartContainerRequest,
};

use super::{config, follow, options, progress, remove};
use crate::{
    args::{PullPolicy, Run},
    client::{Answer, Client, refuse_streaming},
    find,
    log::Log,
    show::{print, short},
};

pub(crate) async fn run(client: &Client, args: Run) -> Result<ExitCode> {
    refuse_streaming(args.interactive, args.tty)?;
    if args.rm && args.detach {
        anyhow::bail!("--rm and -d don't go together yet: nobody would be there to remove it");
    }
    let image = image(client, &args).await?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => options::name_for(&args.image)?,
    };
    let (pod_id, pod) = pod(client, &name, &args).await?;
    let started = start(client, &name, image, &args, &pod_id, &pod).await;
    let id = match started {
        Ok(id) => id,
        Err(error) => {
            // What was made for this container goes with it.
            if args.pod.is_none()
                && let Err(undo) = remove::pod(client, &pod_id).await
            {
                eprintln!("cortenctl: the pod {} is left: {undo:#}", short(&pod_id));
            }
            return Err(error);
        }
    };
    if args.detach {
        print(&format!("{id}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let status = find::status(client, &id).await?;
    let mut log = Log::new(status.log_path.as_ref());
    let followed =
        follow::until_exit(client, &id, &mut log, follow::Interrupt::Stop, |lines| follow::write(&lines))
            .await;
    if args.rm {
        remove::container(client, &id, true).await?;
    }
    Ok(super::exit_code(followed?.exit_code))
}

/// The image, pulled if need be.
async fn image(client: &Client, args: &Run) -> Result<ImageSpec> {
    let spec = ImageSpec { image: args.image.clone(), ..ImageSpec::default() };
    let known = || async {
        let request = ImageStatusRequest { image: Some(spec.clone()), verbose: false };
        let answer = client.images().image_status(request).await;
        Ok::<_, anyhow::Error>(answer.or_say(|| format!("look for the image {}", args.image))?.image)
    };
    let found = match args.pull {
        PullPolicy::Always => None,
        PullPolicy::Missing | PullPolicy::Never => known().await?,
    };
    let id = match (found, args.pull) {
        (Some(image), _) => image.id,
        (None, PullPolicy::Never) => {
            anyhow::bail!("the image {} is not here, and --pull is never", args.image)
        }
        (None, _) => {
            let bars = std::io::stderr().is_terminal();
            let mode = if bars { progress::Mode::Bars } else { progress::Mode::Lines };
            progress::pull(client, &args.image, None, mode).await?
        }
    };
    Ok(ImageSpec { image: id, user_specified_image: args.image.clone(), ..ImageSpec::default() })
}

/// The pod to put the container into.
async fn pod(client: &Client, name: &str, args: &Run) -> Result<(String, PodSandboxConfig)> {
    if let Some(wanted) = &args.pod {
        let pod = find::pod(client, wanted).await?;
        let request = PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: false };
        let answer = client.runtime().pod_sandbox_status(request).await;
        let status = answer.or_say(|| format!("get the status of pod {wanted}"))?.status.unwrap_or_default();
        return Ok((pod.id, config::existing(&status)));
    }
    let config = config::pod(name, &args.pod_options, false, true)?;
    Ok((create_pod(client, &config).await?, config))
}

/// RunPodSandbox; its log directory goes if it fails.
pub(crate) async fn create_pod(client: &Client, config: &PodSandboxConfig) -> Result<String> {
    let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
    let answer = client.runtime().run_pod_sandbox(request).await;
    let name = config.metadata.as_ref().map_or("", |metadata| &metadata.name);
    let answer = answer.or_say(|| format!("make the pod {name}"));
    if answer.is_err() {
        remove::log_directory(&config.log_directory);
    }
    Ok(answer?.pod_sandbox_id)
}

async fn start(
    client: &Client,
    name: &str,
    image: ImageSpec,
    args: &Run,
    pod_id: &str,
    pod: &PodSandboxConfig,
) -> Result<String> {
    let config = config::container(name, image, args, pod)?;
    let request = CreateContainerRequest {
        pod_sandbox_id: pod_id.to_owned(),
        config: Some(config),
        sandbox_config: Some(pod.clone()),
    };
    let answer = client.runtime().create_container(request).await;
    let id = answer.or_say(|| format!("create the container {name}"))?.container_id;
    let request = StartContainerRequest { container_id: id.clone() };
    let started =
        client.runtime().start_container(request).await.or_say(|| format!("start the container {name}"));
    if let Err(error) = started {
        if args.pod.is_some()
            && let Err(undo) = remove::container(client, &id, true).await
        {
            eprintln!("cortenctl: the container {} is left: {undo:#}", short(&id));
        }
        return Err(error);
    }
    Ok(id)
}
