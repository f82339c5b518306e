//! A small HTTPS client that shows what came over the wire, headers included.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whatever takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub const JSON: &str = "application/json";
pub const MERGE: &str = "application/merge-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// One identity on one connection, opened when first needed. Requests wait for each other.
pub struct Client {
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    protocol: Protocol,
    headers: HeaderMap,
    connection: Mutex<Option<Connection>>,
}

enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    pub fn new(address: SocketAddr, mut tls: rustls::ClientConfig, protocol: Protocol) -> Self {
        tls.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
        };
        Self {
            address,
            tls: Arc::new(tls),
            protocol,
            headers: HeaderMap::new(),
            connection: Mutex::new(None),
        }
    }

    /// The same with a header on every request.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        self
    }

    /// The same identity on a connection of its own.
    pub fn fork(&self) -> Self {
        Self {
            address: self.address,
            tls: self.tls.clone(),
            protocol: self.protocol,
            headers: self.headers.clone(),
            connection: Mutex::new(None),
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, &[("content-type", JSON)], body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PUT, path, &[("content-type", JSON)], body.to_string()).await
    }

    pub async fn patch(&self, path: &str, media: &str, body: &Value) -> Reply {
        self.send(Method::PATCH, path, &[("content-type", media)], body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, &[], Bytes::new()).await
    }

    pub async fn delete_with(&self, path: &str, options: &Value) -> Reply {
        self.send(Method::DELETE, path, &[("content-type", JSON)], options.to_string()).await
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let request = self.request(method.clone(), path, headers, body.into());
        let exchange = async {
            let (parts, body) = self.open(request).await.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            Reply { status: parts.status.as_u16(), headers: parts.headers, body }
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("{method} {path} hangs"))
    }

    /// An answer whose body is read as it comes, on a connection of its own.
    pub async fn stream(&self, path: &str) -> Lines {
        let fork = self.fork();
        let request = fork.request(Method::GET, path, &[], Bytes::new());
        let response = tokio::time::timeout(PATIENCE, fork.open(request)).await.expect("an answer in time");
        let status = response.status().as_u16();
        Lines { status, body: response.into_body(), buffer: Vec::new(), _client: fork }
    }

    /// Asks to go on in another protocol, and returns the answer and the raw connection if there is one.
    pub async fn upgrade(&self, path: &str, protocol: &str) -> (Reply, Option<TokioIo<Upgraded>>) {
        let fork = self.fork();
        let headers = [("connection", "Upgrade"), ("upgrade", protocol)];
        let request = fork.request(Method::POST, path, &headers, Bytes::new());
        let exchange = async {
            let mut response = fork.open(request).await;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            if status == 101 {
                let raw = hyper::upgrade::on(&mut response).await.expect("an upgraded connection");
                return (Reply { status, headers, body: Bytes::new() }, Some(TokioIo::new(raw)));
            }
            let body = response.into_body().collect().await.expect("a whole body").to_bytes();
            (Reply { status, headers, body }, None)
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("upgrade of {path} hangs"))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let target = match self.protocol {
            Protocol::Http1 => path.to_owned(),
            Protocol::Http2 => format!("https://{}{path}", self.address),
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        request.headers_mut().extend(self.headers.clone());
        if self.protocol == Protocol::Http1 {
            let host =
                HeaderValue::from_str(&self.address.to_string()).expect("an address is a header value");
            request.headers_mut().insert("host", host);
        }
        for (name, value) in headers {
            request
                .headers_mut()
                .append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        request
    }

    async fn open(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let mut slot = self.connection.lock().await;
        let usable = match slot.as_mut() {
            Some(Connection::Http1(sender)) => sender.ready().await.is_ok(),
            Some(Connection::Http2(sender)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            *slot = Some(self.connect().await);
        }
        match slot.as_mut().expect("just connected") {
            Connection::Http1(sender) => sender.send_request(request).await.expect("an answer"),
            Connection::Http2(sender) => sender.send_request(request).await.expect("an answer"),
        }
    }

    /// A connection for bytes that no client would send.
    pub async fn raw(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.set_nodelay(true).expect("a TCP socket");
        let name = self.address.ip().into();
        TlsConnector::from(self.tls.clone()).connect(name, stream).await.expect("a TLS handshake")
    }

    async fn connect(&self) -> Connection {
        let io = TokioIo::new(self.raw().await);
        match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.expect("an HTTP/1.1 connection");
                rt::spawn("client connection", async move { drop(connection.with_upgrades().await) });
                Connection::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), io).await.expect("an HTTP/2 connection");
                rt::spawn("client connection", async move { drop(connection.await) });
                Connection::Http2(sender)
            }
        }
    }
}

impl Reply {
    /// The body as JSON, if the status is the expected one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// All values of a header.
    pub fn header(&self, name: &str) -> String {
        let values = self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        values.collect::<Vec<_>>().join(", ")
    }

    /// The names in a list.
    #[track_caller]
    pub fn names(&self) -> Vec<String> {
        names(&self.json())
    }
}

/// The names in a list.
pub fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap_or_else(|| panic!("no list: {list}"));
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A stream of JSON lines, as a watch sends them.
pub struct Lines {
    pub status: u16,
    body: Incoming,
    buffer: Vec<u8>,
    _client: Client,
}

impl Lines {
    /// The next line; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(PATIENCE, self.read_line()).await.expect("an event or the end in time")
    }

    async fn read_line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a line is JSON"));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame.expect("a frame").into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None if self.buffer.is_empty() => return None,
                None => {
                    return Some(serde_json::from_slice(&std::mem::take(&mut self.buffer)).expect("JSON"));
                }
            }
        }
    }

    /// What the next event is about: `ADDED name`.
    pub async fn next_summary(&mut self) -> String {
        self.next().await.map_or_else(|| "end".to_owned(), |event| summary(&event))
    }

    /// Everything up to the end.
    pub async fn rest(&mut self) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            all.push(event);
        }
        all
    }
}

/// `ADDED name`.
pub fn summary(event: &Value) -> String {
    let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
    format!("{} {name}", event["type"].as_str().unwrap_or_default()).trim_end().to_owned()
}
