//! The commands against a daemon that only pretends: what they ask, print and return.

use std::{
    fs,
    path::PathBuf,
    process::Output,
    sync::{Arc, Mutex},
};

use corten_cri_api::{
    corten::{
        PullPhase, PullProgress, PullRequest,
        images_server::{Images, ImagesServer},
    },
    v1::{
        image_service_server::{ImageService, ImageServiceServer},
        runtime_service_server::{RuntimeService, RuntimeServiceServer},
        *,
    },
};
use tokio::{net::UnixListener, process::Command};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, codegen::BoxStream, transport::Server};

type Answer<T> = Result<Response<T>, Status>;

/// What the pretended daemon has, and what it was asked to change.
#[derive(Default)]
struct State {
    pods: Vec<PodSandbox>,
    containers: Vec<(Container, ContainerStatus)>,
    images: Vec<Image>,
    asked: Vec<String>,
    /// StartContainer fails with this.
    broken_start: Option<Status>,
    /// How many times a container is still running when it's asked for.
    runs_for: u32,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

impl Fake {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().expect("not poisoned"))
    }

    fn ask(&self, what: String) {
        self.with(|state| state.asked.push(what));
    }
}

#[tonic::async_trait]
impl RuntimeService for Fake {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "7".into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let condition = |r#type: &str, status| RuntimeCondition {
            r#type: r#type.into(),
            status,
            reason: if status { String::new() } else { "NoConfig".into() },
            message: if status { String::new() } else { "nothing in /etc/cni".into() },
        };
        let conditions = vec![condition("RuntimeReady", true), condition("NetworkReady", false)];
        Ok(Response::new(StatusResponse {
            status: Some(RuntimeStatus { conditions }),
            ..StatusResponse::default()
        }))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let config = request.into_inner().config.expect("config");
        let pod = PodSandbox {
            id: format!("pod{}", self.with(|state| state.pods.len())),
            metadata: config.metadata,
            annotations: config.annotations,
            created_at: 1,
            ..PodSandbox::default()
        };
        let id = pod.id.clone();
        self.with(|state| state.pods.push(pod));
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn list_pod_sandbox(&self, _: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        Ok(Response::new(ListPodSandboxResponse { items: self.with(|state| state.pods.clone()) }))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Answer<PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let pod = self.with(|state| state.pods.iter().find(|pod| pod.id == id).cloned());
        let pod = pod.ok_or_else(|| Status::not_found(id))?;
        let status = PodSandboxStatus {
            id: pod.id,
            metadata: pod.metadata,
            annotations: pod.annotations,
            network: Some(PodSandboxNetworkStatus {
                ip: "10.1.2.3".into(),
                ..PodSandboxNetworkStatus::default()
            }),
            ..PodSandboxStatus::default()
        };
        Ok(Response::new(PodSandboxStatusResponse {
            status: Some(status),
            ..PodSandboxStatusResponse::default()
        }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Answer<StopPodSandboxResponse> {
        self.ask(format!("stop {}", request.into_inner().pod_sandbox_id));
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Answer<RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        self.ask(format!("remove {id}"));
        self.with(|state| state.pods.retain(|pod| pod.id != id));
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let (config, pod) =
            (request.config.expect("config"), request.sandbox_config.expect("sandbox config"));
        let id = format!("c{}00000000000000", self.with(|state| state.containers.len()));
        let image = config.image.clone().expect("image");
        let container = Container {
            id: id.clone(),
            pod_sandbox_id: request.pod_sandbox_id,
            metadata: config.metadata.clone(),
            image_id: image.image.clone(),
            image: Some(image),
            created_at: 1,
            ..Container::default()
        };
        let log_path = format!("{}/{}", pod.log_directory, config.log_path);
        let status = ContainerStatus { id: id.clone(), log_path, exit_code: 7, ..ContainerStatus::default() };
        self.ask(format!("create {:?} {:?}", config.command, config.args));
        self.with(|state| state.containers.push((container, status)));
        Ok(Response::new(CreateContainerResponse { container_id: id }))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        if let Some(status) = self.with(|state| state.broken_start.clone()) {
            return Err(status);
        }
        let id = request.into_inner().container_id;
        self.with(|state| {
            for (container, status) in state.containers.iter_mut().filter(|(container, _)| container.id == id)
            {
                container.state = ContainerState::ContainerRunning.into();
                status.state = container.state;
                let text = "2026-01-02T03:04:05.6Z stdout P hel\n2026-01-02T03:04:05.7Z stderr F oops\n\
                            2026-01-02T03:04:05.8Z stdout F lo\n2026-01-02T03:04:06Z stdout F world\n";
                fs::write(&status.log_path, text).expect("write log");
            }
        });
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Answer<ContainerStatusResponse> {
        let id = request.into_inner().container_id;
        let status = self.with(|state| {
            let ends = state.runs_for == 0;
            state.runs_for = state.runs_for.saturating_sub(1);
            let (_, status) = state.containers.iter_mut().find(|(container, _)| container.id == id)?;
            if ends && status.state() == ContainerState::ContainerRunning {
                status.set_state(ContainerState::ContainerExited);
                let log = fs::OpenOptions::new().append(true).open(&status.log_path);
                std::io::Write::write_all(&mut log.expect("log"), b"2026-01-02T03:04:07Z stdout F bye\n")
                    .expect("log");
            }
            Some(status.clone())
        });
        let status = status.ok_or_else(|| Status::not_found(format!("container {id} is not known")))?;
        Ok(Response::new(ContainerStatusResponse {
            status: Some(status),
            ..ContainerStatusResponse::default()
        }))
    }

    async fn list_containers(&self, _: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let containers =
            self.with(|state| state.containers.iter().map(|(container, _)| container.clone()).collect());
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        self.ask(format!("stop {} {}", &request.container_id[..2], request.timeout));
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        let id = request.into_inner().container_id;
        self.ask(format!("remove {}", &id[..2]));
        self.with(|state| state.containers.retain(|(container, _)| container.id != id));
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let request = request.into_inner();
        let (stdout, stderr) = (request.cmd.join("+").into_bytes(), b"err".to_vec());
        Ok(Response::new(ExecSyncResponse { stdout, stderr, exit_code: 42 }))
    }
}

#[tonic::async_trait]
impl ImageService for Fake {
    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        Ok(Response::new(ListImagesResponse { images: self.with(|state| state.images.clone()) }))
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let name = request.into_inner().image.expect("image").image;
        let fits = |image: &&Image| image.id == name || image.repo_tags.contains(&name);
        let image = self.with(|state| state.images.iter().find(fits).cloned());
        Ok(Response::new(ImageStatusResponse { image, ..ImageStatusResponse::default() }))
    }

    async fn remove_image(&self, request: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        self.ask(format!("remove image {}", request.into_inner().image.expect("image").image));
        Ok(Response::new(RemoveImageResponse {}))
    }
}

#[tonic::async_trait]
impl Images for Fake {
    async fn pull(&self, request: Request<PullRequest>) -> Answer<BoxStream<PullProgress>> {
        let request = request.into_inner();
        self.ask(format!("pull {} {}:{}", request.reference, request.username, request.password));
        let step = |phase: PullPhase, digest: &str, current| {
            let mut step =
                PullProgress { digest: digest.into(), current, total: 2000, ..PullProgress::default() };
            step.set_phase(phase);
            Ok(step)
        };
        let mut steps = vec![
            step(PullPhase::Downloading, "sha256:aaaa", 0),
            step(PullPhase::Downloading, "sha256:aaaa", 1000),
            step(PullPhase::Done, "sha256:aaaa", 2000),
        ];
        if request.reference == "broken" {
            steps.push(Err(Status::unavailable("fetch blob sha256:aaaa: connection reset")));
        }
        let id = "sha256:1234567890abcdef".to_owned();
        let mut last = PullProgress { image_id: id.clone(), ..PullProgress::default() };
        last.set_phase(PullPhase::Complete);
        steps.push(Ok(last));
        self.with(|state| {
            let repo_tags = vec![request.reference];
            state.images.push(Image { id, repo_tags, size: 2_000_000, ..Image::default() });
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(steps))))
    }
}

struct Bench {
    fake: Fake,
    dir: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        let (fake, dir) = (Fake::default(), tempfile::tempdir().expect("temp dir"));
        let listener = UnixListener::bind(dir.path().join("sock")).expect("bind");
        let server = Server::builder()
            .add_service(RuntimeServiceServer::new(fake.clone()))
            .add_service(ImageServiceServer::new(fake.clone()))
            .add_service(ImagesServer::new(fake.clone()));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Self { fake, dir }
    }

    fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    async fn run(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cortenctl"));
        command.args(line.split(' ')).env("CORTEN_SOCKET", self.dir.path().join("sock"));
        command.env("CORTEN_LOG_DIR", self.logs()).stdin(std::process::Stdio::null());
        command.output().await.expect("run cortenctl")
    }

    /// Standard output of a command that succeeds.
    async fn out(&self, line: &str) -> String {
        let output = self.run(line).await;
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Standard error of a command that fails.
    async fn err(&self, line: &str) -> String {
        let output = self.run(line).await;
        let expected = if line.starts_with("run") || line.starts_with("exec") { 125..=127 } else { 1..=1 };
        assert!(output.status.code().is_some_and(|code| expected.contains(&code)), "{line}: {output:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    }

    fn asked(&self) -> Vec<String> {
        self.fake.with(|state| std::mem::take(&mut state.asked))
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_said_to_be_not_running() {
    let dir = tempfile::tempdir().expect("temp dir");
    let socket = dir.path().join("none");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cortenctl"));
    let output = command.arg("ps").arg("--socket").arg(&socket).output().await.expect("run");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("not running") && stderr.contains(socket.to_str().expect("UTF-8")), "{stderr}");
}

#[tokio::test]
async fn run_shows_the_output_and_returns_the_exit_code() {
    let bench = Bench::start();
    bench.fake.with(|state| state.runs_for = 3);
    let output = bench.run("run --rm --name web -e A=1 img sh -c ls").await;
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(text(&output.stdout), "hello\nworld\nbye\n");
    assert!(text(&output.stderr).contains("oops\n"), "{output:?}");
    let expected = ["pull img :", r#"create [] ["sh", "-c", "ls"]"#, "remove c0", "stop pod0", "remove pod0"];
    assert_eq!(bench.asked(), expected);
    assert_eq!(fs::read_dir(bench.logs()).expect("logs").count(), 0, "logs are removed too");
}

#[tokio::test]
async fn a_container_that_does_not_start_leaves_no_pod() {
    let bench = Bench::start();
    bench.fake.with(|state| state.broken_start = Some(Status::internal("exec /nope: no such file")));
    let stderr = bench.err("run --name web --entrypoint /nope img").await;
    assert!(stderr.contains("can't start the container web: exec /nope: no such file"), "{stderr}");
    assert!(bench.fake.with(|state| state.pods.is_empty()));
    assert_eq!(fs::read_dir(bench.logs()).expect("logs").count(), 0);
}

#[tokio::test]
async fn containers_are_listed_found_read_and_removed() {
    let bench = Bench::start();
    bench.fake.with(|state| state.runs_for = u32::MAX);
    let id = bench.out("run -d --name web img").await;
    assert_eq!(id.trim(), "c000000000000000");
    let ps = bench.out("ps").await;
    assert!(ps.contains("c00000000000  web   img    Up"), "{ps}");
    let json: serde_json::Value = serde_json::from_str(&bench.out("ps -o json").await).expect("JSON");
    assert_eq!((&json[0]["state"], &json[0]["podSandboxId"]), (&"running".into(), &"pod0".into()));
    assert!(bench.out("pods").await.contains("10.1.2.3"));
    assert_eq!(bench.out("logs --tail 1 web").await, "world\n");
    assert_eq!(bench.out("logs -t --since 2026-01-02T03:04:06Z c0").await, "2026-01-02T03:04:06Z world\n");
    let exec = bench.run("exec web ls -o").await;
    assert_eq!((exec.status.code(), text(&exec.stdout), text(&exec.stderr)), (Some(42), "ls+-o", "err"));
    assert!(bench.err("rm web").await.contains("--force"));
    assert!(bench.err("rmi img").await.contains("used by the containers c00000000000"));
    bench.asked();
    assert_eq!(bench.out("stop -t 3 web").await, "web\n");
    assert_eq!(bench.out("rm -f web").await, "web\n");
    assert_eq!(bench.asked(), ["stop c0 3", "stop c0 0", "remove c0", "stop pod0", "remove pod0"]);
    assert_eq!(bench.out("rmi img").await, "img\n");
    assert!(bench.err("logs web").await.contains("no container \"web\""));
}

#[tokio::test]
async fn a_pod_can_hold_several_containers() {
    let bench = Bench::start();
    bench.fake.with(|state| state.runs_for = u32::MAX);
    bench.out("pod create --name two -p 8080:80").await;
    bench.out("run -d --pod two --name a img").await;
    bench.out("run -d --pod two --name b img").await;
    bench.out("rm -f a").await;
    assert_eq!(bench.fake.with(|state| state.pods.len()), 1, "the pod was not made for one container");
    assert!(bench.err("pod rm two").await.contains("containers run"));
    assert_eq!(bench.out("pod rm --force two").await, "two\n");
    assert_eq!(fs::read_dir(bench.logs()).expect("logs").count(), 0);
}

#[tokio::test]
async fn a_pull_is_told_in_lines_or_json_and_its_failure_in_words() {
    let bench = Bench::start();
    let output = bench.run("pull img").await;
    assert_eq!(text(&output.stdout), "sha256:1234567890abcdef\n");
    assert_eq!(
        text(&output.stderr),
        "aaaa: downloading (2.0kB)\naaaa: done (2.0kB)\nimg: complete, image 1234567890ab\n"
    );
    let json = bench.out("pull --json img").await;
    let last: serde_json::Value = serde_json::from_str(json.lines().last().expect("lines")).expect("JSON");
    assert_eq!(last["imageId"], "sha256:1234567890abcdef");
    let stderr = bench.err("pull broken").await;
    assert!(stderr.contains("can't pull broken: fetch blob sha256:aaaa: connection reset"), "{stderr}");
    assert!(bench.out("images").await.contains("2.0MB"));
}

#[tokio::test]
async fn what_is_not_there_yet_or_not_ready_is_said() {
    let bench = Bench::start();
    assert!(bench.err("run -it img sh").await.contains("streaming server"));
    assert!(bench.err("exec -t web sh").await.contains("streaming server"));
    assert!(bench.err("stats").await.contains("doesn't offer that"));
    assert!(bench.out("version").await.contains("fake 7"));
    let status = bench.run("status").await;
    assert_eq!(status.status.code(), Some(1));
    assert!(text(&status.stdout).contains("nothing in /etc/cni"), "{status:?}");
}
