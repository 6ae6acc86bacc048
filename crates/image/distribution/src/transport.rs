//! One request to one endpoint: authentication, classification of answers, attempts.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use reqwest::header::{self, HeaderName};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;

use crate::auth::Auth;
use crate::challenge::Challenge;
use crate::client::Inner;
use crate::config::Endpoint;
use crate::error::is_transient_status;
use crate::retry::{Attempts, Failure, retry_after};
use crate::{Digest, Error, RegistryConfig, Result};

/// How much of an error's body is read.
const MAX_ERROR_BYTES: usize = 16 * 1024;
/// Larger answers of a token server are refused.
const MAX_TOKEN_BYTES: u64 = 1 << 20;

/// A request, without what the endpoint adds.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: Method,
    target: Target,
    headers: Vec<(HeaderName, String)>,
    body: Option<Bytes>,
    push: bool,
    /// What it is about, for errors.
    pub(crate) what: String,
}

#[derive(Debug, Clone)]
enum Target {
    /// Below `/v2/<repository>/`.
    Path(String),
    /// Where the registry sent us.
    Url(Url),
}

impl Call {
    pub(crate) fn new(method: Method, path: String, what: String) -> Call {
        Call { method, target: Target::Path(path), headers: Vec::new(), body: None, push: false, what }
    }

    pub(crate) fn to(method: Method, url: Url, what: String) -> Call {
        Call { method, target: Target::Url(url), headers: Vec::new(), body: None, push: false, what }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Call {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: Bytes) -> Call {
        self.body = Some(body);
        self
    }

    pub(crate) fn pushing(mut self) -> Call {
        self.push = true;
        self
    }

    pub(crate) fn operation(&self) -> String {
        format!("{} {}", if self.push { "push" } else { "fetch" }, self.what)
    }
}

/// One repository at one endpoint, with the authorization that works there once it's known.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    inner: Arc<Inner>,
    endpoint: Endpoint,
    repository: String,
    auth: Option<Auth>,
    authorization: Arc<Mutex<Secret>>,
}

/// An `Authorization` header, kept out of `Debug`.
#[derive(Default)]
struct Secret(Option<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Secret(..)" } else { "Secret(none)" })
    }
}

impl Session {
    pub(crate) fn new(
        inner: Arc<Inner>,
        endpoint: Endpoint,
        repository: &str,
        auth: Option<Auth>,
    ) -> Session {
        Session { inner, endpoint, repository: repository.to_owned(), auth, authorization: Arc::default() }
    }

    pub(crate) fn host(&self) -> &str {
        &self.endpoint.host
    }

    pub(crate) fn config(&self) -> &RegistryConfig {
        &self.inner.config
    }

    /// Sends a call until it succeeds or fails for good.
    pub(crate) async fn exchange(&self, call: &Call) -> Result<Response> {
        let mut attempts = Attempts::new(self.config());
        loop {
            match self.attempt(call).await {
                Ok(response) => return Ok(response),
                Err(failure) => attempts.after(failure).await?,
            }
        }
    }

    /// Sends a call once, or twice if the registry wants to know who asks.
    pub(crate) async fn attempt(&self, call: &Call) -> Result<Response, Failure> {
        let response = self.send(call).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.classify(call, response).await;
        }
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
        let challenge = Challenge::parse(headers.filter_map(|v| v.to_str().ok()));
        let Some(authorization) = self.answer(call, challenge).await? else {
            return self.classify(call, response).await;
        };
        drop(response);
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(authorization);
        let response = self.send(call).await?;
        self.classify(call, response).await
    }

    async fn send(&self, call: &Call) -> Result<Response, Failure> {
        let url = match &call.target {
            Target::Path(path) => {
                let url = format!("{}/v2/{}/{path}", self.endpoint.base(), self.repository);
                Url::parse(&url).map_err(|e| Error::Setup(Box::new(e)))?
            }
            Target::Url(url) => url.clone(),
        };
        let ours = self.is_ours(&url);
        let client = self.inner.clients.of(self.host(), self.config())?;
        let mut request = client.request(call.method.clone(), url);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        if let Some(value) = authorization.filter(|_| ours) {
            let mut value = header::HeaderValue::try_from(value).map_err(|e| Error::Setup(Box::new(e)))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        request.send().await.map_err(|error| self.failed(call, error).into())
    }

    /// Whether a URL is the endpoint itself, and may see its credentials.
    fn is_ours(&self, url: &Url) -> bool {
        Url::parse(&self.endpoint.base()).is_ok_and(|base| base.origin() == url.origin())
    }

    fn failed(&self, call: &Call, error: reqwest::Error) -> Error {
        let (connecting, host) = (error.is_connect(), self.host().to_owned());
        // A redirected URL may hold a signature.
        let source = Box::new(error.without_url());
        if connecting {
            return Error::Unreachable { host, source };
        }
        Error::Broken { operation: call.operation(), host, source }
    }

    /// The `Authorization` that answers a challenge, if we have one to give.
    async fn answer(&self, call: &Call, challenge: Option<Challenge>) -> Result<Option<String>, Failure> {
        match (challenge, &self.auth) {
            (Some(Challenge::Bearer { .. }), Some(Auth::RegistryToken(token))) => {
                Ok(Some(format!("Bearer {token}")))
            }
            (Some(Challenge::Bearer { realm, service, scope }), _) => {
                self.token(call, &realm, service, scope).await.map(Some)
            }
            (Some(Challenge::Basic), Some(auth)) => Ok(auth.header()),
            _ => Ok(None),
        }
    }

    /// Gets a token, anonymously if need be.
    async fn token(
        &self,
        call: &Call,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
    ) -> Result<String, Failure> {
        let mut url =
            Url::parse(realm).map_err(|e| self.protocol(call, format!("token realm {realm:?}: {e}")))?;
        if url.scheme() != "https" && !self.endpoint.plain_http {
            let reason = format!("its token realm {realm:?} isn't HTTPS");
            return Err(self.protocol(call, reason).into());
        }
        let actions = if call.push { "pull,push" } else { "pull" };
        let scope = scope.unwrap_or_else(|| format!("repository:{}:{actions}", self.repository));
        let mut pairs: Vec<(&str, &str)> = vec![("scope", &scope)];
        pairs.extend(service.as_deref().map(|service| ("service", service)));
        let host = url.host_str().unwrap_or_default().to_owned();
        let client = self.inner.clients.of(&host, self.config())?;
        let request = if let Some(Auth::IdentityToken(token)) = &self.auth {
            pairs.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "corten"),
                ("refresh_token", token),
            ]);
            // Only a URL can encode a form without another crate.
            let mut form = url.clone();
            form.query_pairs_mut().clear().extend_pairs(pairs);
            client
                .post(url)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.query().unwrap_or_default().to_owned())
        } else {
            url.query_pairs_mut().extend_pairs(pairs);
            match &self.auth {
                Some(Auth::Basic { username, password }) => {
                    client.get(url).basic_auth(username, Some(password))
                }
                _ => client.get(url),
            }
        };
        let response = request.send().await.map_err(|error| self.failed(call, error))?;
        let response = self.classify(call, response).await?;
        let bytes = self.body(call, response, MAX_TOKEN_BYTES).await?;
        let token = serde_json::from_slice::<Token>(&bytes).ok().and_then(|t| t.token.or(t.access_token));
        let token = token.filter(|t| !t.is_empty());
        Ok(format!(
            "Bearer {}",
            token.ok_or_else(|| self.protocol(call, "no token in its token server's answer".into()))?
        ))
    }

    /// Makes errors of answers that aren't successful.
    async fn classify(&self, call: &Call, response: Response) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let wait = retry_after(&response);
        let message = error_message(response).await;
        let (what, operation, host) = (call.what.clone(), call.operation(), self.host().to_owned());
        let error = match status.as_u16() {
            404 => Error::NotFound { what, host, message },
            401 | 403 => Error::Unauthorized { operation, host, anonymous: self.auth.is_none(), message },
            status => Error::Status { operation, host, status, message },
        };
        let retry_after = wait.filter(|_| is_transient_status(status.as_u16()));
        Err(Failure { error, retry_after })
    }

    /// Reads a body of limited size.
    pub(crate) async fn body(
        &self,
        call: &Call,
        mut response: Response,
        limit: u64,
    ) -> Result<Bytes, Failure> {
        let too_large = || Error::TooLarge { what: call.what.clone(), limit };
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(call, error))? {
            if body.len() as u64 + chunk.len() as u64 > limit {
                return Err(too_large().into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    pub(crate) fn digest_mismatch(&self, what: &str, expected: &Digest, actual: Digest) -> Error {
        let (what, host) = (what.to_owned(), self.host().to_owned());
        Error::DigestMismatch { what, host, expected: expected.clone(), actual }
    }

    fn protocol(&self, call: &Call, reason: String) -> Error {
        Error::Protocol { operation: call.operation(), host: self.host().to_owned(), reason }
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// What the registry says about an error, in one line of bounded length.
async fn error_message(mut response: Response) -> String {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Entry>,
        details: Option<String>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ERROR_BYTES {
            break;
        }
    }
    let Ok(body) = serde_json::from_slice::<Body>(&bytes) else { return String::new() };
    let entries = body.errors.iter().map(|entry| match (entry.code.as_str(), entry.message.as_str()) {
        (code, "") => code.to_owned(),
        (_, message) => message.to_owned(),
    });
    let text = entries.chain(body.details).collect::<Vec<_>>().join("; ");
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
