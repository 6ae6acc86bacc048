//! A blocking CRI client. Each call has a deadline, so that a hanging daemon fails a test and doesn't hang it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use corten_cri_api::v1;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use v1::image_service_client::ImageServiceClient;
use v1::runtime_service_client::RuntimeServiceClient;

/// How long any call may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A CRI client for one thread.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    tokio: tokio::runtime::Runtime,
    channel: Channel,
}

/// One method per RPC, named by it.
macro_rules! calls {
    ($($service:ident { $($name:ident($request:ident) -> $response:ident;)* })*) => {
        impl Client {
            $($(
                #[doc = concat!("`", stringify!($name), "`.")]
                ///
                /// # Errors
                /// The daemon's.
                pub fn $name(&self, request: v1::$request) -> Result<v1::$response, Status> {
                    let mut client = $service::new(self.channel.clone()).max_decoding_message_size(32 << 20);
                    let mut request = Request::new(request);
                    request.set_timeout(DEADLINE);
                    self.tokio.block_on(async { Ok(client.$name(request).await?.into_inner()) })
                }
            )*)*
        }
    };
}

calls! {
    RuntimeServiceClient {
        version(VersionRequest) -> VersionResponse;
        status(StatusRequest) -> StatusResponse;
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
        update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
        run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
        stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
        remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
        pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
        list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse;
        create_container(CreateContainerRequest) -> CreateContainerResponse;
        start_container(StartContainerRequest) -> StartContainerResponse;
        stop_container(StopContainerRequest) -> StopContainerResponse;
        remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
        list_containers(ListContainersRequest) -> ListContainersResponse;
        container_status(ContainerStatusRequest) -> ContainerStatusResponse;
        update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
        exec_sync(ExecSyncRequest) -> ExecSyncResponse;
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
        exec(ExecRequest) -> ExecResponse;
    }
    ImageServiceClient {
        list_images(ListImagesRequest) -> ListImagesResponse;
        image_status(ImageStatusRequest) -> ImageStatusResponse;
        pull_image(PullImageRequest) -> PullImageResponse;
        remove_image(RemoveImageRequest) -> RemoveImageResponse;
        image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
    }
}

impl Client {
    /// A client of the daemon at `socket`. It connects at the first call, and again when the daemon has been restarted.
    ///
    /// # Errors
    /// When no tokio runtime can be made.
    pub fn new(socket: &Path) -> anyhow::Result<Self> {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
        });
        // A lazy channel spawns its task at once, which wants to be inside of the runtime.
        let channel = {
            let _inside = tokio.enter();
            Endpoint::from_static("http://cortend").connect_with_connector_lazy(connector)
        };
        Ok(Self { socket: socket.to_owned(), tokio, channel })
    }

    /// Another client of the same daemon, for another thread.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn another(&self) -> anyhow::Result<Self> {
        Self::new(&self.socket)
    }
}
