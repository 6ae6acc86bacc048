//! RuntimeService: one file per RPC.

mod container_stats;
mod container_status;
mod create_container;
mod exec_sync;
mod filter;
mod list_containers;
mod list_pod_sandbox;
mod pod_sandbox_status;
mod remove_container;
mod remove_pod_sandbox;
mod reopen_container_log;
mod run_pod_sandbox;
mod runtime_config;
mod start_container;
mod status;
pub(crate) mod stop_container;
mod stop_pod_sandbox;
mod update_container_resources;
mod version;

use std::sync::Arc;

use corten_cri_api::v1;
use corten_cri_api::v1::runtime_service_server::RuntimeService;
use tonic::{Request, Response, Status};

use crate::server::{Inner, Server};
use crate::{Error, Result};

/// Answers the named RPCs with the functions of the same name; all others answer Unimplemented.
///
/// The work is a task of its own: a client that goes away cancels its waiting, never what has been begun, so that
/// nothing is left half-done or half-undone.
macro_rules! serve {
    ($($rpc:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl RuntimeService for Server {
            $(
                async fn $rpc(
                    &self,
                    request: Request<v1::$request>,
                ) -> Result<Response<v1::$response>, Status> {
                    let inner = Arc::clone(&self.0);
                    let request = request.into_inner();
                    tracing::debug!(rpc = stringify!($rpc), ?request);
                    answer(stringify!($rpc), async move { inner.$rpc(request).await }).await
                }
            )*
        }
    };
}

serve! {
    version(VersionRequest) -> VersionResponse;
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
    update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
    status(StatusRequest) -> StatusResponse;
    runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
}

/// Runs the work as a task and turns what comes of it into an answer.
async fn answer<T: Send + 'static>(
    rpc: &'static str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<Response<T>, Status> {
    let result = tokio::spawn(work).await.map_err(Error::internal("finish the request: this is a bug"));
    match result.and_then(|answer| answer) {
        Ok(answer) => Ok(Response::new(answer)),
        Err(error) => {
            let status = Status::from(error);
            tracing::debug!(rpc, code = ?status.code(), error = status.message());
            Err(status)
        }
    }
}

impl Inner {
    /// What `verbose` adds to a status: JSON for people, no contract.
    fn info(value: &serde_json::Value) -> std::collections::HashMap<String, String> {
        [("info".to_owned(), value.to_string())].into()
    }
}
