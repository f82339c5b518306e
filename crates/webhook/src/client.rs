//! Calls over a pool of connections.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Status, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use camino::{Utf8Path, Utf8PathBuf};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use rustls_pki_types::ServerName;

use crate::connect::{self, Connector};
use crate::{
    ClientConfig, ConfigError, Credential, Error, ServiceReference, ServiceResolver, Target,
    TransportProblem, tls,
};

/// What is sent: a buffer, or somebody else's stream handed on.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn StdError + Send + Sync>>;

/// Connections to one address that wait for the next call at most.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// How long they wait.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// An HTTP/2 connection on which nothing came for so long is asked whether it still leads anywhere, as client-go does: a
/// watch would never find out that the way to the server was cut.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// One that does not answer within this time is given up.
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// A token in a file is read again after this time, as upstream does.
const TOKEN_FILE_LIFE: Duration = Duration::from_secs(60);
/// Of an answer that is not understood, this much is shown.
const SHOWN_BYTES_MAX: usize = 2048;

/// Calls one peer. Cheap to share; connections are kept between calls.
pub struct Client {
    http: legacy::Client<Connector, Body>,
    scheme: Scheme,
    /// As the configuration names it; what `Host` and error texts say.
    authority: Authority,
    path: String,
    service: Option<(ServiceReference, Arc<dyn ServiceResolver>)>,
    authorization: Authorization,
    user_agent: HeaderValue,
}

/// A request whose whole answer is wanted.
pub struct Call<'a> {
    pub method: Method,
    /// Behind the path of the configuration.
    pub path: &'a str,
    /// Without its question mark; may be empty.
    pub query: &'a str,
    pub body: Bytes,
    /// For all of it, from connecting to the last byte of the answer.
    pub timeout: Duration,
    pub answer_bytes_max: usize,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    pub fn new(config: &ClientConfig, resolver: &Arc<dyn ServiceResolver>) -> Result<Self, ConfigError> {
        let bad_url = |error: &dyn std::fmt::Display| ConfigError::Url(error.to_string());
        let (scheme, authority, path, service) = match &config.target {
            Target::Url(url) if url.is_empty() => return Err(ConfigError::NoTarget),
            Target::Url(url) => {
                let parts = url.parse::<Uri>().map_err(|error| bad_url(&error))?.into_parts();
                let authority = parts.authority.ok_or_else(|| bad_url(&"host must be specified"))?;
                let path = parts.path_and_query.map(|path| path.path().to_owned()).unwrap_or_default();
                (parts.scheme.unwrap_or(Scheme::HTTPS), authority, path, None)
            }
            Target::Service(service) => {
                let host = format!("{}:{}", service.server_name(), service.port);
                let authority = Authority::try_from(host).map_err(|error| bad_url(&error))?;
                let named = (service.clone(), resolver.clone());
                (Scheme::HTTPS, authority, service.path.clone(), Some(named))
            }
        };
        let server_name = config.server_name.clone().or_else(|| {
            let (service, _) = service.as_ref()?;
            Some(service.server_name())
        });
        let server_name = server_name
            .map(|name| ServerName::try_from(name.clone()).map_err(|_| ConfigError::ServerName(name)))
            .transpose()?;
        let connector = Connector::new(tls::client_config(config)?, server_name);
        let http = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(connector);
        Ok(Self {
            http,
            scheme,
            authority,
            path: path.trim_end_matches('/').to_owned(),
            service,
            authorization: Authorization::new(config.credential.as_ref())?,
            user_agent: HeaderValue::from_static(config.user_agent),
        })
    }

    /// Posts JSON and returns what a success answers; anything else is a failure.
    pub async fn post(&self, call: Call<'_>) -> Result<Bytes, Error> {
        let method = call.method.clone();
        let answer = self.call(call).await?;
        if answer.status.is_success() {
            Ok(answer.body)
        } else {
            Err(Error::Status(status(&method, &answer).into()))
        }
    }

    /// The whole answer, whatever its code is.
    pub async fn call(&self, call: Call<'_>) -> Result<Answer, Error> {
        let path_and_query = self.path_and_query(&call);
        let failed = |problem| Error::Transport { call: self.shown(&call.method, &path_and_query), problem };
        let request = self.request(&call, &path_and_query).map_err(failed)?;
        match rt::timeout(call.timeout, self.exchange(request, call.answer_bytes_max)).await {
            Err(_) => Err(failed(TransportProblem::Timeout)),
            Ok(Err(Incomplete::Problem(problem))) => Err(failed(problem)),
            Ok(Err(Incomplete::TooLarge)) => Err(Error::TooLarge { bytes_max: call.answer_bytes_max }),
            Ok(Ok(answer)) => Ok(answer),
        }
    }

    /// Hands a request on as it is, for proxies: its path and query, headers, body and upgrade. `Authorization` is
    /// the caller's business, and so are time and size.
    pub async fn forward(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
        let method = request.method().clone();
        let failed = |problem| Error::Transport { call: self.shown(&method, &path), problem };
        *request.uri_mut() = self.uri(&path).map_err(failed)?;
        request.headers_mut().insert(HOST, self.host());
        self.http.request(request).await.map_err(|error| failed(request_problem(&error)))
    }

    /// Sends a request under the configuration's own credential and returns when its answer begins, for answers that
    /// are read while they come. Its path begins behind that of the configuration; time and size are the caller's
    /// business.
    pub async fn open(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let own = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let path = format!("{}{own}", self.path);
        let method = request.method().clone();
        let failed = |problem| Error::Transport { call: self.shown(&method, &path), problem };
        *request.uri_mut() = self.uri(&path).map_err(failed)?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.host());
        headers.insert(USER_AGENT, self.user_agent.clone());
        if let Some(value) = self.authorization.header().map_err(failed)? {
            headers.insert(AUTHORIZATION, value);
        }
        self.http.request(request).await.map_err(|error| failed(request_problem(&error)))
    }

    /// As [`Client::forward`], to another address: for peers that are many and are trusted alike, as kubelets are.
    /// `authority` is `host:port`.
    pub async fn forward_to(
        &self,
        scheme: &str,
        authority: &str,
        path_and_query: &str,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Error> {
        let (first, rest) = request.method().as_str().split_at(1);
        let call = format!("{first}{} \"{scheme}://{authority}{path_and_query}\"", rest.to_ascii_lowercase());
        let failed = |problem| Error::Transport { call: call.clone(), problem };
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path_and_query).build();
        *request.uri_mut() = uri.map_err(|error| failed(TransportProblem::Other(error.to_string())))?;
        let host = HeaderValue::from_str(authority);
        request.headers_mut().insert(HOST, host.unwrap_or_else(|_| self.host()));
        self.http.request(request).await.map_err(|error| failed(request_problem(&error)))
    }

    fn request(&self, call: &Call<'_>, path_and_query: &str) -> Result<Request<Body>, TransportProblem> {
        let body = Full::new(call.body.clone()).map_err(|never| match never {}).boxed_unsync();
        let mut request = Request::new(body);
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = self.uri(path_and_query)?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.host());
        headers.insert(USER_AGENT, self.user_agent.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
        if !call.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(value) = self.authorization.header()? {
            headers.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    /// Where to send it: for a Service, to one of its addresses.
    fn uri(&self, path_and_query: &str) -> Result<Uri, TransportProblem> {
        let authority = match &self.service {
            None => self.authority.as_str().to_owned(),
            Some((service, resolver)) => resolver
                .resolve(&service.namespace, &service.name, service.port)
                .map_err(|status| TransportProblem::Service(status.into()))?,
        };
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(authority)
            .path_and_query(path_and_query)
            .build()
            .map_err(|error| TransportProblem::Other(error.to_string()))
    }

    fn path_and_query(&self, call: &Call<'_>) -> String {
        let path = match format!("{}{}", self.path, call.path) {
            empty if empty.is_empty() => "/".to_owned(),
            path => path,
        };
        if call.query.is_empty() { path } else { format!("{path}?{}", call.query) }
    }

    /// The call as error texts of Go begin.
    fn shown(&self, method: &Method, path_and_query: &str) -> String {
        let (first, rest) = method.as_str().split_at(1);
        let rest = rest.to_ascii_lowercase();
        format!("{first}{rest} \"{}://{}{path_and_query}\"", self.scheme, self.authority)
    }

    fn host(&self) -> HeaderValue {
        let host = self.authority.as_str().rsplit('@').next().unwrap_or_default();
        HeaderValue::from_str(host).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    async fn exchange(&self, request: Request<Body>, bytes_max: usize) -> Result<Answer, Incomplete> {
        let response =
            self.http.request(request).await.map_err(|error| Incomplete::Problem(request_problem(&error)))?;
        let (head, mut body) = response.into_parts();
        if body.size_hint().lower() > bytes_max as u64 {
            return Err(Incomplete::TooLarge);
        }
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Incomplete::Problem(TransportProblem::Other(format!(
                    "unexpected error when reading response body. Please retry. Original error: {}",
                    body_problem(&error)
                )))
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if whole.len() + data.len() > bytes_max {
                return Err(Incomplete::TooLarge);
            }
            whole.extend_from_slice(&data);
        }
        Ok(Answer { status: head.status, headers: head.headers, body: whole.freeze() })
    }
}

enum Incomplete {
    Problem(TransportProblem),
    TooLarge,
}

/// `Authorization`, made once or read from time to time.
enum Authorization {
    None,
    Fixed(HeaderValue),
    File { path: Utf8PathBuf, last: Mutex<Option<(rt::Instant, HeaderValue)>> },
}

impl Authorization {
    fn new(credential: Option<&Credential>) -> Result<Self, ConfigError> {
        let fixed = |text: String| {
            secret(&text).map(Self::Fixed).ok_or_else(|| {
                ConfigError::ClientCertificate("the token has characters that no header can carry".to_owned())
            })
        };
        match credential {
            None => Ok(Self::None),
            Some(Credential::Bearer(token)) => fixed(format!("Bearer {token}")),
            Some(Credential::Basic { username, password }) => {
                fixed(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
            }
            Some(Credential::BearerFile(path)) => {
                Ok(Self::File { path: path.clone(), last: Mutex::new(None) })
            }
        }
    }

    fn header(&self) -> Result<Option<HeaderValue>, TransportProblem> {
        let (path, last) = match self {
            Self::None => return Ok(None),
            Self::Fixed(value) => return Ok(Some(value.clone())),
            Self::File { path, last } => (path, last),
        };
        let mut last = last.lock();
        if let Some((_, value)) = last.as_ref().filter(|(read, _)| read.elapsed() < TOKEN_FILE_LIFE) {
            return Ok(Some(value.clone()));
        }
        let value = match (read_token(path), last.take()) {
            (Ok(value), _) => value,
            // While a file is being replaced its last token is as good as it was.
            (Err(problem), Some((_, value))) => {
                tracing::warn!(%path, problem, "Could not read a token anew");
                value
            }
            (Err(problem), None) => return Err(TransportProblem::Other(problem)),
        };
        *last = Some((rt::instant(), value.clone()));
        Ok(Some(value))
    }
}

fn read_token(path: &Utf8Path) -> Result<HeaderValue, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("failed to read token file {path:?}: {error}"))?;
    secret(&format!("Bearer {}", text.trim()))
        .ok_or_else(|| format!("the token in {path:?} is not one line of text"))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn request_problem(error: &legacy::Error) -> TransportProblem {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(problem) = cause.downcast_ref::<TransportProblem>() {
            return problem.clone();
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            return body_problem(error);
        }
        source = cause.source();
    }
    TransportProblem::Other(error.to_string())
}

fn body_problem(error: &hyper::Error) -> TransportProblem {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return TransportProblem::Closed;
    }
    if error.is_parse() {
        return TransportProblem::Other(format!("net/http: HTTP/1.x transport connection broken: {error}"));
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            return connect::io_problem(error);
        }
        source = cause.source();
    }
    TransportProblem::Other(error.to_string())
}

/// What an answer other than 2xx says: a `Status` if it is one, else what its code stands for.
fn status(method: &Method, answer: &Answer) -> Status {
    let own = Value::parse(&answer.body).ok().and_then(|body| Status::from_value(&body));
    own.unwrap_or_else(|| {
        let header = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let is_text = header(CONTENT_TYPE).is_none_or(|kind| kind.starts_with("text/"));
        let shown = &answer.body[..answer.body.len().min(SHOWN_BYTES_MAX)];
        let text =
            if is_text { String::from_utf8_lossy(shown).trim().to_owned() } else { "unknown".to_owned() };
        let retry_after = header(RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
        Status::of_response(answer.status.as_u16(), method.as_str(), &text, retry_after)
    })
}

#[cfg(test)]
mod tests;
