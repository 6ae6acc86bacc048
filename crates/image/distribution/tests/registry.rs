//! The client against a registry that is a closure.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use corten_distribution::{
    Auth, Client, Descriptor, Digest, Error, Reference, Registry, RegistryConfig, Repository, media_type,
};
use integration_support::http::{Request, Response, Server};

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

fn config() -> RegistryConfig {
    RegistryConfig {
        attempts: 3,
        backoff: Duration::from_millis(2),
        max_backoff: Duration::from_millis(300),
        ..RegistryConfig::default()
    }
}

fn repository(server: &Server, auth: Option<Auth>) -> (Repository, Reference) {
    let reference = Reference::parse(&format!("{}/a/b:v1", server.address())).expect("a name");
    (Client::new(config()).repository(&reference, auth), reference)
}

fn manifest(body: &[u8]) -> Response {
    Response::new(200, body)
        .with_header("content-type", media_type::OCI_MANIFEST)
        .with_header("docker-content-digest", Digest::sha256(body).as_str())
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

fn blob_of(bytes: &[u8]) -> Descriptor {
    Descriptor { media_type: "x".into(), digest: Digest::sha256(bytes), size: bytes.len() as u64 }
}

async fn read(repository: &Repository, descriptor: &Descriptor, offset: u64) -> Result<Vec<u8>, Error> {
    let mut blob = repository.blob(descriptor, offset).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = blob.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[tokio::test]
async fn resolves_by_head_and_by_get_where_head_says_too_little() {
    for head_works in [true, false] {
        let methods = Arc::new(Mutex::new(Vec::new()));
        let seen = methods.clone();
        let server = Server::start(move |request| {
            seen.lock().unwrap().push(request.method.clone());
            assert_eq!(request.target, "/v2/a/b/manifests/v1");
            assert!(header(request, "accept").unwrap().contains(media_type::DOCKER_LIST));
            if request.method == "HEAD" && !head_works { Response::new(405, "") } else { manifest(MANIFEST) }
        });
        let server = server.unwrap();
        let (repository, reference) = repository(&server, None);
        let resolved = repository.resolve(&reference).await.unwrap();
        let expected = Descriptor {
            media_type: media_type::OCI_MANIFEST.into(),
            digest: Digest::sha256(MANIFEST),
            size: MANIFEST.len() as u64,
        };
        assert_eq!(resolved, expected);
        let expected: &[&str] = if head_works { &["HEAD"] } else { &["HEAD", "GET"] };
        assert_eq!(*methods.lock().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_manifest_must_have_the_digest_and_size_it_was_asked_for_by() {
    // The header lies along with the body, so only computing the digest helps.
    let server = Server::start(|_| {
        Response::new(200, &b"{}"[..]).with_header("docker-content-digest", Digest::sha256(MANIFEST).as_str())
    });
    let server = server.unwrap();
    let (repository, reference) = repository(&server, None);
    let error = repository.manifest(&blob_of(MANIFEST)).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    let pinned = reference.with_digest(Digest::sha256(MANIFEST));
    let error = repository.resolve(&pinned).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    let size = Descriptor { size: 3, ..blob_of(b"{}") };
    let error = repository.manifest(&size).await.unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { expected: 3, actual: 2, .. }), "{error}");
}

#[tokio::test]
async fn an_endless_manifest_is_given_up_and_schema1_refused() {
    let server = Server::start(|request| {
        if request.target.ends_with("old") {
            return manifest(MANIFEST).with_header("x", "y").retyped(media_type::DOCKER_SCHEMA1);
        }
        Response::new(200, vec![b' '; 9 << 20])
    });
    let server = server.unwrap();
    let (repository, _) = repository(&server, None);
    let error = repository.manifest(&blob_of(b"")).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    let old = Reference::parse(&format!("{}/a/b:old", server.address())).unwrap();
    let error = repository.resolve(&old).await.unwrap_err();
    assert!(error.to_string().contains("schema 1"), "{error}");
}

trait Retyped {
    fn retyped(self, media_type: &str) -> Self;
}

impl Retyped for Response {
    fn retyped(mut self, media_type: &str) -> Self {
        self.headers.retain(|(name, _)| name != "content-type");
        self.with_header("content-type", media_type)
    }
}

#[tokio::test]
async fn transient_answers_are_tried_again_and_final_ones_are_not() {
    for (status, tries) in [(503, 3), (500, 3), (429, 3), (408, 3), (404, 1), (403, 1), (400, 1), (418, 1)] {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let server = Server::start(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            Response::new(status, &br#"{"errors":[{"code":"C","message":"because\n"}]}"#[..])
        });
        let server = server.unwrap();
        let (repository, _) = repository(&server, None);
        let error = read(&repository, &blob_of(b"x"), 0).await.unwrap_err();
        assert!(error.to_string().ends_with(": because"), "{status}: {error}");
        assert_eq!(count.load(Ordering::SeqCst), tries, "{status}");
    }
}

#[tokio::test]
async fn retry_after_is_honoured_up_to_the_limit() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Response::new(429, "").with_header("retry-after", "3600"),
        _ => Response::new(200, "x"),
    });
    let server = server.unwrap();
    let (repository, _) = repository(&server, None);
    let start = Instant::now();
    assert_eq!(read(&repository, &blob_of(b"x"), 0).await.unwrap(), b"x");
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(300) && waited < Duration::from_secs(60), "{waited:?}");
}

#[tokio::test]
async fn a_token_is_fetched_with_the_password_and_used_from_then_on() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let (seen, address) = (log.clone(), Arc::new(Mutex::new(String::new())));
    let own = address.clone();
    let server = Server::start(move |request| {
        let authorization = header(request, "authorization").unwrap_or("none").to_owned();
        seen.lock().unwrap().push(format!("{} {} {authorization}", request.method, request.target));
        if request.target.starts_with("/token") {
            return Response::new(200, r#"{"token":"abc"}"#);
        }
        if authorization == "Bearer abc" {
            return manifest(MANIFEST);
        }
        let realm = format!("http://{}/token", own.lock().unwrap());
        let challenge = format!(r#"Bearer realm="{realm}",service="s",scope="repository:a/b:pull""#);
        Response::new(401, "").with_header("www-authenticate", &challenge)
    });
    let server = server.unwrap();
    *address.lock().unwrap() = server.address().to_string();
    let (repository, reference) = repository(&server, Some(Auth::basic("user", "pass")));
    let resolved = repository.resolve(&reference).await.unwrap();
    repository.manifest(&resolved).await.unwrap();
    let digest = Digest::sha256(MANIFEST);
    assert_eq!(
        *log.lock().unwrap(),
        [
            "HEAD /v2/a/b/manifests/v1 none".to_owned(),
            "GET /token?scope=repository%3Aa%2Fb%3Apull&service=s Basic dXNlcjpwYXNz".to_owned(),
            "HEAD /v2/a/b/manifests/v1 Bearer abc".to_owned(),
            format!("GET /v2/a/b/manifests/{digest} Bearer abc"),
        ]
    );
}

#[tokio::test]
async fn wrong_credentials_are_said_and_not_shown() {
    let server = Server::start(|_| Response::new(401, "").with_header("www-authenticate", "Basic realm=x"));
    let server = server.unwrap();
    for (auth, said) in [(Some(Auth::basic("user", "hunter2")), "not accepted"), (None, "wants credentials")]
    {
        let (repository, reference) = repository(&server, auth);
        let error = repository.resolve(&reference).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }));
        let text = format!("{error} {error:?} {repository:?}");
        assert!(text.contains(said) && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn a_redirect_to_another_host_carries_no_authorization() {
    let leaked = Arc::new(Mutex::new(None));
    let seen = leaked.clone();
    let storage = Server::start(move |request| {
        *seen.lock().unwrap() = Some(header(request, "authorization").map(str::to_owned));
        Response::new(200, "blob")
    });
    let storage = storage.unwrap();
    let target = format!("http://{}/somewhere?signature=1", storage.address());
    let server = Server::start(move |request| match header(request, "authorization") {
        None => Response::new(401, "").with_header("www-authenticate", "Basic"),
        Some(_) => Response::new(307, "").with_header("location", &target),
    });
    let server = server.unwrap();
    let (repository, _) = repository(&server, Some(Auth::basic("user", "pass")));
    assert_eq!(read(&repository, &blob_of(b"blob"), 0).await.unwrap(), b"blob");
    assert_eq!(*leaked.lock().unwrap(), Some(None), "the storage host must be asked, without credentials");
}

#[tokio::test]
async fn a_blob_is_continued_also_where_ranges_are_unknown() {
    for ranges in [true, false] {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let server = Server::start(move |request| {
            let range = header(request, "range").map(str::to_owned);
            seen.lock().unwrap().push(range.clone());
            let start =
                range.as_deref().and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
            let start = start.filter(|_| ranges).unwrap_or(0_usize);
            // Everything is promised; what comes ends in the middle of the blob, if it begins at its start.
            let (whole, end) = (b"0123456789", if seen.lock().unwrap().len() == 1 { 4 } else { 10 });
            let response = Response::new(if start > 0 { 206 } else { 200 }, &whole[start..end]);
            let response = response.with_header("content-length", &(10 - start).to_string());
            if start > 0 {
                response.with_header("content-range", &format!("bytes {start}-9/10"))
            } else {
                response
            }
        });
        let server = server.unwrap();
        let (repository, _) = repository(&server, None);
        assert_eq!(read(&repository, &blob_of(b"0123456789"), 0).await.unwrap(), b"0123456789");
        assert_eq!(*asked.lock().unwrap(), [None, Some("bytes=4-".to_owned())]);
        assert_eq!(read(&repository, &blob_of(b"0123456789"), 7).await.unwrap(), b"789");
        assert_eq!(read(&repository, &blob_of(b"0123456789"), 10).await.unwrap(), b"");
    }
}

#[tokio::test]
async fn a_blob_that_never_gets_further_is_given_up() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let server = Server::start(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Response::new(200, "").with_header("content-length", "10")
    });
    let server = server.unwrap();
    let (repository, _) = repository(&server, None);
    let error = read(&repository, &blob_of(b"0123456789"), 0).await.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error}");
    assert!((3..=4).contains(&count.load(Ordering::SeqCst)));
}

#[tokio::test]
async fn a_blob_of_another_size_is_refused() {
    for body in ["short", "much too long"] {
        let server = Server::start(move |_| Response::new(200, body)).unwrap();
        let (repository, _) = repository(&server, None);
        let error = read(&repository, &blob_of(b"0123456789"), 0).await.unwrap_err();
        assert!(matches!(error, Error::SizeMismatch { expected: 10, .. }), "{error}");
    }
}

#[tokio::test]
async fn nobody_listens() {
    let server = Server::start(|_| Response::new(200, "")).unwrap();
    let (repository, reference) = repository(&server, None);
    let host = server.address().to_string();
    drop(server);
    let error = repository.resolve(&reference).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&host), "{error}");
}

#[tokio::test]
async fn mirrors_come_first_and_get_no_credentials_of_the_registry() {
    let mirror_saw = Arc::new(Mutex::new(Vec::new()));
    let seen = mirror_saw.clone();
    let mirror = Server::start(move |request| {
        seen.lock().unwrap().push(header(request, "authorization").map(str::to_owned));
        Response::new(401, "").with_header("www-authenticate", "Basic realm=mirror")
    });
    let mirror = mirror.unwrap();
    let origin = Server::start(|request| match header(request, "authorization") {
        None => Response::new(401, "").with_header("www-authenticate", "Basic realm=x"),
        Some(_) => manifest(MANIFEST),
    });
    let origin = origin.unwrap();
    let name = origin.address().to_string();
    let endpoints = vec![mirror.address().to_string(), name.clone()];
    let mut config = config();
    config.registries.insert(name.clone(), Registry { endpoints, ..Registry::default() });
    let reference = Reference::parse(&format!("{name}/a/b:v1")).unwrap();
    let repository = Client::new(config).repository(&reference, Some(Auth::basic("user", "pass")));
    repository.resolve(&reference).await.unwrap();
    assert_eq!(*mirror_saw.lock().unwrap(), [None]);
}

#[tokio::test]
async fn pushes_what_is_missing() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let seen = log.clone();
    let server = Server::start(move |request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        seen.lock().unwrap().push(format!("{} {} {body}", request.method, request.target));
        match request.method.as_str() {
            "HEAD" => Response::new(404, ""),
            "POST" => Response::new(202, "").with_header("location", "/upload/1?state=x"),
            _ => Response::new(201, ""),
        }
    });
    let server = server.unwrap();
    let (repository, _) = repository(&server, None);
    let blob = repository.push_blob("x", &b"blob"[..]).await.unwrap();
    repository.push_manifest("v1", media_type::OCI_MANIFEST, MANIFEST).await.unwrap();
    let digest = blob.digest.to_string();
    let escaped = digest.replace(':', "%3A");
    assert_eq!(
        *log.lock().unwrap(),
        [
            format!("HEAD /v2/a/b/blobs/{digest} "),
            "POST /v2/a/b/blobs/uploads/ ".to_owned(),
            format!("PUT /upload/1?state=x&digest={escaped} blob"),
            format!("PUT /v2/a/b/manifests/v1 {}", String::from_utf8_lossy(MANIFEST)),
        ]
    );
}
